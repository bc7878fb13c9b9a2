"""A file of whole lines, whatever happens: a kill, a full disk, a second writer."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4video_cli.batch.line_file import LineFile, whole_lines
from gpt4video_cli.batch.results import drop_errors, error_line, open_file, result_line
from gpt4video_cli.errors import Gpt4VideoError, UsageError

WRITER = """
import sys
from gpt4video_cli.batch.line_file import LineFile
with LineFile(sys.argv[1]) as file:
    for number in range(10**9):
        file.append({"number": number, "text": "x" * (number % 5000)})
        print(number, flush=True)
"""


def test_a_killed_writer_leaves_every_line_it_was_told_of_and_no_half_one(tmp_path: Path) -> None:
    rng = random.Random(4)
    for turn in range(3):
        path = tmp_path / f"{turn}.jsonl"
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.random() / 5)
            process.kill()
            told = [0, *(int(line) for line in process.stdout.read().split("\n") if line.isdigit())]
        content = path.read_bytes()
        assert content.endswith(b"\n")
        numbers = [json.loads(line)["number"] for line in content.splitlines()]
        assert numbers == list(range(len(numbers)))
        assert told[-1] <= numbers[-1] <= told[-1] + 1


def test_a_full_disk_takes_whole_lines_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LineFile(path) as file:
        file.append({"text": "a" * 100})
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
        try:
            with pytest.raises(Gpt4VideoError, match=r"results\.jsonl: cannot be written: File too large") as raised:
                file.append({"text": "b" * 1000})  # its first bytes still fit
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert raised.value.hint is not None and "free some space" in raised.value.hint
        assert [json.loads(line)["text"][0] for line in whole_lines(path)] == ["a"]
        assert file.tail() == b""
        file.append({"text": "c"})
    assert path.read_bytes().count(b"\n") == 2 and b"b" not in path.read_bytes()


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=60))
def test_dropping_the_tail_keeps_exactly_the_whole_lines(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tail") / "f"
    path.write_bytes(content)
    kept, _, tail = content.rpartition(b"\n")
    kept += b"\n" if b"\n" in content else b""
    with LineFile(path) as file:
        assert (b"".join(whole_lines(path)), file.tail()) == (kept, tail)
        file.drop_tail()
        file.append("next")
    assert path.read_bytes() == kept + b'"next"\n'


def test_two_cannot_write_one_file(tmp_path: Path) -> None:
    with LineFile(tmp_path / "f") as file:
        with pytest.raises(UsageError, match="another run is writing it"):
            LineFile(tmp_path / "f")
        file.append(1)
    LineFile(tmp_path / "f").close()


def test_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not a plain file"):
        LineFile(tmp_path / "pipe")
    with pytest.raises(Gpt4VideoError, match="cannot be written"):
        LineFile(tmp_path)


def write(path: Path, *jobs: str, tail: bytes = b"") -> bytes:
    content = b"".join(
        json.dumps({**result_line(job, "k" + job, "m"), "elapsed": 1.0}).encode() + b"\n" for job in jobs
    )
    path.write_bytes(content + tail)
    return content


def test_results_of_an_earlier_run_are_taken_up_or_dropped_only_when_told_to(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    whole = write(path, "a", "b", tail=b'{"gpt4video": "result", "sch')
    with pytest.raises(UsageError, match="holds 2 results of an earlier run") as raised:
        open_file(path, "result", resume=False, force=False)
    assert "--resume goes on with it" in str(raised.value.hint)
    file, lines = open_file(path, "result", resume=True, force=False)
    file.close()
    assert [line["id"] for line in lines] == ["a", "b"]
    assert path.read_bytes() == whole
    file, lines = open_file(path, "result", resume=False, force=True)
    file.close()
    assert lines == [] and path.read_bytes() == b""


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b"my notes",
        b'{"id": "a", "answer": "b"}\n',
        b'{"gpt4video": "error", "schema": 1, "id": "a"}\n',
        b'{"gpt4video": "result", "schema": 2, "id": "a"}\n',
        b'{"gpt4video": "result", "schema": 1, "id": "a"}\nrubbish\n',
        b"\x00\x00\x00\x18ftypmp42",
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_file_of_anything_else_is_never_touched(content: bytes, force: bool, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.jsonl: (is not a file of results|line 1 has schema 2)"):
        open_file(path, "result", resume=not force, force=force)
    assert path.read_bytes() == content
    LineFile(path).close()  # and is free again


def test_settled_errors_go_and_the_file_stays_locked(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    with LineFile(path) as file:
        for job in ("a", "b", None):
            file.append(error_line(job))
    file, _ = open_file(path, "error", resume=True, force=False)
    with drop_errors(file, lambda line: line["id"] in ("a", None)) as file:
        with pytest.raises(UsageError):
            LineFile(path)
        file.append(error_line("c"))
    assert [json.loads(line)["id"] for line in whole_lines(path)] == ["b", "c"]
