"""A clip is encoded once, and tomorrow too: its embeddings kept on disk, least recently used ones dropped.

HOME/clips/BYTES-KEY.safetensors    one clip seen at one plan's moments by one model: the tensor ``embeddings`` float32
                                    [N, D_llm], and in the metadata, as JSON under one name, what it is and its receipt

BYTES is the size of the clip's file: a clip of another size is known to be new without being read. KEY is a hash of the
clip's content (``video/fingerprint.py``), of the sampling plan and of what encodes (``model/encoder_digest.py``); a
changed clip or a changed model is another file. The time of change of a file here is when it was last used.

Any number of processes may share the folder: files are written whole, and one that another process removed is absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt4video_cli.byte_size import read_size
from gpt4video_cli.clip_memory import SeenClip, clip_key
from gpt4video_cli.errors import UsageError
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt
from gpt4video_cli.video.url import full_path, here
from gpt4video_cli.weights import locate
from gpt4video_cli.whole_file import whole_file

FORMAT = "gpt4video.clip"
VERSION = 1
TENSOR = "embeddings"
LIMIT = 1_000_000_000
"""Bytes of all files together, unless ``GPT4VIDEO_CACHE_SIZE`` says otherwise: 40,000 clips of the bundled model, 950
of a 7B one (64 embeddings 4,096 wide)."""
LIMIT_VARIABLE = "GPT4VIDEO_CACHE_SIZE"
_NAME = re.compile(r"\d+-[0-9a-f]{32}\.safetensors")
_ABANDONED = 3600.0
"""Seconds after which a temporary file is what a killed run left."""
_WRITING = threading.Lock()
"""Two threads of one process would write to the same temporary name."""


@dataclass(frozen=True)
class KeptClip:
    """One file of the cache, as its metadata says. ``path``: where the clip was when it was last used; ``frames``: how
    many moments were looked at; ``used``: when, in seconds since 1970."""

    file: Path
    path: str
    model: str
    frames: int
    bytes: int
    used: float


@dataclass(frozen=True)
class _Header:
    """The metadata. ``encoder``: see ``model.encoder_digest``. ``check``: SHA-256 of all the rest and of the tensor."""

    version: int
    encoder: str
    model: str
    plan: SamplingPlan
    receipt: SamplingReceipt
    check: str = ""

    def checked(self, embeddings: np.ndarray) -> _Header:
        """With the check that belongs to these embeddings."""
        content = json.dumps(asdict(replace(self, check="")), sort_keys=True).encode()
        return replace(self, check=hashlib.sha256(content + embeddings.tobytes()).hexdigest())


class ClipCache:
    """The folder of kept clips. Reading never fails: what cannot be read is absent."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """``folder``: else ``clips`` in ``weights.locate.home()``. ``limit``: bytes that all files together may take,
        else as the environment says, of which what is no size is a ``UsageError``; 0 keeps nothing."""
        self.folder = folder or locate.home() / "clips"
        given = os.environ.get(LIMIT_VARIABLE, "").strip()
        self.limit = limit if limit is not None else read_size(given, LIMIT_VARIABLE) if given else LIMIT

    def may_have(self, path: str | os.PathLike[str]) -> bool:
        """Whether ``find`` is worth a try: some clip of this size is kept. Nothing of the clip is read."""
        try:
            status = os.stat(here(path))
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(status.st_mode) and any(name.startswith(f"{status.st_size}-") for name in self._names())

    def find(self, path: str, plan: SamplingPlan, encoder: str) -> SeenClip | None:
        """The clip at ``path`` as it is now, if it was kept. ``encoder``: see ``model.encoder_digest``.

        Only a regular file is opened here, and only if one of its size is kept: what may hang or lie is left to the
        decoder's own process. The clip is hashed once more for each call.
        """
        if not self.may_have(path):
            return None
        try:
            size, content = os.path.getsize(here(path)), fingerprint(path)
            file = self._file(size, content, plan, encoder)
            header, embeddings = _read(file)
        except OSError:
            return None
        except _DamagedError as error:
            error.remove()
            return None
        if (header.receipt.sha256, header.plan, header.encoder) != (content, plan, encoder):
            return None
        with suppress(OSError):  # a read-only folder
            place = full_path(path)
            if header.receipt.path != place:
                _write(file, replace(header, receipt=replace(header.receipt, path=place)), embeddings)
            os.utime(file)
        return SeenClip(clip_key(content, plan), replace(header.receipt, path=path), embeddings)

    def keep(self, seen: SeenClip, plan: SamplingPlan, *, encoder: str, model: str) -> None:
        """Write a clip that was just encoded, then drop the least recently used until all fit. Raises ``OSError`` where
        the folder cannot be written to.

        Not kept is a clip whose pictures depend on how busy the machine was (with more time it looks different), one
        that is gone by now, and one without an ``encoder``.
        """
        if seen.receipt.hurried or seen.embeddings.nbytes > self.limit or not encoder:
            return
        path = Path(here(seen.receipt.path))
        if not path.is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what somebody watched is nobody else's business
        file = self._file(path.stat().st_size, seen.receipt.sha256, plan, encoder)
        receipt = replace(seen.receipt, path=full_path(seen.receipt.path))
        _write(file, _Header(VERSION, encoder, model, plan, receipt), seen.embeddings)
        self.prune()

    def clips(self) -> list[KeptClip]:
        """All kept clips, the last used first. Damaged files are removed."""
        found = []
        for name, status in self._files():
            file = self.folder / name
            try:
                header = _header(file)
            except OSError:
                continue
            except _DamagedError as error:
                error.remove()
                continue
            frames = len(header.receipt.seen)
            found.append(KeptClip(file, header.receipt.path, header.model, frames, status.st_size, status.st_mtime))
        return sorted(found, key=lambda kept: -kept.used)

    def prune(self, limit: int | None = None, older_than: float | None = None) -> tuple[int, int]:
        """Drop files not used for ``older_than`` seconds, then the least recently used until all fit into ``limit``
        bytes (else the cache's own). How many files and bytes went. A file in use elsewhere is not waited for."""
        limit, now = self.limit if limit is None else limit, time.time()
        files = sorted(self._files(), key=lambda entry: entry[1].st_mtime)
        total = sum(status.st_size for _, status in files)
        going = []
        for name, status in files:
            if total > limit or (older_than is not None and now - status.st_mtime > older_than):
                going.append((name, status.st_size))
                total -= status.st_size
        self._drop_abandoned()
        return self._drop(going)

    def clear(self) -> tuple[int, int]:
        """Drop everything. How many files and bytes went."""
        self._drop_abandoned()
        return self._drop([(name, status.st_size) for name, status in self._files()])

    def _file(self, size: int, content: str, plan: SamplingPlan, encoder: str) -> Path:
        key = json.dumps([VERSION, content, plan.as_dict(), encoder], sort_keys=True)
        return self.folder / f"{size}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def _names(self) -> Iterator[str]:
        with suppress(OSError):
            yield from (name for name in os.listdir(self.folder) if _NAME.fullmatch(name))

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in self._names():
            with suppress(OSError):
                yield name, os.stat(self.folder / name)

    def _drop(self, files: Iterable[tuple[str, int]]) -> tuple[int, int]:
        count = total = 0
        for name, size in files:
            with suppress(OSError):  # gone already, or not ours to remove
                os.unlink(self.folder / name)
                count, total = count + 1, total + size
        return count, total

    def _drop_abandoned(self) -> None:
        with suppress(OSError):
            for path in self.folder.glob(".*.tmp"):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > _ABANDONED:
                        path.unlink()


class _DamagedError(Exception):
    """``file`` is not what this program wrote."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self.file = file

    def remove(self) -> None:
        """Away with it; where that is not allowed it is found damaged again."""
        with suppress(OSError):
            self.file.unlink()


def _write(file: Path, header: _Header, embeddings: np.ndarray) -> None:
    from safetensors.numpy import save

    metadata = {FORMAT: json.dumps(asdict(header.checked(embeddings)))}
    packed = save({TENSOR: np.ascontiguousarray(embeddings)}, metadata)
    with _WRITING, whole_file(file) as temporary:
        temporary.write_bytes(packed)


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="np")
    except SafetensorError as error:
        raise _DamagedError(file) from error


def _header(file: Path) -> _Header:
    """The metadata of a kept clip. Raises ``OSError`` or ``_DamagedError``."""
    with _open(file) as opened:
        return _parsed(opened.metadata(), file)


def _parsed(metadata: dict[str, str] | None, file: Path) -> _Header:
    try:
        header = from_json(loads((metadata or {}).get(FORMAT, "").encode()), _Header, FORMAT)
    except (StrictJsonError, UsageError) as error:
        raise _DamagedError(file) from error
    if header.version != VERSION:
        raise _DamagedError(file)
    return header


def _read(file: Path) -> tuple[_Header, np.ndarray]:
    """Metadata and embeddings float32 [N, D_llm] of a kept clip, checked. Raises ``OSError`` or ``_DamagedError``."""
    from safetensors import SafetensorError

    with _open(file) as opened:
        header = _parsed(opened.metadata(), file)
        try:
            embeddings: np.ndarray = np.array(opened.get_tensor(TENSOR))
        except SafetensorError as error:
            raise _DamagedError(file) from error
    if embeddings.dtype != np.float32 or embeddings.ndim != 2:
        raise _DamagedError(file)
    if header.checked(embeddings) != header:
        raise _DamagedError(file)
    return header, embeddings
