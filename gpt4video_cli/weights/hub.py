"""The files of a repository of the Hugging Face hub, brought into the hub's own cache: whole, checked, resumable.

huggingface_hub lists, authenticates and lays out the cache. The bytes are fetched here, because its own download begins
anew after an interruption (2.4 deletes what it has) and compares no hashes: a file grows beside its place as
``<hash>.gpt4video.incomplete`` and gets its name when its hash is the one that the hub states.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpt4video_cli.errors import CancelledError, WeightsError

Report = Callable[[str, int], None]
"""Called with ``REPOSITORY/FILE`` and how many of its bytes are there, from several threads."""

CHUNK = 1 << 20
RETRIES = 5
"""How often in a row a broken connection is taken up again without a byte having come."""
INCOMPLETE = ".gpt4video.incomplete"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. ``digest`` is a SHA-256 (64 digits), or for small files git's SHA-1 of the blob (40)."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit."""

    repository: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None = None
    """As its page states it."""
    gated: bool = False


def offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE), as the hub reads it."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE") for name in names)


class Hub:
    """A hub, by default the one of HF_ENDPOINT, with the token and the cache that huggingface_hub would use."""

    def __init__(self, *, endpoint: str | None = None, cache: Path | None = None) -> None:
        from huggingface_hub import constants

        if offline():
            raise WeightsError("the network is not to be used (HF_HUB_OFFLINE)", hint="what is here: models list")
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.cache = cache or Path(constants.HF_HUB_CACHE)

    def listing(self, repository: str, revision: str | None = None) -> Listing:
        """What ``repository`` holds at ``revision`` (a branch, a tag or a commit; None: main), with sizes and hashes.

        Raises ``WeightsError`` for what is not there, not allowed or not reached.
        """
        from huggingface_hub import HfApi

        with self._told(repository, revision):
            info = HfApi(endpoint=self.endpoint).model_info(repository, revision=revision, files_metadata=True)
        files = []
        for item in info.siblings or []:
            digest = item.lfs.sha256 if item.lfs is not None else item.blob_id
            if item.size is None or not digest:
                raise WeightsError(f"{repository}: the hub states no size or hash for {item.rfilename}")
            files.append(HubFile(_safe(item.rfilename, repository), item.size, digest))
        if not info.sha:
            raise WeightsError(f"{repository}: the hub states no commit")
        licence = getattr(info.card_data, "license", None) if info.card_data else None
        return Listing(
            repository,
            revision or "main",
            info.sha,
            tuple(files),
            licence=licence if isinstance(licence, str) else None,
            gated=bool(getattr(info, "gated", False)),
        )

    def blob(self, repository: str, file: HubFile) -> Path:
        """Where the hub's cache keeps the bytes of ``file``."""
        return self._folder(repository) / "blobs" / file.digest

    def bytes_here(self, repository: str, file: HubFile) -> int:
        """How many bytes of ``file`` need not be fetched any more."""
        blob = self.blob(repository, file)
        for path in (blob, blob.with_name(blob.name + INCOMPLETE)):
            if path.is_file():
                return min(path.stat().st_size, file.size)
        return 0

    def fetch(self, listing: Listing, file: HubFile, report: Report, stop: threading.Event) -> Path:
        """Bring ``file`` into the cache, from where it stopped; its path in the snapshot of the listing's commit.

        Raises ``WeightsError``; what has come stays and is used by the next call. ``CancelledError`` after ``stop``.
        """
        from huggingface_hub import hf_hub_download

        blob = self.blob(listing.repository, file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(listing.repository, file), disk_errors(blob):
            if not blob.is_file():
                self._download(listing, file, blob, report, stop)
        report(f"{listing.repository}/{file.path}", file.size)
        with self._told(listing.repository, listing.revision):
            # The blob is there: this only makes the snapshot's link to it, and the branch's note of the commit.
            placed = Path(
                hf_hub_download(
                    listing.repository,
                    file.path,
                    revision=listing.revision,
                    cache_dir=self.cache,
                    endpoint=self.endpoint,
                )
            )
        if self.snapshot(listing) not in placed.parents:
            raise WeightsError(
                f"{listing.repository}: {listing.revision} moved to another commit meanwhile", hint="run it again"
            )
        return placed

    def snapshot(self, listing: Listing) -> Path:
        """The cache's folder of the listing's commit."""
        return self._folder(listing.repository) / "snapshots" / listing.commit

    def _folder(self, repository: str) -> Path:
        return self.cache / f"models--{repository.replace('/', '--')}"

    @contextmanager
    def _lock(self, repository: str, file: HubFile) -> Iterator[None]:
        """The lock that huggingface_hub takes for the same blob, so that nobody fetches it twice at once."""
        from filelock import FileLock

        path = self.cache / ".locks" / self._folder(repository).name / f"{file.digest}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, mode=0o664):
            yield

    def _download(self, listing: Listing, file: HubFile, blob: Path, report: Report, stop: threading.Event) -> None:
        partial = blob.with_name(blob.name + INCOMPLETE)
        name = f"{listing.repository}/{file.path}"
        failures = told = 0
        with partial.open("ab+") as out:
            digest, have = _digest_so_far(out, file)
            while have < file.size or not file.size:
                before = have
                try:
                    for piece, start in self._pieces(listing, file, have):
                        if stop.is_set():
                            raise CancelledError("stopped")
                        if start is not None and start != have:  # the server sends the whole file again
                            out.truncate(0)
                            digest, have = _new_digest(file), 0
                        out.write(piece)
                        digest.update(piece)
                        have += len(piece)
                        if have > file.size:
                            raise WeightsError(f"{name}: longer than the {file.size} bytes that the hub states")
                        if have - told >= CHUNK or have < told:
                            report(name, have)
                            told = have
                    if have >= file.size:
                        break
                    reason: Exception = ConnectionError(f"the connection ended at byte {have} of {file.size}")
                except _transport_errors() as error:
                    reason = error
                failures = 1 if have > before else failures + 1
                if failures > RETRIES:
                    raise WeightsError(
                        f"{name}: {_first_line(reason)}", hint="run it again: it goes on from there"
                    ) from reason
                time.sleep(min(0.1 * 2**failures, 5.0))
            if digest.hexdigest() != file.digest:
                out.truncate(0)
                partial.unlink()
                raise WeightsError(
                    f"{name}: its hash is {digest.hexdigest()[:12]}..., the hub states {file.digest[:12]}...",
                    hint="it was thrown away; run it again, and if that gives the same, do not trust this source",
                )
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, blob)

    def _pieces(self, listing: Listing, file: HubFile, have: int) -> Iterator[tuple[bytes, int | None]]:
        """The bytes from ``have`` on, each with the place where the server's answer begins (with the first piece)."""
        from huggingface_hub import get_token, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(listing.repository, file.path, revision=listing.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=get_token(), library_name="gpt4video") | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream("GET", url, headers=headers, timeout=60.0) as response:
            if response.status_code >= 500 or response.status_code in (408, 429):
                raise ConnectionError(f"{self.endpoint} answers {response.status_code}")
            if response.status_code >= 400:
                response.read()
                with self._told(listing.repository, listing.revision):
                    hf_raise_for_status(response)
            start: int | None = have if response.status_code == 206 else 0
            for piece in response.iter_bytes():  # as they come: what waited for a whole chunk would be lost
                yield piece, start
                start = None

    @contextmanager
    def _told(self, repository: str, revision: str | None) -> Iterator[None]:
        """huggingface_hub's errors as lines that say what to do."""
        from huggingface_hub import errors

        page = f"{self.endpoint}/{repository}"
        try:
            yield
        except errors.GatedRepoError as error:
            raise WeightsError(
                f"{repository}: its owner must let you in first",
                hint=f"accept the terms at {page}, then give your token: hf auth login, or HF_TOKEN=...",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise WeightsError(f"{repository}: no revision {revision!r}", hint="the card names another one") from error
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"{repository}: not on {self.endpoint}, or not for everybody",
                hint="if it is private, give your token: hf auth login, or HF_TOKEN=...",
            ) from error
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            hint = "give a valid token: hf auth login, or HF_TOKEN=..." if status in (401, 403) else "try again later"
            raise WeightsError(f"{repository}: {self.endpoint} answers {status}", hint=hint) from error
        except errors.HFValidationError as error:
            raise WeightsError(f"{repository}: {_first_line(error)}") from error
        except _transport_errors() as error:
            raise WeightsError(
                f"{urlsplit(self.endpoint).netloc} cannot be reached ({_first_line(error)})",
                hint="is there a network? HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy",
            ) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a connection that fails or breaks off raises, of whichever HTTP library huggingface_hub uses."""
    from huggingface_hub import errors

    return (errors.HTTPError, ConnectionError, TimeoutError)


def _new_digest(file: HubFile) -> Any:
    if len(file.digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def _digest_so_far(out: Any, file: HubFile) -> tuple[Any, int]:
    """The hash of what an earlier run left, and its length; what is too long is thrown away."""
    digest, have = _new_digest(file), 0
    if out.seek(0, os.SEEK_END) > file.size:
        out.truncate(0)
    out.seek(0)
    while piece := out.read(CHUNK):
        digest.update(piece)
        have += len(piece)
    return digest, have


def digest_of(path: Path, like: HubFile) -> str:
    """The hash of the file ``path``, of the kind that ``like`` has."""
    with path.open("rb") as file:
        digest = _new_digest(like)
        while piece := file.read(CHUNK):
            digest.update(piece)
    return str(digest.hexdigest())


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file ``path``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safe(path: str, repository: str) -> str:
    """``path`` if it stays inside its repository's folder."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise WeightsError(f"{repository}: has a file called {path!r}, which is refused")
    return path


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, as a line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WeightsError(
                f"{path.parent}: the disk is full", hint="free some space and run it again: it goes on from there"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise WeightsError(f"{path.parent}: cannot be written ({error.strerror})") from error
        raise


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
