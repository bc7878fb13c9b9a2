"""How a clip was made: enough to make it again. One JSON file beside the clip, and the same text inside the clip.

The file has a version, is written whole and read strictly (``strict_json.py``).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpt4video_cli import __version__
from gpt4video_cli.errors import InputError
from gpt4video_cli.gallery.clip_file import side_car_path
from gpt4video_cli.gallery.new_file import write_new_file
from gpt4video_cli.strict_json import MAX_INTEGER, StrictJsonError, from_json, loads

FORMAT = "gpt4video clip"
VERSION = 1
TAG = "gpt4video"
"""The name under which a clip's file carries its description."""
MAX_BYTES = 1 << 20
"""Largest description that is read. The longest prompt and all settings are some 20,000 bytes."""
_DEEPEST = 16
_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "av", "pillow")


def library_versions() -> dict[str, str]:
    """The versions of what takes part in making a clip, without importing any of it."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class SideCar:
    """A clip's description.

    ``revision`` names the weights exactly (see ``model_revision``). ``settings``: everything else that the clip depends
    on, as plain JSON (texts, finite numbers, true, false, null, lists, objects). ``sample`` counts the clips of one
    request from 1. ``verdicts``: what each guard said, as plain JSON objects. ``created``: ISO 8601 in UTC. What is not
    JSON raises ``ValueError``; half characters (lone surrogates) in texts become question marks.
    """

    prompt: str
    negative_prompt: str
    model: str
    revision: str
    seed: int
    settings: Mapping[str, Any]
    sample: int = 1
    verdicts: tuple[Mapping[str, Any], ...] = ()
    program: str = f"gpt4video {__version__}"
    libraries: Mapping[str, str] = field(default_factory=library_versions)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, _plain(getattr(self, name), name))
        object.__setattr__(self, "verdicts", tuple(self.verdicts))
        if self.sample < 1:
            raise ValueError(f"sample is {self.sample}; samples are counted from 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more")
        if not all(isinstance(verdict, dict) for verdict in self.verdicts):
            raise ValueError("verdicts must be objects")
        if not all(isinstance(version, str) for version in self.libraries.values()):
            raise ValueError("libraries must name versions as text")
        if datetime.fromisoformat(self.created).utcoffset() is None:
            raise ValueError("created has no time zone")

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with the format's name and version."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class _Fixed:
    """The fields whose types are known; the others hold any plain JSON."""

    prompt: str
    negative_prompt: str
    model: str
    revision: str
    seed: int
    sample: int
    program: str
    created: str


def write_side_car(clip: Path | str, side_car: SideCar, *, force: bool = False) -> Path:
    """Write ``side_car`` beside ``clip`` (``a.json`` for ``a.mp4``, ``a/clip.json`` for the folder ``a``).

    Returns its path. Written whole; without ``force`` an existing file is not replaced (``UsageError``).
    """
    path = side_car_path(clip)
    content = json.dumps(side_car.as_dict(), indent=1, allow_nan=False) + "\n"
    write_new_file(path, content.encode("ascii"), force=force)
    return path


def read_side_car(path: Path | str) -> SideCar:
    """Read a description from its JSON file, from a clip, or from a folder of PNG files.

    Raises ``InputError`` with the file and the reason.
    """
    path = Path(path)
    if os.path.isdir(path):
        inside = side_car_path(path)
        path = inside if inside.exists() else path / "frame_0001.png"
    if path.suffix.lower() != ".json":
        return _parsed(path, _from_clip(path))
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is not a file")
        with open(path, "rb") as file:
            return _parsed(path, file.read(MAX_BYTES + 1))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _from_clip(path: Path) -> bytes:
    from gpt4video_cli.gallery.container_tags import read_tags

    for name, text in read_tags(path).items():
        if name.lower() == TAG:  # Matroska writes names in capitals
            return text.encode("utf-8", "replace")
    beside = side_car_path(path)
    hint = f"{beside} may say it" if beside.is_file() else "only clips that this program made carry it"
    raise InputError(f"{path}: does not say how it was made", hint=hint)


def _parsed(path: Path, content: bytes) -> SideCar:
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: too large for a clip's description (more than {MAX_BYTES} bytes)")
    try:
        value = loads(content)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise StrictJsonError(f'not the description of a clip (no "format": "{FORMAT}")')
        if value.get("version") != VERSION:
            raise StrictJsonError(f"version {value.get('version')!r} of the format; this program reads {VERSION}")
        return _from_json({name: item for name, item in value.items() if name not in ("format", "version")})
    except StrictJsonError as error:
        raise InputError(f"{path}: {error}") from error


def _from_json(value: dict[str, Any]) -> SideCar:
    free: dict[str, Any] = {}
    for name, kind in (("settings", dict), ("libraries", dict), ("verdicts", list)):
        if type(value.get(name)) is not kind:
            raise StrictJsonError(f"clip.{name} is not a valid {kind.__name__}")
        free[name] = value.pop(name)
    fixed = from_json(value, _Fixed, "clip")
    try:
        json.dumps({**value, **free}, ensure_ascii=False).encode()
        return SideCar(**asdict(fixed), **free)
    except UnicodeEncodeError:
        raise StrictJsonError("clip: text that is not Unicode") from None
    except (ValueError, RecursionError) as error:
        raise StrictJsonError(f"clip: {error}") from error


def metadata_of(side_car: SideCar) -> dict[str, str]:
    """What the clip's own file carries: the whole description under ``TAG``, a title and a comment for people."""
    compact = json.dumps(side_car.as_dict(), separators=(",", ":"), allow_nan=False)
    title = " ".join("".join(letter if letter.isprintable() else " " for letter in side_car.prompt).split())
    comment = f"made by {side_car.program} with {side_car.model}, seed {side_car.seed}"
    return {TAG: compact, "title": title[:200], "comment": " ".join(comment.split())}


def model_revision(folder: Path | str) -> str:
    """What names the weights in ``folder``: the hub's commit, or the hash of the folder's index.

    The hub's cache keeps each revision in ``snapshots/COMMIT``. Elsewhere it is SHA-256 of ``model_index.json`` and of
    the fingerprints of all weight files: of their whole content up to 1 GiB each, of pieces of larger ones.
    """
    from hashlib import sha256

    from gpt4video_cli.video.fingerprint import fingerprint

    folder = Path(folder)
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    digest = sha256()
    for file in [folder / "model_index.json", *sorted(folder.rglob("*.safetensors"))]:
        if file.is_file():
            digest.update(f"{file.relative_to(folder).as_posix()} {fingerprint(str(file))}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of ``value`` with lists for tuples; ``ValueError`` where it is not plain JSON."""
    if depth > _DEEPEST:
        raise ValueError(f"{where[:80]} is nested too deeply")
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and abs(value) <= MAX_INTEGER:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {_plain(name, where): _plain(item, f"{where}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise ValueError(f"{where[:80]} is {value!r:.40}, which JSON cannot say")
