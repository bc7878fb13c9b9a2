"""How the next token is chosen from a row of logits. V: size of the vocabulary.

The order is that of ``transformers.GenerationMixin.generate``: repetition penalty, temperature, top-k, top-p, draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.language.engine import SamplingOptions

if TYPE_CHECKING:
    import torch


def new_generator(seed: int) -> torch.Generator:
    """The random numbers of one reply. On the CPU for every device, so that a seed means the same draws everywhere."""
    import torch

    return torch.Generator(device="cpu").manual_seed(seed % 2**63)


def next_token(
    logits: torch.Tensor, options: SamplingOptions, history: Sequence[int], generator: torch.Generator
) -> int:
    """The id drawn from ``logits`` float [V]; the most likely one where ``options.temperature`` is 0.

    ``history`` holds the token ids of the whole prompt and of the reply so far, for the repetition penalty; video
    embeddings have no id and are not in it. The result depends on the arguments and the generator's state alone, not
    on what a cache held.
    """
    import torch

    logits = logits.detach().to("cpu", torch.float32)
    if bool(torch.isnan(logits).any()):
        raise Gpt4VideoError(
            "the language model's scores are not numbers (NaN)",
            hint="its weights are damaged or the number format is too narrow for it: try float32",
        )
    logits = penalise_repetition(logits, history, options.repetition_penalty)
    if options.temperature == 0:
        return int(torch.argmax(logits))
    logits = keep_top_p(keep_top_k(logits / options.temperature, options.top_k), options.top_p)
    return int(torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator))


def penalise_repetition(logits: torch.Tensor, history: Sequence[int], penalty: float) -> torch.Tensor:
    """Divide positive and multiply negative logits of ids already seen by ``penalty``.

    From CTRL (Keskar et al. 2019, arXiv 1909.05858, section 4.1), with transformers' handling of negative logits.
    """
    import torch

    if penalty == 1 or not history:
        return logits
    seen = torch.tensor(sorted(set(history)))
    score = logits[seen]
    penalised = logits.clone()
    penalised[seen] = torch.where(score < 0, score * penalty, score / penalty)
    return penalised


def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Only the ``k`` highest logits stay (0: all; ties with the k-th stay too)."""
    import torch

    if k == 0 or k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < torch.topk(logits, k).values[-1], -torch.inf)


def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Only the smallest set of most likely tokens whose probabilities sum to ``p`` stays; at least one."""
    import torch

    if p >= 1:
        return logits
    ascending, order = torch.sort(logits)
    drop = torch.softmax(ascending, dim=-1).cumsum(dim=-1) <= 1 - p
    drop[-1] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(0, order, drop), -torch.inf)
