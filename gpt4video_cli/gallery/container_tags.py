"""The texts inside a clip's file (title, comment, how it was made), read by a process of its own.

``python -m gpt4video_cli.gallery.container_tags CLIP`` prints them as JSON. The file may be a stranger's: native code
can hang or crash on it, and a process can be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.sniff import HEAD_BYTES, sniff, why_unreadable

TIME_LIMIT = 10.0
MAX_CHARACTERS = 4 << 20
"""Most characters of all texts together; ours are a few thousand."""
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


def read_tags(path: Path, *, time_limit: float = TIME_LIMIT) -> dict[str, str]:
    """Name to text of everything that the file at ``path`` says about itself. Raises ``ClipError``."""
    sniff(str(path))
    search = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gpt4video_cli.gallery.container_tags", os.path.abspath(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search},
            timeout=time_limit,
        )
    except subprocess.TimeoutExpired:
        raise ClipError(path, f"reading it did not end within {time_limit:g} s and was stopped") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ClipError(path, "the process that read it crashed") from None
    if "error" in answer:
        raise ClipError(path, answer["error"])
    tags: dict[str, str] = answer["tags"]
    return tags


def tags_of(path: str) -> dict[str, str]:
    """The same in this process. Raises ``ClipError``."""
    kind = sniff(path)
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if kind == "gif":
        return _gif_tags(path)
    if head.startswith(b"\x89PNG"):
        return _png_tags(path)
    if head[4:8] == b"ftyp":
        return _stream_tags(path, "mov")
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _stream_tags(path, "matroska")
    raise ClipError(path, "is none of mp4, WebM, GIF and PNG")


def _stream_tags(path: str, format_name: str) -> dict[str, str]:
    import av

    av.logging.set_level(None)
    try:
        # The format is named: FFmpeg's own guess may be a playlist that opens other files.
        with av.open(f"file:{os.path.abspath(path)}", format=format_name, metadata_errors="replace") as container:
            return dict(container.metadata)
    except (av.error.FFmpegError, OSError):
        raise ClipError(path, why_unreadable(path)) from None


def _gif_tags(path: str) -> dict[str, str]:
    from PIL import Image

    try:
        with Image.open(path, formats=["GIF"]) as picture:
            comment = picture.info.get("comment", b"")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ClipError(path, "is a damaged GIF") from None
    with contextlib.suppress(ValueError):
        tags = json.loads(comment)
        if isinstance(tags, dict):
            return {name: text for name, text in tags.items() if isinstance(text, str)}
    return {}


def _png_tags(path: str) -> dict[str, str]:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return {str(name): str(text) for name, text in picture.info.items() if isinstance(text, str)}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ClipError(path, "is a damaged PNG") from None


def main() -> None:
    """Print the tags of the file that is named on the command line."""
    try:
        tags = tags_of(sys.argv[1])
        length = sum(len(name) + len(text) for name, text in tags.items())
        answer = {"tags": tags} if length <= MAX_CHARACTERS else {"error": "holds more text than any clip needs"}
    except ClipError as error:
        answer = {"error": error.reason}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
