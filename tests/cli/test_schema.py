"""``--schema``: one JSON document on stdout and nothing else, from the bundled model, which was never taught any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "film": {"const": "<video>a red circle</video>"},
    },
    "required": ["colour", "count", "film"],
}
Out = pytest.CaptureFixture[str]


@pytest.fixture
def schema(tmp_path: Path) -> str:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


def check(text: str) -> None:
    answer = json.loads(text)
    assert answer["colour"] in ("red", "green", "blue") and 0 <= answer["count"] <= 9
    assert answer["film"] == "<video>a red circle</video>", "a tag inside a document is data"


def test_one_document_on_stdout(schema: str, capsys: Out, tmp_path: Path) -> None:
    question = ["chat", "-p", "What colour is it?", "--schema", schema, "-q", "-o", str(tmp_path)]
    assert run(question) == ExitCode.DONE
    out, err = capsys.readouterr()
    check(out)
    assert out.count("\n") == 1 and err == ""
    assert run([*question, "--json", "--no-save"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    check(told["answer"])
    assert told["prompts"] == told["films"] == [] and told["notices"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["schema.json"], "nothing was filmed"


def test_a_kept_answer_is_replayed_alike(schema: str, capsys: Out) -> None:
    assert run(["chat", "-p", "What colour is it?", "--schema", schema, "-q"]) == ExitCode.DONE
    capsys.readouterr()
    assert run(["sessions", "list", "--json"]) == ExitCode.DONE
    (kept,) = json.loads(capsys.readouterr().out)["sessions"]
    assert run(["replay", kept["id"], "--check"]) == ExitCode.DONE, "the schema is kept with the turn"


def test_cut_inside_the_document(schema: str, capsys: Out) -> None:
    assert run(["chat", "-p", "What colour?", "--schema", schema, "-q", "--max-tokens", "5"]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: the answer was cut inside its JSON after 5 tokens")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "content", "code", "part"),
    [
        (["-p", "x"], "{", ExitCode.INPUT, "schema.json: not JSON"),
        (["-p", "x"], '{"type": 3}', ExitCode.INPUT, "not a JSON schema"),
        (["-p", "x"], '{"pattern": "a"}', ExitCode.USAGE, "cannot hold an answer to 'pattern' at #"),
        (["-p", "x", "--stop", "a"], "{}", ExitCode.USAGE, "--schema and --stop contradict"),
        (["-p", "x", "--yes"], "{}", ExitCode.USAGE, "--schema and --yes contradict"),
    ],
)
def test_wrong_usage(arguments: list[str], content: str, code: int, part: str, tmp_path: Path, capsys: Out) -> None:
    path = tmp_path / "schema.json"
    path.write_text(content)
    assert run(["chat", *arguments, "--schema", str(path)]) == code
    out, err = capsys.readouterr()
    assert out == "" and part in err and err.count("\n") == 1


def test_batch(schema: str, tmp_path: Path, capsys: Out) -> None:
    jobs, results = tmp_path / "jobs.jsonl", tmp_path / "results.jsonl"
    asked = [{"id": "a", "prompt": "What colour is it?"}, {"id": "b", "prompt": "Film.", "generate": True}]
    jobs.write_text("".join(json.dumps(job) + "\n" for job in asked))
    command = ["batch", str(jobs), "-o", str(results), "--schema", schema, "-q"]
    assert run(command) == ExitCode.PARTIAL
    (line,) = map(json.loads, results.read_text().splitlines())
    check(line["answer"])
    assert "generate and --schema contradict each other" in (tmp_path / "errors.jsonl").read_text()
    before = results.read_text()
    assert run([*command, "--resume"]) == ExitCode.PARTIAL
    assert results.read_text() == before, "the schema is part of what names the work"
    (tmp_path / "schema.json").write_text('{"const": 1}')
    assert run([*command, "--resume", "--limit", "1"]) == ExitCode.USAGE
    assert "of another run" in capsys.readouterr().err
