"""A sample as text, with what is learned of it marked: to see with one's own eyes what a stage trains on."""

from __future__ import annotations

from itertools import groupby

from gpt4video_cli.data.layout import Layout
from gpt4video_cli.data.samples import IGNORED
from gpt4video_cli.training.dialogue_set import TrainingSample

OPEN, CLOSE = "[[", "]]"


def marked(sample: TrainingSample, layout: Layout) -> str:
    """The text of ``sample``, special tokens included; learned runs between ``[[`` and ``]]``; clips as their size."""
    video = {use.position + i for use in sample.clips for i in range(layout.video_tokens)}

    def kind(place: int) -> str:
        return "video" if place in video else "other" if sample.labels[place] == IGNORED else "learned"

    parts = []
    for name, places in groupby(range(len(sample.ids)), kind):
        run = list(places)
        text = layout.tokenizer.spell([sample.ids[i] for i in run])
        shown = {"video": f"({len(run)} video tokens)", "other": text, "learned": f"{OPEN}{text}{CLOSE}"}
        parts.append(shown[name])
    return "".join(parts)
