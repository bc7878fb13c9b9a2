"""What kind of file this is, from its name in the file system and its first bytes, with exact reasons for refusals.

FFmpeg guesses from the file's extension too and says "invalid data" for everything that it cannot open; a person needs
to know which of a dozen things is wrong.
"""

from __future__ import annotations

import os
import stat
from typing import Literal

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.url import local

Kind = Literal["still", "webp", "gif", "mjpeg", "video"]

HEAD_BYTES = 4096
MJPEG_NAMES = (".mjpeg", ".mjpg", ".mjp")
# What an ISO (mp4, mov) file begins with.
ISO_BOXES = {b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"}
# Brands of ISO files that hold one photo (ISO/IEC 23008-12, AV1 Image File Format).
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"hevc"}
AVIF_BRANDS = {b"avif"}


def sniff(path: str) -> Kind:
    """The kind of the file at ``path``. Raises ``ClipError`` where nothing could be read from it."""
    file_name = local(path)
    try:
        status = os.stat(file_name)
    except FileNotFoundError:
        raise ClipError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise ClipError(path, f"cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise ClipError(path, "is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ClipError(path, "is a pipe or a device, not a file", hint="save it to a file first")
    if status.st_size == 0:
        raise ClipError(path, "is empty (0 bytes)")
    try:
        with open(file_name, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise ClipError(path, f"cannot be opened ({error.strerror})") from None
    return _kind(path, head)


def _kind(path: str, head: bytes) -> Kind:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "video" if b"acTL" in head else "still"
    if head.startswith(b"\xff\xd8\xff"):
        return "mjpeg" if path.lower().endswith(MJPEG_NAMES) else "still"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:4] in (b"II*\0", b"MM\0*") or (head[:2] == b"BM" and head[6:10] == bytes(4)):
        return "still"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in AVIF_BRANDS:
            return "still"
        if brand in HEIF_BRANDS:
            raise ClipError(path, "is a HEIC photo, which is not supported", hint="convert it to JPEG or PNG first")
    return "video"


def why_unreadable(path: str) -> str:
    """The reason, for a person, why FFmpeg found no video in the file at ``path``."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head[4:8] in ISO_BOXES:
        boxes, whole = top_level_boxes(path)
        if b"moov" not in boxes:
            return "is a cut-off MP4: its index (moov), which is written last, is missing"
        return "is a damaged MP4: its index (moov) cannot be read" + ("" if whole else " and the file is cut off")
    for name, known in (("AVI", head[:4] == b"RIFF"), ("Matroska or WebM", head[:4] == b"\x1aE\xdf\xa3")):
        if known:
            return f"is a cut-off or damaged {name} file: its header cannot be read"
    if _is_text(head):
        return "is text, not a video"
    if head.startswith(b"%PDF"):
        return "is a PDF, not a video"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, not a video"
    return "is not a video in a known format"


def top_level_boxes(path: str) -> tuple[list[bytes], bool]:
    """The names of an ISO (mp4, mov) file's outermost boxes, and whether the last one is complete.

    Another kind of file has no boxes and nothing incomplete.
    """
    names: list[bytes] = []
    size, offset = os.path.getsize(path), 0
    with open(path, "rb") as file:
        if file.read(8)[4:] not in ISO_BOXES:
            return [], True
        while offset + 8 <= size and len(names) < 10_000:
            file.seek(offset)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = size - offset
            if length < 8:
                return names, False
            # A box that reaches beyond the end of the file is named only if it is not the index itself.
            if not (name == b"moov" and offset + length > size):
                names.append(name)
            offset += length
    return names, offset <= size


def _is_text(head: bytes) -> bool:
    """Whether ``head`` is UTF-8 without control characters other than tab, line feed, form feed, carriage return."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(sign.isprintable() or sign in "\t\n\f\r" for sign in text)
