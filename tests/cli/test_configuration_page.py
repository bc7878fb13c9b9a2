"""docs/configuration.md lists the keys and variables that there are, and its example works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gpt4video_cli.cli.config_file import read_config
from gpt4video_cli.cli.configurable import ONE_RUN, SECTIONS, SHARED
from gpt4video_cli.cli.configuration import known_variables, settings_by_command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize(("heading", "names"), [("shared keys", SHARED), ("by flag only", ONE_RUN)])
def test_the_lists_are_complete(heading: str, names: dict[str, object]) -> None:
    block = PAGE.split(f"<!-- {heading} -->")[1].split("<!-- end -->")[0]
    assert sorted(set(re.findall(r"`([a-z_]+)`", block)) - {"chat"}) == sorted(names)


def test_the_example_sets_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    found = settings_by_command(read_config(tmp_path / "config.toml"))
    written = tomllib.loads(example)
    assert written.keys() >= set(SECTIONS)
    for command in SECTIONS:
        assert found[command].keys() >= written[command].keys()
    values = {key: setting.value for key, setting in found["chat"].items()}
    assert values["output"] == str(tmp_path / "films")
    assert (values["frames"], values["policy"], values["stop"]) == (8, "strict", ["###", "END"])


def test_the_variables_exist() -> None:
    named = set(re.findall(r"GPT4VIDEO_[A-Z_]*[A-Z]", PAGE))
    assert len(named) > 5 and named <= known_variables()
