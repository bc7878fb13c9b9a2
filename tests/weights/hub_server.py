"""A hub on the loopback address: the calls that huggingface_hub makes to list and fetch a model, and their failures."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 4096
"""Bytes from which on a file is stated with a SHA-256, as the hub does for files in its large-file store."""
CHUNK = 1 << 16


@dataclass
class Repository:
    """Files by path, and what goes wrong with them. ``token``: who has it may read, others meet a gate."""

    files: dict[str, bytes]
    licence: str = "apache-2.0"
    token: str | None = None
    cut: dict[str, int] = field(default_factory=dict)
    """Path -> the connection ends after so many bytes of the file, once."""
    flipped: set[str] = field(default_factory=set)
    """Paths that are sent with one bit turned."""
    seconds_per_chunk: float = 0.0
    honours_ranges: bool = True
    status: int = 200

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class HubServer:
    """``requests``: method, path and Range header of each; ``sent``: bytes of each file's content that went out."""

    url: str
    repositories: dict[str, Repository]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)

    def fetched(self) -> list[tuple[str, str | None]]:
        """Path and range of each request for a file's content."""
        return [(path, span) for method, path, span in self.requests if method == "GET" and "/resolve/" in path]


@contextmanager
def serve_hub(repositories: dict[str, Repository]) -> Iterator[HubServer]:
    """A hub with ``repositories`` (``owner/name``), until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}", repositories)
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def digest(content: bytes) -> str:
    """As the hub states it: SHA-256 of large files, git's hash of the blob of small ones."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' stderr."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._list(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups(), body=body)
        else:
            self._say(404, {"error": "not found"}, code="EntryNotFound")

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        """The repository if it is there and may be read; else it is refused."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._say(401, {"error": "Repository not found"}, code="RepoNotFound")
        elif repository.status != 200:
            self._say(repository.status, {"error": "not now"})
        elif repository.token is not None and self.headers.get("Authorization") != f"Bearer {repository.token}":
            self._say(403 if self.headers.get("Authorization") else 401, {"error": "gated"}, code="GatedRepo")
        elif revision not in (None, "main", repository.commit):
            self._say(404, {"error": "no such revision"}, code="RevisionNotFound")
        else:
            return repository
        return None

    def _list(self, name: str, revision: str | None) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        siblings = []
        for path, content in repository.files.items():
            item: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": digest(content)}
            if len(content) >= LARGE:
                item["blobId"] = "0" * 40
                item["lfs"] = {"sha256": digest(content), "size": len(content), "pointerSize": 130}
            siblings.append(item)
        card = {"license": repository.licence}
        self._say(200, {"id": name, "sha": repository.commit, "siblings": siblings, "cardData": card, "gated": False})

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        content = repository.files.get(path)
        if content is None:
            self._say(404, {"error": "no such file"}, code="EntryNotFound")
            return
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found and repository.honours_ranges:
            start = int(found.group(1))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{digest(content)}"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self._send(repository, path, content, start)

    def _send(self, repository: Repository, path: str, content: bytes, start: int) -> None:
        if path in repository.flipped:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        end = repository.cut.pop(path, len(content))
        for place in range(start, end, CHUNK):
            piece = content[place : min(place + CHUNK, end)]
            try:
                self.wfile.write(piece)
                self.wfile.flush()
            except OSError:
                return
            self.hub.sent[path] = self.hub.sent.get(path, 0) + len(piece)
            time.sleep(repository.seconds_per_chunk)
        if end < len(content):
            self.close_connection = True
            self.connection.close()

    def _say(self, status: int, content: object, *, code: str | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
