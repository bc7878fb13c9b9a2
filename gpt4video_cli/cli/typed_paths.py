"""Paths as people type them, paste them and drop files onto a terminal.

Terminals write a dropped file as ``'my clip.mp4'``, ``my\\ clip.mp4``, ``"C:\\clips\\my clip.mp4"``,
``& 'C:\\clips\\my clip.mp4'`` (PowerShell) or ``file:///my%20clip.mp4``; file managers put several on lines
of their own.
"""

from __future__ import annotations

import os
import re
import shlex
from urllib.parse import unquote, urlsplit

from gpt4video_cli.errors import UsageError

WINDOWS_DRIVES = "/mnt"
"""Where the Windows Subsystem for Linux has C: and the others, as c and so on."""
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\/\s]")
_HAS_WINDOWS = re.compile(rf"""(?:^|[\s"'])(?:{_WINDOWS.pattern})""")
_OWN_FILES = re.compile(r"\\\\wsl(?:\$|\.localhost)\\[^\\]+(?=\\)", re.IGNORECASE)
_WINDOWS_WORD = re.compile(r""""([^"]*)"(?!\S)|'([^']*)'(?!\S)|(\S+)""")
_DROPPED = re.compile(rf"""(?:& )?['"‘’“”„]?(?:/|~/|file://|{_WINDOWS.pattern})""", re.IGNORECASE)
_TYPOGRAPHIC = str.maketrans("“”„‘’", '"""\'\'')


def split_paths(text: str) -> tuple[list[str], list[str]]:
    """The paths and the words of options in what was typed, pasted or dropped onto the terminal.

    A path with blanks that was typed without quotes is understood if that file exists. Raises ``UsageError``.
    """
    text = text.strip().removeprefix("& ")
    found = re.search(r"(?:^|\s)--[a-z]", text)
    head, options = (text[: found.start()], text[found.start() :]) if found else (text, "")
    for whole, rest in ((text, ""), (head, options)):
        if whole and os.path.exists(local_path(whole)):
            return [local_path(whole)], _words(rest)
    if head[:1] in ("“", "„", "‘", "”", "’"):  # a text program made them of straight ones
        head = head.translate(_TYPOGRAPHIC)
    return [local_path(word) for word in _words(head)], _words(options)


def _words(text: str) -> list[str]:
    if os.name == "nt" or _HAS_WINDOWS.search(text):  # backslashes are no escapes there
        words = [match.group(match.lastindex or 0) for match in _WINDOWS_WORD.finditer(text)]
        if any(match.lastindex == 3 and match[3][0] in "\"'" for match in _WINDOWS_WORD.finditer(text)):
            raise UsageError("a quote is not closed")
        return words
    try:
        return shlex.split(text)
    except ValueError:
        raise UsageError("a quote is not closed") from None


def local_path(word: str) -> str:
    """``~``, ``file://`` and, inside the Windows Subsystem for Linux, Windows' names of files as plain paths."""
    if word.lower().startswith("file://"):
        word = unquote(urlsplit(word.replace("#", "%23").replace("?", "%3F")).path)
        if _WINDOWS.match(word[1:]):
            word = word[1:]
    if os.name != "nt" and _WINDOWS.match(word) and not os.path.exists(word):
        own = _OWN_FILES.match(word)
        place = word[own.end() :] if own else f"{WINDOWS_DRIVES}/{word[0].lower()}/{word[3:]}"
        place = place.replace("\\", "/")
        if os.path.exists(place):
            return place
    return os.path.expanduser(word)


def dropped_files(text: str) -> list[str]:
    """The files, if ``text`` is nothing but full paths of files that exist, as dropping them onto a terminal types."""
    files: list[str] = []
    for line in text.strip().splitlines():
        if not _DROPPED.match(line):
            return []
        try:
            paths, options = split_paths(line)
        except UsageError:
            return []
        if not paths or options or not all(map(os.path.isfile, paths)):
            return []
        files += paths
    return files
