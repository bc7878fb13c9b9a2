"""The film strip: what is drawn on which terminal, and that nothing is asked, lost or raised."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pytest
from PIL import Image

from gpt4video_cli.cli import preview
from gpt4video_cli.cli.preview import _layout, _Terminal, draw_strip, drawing_of, show_seen, spread, strip_image
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "kernels")!r}]
import numpy as np
from gpt4video_cli.cli.preview import draw_strip
frames = np.full((16, 48, 64, 3), (20, 200, 30), np.uint8)
frames[0], frames[-1] = (250, 10, 10), (10, 10, 250)
"""


def environment_of(kind: str) -> dict[str, str]:
    """This process's environment on a terminal of that kind, outside of multiplexers."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX", "STY")}
    return {**kept, "TERM": kind, "PYTHONIOENCODING": "utf-8"}


def film(count: int = 16, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3], each frame of one grey that tells its number."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(height, 1).repeat(width, 2).repeat(3, 3)


class FakeTerminal(io.StringIO):
    """A stream that says it is a terminal, on a pseudo-terminal of a given size."""

    encoding = "utf-8"

    def __init__(self, rows: int, columns: int, cell: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self._ends = pty.openpty()
        size = struct.pack("HHHH", rows, columns, columns * cell[0], rows * cell[1])
        fcntl.ioctl(self._ends[1], termios.TIOCSWINSZ, size)

    def fileno(self) -> int:
        return self._ends[1]

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTerminal]:
    for name in ("NO_COLOR", "TMUX", "STY", "TERM_PROGRAM", "KONSOLE_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    fake = FakeTerminal(30, 100)
    yield fake
    fake.close()


def test_half_blocks_show_the_colours(terminal: FakeTerminal) -> None:
    frames = film(3)
    frames[0], frames[1], frames[2] = (250, 10, 20), (20, 200, 30), (10, 20, 250)
    draw_strip(frames, stream=terminal)
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 12  # 32 columns for each of 3 frames of 4:3
    for line in lines:
        assert re.sub(r"\x1b\[[0-9;]*m", "", line) == "▀" * 98  # 3 x 32 and 2 columns between them
        colours = re.findall(r"\x1b\[38;2;(\d+;\d+;\d+);48;2;(\d+;\d+;\d+)m▀", line)
        assert (
            colours[0] == ("250;10;20",) * 2 and colours[-1] == ("10;20;250",) * 2 and colours[49] == ("20;200;30",) * 2
        )
        assert colours[32] == ("0;0;0",) * 2


@pytest.mark.parametrize("colours", ["256color", ""])
def test_fewer_colours(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch, colours: str) -> None:
    monkeypatch.setenv("TERM", f"xterm-{colours}".rstrip("-"))
    monkeypatch.delenv("COLORTERM")
    draw_strip(film(), stream=terminal)
    assert "▀" in terminal.getvalue() and "38;2" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, "blocks"),
        ({}, "blocks"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230805"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210400"}, "blocks"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "new"}, "blocks"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "WezTerm"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, "blocks"),
        ({"TERM": "foot", "STY": "1.x"}, "blocks"),
    ],
)
def test_what_a_terminal_can_draw(environment: dict[str, str], expected: str) -> None:
    assert drawing_of(environment) == expected


def test_kitty_gets_the_picture(monkeypatch: pytest.MonkeyPatch, terminal: FakeTerminal) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    draw_strip(film(), stream=terminal)
    text = terminal.getvalue()
    sent = "".join(re.findall(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", text))
    with Image.open(io.BytesIO(base64.b64decode(sent))) as picture:
        assert picture.getpixel((0, 0)) == (0, 0, 0)
        assert picture.getpixel((picture.width - 1, 0)) == (15, 15, 15)
    assert text.count("\U0010eeee") == 99 * 9
    assert not re.search(r"a=q", text), "the terminal is asked nothing"


def sixel_size(text: str) -> tuple[int, int]:
    found = re.search(r'\x1bP[^q]*q"1;1;(\d+);(\d+)', text)
    assert found
    return int(found[1]), int(found[2])


def test_sixel_needs_the_size_of_a_cell(monkeypatch: pytest.MonkeyPatch, terminal: FakeTerminal) -> None:
    monkeypatch.setenv("TERM", "foot")
    draw_strip(film(), stream=terminal)
    assert "▀" in terminal.getvalue()
    # In a process of its own, because textual-image remembers the first size that it sees.
    code = PRELUDE + "draw_strip(frames)"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 800, 30 * 17))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env=environment_of("foot")
    ):
        os.close(slave)
        text = b""
        while True:
            try:
                text += os.read(master, 1 << 16)
            except OSError:
                break
    os.close(master)
    width, height = sixel_size(text.decode())
    assert width == 99 * 8 and height % 17 == 0
    assert not re.search(rb"\x1b\[(c|16t|14t|6n)|\x1bP\+q", text), "the terminal is asked nothing"


@pytest.mark.parametrize("change", ["disabled", "NO_COLOR", "dumb", "latin", "narrow", "no terminal"])
def test_where_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, terminal: FakeTerminal, change: str) -> None:
    stream: Any = terminal
    if change == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    elif change == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    elif change == "latin":
        monkeypatch.setattr(FakeTerminal, "encoding", "iso-8859-1")
    elif change == "narrow":
        stream = FakeTerminal(30, 12)
    elif change == "no terminal":
        stream = io.StringIO()
    draw_strip(film(), enabled=change != "disabled", stream=stream)
    assert stream.getvalue() == ""
    if change == "narrow":
        stream.close()


@pytest.mark.parametrize(
    "frames", [film()[:0], film().astype(np.float32), film()[0], film()[:, :, :0], None, film(1), film(2, 1, 4000)]
)
def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch, terminal: FakeTerminal, frames: Any) -> None:
    stdout = sys.__stdout__
    draw_strip(frames, stream=terminal)
    assert sys.__stdout__ is stdout and "TEXTUAL_CELL_WIDTH" not in os.environ
    monkeypatch.setattr(preview, "strip_image", lambda *_, **__: 1 / 0)
    draw_strip(film(), stream=terminal)
    terminal.isatty = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    draw_strip(film(), stream=terminal)


@pytest.mark.parametrize("columns", [20, 40, 80, 100, 132, 200, 400])
@pytest.mark.parametrize("rows", [8, 24, 60])
@pytest.mark.parametrize("shape", [(16, 64, 64), (16, 320, 576), (5, 576, 320), (1, 64, 64), (128, 48, 720)])
def test_the_strip_fits(columns: int, rows: int, shape: tuple[int, int, int]) -> None:
    count, width, height = _layout(_Terminal(columns, rows, None, "blocks"), (*shape, 3))
    if count:
        assert count * (width + 1) - 1 < columns and 1 <= height <= max(2, rows // 2)
        assert count <= min(8, shape[0]) and (count >= min(4, shape[0]))
        assert abs(width / (2 * height) / (shape[2] / shape[1]) - 1) < 0.5 / height + 0.5 / width + 0.35
    else:
        assert columns < 40 or rows < 24


def test_strips_are_made_of_the_right_frames() -> None:
    assert spread(16, 4) == [0, 5, 10, 15] and spread(3, 8) == [0, 1, 2] and spread(1, 8) == [0]
    image = strip_image(film(16), count=4, gap=2)
    assert image.size == (4 * 64 + 3 * 2, 48)
    assert [image.getpixel((66 * n, 0)) for n in range(4)] == [(v, v, v) for v in (0, 5, 10, 15)]
    assert image.getpixel((65, 0)) == (0, 0, 0)
    assert strip_image(film(16), size=(10, 20)).size == (8 * 14 - 4, 20)


def test_what_is_typed_meanwhile_is_not_lost() -> None:
    code = (
        PRELUDE + "import time\nprint('ready', flush=True)\ntime.sleep(0.5)\ndraw_strip(frames)\nprint('got', input())"
    )
    for kind in ("xterm-256color", "xterm-kitty", "foot"):
        arguments: Any = {"env": environment_of(kind), "encoding": "utf-8", "timeout": 30}
        program = pexpect.spawn(sys.executable, ["-c", code], **arguments)
        program.expect("ready")
        program.send("hello there\r")
        program.expect("got hello there")
        drawn = program.before or ""
        assert ("\x1b_G" in drawn) if kind == "xterm-kitty" else ("▀" in drawn)
        assert not re.search(r"\x1b\[(c|16t|14t|6n)|a=q", drawn)
        program.close()


def test_drawing_is_quick(terminal: FakeTerminal) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (24, 320, 576, 3)).astype(np.uint8)
    draw_strip(frames, stream=terminal)
    start = time.perf_counter()
    draw_strip(frames, stream=terminal)
    seconds = time.perf_counter() - start
    print(f"a strip of 576x320 frames: {seconds:.3f} s")
    assert seconds < 1


@pytest.mark.parametrize("mode", ["exact", "keyframe"])
def test_the_moments_that_were_seen_are_read_again(
    monkeypatch: pytest.MonkeyPatch, terminal: FakeTerminal, clip: Path, tmp_path: Path, mode: Any
) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(preview, "draw_strip", drawn.append)
    still = tmp_path / "still.png"
    Image.new("RGB", (40, 30), (1, 2, 3)).save(still)
    with FrameReader() as reader:
        for path, seen, read in ((clip, 20, 8), (clip, 3, 3), (still, 1, 1)):
            first = reader.read(path, SamplingPlan(frames=seen, mode=mode))
            show_seen(str(path), first.receipt, reader)
            if mode == "exact":
                assert np.array_equal(drawn[-1], first.frames[spread(seen, read)])
            assert len(drawn[-1]) <= 8
        count = len(drawn)
        show_seen(str(clip), replace(first.receipt, sha256="0" * 64), reader)
        show_seen(str(tmp_path / "gone.mp4"), first.receipt, reader)
        assert len(drawn) == count
    notes = re.sub(r"\s+", " ", terminal.getvalue())
    assert "red square.mp4: is not the file that was seen" in notes and "gone.mp4: no such file" in notes


# --- in a conversation -------------------------------------------------------------------------------------------


def conversation(environment: dict[str, str], folder: Path, model: Path, *arguments: str) -> Any:
    """``gpt4video chat`` on a terminal of 100 columns with true colours."""
    own = {**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONIOENCODING": "utf-8"}
    command = ["-m", "gpt4video_cli", "chat", "clip.mp4", "-m", str(model), "--max-tokens", "4", "--frames", "8"]
    options: Any = {"dimensions": (40, 100), "timeout": 60, "encoding": "utf-8", "cwd": folder}
    program = pexpect.spawn(
        sys.executable, [*command, *arguments], env={**own, "PROMPT_TOOLKIT_NO_CPR": "1"}, **options
    )
    program.expect(WAITING)
    program.send("What is seen?\r")
    program.expect("cut at 4 tokens")
    program.expect(WAITING)
    return program


WAITING = r"\x1b\[\?2004h[\s\S]*?>"


def typed(program: Any, line: str) -> str:
    """What comes up between ``line`` and the next prompt."""
    program.send(line + "\r")
    program.expect(WAITING)
    return str(program.before)


@pytest.fixture
def folder(tmp_path: Path, clip: Path) -> Path:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    return tmp_path


def test_frames_are_drawn_in_a_conversation(environment: dict[str, str], folder: Path, random_model: Path) -> None:
    program = conversation(environment, folder, random_model)
    shown = typed(program, "/frames")
    strip = [line for line in shown.splitlines() if line.count("▀") == 99]
    assert len(strip) == 8  # 24 x 16 pixels for each of four frames of 96 x 64
    assert "frames of 2.00 s" in re.sub(r"\s+", " ", shown)
    # The square is redder than anything else, and further to the right in each frame.
    places = []
    for line in strip:
        colours = re.findall(r"\x1b\[38;2;(\d+);(\d+);\d+;48;2;\d+;\d+;\d+m▀|(▀)", line)
        red, lit = [], False
        for first, second, plain in colours:
            lit = lit if plain else int(first) > 200 and int(second) < 60
            red.append(lit)
        places.append([index for index, lit in enumerate(red) if lit])
    middle = max(places, key=len)
    starts = [min(index - 25 * n for index in middle if 25 * n <= index < 25 * n + 24) for n in range(4)]
    assert starts == sorted(starts) and starts[-1] - starts[0] > 10

    assert "preview = off" in typed(program, "/set preview off")
    shown = typed(program, "/frames")
    assert "▀" not in shown and "clip 1:" in shown
    assert "preview = on" in typed(program, "/set preview default")

    (folder / "clip.mp4").write_bytes(b"x" * 1000)
    shown = typed(program, "/frames")
    assert "▀" not in shown and "note: " in shown
    assert "it must be on or off" in re.sub(r"\s+", " ", typed(program, "/set preview yes"))
    program.send("/exit\r")
    program.expect(pexpect.EOF)
    program.close()
    assert program.exitstatus == 0


@pytest.mark.parametrize("argument", ["--no-preview", "--no-color"])
def test_no_frames_where_they_are_not_wanted(
    environment: dict[str, str], folder: Path, random_model: Path, argument: str
) -> None:
    program = conversation(environment, folder, random_model, argument)
    shown = typed(program, "/frames")
    assert "clip 1:" in shown and "▀" not in shown
    program.close(force=True)
