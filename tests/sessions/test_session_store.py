"""Kept conversations: found again, never half written, never lost to another program, never outside their folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt4video_cli.errors import Gpt4VideoError, SessionFileError, UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.session import Session, Turn
from gpt4video_cli.session_store import SessionStore

ROOT = Path(__file__).resolve().parents[2]


def turn(text: str) -> Turn:
    return Turn(text, (), "yes", "yes", (1,), "tiny", (), SamplingOptions(), "stop")


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "data" / "sessions")


def test_what_is_kept_comes_back(store: SessionStore) -> None:
    session = Session([turn("one?")])
    kept = store.keep(session, None)
    assert store.load(kept.id) == (session, kept)
    session.add(turn("two?"))
    again = store.keep(session, kept)
    assert again.id == kept.id and again.sha256 != kept.sha256
    assert [t.text for t in store.load(kept.id)[0].turns] == ["one?", "two?"]
    assert store.ids() == [kept.id]


def test_only_the_owner_can_read_them(store: SessionStore) -> None:
    kept = store.keep(Session([turn("private")]), None)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(kept.id).stat().st_mode) == 0o600


def test_the_last_changed_comes_first(store: SessionStore) -> None:
    first, second = (store.keep(Session([turn(text)]), None) for text in ("first", "second"))
    for age, kept in enumerate((second, first)):
        os.utime(store.path(kept.id), (1_000_000 - age, 1_000_000 - age))
    assert store.ids() == [second.id, first.id] and store.last() == second.id
    store.keep(Session([turn("first"), turn("more")]), first)
    assert store.last() == first.id


def test_an_id_may_be_shortened_and_is_guessed(store: SessionStore) -> None:
    store.folder.mkdir(parents=True)
    names = ["20260101-120000-aaaaaa", "20260101-130000-abbbbb", "20270101-120000-cccccc"]
    for name in names:
        store.path(name).write_bytes(Session([turn(name)]).as_bytes())
    assert store.find("2027") == names[2]
    assert store.find(names[0]) == names[0]
    assert store.find("ccc") == names[2] and store.find("abb") == names[1]
    with pytest.raises(UsageError, match="begins the ids of 2 sessions"):
        store.find("2026")
    with pytest.raises(UsageError) as caught:
        store.find("20270101-120000-ccccdd")
    assert names[2] in caught.value.line()
    for nothing in ("", "x", "../20270101"):
        with pytest.raises(UsageError, match="no session"):
            store.find(nothing)


@pytest.mark.parametrize("name", ["../../x", "20260101-120000-aaaaaa/../y", "20260101-120000-AAAAAA", "", "a\0"])
def test_no_id_leads_out_of_the_folder(store: SessionStore, name: str) -> None:
    with pytest.raises(UsageError, match="no session's id"):
        store.path(name)


def test_other_files_are_no_sessions(store: SessionStore) -> None:
    kept = store.keep(Session([turn("one")]), None)
    for name in ("notes.json", "20260101-120000-aaaaaa.txt", ".20260101-120000-aaaaaa.json.x.tmp"):
        (store.folder / name).write_text("{}")
    assert store.ids() == [kept.id]


def test_a_damaged_file_does_not_hide_the_others(store: SessionStore) -> None:
    good = store.keep(Session([turn("good")]), None)
    bad = store.keep(Session([turn("bad")]), None)
    store.path(bad.id).write_text("{")
    found = {entry.id: entry for entry in store.sessions()}
    assert found[good.id].session is not None
    assert found[bad.id].session is None and "not JSON" in found[bad.id].problem
    with pytest.raises(SessionFileError):
        store.load(bad.id)


def test_nothing_was_kept_yet(store: SessionStore) -> None:
    assert store.ids() == [] and list(store.sessions()) == []
    with pytest.raises(UsageError, match="no conversation was kept yet"):
        store.last()


def test_removing(store: SessionStore) -> None:
    session = Session([turn("one")])
    kept = store.keep(session, None)
    store.remove(kept.id)
    assert store.ids() == []
    with pytest.raises(UsageError, match="no session"):
        store.remove(kept.id)
    assert store.keep(session, kept).id == kept.id  # a program in the middle of it


def test_the_second_to_write_gets_an_id_of_its_own(store: SessionStore) -> None:
    kept = store.keep(Session([turn("begun")]), None)
    (one, kept_one), (two, kept_two) = store.load(kept.id), store.load(kept.id)
    one.add(turn("one"))
    two.add(turn("two"))
    kept_one, kept_two = store.keep(one, kept_one), store.keep(two, kept_two)
    assert kept_one.id == kept.id != kept_two.id
    two.add(turn("two again"))
    assert store.keep(two, kept_two).id == kept_two.id
    assert [t.text for t in store.load(kept.id)[0].turns] == ["begun", "one"]
    assert [t.text for t in store.load(kept_two.id)[0].turns] == ["begun", "two", "two again"]


WRITER = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}]
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.session import Turn
from gpt4video_cli.session_store import SessionStore
store, name = SessionStore(Path({folder!r})), sys.argv[1]
session, kept = store.load({session_id!r})
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    session.add(Turn(f"{{name}}{{number}}", (), "a" * 20000, "", (), "tiny", (), SamplingOptions(), "stop"))
    kept = store.keep(session, kept)
print(kept.id)
"""


def test_two_programs_on_one_conversation_lose_nothing(store: SessionStore) -> None:
    """Both write 40 turns of one session at the same time; a third reads it meanwhile and never meets half a file."""
    kept = store.keep(Session([turn("begun")]), None)
    code = WRITER.format(root=str(ROOT), folder=str(store.folder), session_id=kept.id)
    programs = [
        subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for program in programs:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    while any(program.poll() is None for program in programs):
        assert all(entry.session is not None for entry in store.sessions())
        time.sleep(0.02)
    ended = {}
    for name, program in zip("ab", programs):
        shown, _ = program.communicate()
        assert program.returncode == 0
        ended[name] = shown.strip()
    assert len(set(ended.values())) == 2 and kept.id in ended.values()
    for name, session_id in ended.items():
        texts = [t.text for t in store.load(session_id)[0].turns]
        assert texts == ["begun", *(f"{name}{number}" for number in range(40))]
    assert sorted(store.ids()) == sorted(ended.values())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Gpt4VideoError, match="cannot be written"):
        SessionStore(tmp_path / "file" / "sessions").keep(Session([turn("one")]), None)
