"""Conversations are kept, listed, searched, read, continued and removed, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.folders import sessions_folder
from gpt4video_cli.cli.keeping import filmed_clips
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.session import Session
from gpt4video_cli.session_store import SessionStore
from gpt4video_cli.video.fingerprint import fingerprint
from tests.cli.test_repl import Person


@pytest.fixture
def ask(random_model: Path) -> Any:
    """One answer of three tokens in this process; the exit code."""

    def one(*arguments: str | Path) -> int:
        options = ["--max-tokens", "3", "-q", "--no-generate"]
        return run(["chat", *map(str, arguments), "-m", str(random_model), *options])

    return one


@pytest.fixture
def store() -> SessionStore:
    return SessionStore(sessions_folder())


def test_every_conversation_is_kept_and_can_be_continued(
    ask: Any, store: SessionStore, clip: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(clip, "-p", "What is seen?") == 0
    (kept,) = store.ids()
    assert ask("-p", "Nothing to keep", "--no-save") == 0
    assert store.ids() == [kept]
    assert ask("--last", "-p", "And now?") == 0
    assert store.ids() == [kept]
    assert ask("--resume", kept[16:19], "-p", "And then?") == 0
    session, _ = store.load(kept)
    assert [turn.text for turn in session.turns] == ["What is seen?", "And now?", "And then?"]
    assert [len(turn.clips) for turn in session.turns] == [1, 0, 0]
    used = session.turns[2].used
    assert used is not None and used.folder == str(random_model) and used == session.turns[0].used
    capsys.readouterr()

    # Without -m the model of the conversation answers.
    assert run(["chat", "--last", "-p", "Again", "--max-tokens", "3", "--json", "--no-generate", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "random"


def test_a_moved_clip_is_found_and_a_changed_one_is_told(
    ask: Any, store: SessionStore, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], random_model: Path
) -> None:
    here, there = tmp_path / "here.mp4", tmp_path / "there.mp4"
    shutil.copy(clip, here)
    assert ask(here, "-p", "What is seen?", "--no-cache") == 0
    here.rename(there)
    options = ["-m", str(random_model), "--max-tokens", "3", "--no-cache", "--no-generate"]
    capsys.readouterr()
    assert run(["chat", "--last", "-p", "And now?", *options]) == ExitCode.INPUT
    told = capsys.readouterr().err
    assert f"note: clip 1 is no longer at {here}; put it back, or name its new place: " in told
    assert f"error: {here}: no such file" in told
    assert ask("--last", there, "-p", "And now?", "--no-cache") == 0
    (kept,) = store.ids()
    session, _ = store.load(kept)
    assert [entry.path for entry in session.clips] == [str(there)], "it moved, and is no second clip"

    there.write_bytes(clip.read_bytes() + b"\0")
    capsys.readouterr()
    assert run(["chat", "--last", "-p", "And then?", *options]) == ExitCode.INPUT
    assert f"note: clip 1 is another file now: {there}" in capsys.readouterr().err


def test_listing_searching_showing_and_removing(store: SessionStore, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.sessions.test_session_store import turn

    dog = store.keep(Session([turn("Where is the \x1b[31mDog?"), turn("in the\nGarden?")], "", ""), None).id
    cat = store.keep(Session([turn("A cat?")]), None).id

    assert run(["sessions", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", cat, dog]
    assert lines[2].split(None, 4)[1:] == ["?", "2", "0", "Where is the Dog?"]
    assert run(["sessions", "list", "--json", "--limit", "1"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["sessions"]
    assert (only["id"], only["turns"], only["models"], only["title"]) == (cat, 1, ["tiny"], "A cat?")

    assert run(["sessions", "search", "GARDEN", "dog"]) == 0
    assert dog in (found := capsys.readouterr().out) and cat not in found
    assert run(["sessions", "search", "garden", "cat"]) == ExitCode.FAILED
    assert capsys.readouterr().out == ""

    assert run(["sessions", "show", dog]) == 0
    shown = capsys.readouterr().out
    assert "> Where is the Dog?\nyes\n" in shown and "> in the\n> Garden?\nyes\n" in shown
    assert run(["sessions", "show", dog, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["turns"][0]["text"] == "Where is the \x1b[31mDog?"
    assert run(["sessions", "show", dog[:-1] + "z"]) == ExitCode.USAGE
    assert f"did you mean {dog}" in capsys.readouterr().err

    assert run(["sessions", "rm", dog]) == ExitCode.USAGE  # nobody can be asked here
    assert "--yes removes it" in capsys.readouterr().err
    assert run(["sessions", "rm", dog, cat, dog, "--yes"]) == 0
    assert store.ids() == []


def test_filmed_clips_are_noted_with_their_content(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(clip, tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)
    films = [
        {"path": name, "side_car": side_car, "prompt": "a star", "seed": 3}
        for name, side_car in (("film.mp4", "film.json"), ("film.mp4", None), ("gone.mp4", None))
    ]
    one, other = filmed_clips(films)
    assert (one.path, one.side_car) == (str(tmp_path / "film.mp4"), str(tmp_path / "film.json"))
    assert (one.sha256, one.prompt, one.seed, other.side_car) == (fingerprint(clip), "a star", 3, None)


def test_what_cannot_be_kept_is_a_note(own_home: Path, ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is there all the same."""
    (own_home / "sessions").write_text("no folder")
    assert ask("-p", "hello") == 0
    out, err = capsys.readouterr()
    assert out and "note: the conversation is not kept: " in err and "cannot be written" in err


def test_exporting(
    ask: Any, store: SessionStore, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert ask(clip, "-p", "What is seen?", "--html", page) == 0
    assert "What is seen?" in page.read_text() and "data:video/mp4;base64," in page.read_text()
    (kept,) = store.ids()
    capsys.readouterr()
    names = [tmp_path / name for name in ("talk.md", "talk.json", "more.htm")]
    command = ["sessions", "export", kept, "--md", names[0], "--json", names[1], "-o", names[2]]
    assert run([str(word) for word in command]) == 0
    assert capsys.readouterr().out.splitlines() == [str(names[2]), str(names[0]), str(names[1])]
    assert len(list((tmp_path / "talk_files").iterdir())) == 4
    assert Session.load(names[1]) == store.load(kept)[0]
    assert names[2].read_text() == page.read_text()

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in names:
        assert run(["sessions", "export", kept, "-o", str(name)]) == ExitCode.USAGE
        assert "exists; --force replaces it" in capsys.readouterr().err
    (tmp_path / "talk_files" / "mine.txt").write_text("precious")
    assert run(["sessions", "export", kept, "-o", str(names[0]), "--force"]) == ExitCode.USAGE
    assert "holds other files (mine.txt)" in capsys.readouterr().err
    (tmp_path / "talk_files" / "mine.txt").unlink()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run(["sessions", "export", kept, "-o", str(names[0]), "--force"]) == 0
    assert run(["sessions", "export", kept, "-o", "talk.doc"]) == ExitCode.USAGE
    assert run(["sessions", "export", kept]) == ExitCode.USAGE


def test_coming_back(
    ask: Any, store: SessionStore, environment: dict[str, str], own_home: Path, tmp_path: Path, clip: Path
) -> None:
    """A person goes on where a script left off, keeps the last turn to themselves, and leaves with a page."""
    assert ask(clip, "-p", "What is seen?") == 0
    (kept,) = store.ids()
    options = ("--last", "--html", "page.html", "--max-tokens", "8")
    someone = Person({**environment, "GPT4VIDEO_HOME": str(own_home)}, tmp_path, *options)
    someone.sees(r"you: What is seen\?")
    someone.waits_for_prompt()
    someone.types("And now?")
    someone.sees("cut at 8 tokens")
    someone.waits_for_prompt()
    someone.types("/set save off")
    someone.sees("save = off")
    someone.types("Not for the files")
    someone.sees("cut at 8 tokens")
    someone.waits_for_prompt()
    someone.program.sendcontrol("d")
    someone.sees("page written: page.html")
    assert someone.has_left() == 0
    assert store.ids() == [kept]
    assert [turn.text for turn in store.load(kept)[0].turns] == ["What is seen?", "And now?"]
    assert "Not for the files" in (tmp_path / "page.html").read_text()
