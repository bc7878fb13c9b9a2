"""Jobs from JSONL, CSV, clips and folders: what is written is what is read, and one bad line stops no other."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4video_cli.batch.job import DESCRIBE, Defaults, Job, JobFault
from gpt4video_cli.batch.read_jobs import csv_jobs, jsonl_jobs, read_jobs
from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.weights.card import Card

CARD = Card("m", "a model", "Apache-2.0", frames=8, temperature=0.0, max_tokens=128)
DEFAULTS = Defaults(CARD)

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip())
CELLS = WORDS.map(str.strip).filter(lambda text: ";" not in text and "://" not in text)
SEEDS = st.integers(0, 2**63 - 1)
FIELDS = st.fixed_dictionaries(
    {"id": CELLS, "prompt": CELLS},
    optional={
        "clips": st.lists(CELLS, min_size=1, max_size=3),
        "frames": st.integers(1, 500),
        "start": st.floats(0, 1000),
        "temperature": st.floats(0, 5),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(0, 1000),
        "seed": SEEDS,
        "max_tokens": st.integers(1, 4000),
        "generate": st.booleans(),
    },
)


def lines(*values: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(value).encode() + b"\n" for value in values))


def check(job: Any, fields: dict[str, Any]) -> None:
    assert isinstance(job, Job), job
    assert (job.id, job.prompts, list(job.clips)) == (fields["id"], (fields["prompt"],), fields.get("clips", []))
    assert job.plan == SamplingPlan(frames=fields.get("frames", 8), start=fields.get("start"))
    names = ("temperature", "top_p", "top_k", "seed", "max_tokens")
    expected = {"temperature": 0.0, "max_tokens": 128} | {name: fields[name] for name in names if name in fields}
    assert job.options == SamplingOptions(**expected)
    assert job.generate == fields.get("generate", False)


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, max_size=4))
def test_jsonl_gives_back_what_was_written(written: list[dict[str, Any]]) -> None:
    read = list(jsonl_jobs(lines(*written), DEFAULTS))
    assert len(read) == len(written)
    for number, (job, fields) in enumerate(zip(read, written, strict=True), start=1):
        check(job, fields)
        assert isinstance(job, Job) and job.line == number


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=4))
def test_csv_says_the_same_as_jsonl(written: list[dict[str, Any]]) -> None:
    names = sorted({name for fields in written for name in fields})
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(names)
    for fields in written:
        rows.writerow([";".join(value) if isinstance(value := fields.get(n, ""), list) else value for n in names])
    for job, fields in zip(csv_jobs(io.BytesIO(table.getvalue().encode()), DEFAULTS), written, strict=True):
        check(job, fields)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=6))
def test_any_bytes_are_faults_and_the_next_line_is_read(junk: list[bytes]) -> None:
    good = b'{"id": "good", "prompt": "x"}'
    content = b"\n".join([*junk, good])
    *before, last = jsonl_jobs(io.BytesIO(content), DEFAULTS)
    assert isinstance(last, Job) and last.id == "good" and last.line == len(junk) + 1
    assert [fault.line for fault in before] == [
        n for n, line in enumerate(junk, 1) if line.removeprefix(b"\xef\xbb\xbf").strip()
    ]
    assert all(isinstance(fault, JobFault) for fault in before)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_in_a_csv_are_jobs_or_faults(junk: bytes) -> None:
    for read in csv_jobs(io.BytesIO(b"id,prompt,frames\n" + junk), DEFAULTS):
        assert isinstance(read, Job | JobFault) and read.line is not None and read.line > 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"id": "a", "prompt": "x", "frame": 3}, "unknown field 'frame'; did you mean 'frames'?"),
        ({"id": "a", "prompt": "x", "frames": "3"}, "job.frames is not a valid int"),
        ({"id": "a", "prompt": "x", "frames": 0}, "--frames is 0"),
        ({"id": "a", "prompt": "x", "frames": 3, "fps": 2}, "contradict"),
        ({"id": "a", "prompt": "x", "prompts": ["y"]}, "prompt and prompts contradict"),
        ({"id": "a", "prompt": "x", "describe": True}, "contradict"),
        ({"id": "a", "prompt": " "}, "a prompt is empty"),
        ({"id": "a", "prompts": ["x", ""]}, "a prompt is empty"),
        ({"id": "a", "clips": ["a.mp4"]}, "nothing is asked"),
        ({"id": " ", "prompt": "x"}, "the id is empty"),
        ({"id": "a", "prompt": "x", "clip": "a.mp4", "clips": ["b.mp4"]}, "clip and clips contradict"),
        ({"id": "a", "prompt": "x", "clips": ["a\0b"]}, "zero byte"),
        ({"id": "a", "prompt": "x", "clip": "ftp://example.org/a.mp4"}, "only those with http and https are fetched"),
        ({"id": "a", "prompt": "x", "seed": -1}, "seed is -1"),
        ({"id": "a", "prompt": "x", "top_p": 0}, "top-p must be above 0"),
        ({"id": "a", "prompt": "x", "stop": [""]}, "stop has an empty text"),
        ({"id": "a", "prompt": "x", "sampling": "sometimes"}, "exact, keyframe"),
        ([1], "not a job"),
        ("text", "not a job"),
    ],
)
def test_a_bad_job_says_what_is_wrong(value: Any, said: str) -> None:
    (fault,) = jsonl_jobs(lines(value), DEFAULTS)
    assert isinstance(fault, JobFault)
    assert said in fault.error.line() and "\n" not in fault.error.line()
    assert fault.line == 1


def test_a_line_too_long_is_one_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4video_cli.batch.read_jobs.LONGEST_LINE", 60)
    content = b'{"id": "a", "prompt": "x"}\n' + b"y" * 500 + b"\n" + b'{"id": "b", "prompt": "x"}\n'
    first, fault, last = jsonl_jobs(io.BytesIO(content), DEFAULTS)
    assert isinstance(first, Job) and isinstance(last, Job) and isinstance(fault, JobFault)
    assert (fault.line, last.line) == (2, 3)


def test_numbers_are_ids_and_jobs_without_one_are_called_after_their_line() -> None:
    first, second = jsonl_jobs(lines({"id": 17, "prompt": "x"}, {"prompt": "x"}), DEFAULTS)
    assert isinstance(first, Job) and isinstance(second, Job)
    assert (first.id, second.id) == ("17", "line-2")


def test_a_job_goes_before_the_command_line_and_that_before_the_card() -> None:
    defaults = Defaults(CARD, "asked of all", {"fps": 2.0, "max_frames": 9, "seed": 5, "temperature": 0.5})
    jobs = list(
        jsonl_jobs(lines({}, {"frames": 3}, {"at": [1, 2]}, {"seed": 6, "prompt": "own"}, {"describe": True}), defaults)
    )
    assert all(isinstance(job, Job) for job in jobs)
    plain, frames, at, seed, describe = (job for job in jobs if isinstance(job, Job))
    assert (plain.plan, plain.prompts) == (SamplingPlan(fps=2.0, max_frames=9), ("asked of all",))
    assert plain.options == SamplingOptions(temperature=0.5, seed=5, max_tokens=128)
    assert frames.plan == SamplingPlan(frames=3)
    assert at.plan == SamplingPlan(at=(1.0, 2.0))
    assert (seed.options.seed, seed.prompts) == (6, ("own",))
    assert describe.prompts == (DESCRIBE,)


def test_the_second_of_two_with_one_id_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(
        lines({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}, {"id": "a", "prompt": "y"}).getvalue()
    )
    first, _, fault = read_jobs([str(path)], DEFAULTS)
    assert isinstance(first, Job) and first.prompts == ("x",)
    assert isinstance(fault, JobFault)
    assert (fault.id, fault.line, str(fault.error)) == ("a", 3, "the id 'a' was given before on line 1")


def test_paths_start_in_the_folder_of_the_file_and_from_stdin_here(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text('\ufeffid,clip,prompts\na,a.mp4,"one\ntwo"\nb,/abs/b.mp4,three\n')
    first, second = read_jobs([str(tmp_path / "jobs.csv")], DEFAULTS)
    assert isinstance(first, Job) and isinstance(second, Job)
    assert (first.clips, first.prompts) == ((str(tmp_path / "a.mp4"),), ("one", "two"))
    assert second.clips == ("/abs/b.mp4",)
    (piped,) = read_jobs(["-"], DEFAULTS, lines({"clip": "a.mp4", "prompt": "x"}))
    assert isinstance(piped, Job) and piped.clips == ("a.mp4",)


def test_a_csv_with_an_unknown_column_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("id,promt\na,x\n")
    with pytest.raises(InputError, match=r"jobs\.csv: unknown field 'promt'") as raised:
        read_jobs([str(tmp_path / "jobs.csv")], DEFAULTS)
    assert raised.value.hint == "did you mean 'prompt'?"


def test_csv_faults_name_their_line() -> None:
    table = b'id,frames,generate,prompt\na,x,,q\nb,,maybe,q\nc,1,yes,q,more\n"d\n",1,,q\ne,2,,\xff\n'
    read = list(csv_jobs(io.BytesIO(table), DEFAULTS))
    said = [(one.line, one.id, one.error.line()) for one in read if isinstance(one, JobFault)]
    assert said == [
        (2, "a", "frames is 'x'; it must be a whole number"),
        (3, "b", "generate is 'maybe'; it must be true or false"),
        (4, "c", "the row has 5 cells, the header 4"),
        (7, "e", "not text in UTF-8"),
    ]
    assert [one.line for one in read if isinstance(one, Job)] == [5]


def test_clips_and_folders_are_jobs_called_after_their_paths(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "sub/c.webm", ".hidden.mp4", ".git/d.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    defaults = Defaults(CARD, "x")
    read = read_jobs([str(tmp_path), "other.mp4"], defaults)
    expected = [*(str(tmp_path / name) for name in ("a.MKV", "b.mp4", "sub/c.webm")), "other.mp4"]
    assert [(one.id, one.clips) for one in read if isinstance(one, Job)] == [(path, (path,)) for path in expected]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no clips in this folder"):
        read_jobs([str(tmp_path / "empty")], defaults)
    with pytest.raises(UsageError, match="nothing is asked about these clips"):
        read_jobs([str(tmp_path)], DEFAULTS)
    with pytest.raises(InputError, match="jobs come from one file"):
        read_jobs(["a.jsonl", "b.mp4"], defaults)
    with pytest.raises(InputError, match=r"no\.jsonl: cannot be read"):
        read_jobs(["no.jsonl"], defaults)
