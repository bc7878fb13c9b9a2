"""How a model reads a dialogue: its tokenizer, its prompt template, and how much room there is. Reads no weights."""

from __future__ import annotations

from collections.abc import Sequence

from gpt4video_cli.data.dialogue_file import DataDialogue
from gpt4video_cli.data.samples import Sample, lay_out, prompt_turns
from gpt4video_cli.language.tokenizer import Tokenizer, read_json
from gpt4video_cli.model.prompt import find_template
from gpt4video_cli.weights.locate import find_model


class Layout:
    """Of one model. ``context``: positions it has; ``video_tokens``: of each clip that is a video."""

    def __init__(self, model: str) -> None:
        from gpt4video_cli.model.abstractor_config import read_abstractor_config

        self.card, self.folder = find_model(model)
        self.tokenizer = Tokenizer.load(self.folder / "language")
        self.template = find_template(self.card.template)
        self.video_tokens = read_abstractor_config(self.folder / "abstractor.safetensors").tokens
        config = read_json(self.folder / "language" / "config.json")
        self.context = int(config.get("max_position_embeddings", 2048))

    def sample(self, dialogue: DataDialogue, *, watched: bool = True) -> Sample:
        """The whole dialogue. If ``watched``, clips with a path take video tokens; else descriptions stand for all."""
        turns = prompt_turns(dialogue, self.encode, video_tokens=self.video_tokens if watched else None)
        return lay_out(self.template, self.encode, turns)

    def encode(self, text: str, trusted: bool) -> list[int]:
        """Token ids of ``text``; only trusted text may spell special tokens."""
        return self.tokenizer.encode(text, trusted=trusted)


def spread(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and largest."""
    if not lengths:
        return {"median": 0, "p95": 0, "largest": 0}
    ordered = sorted(lengths)
    return {
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)],
        "largest": ordered[-1],
    }
