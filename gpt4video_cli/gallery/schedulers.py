"""Schedulers by plain names, and which of them fits a model.

There are two kinds of model. ``noise``: it predicts noise or v along a diffusion's variances. ``flow``: it predicts the
velocity of a straight line from data to noise. A scheduler of the other kind runs without an error and gives garbage,
so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gpt4video_cli.errors import UsageError

Kind = Literal["noise", "flow"]


@dataclass(frozen=True)
class Scheduler:
    """A class of diffusers and the settings that make it what its name says."""

    class_name: str
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)


_DPM = "DPMSolverMultistepScheduler"
_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}

SCHEDULERS: dict[str, Scheduler] = {
    "ddim": Scheduler("DDIMScheduler", "noise"),
    "ddpm": Scheduler("DDPMScheduler", "noise"),
    "dpm++2m": Scheduler(_DPM, "noise", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpm++2m-karras": Scheduler(
        _DPM, "noise", {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True}
    ),
    "dpm++2m-sde": Scheduler(_DPM, "noise", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "euler": Scheduler("EulerDiscreteScheduler", "noise"),
    "euler-a": Scheduler("EulerAncestralDiscreteScheduler", "noise"),
    "unipc": Scheduler("UniPCMultistepScheduler", "noise"),
    "cogvideox-ddim": Scheduler("CogVideoXDDIMScheduler", "noise"),
    "cogvideox-dpm": Scheduler("CogVideoXDPMScheduler", "noise"),
    "flow-euler": Scheduler("FlowMatchEulerDiscreteScheduler", "flow", {"stochastic_sampling": False}),
    "flow-euler-a": Scheduler("FlowMatchEulerDiscreteScheduler", "flow", {"stochastic_sampling": True}),
    "flow-dpm++2m": Scheduler(_DPM, "flow", {**_FLOW, "algorithm_type": "dpmsolver++", "solver_order": 2}),
    "flow-unipc": Scheduler("UniPCMultistepScheduler", "flow", _FLOW),
}


def kind_of(config: Mapping[str, Any]) -> Kind:
    """What kind of model a saved scheduler's settings belong to."""
    flow = str(config.get("_class_name", "")).startswith("FlowMatch") or config.get("use_flow_sigmas")
    return "flow" if flow or config.get("prediction_type") == "flow_prediction" else "noise"


def check_fits(name: str, config: Mapping[str, Any], model: str) -> None:
    """Raise ``UsageError`` if the scheduler ``name`` is of another kind than the one that ``model`` was saved with."""
    if name == "default" or SCHEDULERS[name].kind == (kind := kind_of(config)):
        return
    what = {"flow": "a flow-matching model", "noise": "a noise-predicting model"}
    fitting = [other for other, scheduler in SCHEDULERS.items() if scheduler.kind == kind]
    raise UsageError(
        f"the scheduler {name!r} is for {what[SCHEDULERS[name].kind]}, {model} is {what[kind]}",
        hint=f"possible: {', '.join(fitting)}",
    )


def build(name: str, saved: Any, extra: Mapping[str, Any]) -> Any:
    """The scheduler ``name`` with the settings of ``saved``, the one that the model was loaded with.

    ``extra`` settings come from the card and belong to its own default scheduler. The shift of a flow is called
    ``shift`` by one family of classes and ``flow_shift`` by the other.
    """
    import diffusers

    if name == "default":
        return type(saved).from_config(saved.config, **extra) if extra else saved
    chosen = SCHEDULERS[name]
    settings = {**extra, **chosen.settings}
    if chosen.kind == "flow":
        shift = saved.config.get("flow_shift", saved.config.get("shift", 1.0))
        settings.setdefault("shift" if chosen.class_name.startswith("FlowMatch") else "flow_shift", shift)
    return getattr(diffusers, chosen.class_name).from_config(saved.config, **settings)
