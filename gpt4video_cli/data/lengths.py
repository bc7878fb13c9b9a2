"""How many positions of a model's context a dialogue takes; reads the tokenizer and two configurations, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt4video_cli.data.dialogue_file import DataDialogue
from gpt4video_cli.language.engine import EmbeddingSegment, TextSegment
from gpt4video_cli.language.tokenizer import Tokenizer, read_json
from gpt4video_cli.model.prompt import PromptClip, PromptTurn, find_template
from gpt4video_cli.weights.locate import find_model


@dataclass(frozen=True)
class _Places:
    """Stands for a clip's embeddings, of which only the number counts here."""

    shape: tuple[int, ...]


class Lengths:
    """Counts for one model. ``context``: positions it has; ``video_tokens``: of each clip that is a video."""

    def __init__(self, model: str) -> None:
        from gpt4video_cli.model.abstractor import read_abstractor_config

        card, folder = find_model(model)
        self._tokenizer = Tokenizer.load(Path(folder) / "language")
        self._template = find_template(card.template)
        self.video_tokens = read_abstractor_config(Path(folder) / "abstractor.safetensors").tokens
        self.context = int(read_json(Path(folder) / "language" / "config.json").get("max_position_embeddings", 2048))

    def of(self, dialogue: DataDialogue) -> int:
        """Positions of the whole dialogue; a clip without a path takes its description's."""
        turns = []
        for turn in dialogue.turns:
            clips = [self._clip(dialogue, place, alone=len(turn.clips) == 1) for place in turn.clips]
            turns.append(PromptTurn(turn.user, tuple(clips), turn.assistant))
        total = 0
        for segment in self._template.render(turns):
            if isinstance(segment, EmbeddingSegment):
                total += int(segment.embeddings.shape[0])
            else:
                assert isinstance(segment, TextSegment)
                total += len(self._tokenizer.encode(segment.text, trusted=segment.trusted))
        return total

    def _clip(self, dialogue: DataDialogue, place: int, *, alone: bool) -> PromptClip:
        clip = dialogue.clips[place]
        described = clip.path is None and clip.description is not None
        count = len(self._tokenizer.encode(clip.description or "")) if described else self.video_tokens
        return PromptClip(str(place), _Places((count,)), place + 1, alone)


def longest(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and largest."""
    if not lengths:
        return {"median": 0, "p95": 0, "largest": 0}
    ordered = sorted(lengths)
    return {
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)],
        "largest": ordered[-1],
    }
