"""What is asked about the models of this machine by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpt4video_cli.errors import UsageError
from gpt4video_cli.weights import installed


@pytest.mark.parametrize(
    "ask", [installed.faults, installed.drop_faulty, installed.plan_removal, installed.path_of, installed.about]
)
def test_an_unknown_name_gets_the_near_ones(ask: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match="no model 'bundel'") as caught:
        ask("bundel")
    assert "did you mean bundle" in caught.value.line()


def test_a_model_that_was_not_pulled_has_no_hashes() -> None:
    with pytest.raises(UsageError, match="bundle was not pulled"):
        installed.faults("bundle")
