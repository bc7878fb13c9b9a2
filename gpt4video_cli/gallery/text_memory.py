"""Texts are encoded once: the same prompt in another seed, and the negative prompt of every clip, are known already.

A text encoder reads token ids and gives the same answer for the same ones. It may be the largest part of a model (the
4.7 billion parameters of T5-XXL before CogVideoX's 1.7), and with offloading it moves to the GPU each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 64 << 20
"""Of all kept answers of an encoder. 512 tokens of 4096 numbers in bfloat16 are 4 MB."""


def remember_texts(pipe: Any) -> None:
    """Let each text encoder of ``pipe`` keep its answers. Call it before each clip: where whole parts are offloaded,
    diffusers puts each part's ``forward`` back after a clip, so that this one goes and the answers alone stay."""
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        encoder = getattr(pipe, name, None)
        if encoder is None or isinstance(encoder.forward, TextMemory):
            continue
        memory = vars(encoder).setdefault("remembered_texts", TextMemory(encoder.forward))
        memory.encode = encoder.forward
        encoder.forward = memory


class TextMemory:
    """An encoder's ``forward`` with a memory; the least recently used answers go first. With gradients nothing is kept
    or reused."""

    def __init__(self, encode: Any) -> None:
        self.encode = encode
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        import torch

        key = _key([*enumerate(arguments), *sorted(named.items())])
        if key is None or torch.is_grad_enabled():
            return self.encode(*arguments, **named)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        answer = self.encode(*arguments, **named)
        size = sum(_bytes(answer))
        if size <= MOST_BYTES:
            self._kept[key] = answer
            while sum(size for kept in self._kept.values() for size in _bytes(kept)) > MOST_BYTES:
                self._kept.popitem(last=False)
        return answer


def _key(items: list[tuple[Any, Any]]) -> tuple[Any, ...] | None:
    """What the answer depends on; None where an argument is of an unknown kind."""
    import torch

    key: list[Any] = []
    for name, value in items:
        if isinstance(value, torch.Tensor) and not value.is_floating_point():
            key.append((name, str(value.device), tuple(value.shape), value.cpu().numpy().tobytes()))
        elif value is None or isinstance(value, bool | int | str):
            key.append((name, value))
        else:
            return None
    return tuple(key)


def _bytes(answer: Any) -> Iterator[int]:
    """The sizes of all tensors in an encoder's answer."""
    if hasattr(answer, "untyped_storage"):
        tensor: Tensor = answer
        yield tensor.nbytes
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from _bytes(value)
    elif isinstance(answer, tuple | list):
        for value in answer:
            yield from _bytes(value)
