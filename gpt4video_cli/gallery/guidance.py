"""Classifier-free guidance in one batch, and only in the first steps, around any pipeline's own loop.

A guided step asks the denoiser twice, for the prompt and for the negative prompt, and the pipeline then computes
``negative + scale * (prompt - negative)``. After the guided steps the denoiser is asked once and both get its answer:
whatever the scale, what the pipeline computes is that answer.

B clips (1), L tokens of a text, D width.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.replaced_forward import Forward, replaced_forward
from gpt4video_cli.gallery.shortcuts import ALWAYS_BATCHED, IN_TURN

if TYPE_CHECKING:
    from torch import Tensor

_BATCHED = ("sample", "hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep")
"""Arguments of denoisers whose first dimension is that of the batch."""


def guided_steps(request: FilmRequest) -> int:
    """How many steps of the completed ``request`` are guided."""
    steps = int(request.steps or 1)
    if request.strength is not None:  # a clip is redrawn in the last of them only
        steps = min(int(steps * request.strength), steps)
    return round((1.0 if request.guidance_until is None else request.guidance_until) * steps)


def texts_for_batch(pipe: Any, request: FilmRequest, call: dict[str, Any]) -> dict[str, Tensor]:
    """``prompt_embeds`` and ``negative_prompt_embeds`` [B, L, D] for a pipeline that asks in turn, as it encodes."""
    length = inspect.signature(type(pipe).__call__).parameters["max_sequence_length"].default
    prompt, negative = pipe.encode_prompt(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt or None,
        max_sequence_length=call.get("max_sequence_length", length),
        device=pipe._execution_device,
    )
    return {"prompt_embeds": prompt, "negative_prompt_embeds": negative}


@contextmanager
def guided(pipe: Any, request: FilmRequest, negative: Tensor | None = None) -> Iterator[None]:
    """Inside, a call of ``pipe`` guides as the completed ``request`` says. ``negative`` [B, L, D]: of
    ``texts_for_batch``, for a pipeline that asks in turn and shall not."""
    kind = type(pipe).__name__
    late = request.guidance_until is not None and request.guidance_until < 1
    # Without an end no steps are counted: some schedulers ask once more than there are.
    until = guided_steps(request) if late else sys.maxsize
    if (request.guidance or 0) <= 1 or not (late or negative is not None) or kind not in ALWAYS_BATCHED | IN_TURN:
        yield
        return
    state = _Batched(until) if kind in ALWAYS_BATCHED else _InTurn(until, negative)
    with ExitStack() as stack:
        for module in denoisers(pipe):
            stack.enter_context(replaced_forward(module, state.around(module, module.forward)))
        yield


def denoisers(pipe: Any) -> list[Any]:
    """The modules that denoise: one, or one for the early and one for the late steps."""
    found = (getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2"))
    return [module for module in found if module is not None]


class _Batched:
    """For pipelines that ask once in each step, with [negative, prompt]."""

    def __init__(self, until: int) -> None:
        self._until, self._step = until, 0

    def around(self, module: Any, forward: Forward) -> Forward:
        def asked(*arguments: Any, **named: Any) -> Any:
            self._step += 1
            if self._step <= self._until:
                return forward(*arguments, **named)
            first, rest = arguments[:1], arguments[1:]
            named = {name: _half(value) if name in _BATCHED else value for name, value in named.items()}
            with _own_features(module):
                answer = forward(*map(_half, first), *rest, **named)
            return _with_tensor(answer, lambda tensor: _twice(tensor, tensor))

        return asked


class _InTurn:
    """For pipelines that ask twice in each step, the prompt first; all arguments have names."""

    def __init__(self, until: int, negative: Tensor | None) -> None:
        self._until, self._negative = until, negative
        self._calls = 0
        self._kept: Any = None

    def around(self, module: Any, forward: Forward) -> Forward:
        def asked(**named: Any) -> Any:
            step, second = divmod(self._calls, 2)
            self._calls += 1
            if second and self._kept is not None:
                answer, self._kept = self._kept, None
                return answer
            if step < self._until and self._negative is None:
                return forward(**named)
            if step < self._until:
                both = forward(**{name: self._pair(name, value) for name, value in named.items()})
                self._kept = _with_tensor(both, lambda tensor: tensor.chunk(2)[1])
                return _with_tensor(both, lambda tensor: tensor.chunk(2)[0])
            with nullcontext() if self._negative is None else _own_features(module):
                self._kept = forward(**named)
            return self._kept

        return asked

    def _pair(self, name: str, value: Any) -> Any:
        if name not in _BATCHED or value is None:
            return value
        return _twice(value, self._negative.to(value) if name == "encoder_hidden_states" else value)  # type: ignore[union-attr]


@contextmanager
def _own_features(module: Any) -> Iterator[None]:
    """What was cached of two texts does not fit one: a cache of the blocks starts anew, under another name."""
    if not getattr(module, "is_cache_enabled", False):
        yield
        return
    with module.cache_context("unguided"):
        yield


def _half(value: Any) -> Any:
    """The prompt's half of a batch of both; what has no batch (a timestep that is one number) as it is."""
    return value.chunk(2)[1] if getattr(value, "ndim", 0) > 0 and len(value) > 1 else value


def _twice(first: Tensor, second: Tensor) -> Tensor:
    import torch

    return torch.cat([first, second])


def _with_tensor(answer: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A denoiser's answer, ``(tensor,)`` or an output with ``sample``, with its tensor changed."""
    return (change(answer[0]),) if isinstance(answer, tuple) else type(answer)(sample=change(answer[0]))
