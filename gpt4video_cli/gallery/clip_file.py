"""Frames to a clip on disk: mp4, GIF, WebM or a folder of PNG files, as the ending of its name says.

T frames, H height, W width. A clip appears under its name when it is complete, or not at all.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.clip_name import default_name
from gpt4video_cli.gallery.new_file import (
    cannot_be_written,
    put_in_place,
    taken,
    temporary_beside,
    temporary_for,
    write_flushed,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Format", "check_target", "default_name", "side_car_path", "write_clip"]


class Format(StrEnum):
    """What a clip is written as. ``PNG_FOLDER``: ``frame_0001.png``, ``frame_0002.png``, … in a folder of its own."""

    MP4 = "mp4"
    GIF = "gif"
    WEBM = "webm"
    PNG_FOLDER = "png folder"


ENDINGS = {".mp4": Format.MP4, ".gif": Format.GIF, ".webm": Format.WEBM}
KNOWN = ".mp4, .gif and .webm are known, and a name that ends in / is a folder of PNG files"
FOLDER_SIDE_CAR = "clip.json"
_OWN_FILE = re.compile(rf"frame_\d{{4,}}\.png|{re.escape(FOLDER_SIDE_CAR)}")


def side_car_path(clip: Path | str) -> Path:
    """Where the description of ``clip`` lies: ``a.json`` for ``a.mp4``, ``a/clip.json`` for the folder ``a``."""
    path = Path(clip)
    return path.with_suffix(".json") if path.suffix.lower() in ENDINGS else path / FOLDER_SIDE_CAR


def check_target(path: Path | str, *, force: bool, side_car: bool = True) -> Format:
    """The format that ``path`` asks for, if a clip can be written there; call it before anything expensive.

    ``.mp4``, ``.gif`` and ``.webm`` are files. A path that ends in ``/``, a folder that exists and a name without an
    ending are a folder of PNG files. ``side_car``: the name of the side-car must be free as well. Raises ``UsageError``
    for an ending that is not known, for a folder that does not exist and, without ``force``, for a name that is taken;
    with ``force`` for something that no clip may replace. Raises ``Gpt4VideoError`` where the folder is not writable.
    """
    target = _target(path)
    kind = _format(path, target)
    _check_free(target, kind, force=force)
    if side_car and kind is not Format.PNG_FOLDER:
        _check_free(side_car_path(target), None, force=force)
    _check_folder(target)
    return kind


def write_clip(
    path: Path | str,
    frames: np.ndarray,
    fps: float,
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> Path:
    """Write ``frames`` (uint8 [T, H, W, 3], RGB 0-255) to be shown ``fps`` times a second; returns the path.

    ``metadata`` goes into the file: mp4 keeps its names as they are, WebM writes them in capitals, GIF holds it all as
    one comment in JSON, a folder in the text chunks of its first picture. mp4 and WebM need even sizes: an odd width or
    height gets a copy of its last column or row. Raises what ``check_target`` raises, and ``Gpt4VideoError`` where
    writing fails, a full disk for instance; then nothing is left behind. Without ``force`` nothing is ever replaced.
    """
    kind = check_target(path, force=force, side_car=False)
    _check_frames(frames, fps)
    target = _target(path)
    with temporary_for(target) as temporary:
        if kind is Format.PNG_FOLDER:
            _write_pictures(temporary, frames, metadata)
        elif kind is Format.GIF:
            from gpt4video_cli.gallery.gif import gif_bytes

            write_flushed(temporary, gif_bytes(frames, fps, metadata))
        else:
            from gpt4video_cli.video.writer import write_mp4, write_webm

            write = write_mp4 if kind is Format.MP4 else write_webm
            write(temporary, frames, fps, metadata=metadata)
        put_in_place(temporary, target, force=force)
    return target


def _target(path: Path | str) -> Path:
    text = os.fspath(path)
    if text == "-":
        raise UsageError("a clip cannot be written to stdout", hint="name a file; its path goes to stdout")
    if "\0" in text or not text.strip() or Path(text).name in ("", ".."):
        raise UsageError(f"{text!r} is no name for a clip", hint=KNOWN)
    return Path(text)


def _format(path: Path | str, target: Path) -> Format:
    """What the name asks for. A ``Path`` has lost a ``/`` at its end; text has not."""
    ending = target.suffix.lower()
    if os.fspath(path).endswith(("/", os.sep)) or os.path.isdir(target):
        if ending in ENDINGS:
            raise UsageError(f"{target}: a folder of PNG files may not be called {ending}", hint=KNOWN)
        return Format.PNG_FOLDER
    if ending in ENDINGS:
        return ENDINGS[ending]
    if target.name.lower() in ENDINGS:
        raise UsageError(f"{target}: there is no name before the ending", hint=KNOWN)
    if ending:
        raise UsageError(f"{target}: the ending {ending} is not known", hint=KNOWN)
    return Format.PNG_FOLDER


def _check_free(target: Path, kind: Format | None, *, force: bool) -> None:
    """Whether ``target`` may be written. ``kind`` None: a side-car."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"{target.parent}: is not a folder") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise cannot_be_written(target, error) from error
    if kind is Format.PNG_FOLDER:
        _check_folder_free(target, mode, force=force)
    elif stat.S_ISDIR(mode):
        raise UsageError(f"{target}: is a folder, not a file")
    elif not force:
        raise taken(target)
    elif not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise UsageError(f"{target}: is a pipe or a device, not a file")


def _check_folder_free(target: Path, mode: int, *, force: bool) -> None:
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{target}: exists and is not a folder", hint=KNOWN)
    try:
        names = os.listdir(target)
    except OSError as error:
        raise cannot_be_written(target, error) from error
    other = [name for name in names if not _OWN_FILE.fullmatch(name)]
    if other:  # never replaced as a whole: `-o . --force` must not empty a home folder
        raise UsageError(f"{target}: a folder that holds other files ({min(other)})", hint="name a new folder")
    if names and not force:
        raise taken(target)


def _check_folder(target: Path) -> None:
    """Whether a file can be made beside ``target``: only trying shows what permissions, quotas and mounts allow."""
    if not os.path.exists(target.parent):
        raise UsageError(f"{target.parent}: no such folder", hint="make it first, or name another one")
    probe = temporary_beside(target)
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(probe)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise UsageError(f"{target.parent}: is not a folder") from None
        raise cannot_be_written(target, error) from error


def _check_frames(frames: np.ndarray, fps: float) -> None:
    import numpy as np

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps is {fps}; it must be above 0")


def _write_pictures(folder: Path, frames: np.ndarray, metadata: Mapping[str, str] | None) -> None:
    from io import BytesIO

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, text in (metadata or {}).items():
        texts.add_text(name, text)  # what is not Latin-1 becomes iTXt, in UTF-8
    folder.mkdir()
    digits = max(4, len(str(len(frames))))
    for number, frame in enumerate(frames, start=1):
        content = BytesIO()
        Image.fromarray(frame).save(content, "PNG", pnginfo=texts if number == 1 else None)
        write_flushed(folder / f"frame_{number:0{digits}}.png", content.getvalue())
