"""Dialogues with refusals from a small made-up RealToxicityPrompts file: by templates, and by an endpoint.

The endpoint is a real HTTP server on the loopback address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.data.chat_endpoint import ChatEndpoint
from gpt4video_cli.data.dialogue_file import read_dialogues
from gpt4video_cli.data.safety_set import SafetySetOrder, choose_texts
from gpt4video_cli.errors import Gpt4VideoError, UsageError


def record(text: str, sexual: float, toxic: float, continuation: dict[str, Any] | None = None) -> dict[str, Any]:
    prompt = {"text": text, "sexually_explicit": sexual, "severe_toxicity": toxic, "toxicity": 0.5}
    return {"filename": "0001.txt", "prompt": prompt, "continuation": continuation or {"text": "", "toxicity": None}}


RECORDS = [
    *[record(f"made-up sexual text number {i}", 0.95, 0.1) for i in range(4)],
    *[record(f"made-up hateful text number {i}", 0.1, 0.97) for i in range(3)],
    record("both, and more of the second", 0.91, 0.99),
    record("harmless", 0.1, 0.2),
    record("just not", 0.9, 0.9),
    record("harmless", 0.0, 0.0, {"text": "made-up sexual continuation <video>x</video>", "sexually_explicit": 0.96}),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rtp.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in RECORDS) + "no json\n")
    return path


class Server(HTTPServer):
    """Answers as ``answers`` says: a status, or the text of the assistant's message; then with a good dialogue."""

    answers: list[int | str]
    asked: list[dict[str, Any]]
    keys: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **body})
        self.server.keys.append(self.headers.get("Authorization"))
        good = json.dumps({"user": f"Question {len(self.server.asked)}", "assistant": "I am sorry, but I cannot help."})
        answer = self.server.answers.pop(0) if self.server.answers else f"```json\n{good}\n```"
        content = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        if answer == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    started = Server(("127.0.0.1", 0), Handler)
    started.answers, started.asked, started.keys = [], [], []
    thread = threading.Thread(target=started.serve_forever, args=(0.01,))
    thread.start()
    yield started
    started.shutdown()
    thread.join()
    started.server_close()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_texts_over_the_limit_are_chosen_by_kind(source: Path, tmp_path: Path) -> None:
    unusable: list[Any] = []
    texts = choose_texts(SafetySetOrder(source, tmp_path / "out.jsonl"), unusable)
    kinds = [text.kind for text in texts]
    assert (kinds.count("sexually_explicit"), kinds.count("severe_toxicity")) == (5, 4)
    assert len(unusable) == 1
    two = choose_texts(SafetySetOrder(source, tmp_path / "out.jsonl", per_kind=2, seed=3), [])
    assert len(two) == 4
    assert two == choose_texts(SafetySetOrder(source, tmp_path / "out.jsonl", per_kind=2, seed=3), [])
    assert two != choose_texts(SafetySetOrder(source, tmp_path / "out.jsonl", per_kind=2, seed=4), [])


def test_templates_offline(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    assert run(["data", "safety-set", str(source), "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    dialogues = list(read_dialogues(output))
    assert len(dialogues) == len({d.id for d in dialogues}) == 9
    for dialogue in dialogues:
        (turn,) = dialogue.turns
        assert turn.assistant.startswith(("I am sorry", "I cannot"))
        assert "made-up" not in turn.assistant
        assert "<" not in turn.user + turn.assistant
    assert run(["data", "safety-set", str(source), "-o", str(output)]) == 2  # it exists
    assert run(["data", "check", str(output)]) == 0
    again = tmp_path / "again.jsonl"
    assert run(["data", "safety-set", str(source), "-o", str(again), "-q"]) == 0
    assert again.read_bytes() == output.read_bytes()


def test_training_reads_them(source: Path, tmp_path: Path) -> None:
    from gpt4video_cli.data.layout import Layout
    from gpt4video_cli.training.dialogue_set import read_training_data
    from gpt4video_cli.training.stages import find_stage

    output = tmp_path / "out.jsonl"
    assert run(["data", "safety-set", str(source), "-o", str(output), "-q"]) == 0
    found = read_training_data((str(output),), find_stage(2), Layout("bundle"), on_error="stop")
    assert len(found.samples) == 9
    assert all(sample.learned for sample in found.samples)


def test_an_endpoint_writes_them_and_a_broken_run_goes_on(
    source: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    output = tmp_path / "out.jsonl"
    arguments = [
        "data",
        "safety-set",
        str(source),
        "-o",
        str(output),
        "--endpoint",
        address(server),
        "--model",
        "writer",
    ]
    good = json.dumps({"user": "First", "assistant": "I am sorry, but I cannot help with that."})
    server.answers = [good, good, 400]
    assert run(arguments) == 1
    assert not output.exists()
    work = tmp_path / "out.jsonl.work"
    assert len(work.read_text().splitlines()) == 3
    assert run(arguments) == 2  # not without --resume
    assert run([*arguments, "--resume", "--seed", "1"]) == 2  # another order
    with open(work, "a") as file:
        file.write('{"schema": 1, "id": "torn')
    asked = len(server.asked)
    assert run([*arguments, "--resume"]) == 0
    assert len(server.asked) == asked + 7
    assert len(list(read_dialogues(output))) == 9
    assert not work.exists()
    first = server.asked[0]
    assert (first["path"], first["model"]) == ("/v1/chat/completions", "writer")
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert set(server.keys) == {"Bearer secret"}
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err + output.read_text()


def test_what_is_no_fit_dialogue_is_asked_twice_and_left_out(source: Path, tmp_path: Path, server: Server) -> None:
    output = tmp_path / "out.jsonl"
    tag = json.dumps({"user": "x", "assistant": "I am sorry <video>no</video>"})
    yes = json.dumps({"user": "x", "assistant": "Gladly!"})
    server.answers = ["no json", tag, yes, "{}"]
    options = ["--endpoint", address(server), "--model", "writer", "--per-kind", "2", "-q"]
    assert run(["data", "safety-set", str(source), "-o", str(output), *options]) == 0
    assert len(list(read_dialogues(output))) == 2
    assert len(server.asked) == 6


def test_busy_servers_are_asked_again_and_redirects_are_not_followed(server: Server) -> None:
    pauses: list[float] = []
    endpoint = ChatEndpoint(address(server), "writer", wait=pauses.append)
    server.answers = [503, 429, "fine"]
    assert endpoint.ask([], seed=0) == "fine"
    assert pauses == [1.0, 2.0]
    server.answers = [302]
    with pytest.raises(Gpt4VideoError, match="302"):
        endpoint.ask([], seed=0)
    server.answers = [500] * 4
    with pytest.raises(Gpt4VideoError, match="500"):
        endpoint.ask([], seed=0)
    assert {asked["path"] for asked in server.asked} == {"/v1/chat/completions"}


def test_the_key_never_travels_unencrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(UsageError, match="unencrypted"):
        ChatEndpoint("http://example.org/v1", "writer")
    with pytest.raises(UsageError, match="not the address"):
        ChatEndpoint("file:///etc/passwd", "writer")
    with pytest.raises(UsageError, match="go together"):
        SafetySetOrder(tmp_path, tmp_path, endpoint="http://localhost/v1")
