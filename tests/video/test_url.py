"""Clips at addresses: fetched whole or not at all, within limits, and from nowhere that was not judged before."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.errors import CancelledError, ClipError, UsageError
from gpt4video_cli.video import http_fetch
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.http_fetch import fetch, is_public
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import FetchLimits, Spool, full_path, here, hold, local, release, use_spool
from gpt4video_cli.video.writer import write_mp4
from tests.video.web_server import Server, serve

OPEN = FetchLimits(private=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mp4(tmp_path_factory.mktemp("clips") / "clip.mp4", np.full((8, 32, 48, 3), 90, np.uint8), 8)


@pytest.fixture(scope="module")
def server(clip: Path) -> Iterator[Server]:
    with serve(clip) as server:
        yield server


@pytest.fixture(autouse=True)
def forget(server: Server) -> Iterator[None]:
    server.requests.clear()
    server.hosts.clear()
    yield
    use_spool(Spool())


def refused(url: str, folder: Path, limits: FetchLimits = OPEN) -> str:
    """The error's line; nothing may be left of the file."""
    with pytest.raises(ClipError) as raised:
        fetch(url, str(folder), limits)
    assert raised.value.path == url and not list(folder.iterdir())
    assert "\n" not in raised.value.line()
    return raised.value.line()


@pytest.mark.parametrize(
    "path",
    ["/clip.mp4", "/clip.mp4?token=a/b&c=d e", "/a b.mp4", "/kept-open.mp4", "/no-length.mp4", "/chunked.mp4",
     "/long.mp4", "/to//clip.mp4", "/to//to//clip.mp4"],
)  # fmt: skip
def test_a_clip_is_fetched_whole(path: str, server: Server, clip: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    began = time.monotonic()
    found = fetch(server.url(path), str(tmp_path), OPEN, tell=lambda *one: told.append(one))
    assert found.path is not None and Path(found.path).read_bytes() == clip.read_bytes()
    assert found.path.endswith(".mp4" if "?" in path or path.endswith(".mp4") else "")
    assert told[-1][0] == clip.stat().st_size and time.monotonic() - began < 5


def test_a_redirect_in_utf_8_is_quoted(server: Server, tmp_path: Path) -> None:
    assert fetch(server.url("/umlaut"), str(tmp_path), OPEN).path
    assert server.requests == ["/umlaut", "/clip.mp4?%C3%BC"]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/missing.mp4", "the server answered 404 Not Found"),
        ("/short.mp4", "the connection ended after"),
        ("/cut-chunks.mp4", "the connection ended in the middle"),
        ("/empty.mp4", "is empty (0 bytes)"),
        ("/packed.mp4", "is sent compressed (gzip)"),
        ("/loop", "leads on more than 5 times"),
        ("/nowhere", "sends on (301) without saying where to"),
        ("/to/file:///etc/passwd", "only http and https are fetched, not file"),
        ("/to/http://a:b@127.0.0.1/", "a name or a password"),
        ("/astray", "sends on to what is no address"),
        ("/claims-much.mp4", "has 1000000.0 MB, which is more than the limit of 2000 MB; --url-size raises it"),
        ("/no-http.mp4", "the server does not speak HTTP"),
    ],
)
def test_what_is_no_whole_clip_is_named(path: str, part: str, server: Server, tmp_path: Path) -> None:
    assert part in refused(server.url(path), tmp_path)


@pytest.mark.parametrize(
    ("path", "limits", "part"),
    [
        ("/endless.mp4", FetchLimits(bytes=1_000_000, private=True), "more than the limit of 1 MB"),
        ("/slow.mp4", FetchLimits(total=0.5, private=True), "was not fetched within 0.5 s; --url-time"),
        ("/slow-head.mp4", FetchLimits(total=0.5, private=True), "was not fetched within 0.5 s"),
        ("/silent.mp4", FetchLimits(total=0.5, private=True), "was not fetched within 0.5 s"),
        ("/silent.mp4", FetchLimits(idle=0.3, private=True), "nothing came for 0.3 s"),
    ],
)
def test_what_never_ends_is_ended(path: str, limits: FetchLimits, part: str, server: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    assert part in refused(server.url(path), tmp_path, limits)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:99999/", "ftp://a/b", "http://a..b/c"])
def test_what_is_no_address(url: str, tmp_path: Path) -> None:
    refused(url, tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert "Connection refused" in refused(f"http://127.0.0.1:{port}/", tmp_path)


# --- private addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False),
        ("::", False), ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False), ("fec0::1", False), ("::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"])
def test_this_machine_is_not_asked(host: str, server: Server, tmp_path: Path) -> None:
    assert "--allow-private-urls" in refused(server.url("/clip.mp4", host), tmp_path, FetchLimits())
    assert not server.requests


def test_a_redirect_to_a_private_address_is_not_followed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_fetch, "is_public", lambda address: address == "127.0.0.1")
    target = server.url("/clip.mp4", "127.0.0.2")
    assert "127.0.0.2 is 127.0.0.2, an address of a private" in refused(
        server.url(f"/to/{target}"), tmp_path, FetchLimits()
    )
    assert server.requests == [f"/to/{target}"]


def answering(*addresses: str) -> Any:
    """A resolver that answers once; what asks again gets this machine's address, as in a rebinding attack."""
    left = [addresses]

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        found = left.pop() if left else ("127.0.0.1",)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return getaddrinfo


def test_the_address_that_was_judged_is_the_one_that_is_asked(
    server: Server, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_fetch, "is_public", lambda address: address == "127.0.0.9")
    monkeypatch.setattr(socket, "getaddrinfo", answering("127.0.0.9"))
    # Nobody listens at 127.0.0.9; looking the name up again would lead to the server.
    assert "cannot be fetched" in refused(server.url("/clip.mp4", "clips.example"), tmp_path, FetchLimits())
    monkeypatch.setattr(socket, "getaddrinfo", answering("127.0.0.1", "127.0.0.9"))
    assert "cannot be fetched" in refused(server.url("/clip.mp4", "clips.example"), tmp_path, FetchLimits())
    assert not server.requests, "of several addresses only those that may be used are tried"
    monkeypatch.setattr(http_fetch, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", answering("127.0.0.9", "127.0.0.1"))
    assert fetch(server.url("/clip.mp4", "clips.example"), str(tmp_path), FetchLimits()).path
    assert server.hosts == [f"clips.example:{server.server_port}"]


def test_a_resolver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2) or [])
    assert "no answer to the question where clips.example is" in refused(
        "http://clips.example/", tmp_path, FetchLimits(idle=0.2)
    )


def test_proxies_of_the_environment_are_not_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(server.url("/clip.mp4"), str(tmp_path), OPEN).path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_only_with_a_certificate_that_is_trusted(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True
    )
    with serve(clip) as secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        url = f"https://localhost:{secure.server_port}/clip.mp4"
        assert "its certificate is not valid" in refused(url, folder)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        found = fetch(url, str(folder), OPEN)
        assert found.path is not None and Path(found.path).read_bytes() == clip.read_bytes()


# --- the spool ----------------------------------------------------------------------------------------------------


def test_whatever_opens_a_clip_opens_the_fetched_file(server: Server, clip: Path) -> None:
    use_spool(Spool(OPEN))
    url = server.url("/clip.mp4")
    with FrameReader() as reader:
        seen, of_file = (reader.read(path, SamplingPlan(frames=2)) for path in (url, clip))
        assert reader.probe(url)["path"] == url
        assert reader.survey(url, 2, min_side=16).sha256 == fingerprint(clip)
    assert np.array_equal(seen.frames, of_file.frames) and seen.receipt.path == url == full_path(url)
    assert seen.receipt.sha256 == of_file.receipt.sha256 == fingerprint(url)
    assert server.requests == ["/clip.mp4"], "it is fetched once"
    assert local(clip) == str(clip) and local("http.mp4") == "http.mp4"


def test_errors_name_the_address(server: Server) -> None:
    use_spool(Spool(OPEN))
    with FrameReader() as reader, pytest.raises(ClipError, match=r"^http://.*/missing.mp4: the server answered 404"):
        reader.read(server.url("/missing.mp4"), SamplingPlan(frames=2))


def test_the_last_who_lets_go_removes_the_file(server: Server) -> None:
    spool = use_spool(Spool(OPEN))
    url = server.url("/clip.mp4")
    hold([url, "no/address.mp4"])
    hold([url])
    path = local(url)
    release([url])
    assert os.path.isfile(path) and here(url) == path
    release([url, "no/address.mp4"])
    assert not os.path.exists(path) and here(url) == url
    assert local(url) and len(server.requests) == 2, "asked for again, it is fetched again"
    folder = os.path.dirname(here(url))
    spool.close()
    assert not os.path.exists(folder)


def test_two_threads_fetch_once_and_a_stop_ends_them(server: Server) -> None:
    spool = Spool(OPEN)
    url = server.url("/clip.mp4")
    threads = [threading.Thread(target=spool.local, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == ["/clip.mp4"]
    threading.Timer(0.3, spool.stop).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        spool.local(server.url("/slow.mp4"))
    assert time.monotonic() - began < 3
    assert len(os.listdir(os.path.dirname(spool.here(url)))) == 1, "the unfinished file is gone"
    spool.close()


def test_a_stop_ends_the_waiting_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for other in (first, second):  # nobody accepts; from now on what comes is dropped
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        for resolve in (socket.getaddrinfo, lambda *_, **__: time.sleep(4) or []):
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            spool = Spool(OPEN)
            threading.Timer(0.3, spool.stop).start()
            began = time.monotonic()
            with pytest.raises(CancelledError):
                spool.local(f"http://127.0.0.1:{full.getsockname()[1]}/clip.mp4")
            assert 0.2 < time.monotonic() - began < 3
            spool.close()


def test_limits_that_are_none() -> None:
    for wrong in ({"bytes": 0}, {"total": 0.0}, {"total": float("nan")}, {"idle": -1.0}):
        with pytest.raises(UsageError):
            FetchLimits(**wrong)  # type: ignore[arg-type]


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def yt_dlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH, in which ``script`` makes the program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def script(folder: Path, text: str) -> None:
    path = folder / "yt-dlp"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_page_without_yt_dlp(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClipError, match=r"is a page \(text/html\), not a clip") as raised:
        Spool(OPEN).local(server.url("/page"))
    assert "install yt-dlp" in raised.value.line()


def test_yt_dlp_fetches_what_a_page_has(server: Server, clip: Path, yt_dlp: Path, tmp_path: Path) -> None:
    script(yt_dlp, f'printf "%s\\n" "$@" > {tmp_path}/arguments; cp {clip} clip.mp4; echo junk > clip.webm.part')
    spool = Spool(OPEN)
    url = server.url("/page")
    path = spool.local(url)
    assert Path(path).read_bytes() == clip.read_bytes()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["--", url] and "--no-playlist" in arguments
    assert arguments[arguments.index("--max-filesize") + 1] == str(OPEN.bytes)
    assert spool.local(server.url("/clip.mp4")) and len((tmp_path / "arguments").read_text().splitlines()) == len(
        arguments
    ), "a clip is no page"
    spool.close()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("echo 'ERROR: Unsupported URL: x' >&2; exit 1", "yt-dlp fetched nothing: ERROR: Unsupported URL: x"),
        ("exit 0", "yt-dlp fetched nothing: it ended with 0"),
        ("head -c 300000 /dev/zero > clip.mp4", "yt-dlp fetched more than the limit of 0.2 MB"),
        ("(while :; do head -c 100000 /dev/zero; sleep 0.02; done) > clip.mp4.part", "more than the limit of 0.2 MB"),
        ("sleep 30 & wait", "was not fetched within 1.5 s"),
    ],
)
def test_what_yt_dlp_cannot_or_will_not_end(text: str, part: str, server: Server, yt_dlp: Path) -> None:
    script(yt_dlp, text)
    spool = Spool(FetchLimits(bytes=200_000, total=1.5, private=True))
    began = time.monotonic()
    with pytest.raises(ClipError) as raised:
        spool.local(server.url("/page"))
    assert part in raised.value.line() and time.monotonic() - began < 6
    assert spool._folder is not None and not os.listdir(spool._folder.name)
    spool.close()
