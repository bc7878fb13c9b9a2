"""Files of dialogues -> samples in memory: token ids, labels, and which clips go where. What cannot be used is named.

Everything that can be seen without decoding a clip is seen here, before the first step.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt4video_cli.data.dialogue_file import DataDialogue, DataLine, clip_path, read_lines
from gpt4video_cli.data.faults import faults
from gpt4video_cli.data.layout import Layout
from gpt4video_cli.data.samples import IGNORED
from gpt4video_cli.errors import InputError
from gpt4video_cli.training.stages import Stage


@dataclass(frozen=True)
class ClipUse:
    """A clip whose tokens begin at ``position`` of a sample. ``start`` and ``end`` in seconds."""

    position: int
    path: Path
    start: float | None
    end: float | None


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """``ids`` and ``labels`` of the same length (``IGNORED`` where nothing is learned); ``place`` is ``FILE:LINE``."""

    place: str
    ids: array[int]
    labels: array[int]
    clips: tuple[ClipUse, ...]
    question: str
    """What is said first."""

    @property
    def learned(self) -> int:
        """How many tokens count in the loss."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass
class DialogueSet:
    """Samples that can be used, in the order of the files, and (``FILE:LINE``, why) of those that cannot."""

    samples: list[TrainingSample] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        """Positions of all samples together."""
        return sum(len(sample.ids) for sample in self.samples)

    @property
    def learned(self) -> int:
        """Tokens that count in the loss, of all samples together."""
        return sum(sample.learned for sample in self.samples)

    @property
    def clips(self) -> int:
        """Different clips, as file and range."""
        return len({(use.path, use.start, use.end) for sample in self.samples for use in sample.clips})


def read_training_data(files: Sequence[str], stage: Stage, layout: Layout, *, on_error: str) -> DialogueSet:
    """All dialogues of ``files`` that ``stage`` can learn from.

    ``on_error``: ``skip`` lists the others in ``skipped``; ``stop`` makes the first of them an ``InputError`` with file
    and line. No dialogue at all is an ``InputError`` too.
    """
    found = DialogueSet()
    for file in files:
        for line in read_lines(file):
            reason = _unfit(line, stage)
            sample = None
            if reason is None:
                sample = _sample(line, stage, layout)
                if len(sample.ids) > layout.context:
                    reason = f"{len(sample.ids)} tokens; the model's context has {layout.context}"
            if reason is None and sample is not None and line.dialogue is not None:
                found.samples.append(sample)
                found.sources[line.dialogue.source or "(none)"] += 1
            elif on_error == "stop":
                raise InputError(f"{line.place}: {reason}", hint="--on-error skip leaves such dialogues out")
            else:
                found.skipped.append((line.place, str(reason)))
    if not found.samples:
        why = f"; the first of {len(found.skipped)} that cannot be used: {found.skipped[0][1]}" if found.skipped else ""
        raise InputError(f"{', '.join(map(str, files))}: no dialogues for stage {stage.number}{why}")
    return found


def _unfit(line: DataLine, stage: Stage) -> str | None:
    """Why a line cannot be trained on, if it cannot."""
    if line.dialogue is None:
        return line.error
    for fault in faults(line.dialogue):
        return fault.text
    return next(_of_another_stage(line.dialogue, line.file, stage), None)


def _of_another_stage(dialogue: DataDialogue, file: Path, stage: Stage) -> Iterator[str]:
    if stage.sees_clips and not any(clip.path for clip in dialogue.clips):
        yield f"no clip file, which stage {stage.number} ({stage.name}) watches; text alone is for stage 2"
    for place, clip in enumerate(dialogue.clips):
        path = clip_path(clip, file)
        if stage.sees_clips and path is not None and not path.is_file():
            yield f"clip {place}: {path} is not there"
        if not stage.sees_clips and not (clip.description or "").strip():
            yield f"clip {place} has no description, which stands for it in stage {stage.number} ({stage.name})"


def _sample(line: DataLine, stage: Stage, layout: Layout) -> TrainingSample:
    dialogue = line.dialogue
    assert dialogue is not None
    laid = layout.sample(dialogue, watched=stage.sees_clips)
    uses = []
    for position, key in laid.clips:
        clip = dialogue.clips[int(key)]
        path = clip_path(clip, line.file)
        if stage.sees_clips and path is not None:
            uses.append(ClipUse(position, path, clip.start, clip.end))
    return TrainingSample(
        line.place, array("i", laid.ids), array("i", laid.labels), tuple(uses), dialogue.turns[0].user
    )
