"""Clips on pages that the program yt-dlp knows, where it is installed. It runs as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.http_fetch import Watch
from gpt4video_cli.video.url import FetchLimits

PROGRAM = "yt-dlp"
_UNFINISHED = (".part", ".ytdl", ".temp")


def fetch_from_page(url: str, content_type: str, folder: str, limits: FetchLimits, watch: Watch) -> str:
    """The path of the page's clip, a new file in ``folder``. Raises ``ClipError``.

    yt-dlp makes connections of its own, which are not judged here; so its reader for pages that it does not know, which
    follows whatever such a page names, is on only where private addresses are allowed anyway.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ClipError(
            url,
            f"is a page ({content_type}), not a clip",
            hint="give the address of the clip itself, or install yt-dlp",
        )
    place = tempfile.mkdtemp(prefix="page-", dir=folder)
    sites = "default" if limits.private else "default,-generic"
    command = [program, "--ignore-config", "--no-playlist", "--no-progress", "--no-warnings", "--no-mtime"]
    command += ["--use-extractors", sites, "--max-filesize", str(limits.bytes), "--format-sort", "res:720"]
    command += ["--output", "clip.%(ext)s", "--", url]
    try:
        with tempfile.TemporaryFile() as said:
            code = _run(command, place, said.fileno(), url, limits, watch)
            said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
            last = said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        found = sorted((size, path) for path, size in _files(place) if not path.endswith(_UNFINISHED))
        if code or not found:
            raise ClipError(url, f"yt-dlp fetched nothing: {last[-200:] or f'it ended with {code}'}")
        if found[-1][0] > limits.bytes:
            raise _too_much(url, limits)
        return found[-1][1]
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _run(command: list[str], place: str, said: int, url: str, limits: FetchLimits, watch: Watch) -> int:
    """The exit status. Whatever ends the waiting ends the process and what it started, such as ffmpeg."""
    try:
        process = subprocess.Popen(
            command, cwd=place, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    except OSError as error:
        raise ClipError(url, f"{command[0]} cannot be started: {error.strerror or error}") from error
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            watch.check()
            # Two streams of a clip lie there, and then both together: three times its size at most.
            if sum(size for _, size in _files(place)) > 3 * limits.bytes:
                raise _too_much(url, limits)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _files(place: str) -> list[tuple[str, int]]:
    found = []
    for entry in os.scandir(place):
        with suppress(FileNotFoundError):  # renamed in between
            if entry.is_file(follow_symlinks=False):
                found.append((entry.path, entry.stat(follow_symlinks=False).st_size))
    return found


def _too_much(url: str, limits: FetchLimits) -> ClipError:
    return ClipError(
        url, f"yt-dlp fetched more than the limit of {limits.bytes / 1e6:g} MB", hint="--url-size raises it"
    )
