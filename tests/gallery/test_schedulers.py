"""Schedulers by name: each can be built for a model of its kind, and is refused for the other kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.schedulers import SCHEDULERS, build, check_fits, kind_of


def saved(kind: str) -> Any:
    import diffusers

    if kind == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def as_saved(scheduler: Any) -> dict[str, Any]:
    """The settings as ``scheduler_config.json`` holds them."""
    return json.loads(scheduler.to_json_string())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_built_from_the_models_settings(name: str) -> None:
    scheduler = SCHEDULERS[name]
    model = saved(scheduler.kind)
    built = build(name, model, {})
    assert type(built).__name__ == scheduler.class_name
    assert kind_of(as_saved(built)) == scheduler.kind
    built.set_timesteps(5)
    assert len(built.timesteps) == 5 and torch.isfinite(built.timesteps.float()).all()
    if scheduler.kind == "noise":
        assert built.config.beta_end == 0.012
    else:  # the shift has another name in the other family
        assert built.config.get("shift", built.config.get("flow_shift")) == 3.0


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_the_other_kind_is_refused_by_name(name: str) -> None:
    kind = SCHEDULERS[name].kind
    same, other = saved(kind), saved("noise" if kind == "flow" else "flow")
    check_fits(name, as_saved(same), "m")
    with pytest.raises(UsageError) as error:
        check_fits(name, as_saved(other), "m")
    assert repr(name) in str(error.value) and "possible: " in error.value.line()


def test_unipc_for_flows_as_wan_saves_it_is_a_flow() -> None:
    assert kind_of({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}) == "flow"
    assert kind_of({"_class_name": "UniPCMultistepScheduler", "prediction_type": "epsilon"}) == "noise"


def test_the_default_keeps_the_models_own_unless_the_card_changes_it() -> None:
    model = saved("noise")
    assert build("default", model, {}) is model
    assert build("default", model, {"timestep_spacing": "linspace"}).config.timestep_spacing == "linspace"
