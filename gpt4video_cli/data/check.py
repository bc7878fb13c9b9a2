"""Look at whole files of dialogues: what training would stumble over, how often, and where."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4video_cli.data.dialogue_file import DataClip, DataDialogue, DataLine, as_json, clip_path, read_lines
from gpt4video_cli.data.faults import faults
from gpt4video_cli.data.layout import Layout, spread
from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan

KINDS = {
    "not a dialogue": "lines that cannot be read",
    "no id": "dialogues without an id",
    "empty turn": "turns in which somebody says nothing",
    "tag mistake": "video tags that are not closed, nested or typed by the user",
    "clip reference": "clips that no turn brings, that come twice or do not exist",
    "missing clip": "clip files that are not there",
    "undecodable clip": "clip files that cannot be decoded",
    "duplicate id": "ids that an earlier dialogue has",
    "duplicate dialogue": "dialogues that say what an earlier one says, about the same clips",
    "too long": "dialogues longer than the model's context",
    "leak": "dialogues or clips that are in the test files too",
}
SAMPLED = 4
"""Frames that are decoded of each clip, spread over it (GPT4Video, section 4.1: four frames)."""


@dataclass
class Report:
    """``found``: for each of ``KINDS``, (``FILE:LINE``, why). ``unfit``: places that training must leave out."""

    files: list[str] = field(default_factory=list)
    dialogues: int = 0
    turns: int = 0
    clips: int = 0
    prompts: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    lengths: list[int] = field(default_factory=list)
    context: int | None = None

    @property
    def unfit(self) -> set[str]:
        """Places with any finding."""
        return {place for findings in self.found.values() for place, _ in findings}

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "files": self.files,
            "dialogues": self.dialogues,
            "turns": self.turns,
            "clips": self.clips,
            "generation_prompts": self.prompts,
            "sources": dict(self.sources),
            "licences": dict(self.licences),
            "tokens": {**spread(self.lengths), "context": self.context} if self.lengths else None,
            "found": {
                kind: [{"place": place, "why": why} for place, why in self.found[kind]]
                for kind in KINDS
                if self.found.get(kind)
            },
            "unfit": len(self.unfit),
        }


class Checker:
    """Reads files one after the other; what was seen in one is a duplicate in the next.

    ``decode``: also decode a few frames of each clip. ``layout``: count tokens.
    """

    def __init__(self, *, decode: bool = True, layout: Layout | None = None) -> None:
        self.report = Report(context=layout.context if layout else None)
        self._decode = decode
        self._layout = layout
        self._ids: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._clips: dict[tuple[Path, float | None, float | None], tuple[str, str] | None] = {}
        self._test_said: dict[str, str] = {}
        self._test_clips: dict[str, str] = {}
        self._prints: dict[Path, str | None] = {}

    def remember_test(self, files: Sequence[Path]) -> None:
        """Dialogues and clips of ``files`` must not be trained on."""
        for line in _lines(files):
            if line.dialogue is not None:
                self._test_said.setdefault(_content(line), line.place)
                for clip in line.dialogue.clips:
                    if found := self._print(clip, line.file):
                        self._test_clips.setdefault(found, line.place)

    def check(self, files: Sequence[Path]) -> Report:
        """Everything that is wrong with ``files``. Raises ``InputError`` for a file that cannot be opened."""
        self.report.files += [str(file) for file in files]
        with FrameReader() as reader:
            for line in _lines(files):
                self._check(line, reader)
        return self.report

    def _check(self, line: DataLine, reader: FrameReader) -> None:
        dialogue, place = line.dialogue, line.place
        if dialogue is None:
            self._add("not a dialogue", place, line.error)
            return
        report = self.report
        report.dialogues += 1
        report.turns += len(dialogue.turns)
        report.clips += len(dialogue.clips)
        report.prompts += sum(turn.assistant.count("</video>") for turn in dialogue.turns)
        report.sources[dialogue.source or "(none)"] += 1
        report.licences[dialogue.licence or "(none)"] += 1
        broken = False
        for fault in faults(dialogue):
            broken = broken or fault.kind == "clip reference"
            self._add(fault.kind, place, fault.text)
        if (first := self._ids.setdefault(dialogue.id, place)) != place:
            self._add("duplicate id", place, f"{dialogue.id!r} is the id of {first}")
        content = _content(line)
        if (first := self._said.setdefault(content, place)) != place:
            self._add("duplicate dialogue", place, f"says the same as {first}")
        if content in self._test_said:
            self._add("leak", place, f"says the same as {self._test_said[content]}")
        for clip in dialogue.clips:
            self._check_clip(clip, line, reader)
        if self._layout is not None and not broken:
            length = len(self._layout.sample(dialogue).ids)
            report.lengths.append(length)
            if length > self._layout.context:
                self._add("too long", place, f"{length} tokens; the context has {self._layout.context}")

    def _check_clip(self, clip: DataClip, line: DataLine, reader: FrameReader) -> None:
        path = clip_path(clip, line.file)
        if path is None:
            return
        key = (path, clip.start, clip.end)
        if key not in self._clips:
            self._clips[key] = self._fault_of(clip, path, reader)
        if (fault := self._clips[key]) is not None:
            self._add(fault[0], line.place, fault[1])
        elif self._test_clips and (found := self._print(clip, line.file)) in self._test_clips:
            self._add("leak", line.place, f"{clip.path} is the clip of {self._test_clips[str(found)]}")

    def _fault_of(self, clip: DataClip, path: Path, reader: FrameReader) -> tuple[str, str] | None:
        if not path.is_file():
            return "missing clip", f"{path}: no such file"
        if self._decode:
            try:
                reader.read(path, SamplingPlan(frames=SAMPLED, start=clip.start, end=clip.end))
            except ClipError as error:
                return "undecodable clip", error.line()
        return None

    def _print(self, clip: DataClip, file: Path) -> str | None:
        path = clip_path(clip, file)
        if path is None:
            return None
        if path not in self._prints:
            try:
                self._prints[path] = fingerprint(path)
            except OSError:
                self._prints[path] = None
        return self._prints[path]

    def _add(self, kind: str, place: str, why: str) -> None:
        self.report.found[kind].append((place, why))


def _lines(files: Sequence[Path]) -> Iterator[DataLine]:
    for file in files:
        yield from read_lines(file)


def _content(line: DataLine) -> str:
    """A hash of what is said and which clips are shown, whatever the id and the source."""
    assert line.dialogue is not None
    clips = [
        DataClip(str(path.resolve()) if (path := clip_path(c, line.file)) else None, c.description, c.start, c.end)
        for c in line.dialogue.clips
    ]
    bare = DataDialogue("", line.dialogue.turns, tuple(clips))
    return hashlib.sha256(as_json(bare).encode()).hexdigest()
