"""The kept cache of a conversation as bytes, to be stored with a session: what it was computed from, then its numbers.

A JSON object on the first line, which names format, model and adapters, then llama.cpp's own bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import SessionFileError
from gpt4video_cli.language.prompt_units import Unit

FORMAT = "gpt4video llama.cpp state 1"
_HEAD = 1 << 16


def fingerprint(path: Path) -> str:
    """Of a GGUF file: its size and its first 64 kB, where the hashes of what it was made from stand."""
    with open(path, "rb") as file:
        return hashlib.sha256(f"{path.stat().st_size} ".encode() + file.read(_HEAD)).hexdigest()


def pack(units: Sequence[Unit], state: bytes, *, made_by: dict[str, Any]) -> bytes:
    """``made_by``: model, adapters and type of the cache; another of these makes the numbers worthless."""
    head = {"format": FORMAT, "made_by": made_by, "units": list(units)}
    return json.dumps(head).encode() + b"\n" + state


def unpack(data: bytes, *, made_by: dict[str, Any]) -> tuple[list[Unit], bytes] | None:
    """Units and numbers; None where others made them. ``SessionFileError`` for what is no such state."""
    line, found, state = data.partition(b"\n")
    try:
        head = json.loads(line)
        if not found or head["format"] != FORMAT:
            raise ValueError
        units = [unit if isinstance(unit, int) else (str(unit[0]), int(unit[1])) for unit in head["units"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SessionFileError("the kept cache of the conversation cannot be read", hint="it is damaged") from error
    return (units, state) if head.get("made_by") == made_by else None
