"""Features of one denoising step used again in the next ones: of a transformer's blocks, of a UNet's inner levels.

For transformers diffusers has a maintained cache that decides in each step by what the first block says. For UNets it
has none; here whole levels rest in all but every Nth step, after DeepCache (arXiv 2312.00858), which rests single
layers and so saves more. What works at the highest resolution, the first level down and the last one up, always runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.guidance import denoisers
from gpt4video_cli.gallery.replaced_forward import Forward, replaced_forward


@contextmanager
def cached_features(pipe: Any, request: FilmRequest) -> Iterator[None]:
    """Inside, a call of ``pipe`` uses features again as the completed ``request`` says."""
    with ExitStack() as stack:
        for module in denoisers(pipe):
            if request.cache_threshold:
                stack.enter_context(_first_block_cache(module, request.cache_threshold))
            if (request.cache_every or 1) > 1:
                stack.enter_context(_resting_levels(module, int(request.cache_every or 1)))
        yield


@contextmanager
def _first_block_cache(transformer: Any, threshold: float) -> Iterator[None]:
    from diffusers.hooks import FirstBlockCacheConfig

    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        transformer.disable_cache()


@contextmanager
def _resting_levels(unet: Any, every: int) -> Iterator[None]:
    if len(unet.up_blocks) < 2:
        raise UsageError(f"--cache-every needs a UNet of two levels or more; this one has {len(unet.up_blocks)}")
    levels = _Levels(every)
    with ExitStack() as stack:
        for block in unet.down_blocks[1:]:
            stack.enter_context(replaced_forward(block, levels.down(block.forward)))
        if unet.mid_block is not None:
            stack.enter_context(replaced_forward(unet.mid_block, levels.inner(unet.mid_block.forward)))
        for block in unet.up_blocks[:-2]:
            stack.enter_context(replaced_forward(block, levels.inner(block.forward)))
        last = unet.up_blocks[-2]
        stack.enter_context(replaced_forward(last, levels.kept(last.forward)))
        stack.enter_context(replaced_forward(unet, levels.around(unet.forward)))
        yield


class _Levels:
    """Which steps run whole, and what the inner levels gave in the last one that did.

    While they rest, the inner levels hand on what they get, in the form that the UNet expects, and the last of them
    answers with what it kept, so nothing of what they hand on is used.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._step = 0
        self._batch = 0
        self._rest = False
        self._kept: Any = None

    def around(self, forward: Forward) -> Forward:
        def whole(sample: Any, *arguments: Any, **named: Any) -> Any:
            # Where guidance ends the batch is another, and what was kept does not fit.
            self._rest = self._step % self._every != 0 and len(sample) == self._batch
            self._step = self._step + 1 if self._rest else 1
            self._batch = len(sample)
            return forward(sample, *arguments, **named)

        return whole

    def down(self, forward: Forward) -> Forward:
        """A level down gives its output and those of its layers, which the levels up count."""
        count = 0

        def level(hidden_states: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal count
            if self._rest:
                return hidden_states, (hidden_states,) * count
            output, outputs = forward(hidden_states, *arguments, **named)
            count = len(outputs)
            return output, outputs

        return level

    def inner(self, forward: Forward) -> Forward:
        def level(hidden_states: Any, *arguments: Any, **named: Any) -> Any:
            return hidden_states if self._rest else forward(hidden_states, *arguments, **named)

        return level

    def kept(self, forward: Forward) -> Forward:
        def level(*arguments: Any, **named: Any) -> Any:
            if not self._rest:
                self._kept = forward(*arguments, **named)
            return self._kept

        return level
