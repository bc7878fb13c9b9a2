"""A web server on this machine that behaves in all the ways that servers do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """``clip``: the file at /clip.mp4. ``requests``: the paths that were asked for, ``hosts`` by what name."""

    daemon_threads = True

    def __init__(self, clip: Path, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Handler)
        self.clip = clip
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.over = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.hosts.append(self.headers["Host"])
        content = self.server.clip.read_bytes()
        path = self.path.partition("?")[0]
        if path in ("/clip.mp4", "/a b.mp4", "/a%20b.mp4"):
            self.answer({"Content-Type": "video/mp4", "Content-Length": str(len(content))}, content)
        elif path == "/kept-open.mp4":
            self.answer({"Content-Length": str(len(content))}, content)
            self.server.over.wait(20)
        elif path == "/no-length.mp4":
            self.answer({}, content)
        elif path == "/chunked.mp4":
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:99], content[99:]))
            self.answer({"Transfer-Encoding": "chunked"}, chunks + b"0\r\n\r\n")
        elif path == "/cut-chunks.mp4":
            self.answer({"Transfer-Encoding": "chunked"}, b"ffff\r\n" + content[:99])
        elif path == "/short.mp4":
            self.answer({"Content-Length": str(len(content) + 1)}, content)
        elif path == "/long.mp4":
            self.answer({"Content-Length": str(len(content))}, content + b"more than that")
        elif path == "/claims-much.mp4":
            self.answer({"Content-Length": str(10**12)}, b"")
        elif path == "/empty.mp4":
            self.answer({"Content-Length": "0"}, b"")
        elif path == "/packed.mp4":
            self.answer({"Content-Encoding": "gzip", "Content-Length": "3"}, b"abc")
        elif path == "/page":
            self.answer({"Content-Type": "text/html; charset=utf-8", "Content-Length": "6"}, b"<html>")
        elif path == "/endless.mp4":
            self.answer({"Content-Type": "video/mp4"}, b"")
            while not self.server.over.is_set():
                self.wfile.write(bytes(1 << 16))
        elif path == "/slow.mp4":
            self.answer({"Content-Type": "video/mp4", "Content-Length": "1000000"}, b"")
            while not self.server.over.wait(0.05):
                self.wfile.write(b"x")
        elif path == "/silent.mp4":
            self.server.over.wait(20)
        elif path == "/slow-head.mp4":
            while not self.server.over.wait(0.05):
                self.wfile.write(b"H")
        elif path == "/no-http.mp4":
            self.wfile.write(b"220 this is a mail server\r\n")
        elif path.startswith("/to/"):
            self.answer({"Location": self.path.removeprefix("/to/"), "Content-Length": "0"}, b"", 302)
        elif path == "/umlaut":
            self.answer({"Location": "/clip.mp4?ü".encode().decode("latin-1"), "Content-Length": "0"}, b"", 302)
        elif path == "/astray":
            self.answer({"Location": "http://[x", "Content-Length": "0"}, b"", 302)
        elif path == "/loop":
            self.answer({"Location": "/loop", "Content-Length": "0"}, b"", 307)
        elif path == "/nowhere":
            self.answer({"Content-Length": "0"}, b"", 301)
        else:
            self.answer({"Content-Length": "0"}, b"", 404)

    def answer(self, headers: dict[str, str], body: bytes, code: int = 200) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the other side has enough
            time.sleep(0)


@contextmanager
def serve(clip: Path) -> Iterator[Server]:
    """A server that is there inside the ``with``."""
    server = Server(clip)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
