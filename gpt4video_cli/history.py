"""What of a conversation goes into the prompt: everything, as long as it fits.

When it does not, the oldest turns' texts go first and their clips stay, in order. Then a quarter of the room is freed
at once, so that not every later turn moves the beginning of the prompt: the kept key/value cache would be of no use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpt4video_cli.errors import ContextFullError
from gpt4video_cli.events import Notice
from gpt4video_cli.language.engine import EmbeddingSegment, Engine, Segment, TokenSegment
from gpt4video_cli.model.prompt import PromptTemplate, PromptTurn
from gpt4video_cli.session import Turn

LEAST_ANSWER = 16
"""Tokens that must be left for an answer; fewer are no answer."""

SPECIAL = ("<s>", "<unk>", "<pad>")
"""LLaMA's special tokens beside the end token: without a spelling of their own, yet a model may write them."""


@dataclass(frozen=True)
class Fit:
    """The turns as they go into the prompt, of which ``left_out`` lost their text, and the room for the answer."""

    turns: list[PromptTurn]
    left_out: int
    prompt_tokens: int
    room: int

    def notices(self, max_tokens: int) -> list[Notice]:
        """What a person should know about it."""
        said = []
        if self.left_out:
            turns = "the oldest turn" if self.left_out == 1 else f"the oldest {self.left_out} turns"
            said.append(Notice(f"the context is full: the text of {turns} is left out, all clips stay"))
        if self.room < max_tokens:
            said.append(Notice(f"the context is nearly full: the answer can have at most {self.room} tokens"))
        return said


def fit(engine: Engine, template: PromptTemplate, turns: Sequence[PromptTurn], max_tokens: int) -> Fit:
    """Make ``turns``, of which the last is the message to be answered, fit into the context with an answer.

    Room is kept for ``max_tokens``, but for half of the context at most. What is left out depends on nothing but the
    arguments: all earlier messages are gone through again, so undo, save and load cannot change it.
    """
    context = engine.context_length
    available = context - min(max_tokens, context // 2)

    def size(turn: PromptTurn) -> int:
        return count(engine, template.render([turn])) - start

    start = len(engine.tokenize(template.start, trusted=True))
    between = len(engine.tokenize(template.between, trusted=True))
    asked = [size(replace(turn, clips=(), reply=None)) for turn in turns]
    texts = [size(replace(turn, clips=())) + between for turn in turns]
    clips = [size(turn) + between - text for turn, text in zip(turns, texts, strict=True)]

    left_out, need = 0, 0
    for last in range(len(turns)):
        need = start + sum(clips[: last + 1]) + sum(texts[left_out:last]) + asked[last]
        if need > available:
            while left_out < last and need > available * 3 // 4:
                need -= texts[left_out]
                left_out += 1
    if context - need < min(max_tokens, LEAST_ANSWER):
        raise ContextFullError(
            f"the message needs {need} tokens ({sum(clips)} of them for the clips of the conversation), "
            f"the language model's context has {context} with the answer",
            hint="shorten it, use fewer clips, or start a new conversation",
        )
    return Fit(_without_texts(turns, left_out), left_out, need, context - need)


def _without_texts(turns: Sequence[PromptTurn], left_out: int) -> list[PromptTurn]:
    """The turns from ``left_out`` on; the clips of those before stand, with their old numbers, in front."""
    older = tuple(clip for turn in turns[:left_out] for clip in turn.clips)
    first, *rest = turns[left_out:]
    return [replace(first, clips=older + first.clips), *rest]


def count(engine: Engine, segments: Sequence[Segment]) -> int:
    """Positions that ``segments`` take in the context."""
    total = 0
    for segment in segments:
        if isinstance(segment, EmbeddingSegment):
            total += int(segment.embeddings.shape[0])
        elif isinstance(segment, TokenSegment):
            total += len(segment.ids)
        else:
            total += len(engine.tokenize(segment.text, trusted=segment.trusted))
    return total


def reply_of(engine: Engine, model: str, turn: Turn) -> str | tuple[int, ...]:
    """The turn's token ids if this model made them and they spell what it wrote, otherwise the text.

    A stored session may come from a stranger or from an older version of the model: an id that spells nothing must be
    one of the special tokens that a model may write, or it could lie outside of the vocabulary.
    """
    ids = turn.ids
    if turn.model != model or engine.detokenize(ids) != turn.written:
        return turn.written
    special = {id_ for name in SPECIAL for id_ in _alone(engine.tokenize(name, trusted=True))}
    before = engine.tokenize("a")
    alone = engine.detokenize(before)
    for token in ids:
        if token not in special and engine.detokenize([*before, token]) == alone:
            return turn.written
    return ids


def _alone(ids: list[int]) -> list[int]:
    """The id of a spelling that is one token, so one that the vocabulary has."""
    return ids if len(ids) == 1 else []
