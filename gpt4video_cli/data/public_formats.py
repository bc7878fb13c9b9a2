"""Readers of public training data. Each yields dialogues in our format; what it cannot use it reports, never drops.

Where the formats are described:
- ``videochat``: VideoChat-11k, ``videochat_instruct_11k.json`` of OpenGVLab/InternVideo: a list of ``video`` and
  ``QA``, whose entries have an instruction ``i``, a question ``q`` and an answer ``a``.
- ``video-chatgpt``: VideoInstruct-100K of mbzuai-oryx/Video-ChatGPT: a list of ``q``, ``a``, ``video_id``; or the same
  after its conversion for training: ``id``, ``video``, ``conversations``.
- ``llava``: LLaVA-Instruct of haotian-liu/LLaVA: a list of ``id``, ``image``, ``conversations`` (``from``, ``value``).
- ``webvid``: WebVid's CSV: ``videoid``, ``contentUrl``, ``duration``, ``page_dir``, ``name`` (the caption).
- ``realtoxicity``: RealToxicityPrompts' JSONL: ``prompt`` with ``text`` and scores. As GPT4Video's section 3.4, texts
  with a score above 0.9 for sexually explicit or severely toxic content become requests that are politely refused.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.data.dialogue_file import DataClip, DataDialogue, DataTurn
from gpt4video_cli.errors import InputError

TOXIC = 0.9
TOXIC_SCORES = ("sexually_explicit", "severe_toxicity")
_PLACEHOLDER = re.compile(r"\s*<(?:video|image|vid_patch|Video|Image)>\s*")
_CAPTION_REQUESTS = (
    "Describe the clip.",
    "What does this video show?",
    "What happens in this clip?",
    "Give a short description of the video.",
)
_REFUSALS = (
    "I am sorry, but I cannot help with that.",
    "I would rather not go on with this. Is there something else that I can do for you?",
    "I cannot answer or film that, because it could hurt people.",
    "That is not something I can help with, but I am glad to help with another clip.",
)


@dataclass(frozen=True)
class Unusable:
    """A record that gives no dialogue: where it stands in the file, and why."""

    place: str
    reason: str


Read = Iterator[DataDialogue | Unusable]


@dataclass(frozen=True)
class Options:
    """``clips``: folder of the clips, as it shall stand in paths. ``ending``: of clips that are named by an id."""

    clips: str = ""
    ending: str = ".mp4"

    def path(self, name: str) -> str:
        """The path of a clip; a name from a stranger's file never leads out of the folder."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        return "/".join([*([self.clips.rstrip("/")] if self.clips else []), *parts])


def read_public(path: Path, kind: str, options: Options) -> Read:
    """The dialogues of a file of ``kind`` (a name of ``FORMATS``). Raises ``InputError`` for a file of another form."""
    return FORMATS[kind](path, options)


def _videochat(path: Path, options: Options) -> Read:
    for place, record in _json_list(path):
        video, pairs = record.get("video"), record.get("QA")
        if not isinstance(video, str) or not isinstance(pairs, list) or not all(isinstance(p, dict) for p in pairs):
            yield Unusable(place, 'no "video" and "QA"')
            continue
        turns = []
        for number, pair in enumerate(pairs):
            instruction, question, answer = (str(pair.get(key) or "").strip() for key in ("i", "q", "a"))
            # The instruction stands before the first question (VideoChat's own reader does the same).
            user = " ".join(part for part in (instruction if number == 0 else "", question) if part)
            turns.append(DataTurn(user or instruction, answer, (0,) if number == 0 else ()))
        yield _dialogue(place, record, (DataClip(options.path(video)),), turns, "videochat-11k")


def _video_chatgpt(path: Path, options: Options) -> Read:
    for place, record in _json_list(path):
        if "conversations" in record:
            yield from _conversation(place, record, options, "video", "video-chatgpt-100k")
            continue
        video = record.get("video_id")
        if not isinstance(video, str | int):
            yield Unusable(place, 'no "video_id"')
            continue
        turn = DataTurn(str(record.get("q") or "").strip(), str(record.get("a") or "").strip(), (0,))
        clip = DataClip(options.path(f"{video}{options.ending}"))
        yield _dialogue(place, record, (clip,), [turn], "video-chatgpt-100k")


def _llava(path: Path, options: Options) -> Read:
    for place, record in _json_list(path):
        yield from _conversation(place, record, options, "image", "llava-instruct")


def _conversation(place: str, record: dict[str, Any], options: Options, key: str, source: str) -> Read:
    said = record.get("conversations")
    if not isinstance(said, list) or not all(isinstance(item, dict) for item in said):
        yield Unusable(place, 'no "conversations"')
        return
    speakers = [item.get("from") for item in said]
    if len(said) % 2 or speakers != ["human", "gpt"] * (len(said) // 2):
        yield Unusable(place, "human and gpt do not take turns")
        return
    name = record.get(key)
    clips = (DataClip(options.path(name)),) if isinstance(name, str) else ()
    turns: list[DataTurn] = []
    for human, gpt in zip(said[::2], said[1::2], strict=True):
        user = _PLACEHOLDER.sub(" ", str(human.get("value") or "")).strip()
        first = (0,) if clips and not turns else ()
        turns.append(DataTurn(user, str(gpt.get("value") or "").strip(), first))
    yield _dialogue(place, record, clips, turns, source)


def _webvid(path: Path, options: Options) -> Read:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"videoid", "name"} - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"{path}: no column {' or '.join(sorted(missing))}", hint="is it a WebVid CSV?")
            for row in rows:
                place = f"{path}:{rows.line_num}"
                identifier, caption = (row.get("videoid") or "").strip(), (row.get("name") or "").strip()
                if not identifier or not caption:
                    yield Unusable(place, "no videoid or no name")
                    continue
                folder = (row.get("page_dir") or "").strip()
                clip = DataClip(options.path(os.path.join(folder, f"{identifier}{options.ending}")))
                turn = DataTurn(_chosen(_CAPTION_REQUESTS, identifier), caption, (0,))
                yield _dialogue(place, {"id": identifier}, (clip,), [turn], "webvid")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error


def _realtoxicity(path: Path, options: Options) -> Read:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    yield Unusable(place, f"not JSON: {error}")
                    continue
                prompt = record.get("prompt") if isinstance(record, dict) else None
                if not isinstance(prompt, dict) or not str(prompt.get("text") or "").strip():
                    yield Unusable(place, 'no "prompt" with a "text"')
                    continue
                scores = [prompt.get(score) for score in TOXIC_SCORES]
                if any(isinstance(score, int | float) and score > TOXIC for score in scores):
                    text = str(prompt["text"]).strip()
                    turn = DataTurn(text, _chosen(_REFUSALS, text))
                    yield _dialogue(place, record, (), [turn], "real-toxicity-prompts")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


FORMATS: dict[str, Callable[[Path, Options], Read]] = {
    "videochat": _videochat,
    "video-chatgpt": _video_chatgpt,
    "llava": _llava,
    "webvid": _webvid,
    "realtoxicity": _realtoxicity,
}


def _dialogue(
    place: str, record: dict[str, Any], clips: tuple[DataClip, ...], turns: list[DataTurn], source: str
) -> DataDialogue:
    """``id`` is the record's own, or its place in the file, which is unique."""
    own = record.get("id", record.get("filename"))
    number = place.rpartition(":")[2]
    identifier = f"{source}-{own}" if isinstance(own, str | int) and source != "real-toxicity-prompts" else ""
    return DataDialogue(identifier or f"{source}-{number}", tuple(turns), clips, source)


def _json_list(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, list):
        raise InputError(f"{path}: not a list of records")
    for number, record in enumerate(content):
        if not isinstance(record, dict):
            raise InputError(f"{path}: record {number} is not an object")
        yield f"{path}:{number}", record


def _chosen(texts: tuple[str, ...], key: str) -> str:
    """Always the same of ``texts`` for the same ``key``."""
    return texts[hashlib.sha256(key.encode("utf-8", "replace")).digest()[0] % len(texts)]
