"""Clips at addresses, from the command line: every command that takes a clip, what is kept of it, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpt4video_cli.cli.app import main, run
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.url import Spool, use_spool
from tests.video.web_server import Server, serve

ALLOWED = "--allow-private-urls"
Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server(clip: Path) -> Iterator[Server]:
    with serve(clip) as server:
        yield server


@pytest.fixture(autouse=True)
def forget(server: Server) -> Iterator[None]:
    server.requests.clear()
    yield
    use_spool(Spool())


def test_frames_and_probe(server: Server, clip: Path, capsys: Out) -> None:
    url = server.url("/clip.mp4")
    shown = []
    for path in (url, str(clip)):
        assert run(["frames", path, "--frames", "2", "--json", ALLOWED]) == ExitCode.DONE
        shown.append(json.loads(capsys.readouterr().out)["receipt"])
    assert shown[0] == {**shown[1], "path": url}
    assert run(["probe", url, "--json", ALLOWED]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == url and err == ""


@pytest.mark.parametrize(
    ("command", "path", "options", "code", "part"),
    [
        (["probe"], "/clip.mp4", [], ExitCode.INPUT, "is 127.0.0.1, an address of a private network"),
        (["frames"], "/missing.mp4", [ALLOWED], ExitCode.INPUT, "the server answered 404 Not Found"),
        (["frames"], "/clip.mp4", [ALLOWED, "--url-size", "1kB"], ExitCode.INPUT, "more than the limit of 0.001 MB"),
        (["frames"], "/slow.mp4", [ALLOWED, "--url-time", "0.3"], ExitCode.INPUT, "was not fetched within 0.3 s"),
        (["chat", "-q", "-p", "What?"], "/clip.mp4", [], ExitCode.INPUT, "--allow-private-urls allows it"),
        (["probe"], "/clip.mp4", ["--url-size", "big"], ExitCode.USAGE, "--url-size is 'big'"),
        (["probe"], "/clip.mp4", ["--url-time", "0"], ExitCode.USAGE, "--url-time is 0 s"),
    ],
)
def test_one_line_for_what_goes_wrong(
    command: list[str], path: str, options: list[str], code: int, part: str, server: Server, capsys: Out
) -> None:
    assert run([*command, server.url(path), *options]) == code
    out, err = capsys.readouterr()
    assert out == "" and part in err and err.count("\n") == 1


def test_a_conversation_keeps_the_address_and_the_content(
    server: Server, clip: Path, capsys: Out, own_home: Path
) -> None:
    url = server.url("/clip.mp4")
    ask = ["-p", "What happens in the clip?", "-q"]
    assert run(["chat", str(clip), *ask, "--no-save"]) == ExitCode.DONE
    answer = capsys.readouterr().out
    kept = list((own_home / "clips").iterdir())
    assert run(["chat", url, *ask, ALLOWED]) == ExitCode.DONE
    assert capsys.readouterr().out == answer
    assert list((own_home / "clips").iterdir()) == kept, "what was seen of the file is found by its content"
    (session,) = own_home.rglob("sessions/*.json")
    (stored,) = json.loads(session.read_text())["turns"][0]["clips"]
    assert (stored["path"], stored["receipt"]["sha256"]) == (url, fingerprint(clip))
    # Another day: the clip is fetched again, and what lies there now must be what was seen.
    assert run(["chat", "--last", *ask, ALLOWED]) == ExitCode.DONE
    assert server.requests == ["/clip.mp4", "/clip.mp4"]
    capsys.readouterr()
    assert run(["chat", "--last", "-p", "And?", ALLOWED, "--url-size", "1kB"]) == ExitCode.INPUT
    assert "clip 1 is no longer at http://" in capsys.readouterr().err


def test_batch_fetches_each_clip_once_and_removes_it(
    server: Server, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    url = server.url("/clip.mp4")
    jobs = [
        {"id": "a", "clips": [url], "prompt": "What moves?"},
        {"id": "b", "clips": [server.url("/missing.mp4")], "prompt": "What moves?"},
        {"id": "c", "clip": server.url("/short.mp4"), "prompt": "What moves?"},
    ]
    file, results = tmp_path / "jobs.jsonl", tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    command = ["batch", str(file), "-o", str(results), "-q", ALLOWED]
    assert run(command) == ExitCode.PARTIAL
    (line,) = map(json.loads, results.read_text().splitlines())
    assert line["clips"][0]["path"] == url and line["id"] == "a"
    failed = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()[:]]
    told = {one["id"]: (one["kind"], one["exit_code"]) for one in failed if "id" in one}
    assert told == {"b": ("clip", 3), "c": ("clip", 3)}
    assert sorted(server.requests) == ["/clip.mp4", "/missing.mp4", "/short.mp4"]
    assert not [path for path in spool.rglob("*") if path.is_file()], "the clips are gone with their jobs"
    capsys.readouterr()
    assert run([*command, "--resume"]) == ExitCode.PARTIAL
    assert len(results.read_text().splitlines()) == 1, "what is done is known by the content"


def test_ctrl_c_while_fetching_leaves_nothing(server: Server, environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt4video_cli", "probe", server.url("/slow.mp4"), ALLOWED],
        env={**environment, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob("clip-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == ExitCode.INTERRUPTED
    assert not list(tmp_path.iterdir()) and server.requests == ["/slow.mp4"]


def test_the_short_way_out_removes_what_was_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os._exit", leave)  # where torch is loaded; nothing of the interpreter's end happens then
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", ModuleType("torch")))
    monkeypatch.setattr("sys.argv", ["gpt4video", "probe", server.url("/clip.mp4"), ALLOWED])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert server.requests == ["/clip.mp4"] and not list(tmp_path.iterdir())
