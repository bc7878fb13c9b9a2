"""A dialogue becomes token ids, labels and the places of its clips, laid out exactly as a chat lays it out.

The prompt template renders the same segments for training and for chatting; what is learned is every reply of the
assistant with the end token that closes it (GPT4Video, equation 5), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpt4video_cli.data.dialogue_file import DataDialogue
from gpt4video_cli.language.engine import EmbeddingSegment, TextSegment
from gpt4video_cli.model.prompt import PromptClip, PromptTemplate, PromptTurn

IGNORED = -100
"""Label of a position that does not count in the loss (PyTorch's convention)."""

Encode = Callable[[str, bool], list[int]]
"""Text, and whether it may spell special tokens, to token ids."""


@dataclass(frozen=True)
class StandIn:
    """Stands for a clip's embeddings: ``ids`` of a description in its place, or zeros where a clip's tokens will be."""

    ids: tuple[int, ...]

    @property
    def shape(self) -> tuple[int]:
        """Positions, as the shape of embeddings begins."""
        return (len(self.ids),)


@dataclass
class Sample:
    """``ids`` and ``labels`` of length L; ``clips``: (position of the first token, key of the clip)."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    clips: list[tuple[int, str]] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, learn: bool = False) -> None:
        """Append ``ids``; only those to ``learn`` count in the loss."""
        self.ids.extend(ids)
        self.labels.extend(ids if learn else [IGNORED] * len(ids))


def lay_out(template: PromptTemplate, encode: Encode, turns: Sequence[PromptTurn]) -> Sample:
    """Every turn with its reply; the clips' embeddings are ``StandIn``."""
    sample = Sample()
    for segment, is_reply in template.render_labelled(turns):
        if isinstance(segment, EmbeddingSegment):
            sample.clips.append((len(sample.ids), segment.key))
            sample.add(segment.embeddings.ids)
        else:
            assert isinstance(segment, TextSegment)
            sample.add(encode(segment.text, segment.trusted), learn=is_reply)
    return sample


def prompt_turns(dialogue: DataDialogue, encode: Encode, *, video_tokens: int | None) -> list[PromptTurn]:
    """The turns of a dialogue of a file. A clip with a path is ``video_tokens`` zeros, any other its description.

    Without ``video_tokens`` descriptions stand for all clips. The key of a clip is its place in the dialogue.
    """
    turns = []
    for turn in dialogue.turns:
        clips = []
        for place in turn.clips:
            clip = dialogue.clips[place]
            described = video_tokens is None or clip.path is None
            ids = encode(clip.description or "", False) if described else [0] * (video_tokens or 0)
            clips.append(PromptClip(str(place), StandIn(tuple(ids)), place + 1, len(turn.clips) == 1))
        turns.append(PromptTurn(turn.user, tuple(clips), turn.assistant))
    return turns
