"""Sizes as people write them. Apart from what uses them, so that reading an option imports nothing else."""

from __future__ import annotations

import re

from gpt4video_cli.errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def read_size(text: str, what: str) -> int:
    """``500MB``, ``1.5 GB`` or a number of bytes; ``UsageError`` names ``what``."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d*)?|\.\d+)\s*([kmgt]?)b?\s*", text.lower())
    if found is None:
        raise UsageError(f"{what} is {text!r}; it must be a size such as 500MB or 1GB")
    return int(float(found[1]) * _UNITS[found[2]])
