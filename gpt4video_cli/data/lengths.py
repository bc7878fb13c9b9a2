"""How many positions of a model's context a dialogue takes; reads the tokenizer and two configurations, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt4video_cli.data.dialogue_file import DataDialogue
from gpt4video_cli.data.samples import lay_out, prompt_turns
from gpt4video_cli.language.tokenizer import Tokenizer, read_json
from gpt4video_cli.model.prompt import PromptTurn, find_template
from gpt4video_cli.weights.locate import find_model


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
        return len(lay_out(self._template, self._encode, self._turns(dialogue)).ids)

    def _turns(self, dialogue: DataDialogue) -> list[PromptTurn]:
        return prompt_turns(dialogue, self._encode, video_tokens=self.video_tokens)

    def _encode(self, text: str, trusted: bool) -> list[int]:
        return self._tokenizer.encode(text, trusted=trusted)


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
