"""One file over http or https into a folder, bounded in size and time, and from public addresses only.

A host's addresses are looked up here and the connection is made to the one that was judged, so that a name which means
something else a moment later (DNS rebinding) changes nothing; each redirect is judged in the same way. Proxies that the
environment names are not used: nobody could say what they connect to.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from gpt4video_cli import __version__
from gpt4video_cli.errors import CancelledError, ClipError
from gpt4video_cli.video.url import FetchLimits, Tell

CHUNK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291; ``is_global`` passes site-local addresses and ::a.b.c.d
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_PAGES = re.compile(
    r"text/|application/(json|xhtml\+xml|xml|javascript|dash\+xml|(vnd\.apple\.|x-)mpegurl)|audio/(x-)?mpegurl"
)
"""Content types of what is no clip itself but may lead to one: pages and play lists."""


@dataclass(frozen=True)
class Fetched:
    """``path`` None: the server has a page there, of this content type, and no clip."""

    path: str | None
    content_type: str


class Watch:
    """A deadline, and a wish to stop, for what blocks in a socket: ``guard`` ends a connection when either comes."""

    def __init__(self, url: str, limits: FetchLimits, cancel: threading.Event | None) -> None:
        self._url = url
        self._limits = limits
        self._cancel = cancel
        self._deadline = time.monotonic() + limits.total

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.left <= 0 or (self._cancel is not None and self._cancel.is_set())

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise ``CancelledError`` or ``ClipError`` where it is time to stop."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(f"{self._url}: fetching was stopped")
        if self.left <= 0:
            raise ClipError(
                self._url, f"was not fetched within {self._limits.total:g} s", hint="--url-time gives it more"
            )

    @contextmanager
    def guard(self, connection: socket.socket) -> Iterator[None]:
        """Shut ``connection`` down when it is time to stop, whoever reads from it then."""
        done, handle = threading.Event(), connection.dup()

        def watch() -> None:
            while not done.wait(0.1):
                if self.over:
                    with suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            handle.close()


def fetch(
    url: str, folder: str, limits: FetchLimits, *, tell: Tell | None = None, watch: Watch | None = None
) -> Fetched:
    """The file at ``url`` as a new file in ``folder``. Raises ``ClipError`` naming ``url``, and leaves nothing then."""
    watch = watch or Watch(url, limits, None)
    place = url
    for _ in range(limits.redirects + 1):
        watch.check()
        found = _ask(url, place, folder, limits, tell, watch)
        if isinstance(found, Fetched):
            return found
        try:
            place = urljoin(place, found)
        except ValueError as error:
            raise ClipError(url, f"sends on to what is no address ({error})") from None
    raise ClipError(url, f"leads on more than {limits.redirects} times")


def _ask(url: str, place: str, folder: str, limits: FetchLimits, tell: Tell | None, watch: Watch) -> Fetched | str:
    """What is at ``place``, or where it sends on to."""
    parts = _parts(url, place)
    try:
        connected = _connect(url, parts, limits, watch)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=limits.idle)
        with connected, watch.guard(connected):
            connection.sock = connected if parts.scheme == "http" else _secured(connected, parts.hostname or "")
            try:
                target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
                query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
                connection.request("GET", target + query, headers=_HEADERS)
                with connection.getresponse() as response:
                    return _take(url, parts, response, folder, limits, tell, watch)
            finally:
                connection.close()
    except (OSError, http.client.HTTPException) as error:
        watch.check()  # a connection that was shut down at the deadline fails in many ways
        raise ClipError(url, f"cannot be fetched: {_why(error, limits)}") from error


_HEADERS = {
    "User-Agent": f"gpt4video/{__version__}",
    "Accept": "video/*, image/*;q=0.9, */*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


def _parts(url: str, place: str) -> SplitResult:
    try:
        parts = urlsplit(place)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:  # UnicodeError is one
        raise ClipError(url, f"is no address that can be read ({error})") from None
    where = "" if place == url else f" (sent on to {place[:200]})"
    if parts.scheme not in ("http", "https"):
        raise ClipError(url, f"only http and https are fetched, not {parts.scheme or 'nothing'}{where}")
    if not parts.hostname:
        raise ClipError(url, f"names no host{where}")
    if parts.username is not None or parts.password is not None:
        raise ClipError(url, "holds a name or a password, which a conversation would keep", hint="fetch it first")
    return parts


def _connect(url: str, parts: SplitResult, limits: FetchLimits, watch: Watch) -> socket.socket:
    """A connection to one of the host's addresses that may be used."""
    host = parts.hostname or ""
    found = _resolve(host, parts.port or (443 if parts.scheme == "https" else 80), limits, watch)
    usable = [one for one in found if limits.private or is_public(str(one[4][0]))]
    if not usable:
        raise ClipError(
            url,
            f"{host} is {found[0][4][0]}, an address of a private network or of this machine",
            hint="--allow-private-urls allows it",
        )
    failed: OSError | None = None
    for family, kind, protocol, _, address in usable:
        watch.check()
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(0.01, min(limits.idle, watch.left)))
            with watch.guard(connection):
                connection.connect(address)
            connection.settimeout(limits.idle)
            return connection
        except OSError as error:
            connection.close()
            failed = error
        except BaseException:
            connection.close()
            raise
    assert failed is not None
    raise failed


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...]]


def _resolve(host: str, port: int, limits: FetchLimits, watch: Watch) -> list[_Address]:
    """The addresses of ``host``. In a thread of its own: the resolver has no time limit and does not hear Ctrl-C."""
    found: list[_Address | OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            found.append(error if isinstance(error, OSError) else OSError(str(error)))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    latest = time.monotonic() + limits.idle
    while thread.is_alive() and not watch.over and time.monotonic() < latest:
        thread.join(min(0.1, limits.idle))
    if not found:
        watch.check()
        raise TimeoutError(f"no answer to the question where {host} is")
    if isinstance(found[0], OSError):
        raise found[0]
    return [one for one in found if not isinstance(one, OSError)]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not private, loopback, link-local, shared, multicast or
    reserved, nor an IPv6 address that stands for such an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in _GLOBAL_UNICAST and ip not in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast and all(one is None or is_public(str(one)) for one in inner)


def _secured(connection: socket.socket, host: str) -> socket.socket:
    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)


def _take(
    url: str,
    parts: SplitResult,
    response: http.client.HTTPResponse,
    folder: str,
    limits: FetchLimits,
    tell: Tell | None,
    watch: Watch,
) -> Fetched | str:
    """The body as a file; of a redirect where it leads, of a page only its type."""
    if response.status in _REDIRECTS:
        target = response.getheader("Location")
        if not target:
            raise ClipError(url, f"the server sends on ({response.status}) without saying where to")
        with suppress(UnicodeError):  # http.client reads headers as Latin-1; many servers write UTF-8
            target = target.encode("latin-1").decode("utf-8")
        return target
    if response.status != 200:
        raise ClipError(url, f"the server answered {response.status} {response.reason[:100]}".rstrip())
    kind = response.headers.get_content_type() if response.getheader("Content-Type") else ""
    if _PAGES.match(kind):
        return Fetched(None, kind)
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise ClipError(url, f"is sent compressed ({response.getheader('Content-Encoding')}), which was not asked for")
    total = response.length
    if total is not None and total > limits.bytes:
        raise _too_large(url, limits, total)
    suffix = os.path.splitext(parts.path)[1]
    handle, path = tempfile.mkstemp(suffix if _SUFFIX.fullmatch(suffix) else "", "clip-", folder)
    try:
        with os.fdopen(handle, "wb") as file:
            received = 0
            while (total is None or received < total) and (piece := response.read1(CHUNK)):
                piece = piece if total is None else piece[: total - received]
                received += len(piece)
                if received > limits.bytes:
                    raise _too_large(url, limits, None)
                try:
                    file.write(piece)
                except OSError as error:
                    raise ClipError(url, f"cannot be kept in {folder}: {error.strerror or error}") from error
                watch.check()
                if tell is not None:
                    tell(received, total)
        watch.check()  # shut down at the deadline, a body without a length just ends
        if total is not None and received < total:
            raise ClipError(url, f"the connection ended after {received} of {total} bytes")
        if not received:
            raise ClipError(url, "is empty (0 bytes)")
    except BaseException:
        os.unlink(path)
        raise
    return Fetched(path, kind)


def _too_large(url: str, limits: FetchLimits, total: int | None) -> ClipError:
    size = "" if total is None else f"has {total / 1e6:.1f} MB, which "
    return ClipError(url, f"{size}is more than the limit of {limits.bytes / 1e6:g} MB", hint="--url-size raises it")


def _why(error: Exception, limits: FetchLimits) -> str:
    if isinstance(error, TimeoutError):
        return str(error) if "where" in str(error) else f"nothing came for {limits.idle:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended in the middle"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"the server does not speak HTTP ({type(error).__name__}: {str(error)[:100]})"
