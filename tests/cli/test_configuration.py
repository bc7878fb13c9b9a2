"""What a person sets for good: the file, the variables, the flags, and which of them holds."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli import startup
from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.chat import ChatRequest
from gpt4video_cli.cli.command_table import load_command
from gpt4video_cli.cli.config_file import ConfigFile, read_config
from gpt4video_cli.cli.configurable import GIVES_WAY, ONE_RUN, SECTIONS, SHARED, option_key
from gpt4video_cli.cli.configuration import options_of, settings
from gpt4video_cli.errors import ExitCode, InputError
from gpt4video_cli.session import Session
from gpt4video_cli.session_store import SessionStore


class _StopError(Exception):
    pass


@pytest.fixture
def config(own_home: Path) -> Path:
    """Where the file belongs; the test writes it."""
    return own_home / "config.toml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ChatRequest]:
    """What `chat` would do, once per run; nothing is loaded."""
    seen: list[ChatRequest] = []

    def stop(request: ChatRequest) -> Any:
        seen.append(request)
        raise _StopError

    monkeypatch.setattr(startup, "Startup", stop)
    return seen


def ask(*arguments: str) -> None:
    run(["chat", "-p", "x", *arguments])


def test_a_flag_goes_before_a_variable_and_that_before_the_file(
    config: Path, asked: list[ChatRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    config.write_text("max_tokens = 11\n")
    ask()
    config.write_text("max-tokens = 11\n[chat]\nmax-tokens = 12\n")
    ask()
    monkeypatch.setenv("GPT4VIDEO_MAX_TOKENS", "13")
    ask()
    monkeypatch.setenv("GPT4VIDEO_CHAT_MAX_TOKENS", "14")
    ask()
    ask("--max-tokens", "15")
    own, *told = [request.answer.max_tokens for request in asked]
    assert told == [11, 12, 13, 14, 15]
    assert own == asked[0].card.max_tokens


def test_values_of_every_kind_arrive(
    config: Path, asked: list[ChatRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config.write_text(
        f'temperature = 1\nstop = ["END", "a, b"]\nno_cache = true\n[chat]\nfps = 2.5\noutput = "{tmp_path}"\n'
    )
    monkeypatch.setenv("GPT4VIDEO_QUIET", "yes")
    monkeypatch.setenv("GPT4VIDEO_NO_SAVE", "0")
    ask()
    request = asked[0]
    assert (request.answer.temperature, request.answer.stop, request.plan.fps) == (1.0, ("END", "a, b"), 2.5)
    assert (request.cache, request.quiet, request.film.folder) == (None, True, str(tmp_path))
    assert request.keeper.save is True
    monkeypatch.setenv("GPT4VIDEO_STOP", "one, with a comma\ntwo")
    monkeypatch.setenv("GPT4VIDEO_NO_SAVE", "1")
    ask()
    assert asked[1].answer.stop == ("one, with a comma", "two")
    assert asked[1].keeper.save is False


CASES = [
    ("temprature = 1", "unknown key temprature; did you mean temperature?"),
    ("[caht]\nframes = 1", "unknown key caht; did you mean chat?"),
    ("[chat]\nframs = 1", "unknown key chat.frams; did you mean frames or max_frames?"),
    ("columns = 3", "unknown key columns; it has a place in [frames]"),
    ("seed = 3", "unknown key seed; it has a place in [chat] and [generate] and [batch]"),
    ("[train]\nepochs = 3", "unknown key train; gpt4video config show lists the keys"),
    ("chat = 3", "chat is 3; it must be a section, [chat]"),
    ("[chat]\nyes = true", "chat.yes is said for each run; give --yes on the command line"),
    ("[chat]\nprompt = 'hello'", "chat.prompt is said for each run"),
    ("max_tokens = 1\nmax-tokens = 2", "max_tokens stands there twice"),
    ("max_tokens = '20'", "max_tokens is '20'; it must be a whole number"),
    ("[chat]\nmax_tokens = 2.5", "chat.max_tokens is 2.5; it must be a whole number"),
    ("max_tokens = true", "max_tokens is true; it must be a whole number"),
    ("temperature = 'hot'", "temperature is 'hot'; it must be a number"),
    ("quiet = 1", "quiet is 1; it must be true or false"),
    ("model = 7", "model is 7; it must be a text"),
    ("stop = ['a', 2]", "stop is ['a', 2]; it must be a text, or a list of them"),
    ("model = ", "not valid TOML"),
    ("a = " + "[" * 5000, "not valid TOML"),
    ("# " + "x" * (1 << 20), "too large for a configuration"),
]


@pytest.mark.parametrize(("text", "part"), CASES, ids=lambda value: value[:30])
def test_what_is_wrong_in_the_file_is_one_line(
    text: str, part: str, config: Path, asked: list[ChatRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert run(["chat", "-p", "x"]) == ExitCode.INPUT
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), asked) == ("", 1, [])
    assert err.startswith(f"error: {config}: ")
    assert part in err


@pytest.mark.parametrize(
    ("content", "part"), [(b"\xff\xfe", "not text in UTF-8"), (None, "cannot be read: Is a directory")]
)
def test_a_file_that_is_none(content: bytes | None, part: str, config: Path) -> None:
    if content is None:
        config.mkdir()
    else:
        config.write_bytes(content)
    with pytest.raises(InputError, match=part):
        read_config(config)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("GPT4VIDEO_MAX_TOKENS", "many", "'many'; it must be a whole number"),
        ("GPT4VIDEO_CHAT_FPS", "fast", "'fast'; it must be a number"),
        ("GPT4VIDEO_NO_CACHE", "perhaps", "'perhaps'; it must be 1 or 0"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert run(["chat", "-p", "x"]) == ExitCode.USAGE
    assert f"{name} is {part}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (
            "[chat]\nframes = 0",
            [],
            "--frames is 0; it must be a whole number of at least 1 (frames is set in [chat] in ",
        ),
        ("model = 'none-such'", [], "no model 'none-such'"),
        ("engine = 'llma'", [], "llma"),
        ("policy = 'mine.toml'", [], "mine.toml: cannot be read"),
    ],
)
def test_the_code_of_the_flags_checks_the_values_and_says_where_they_are_from(
    text: str, arguments: list[str], said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert run(["chat", "-p", "x", *arguments]) != ExitCode.DONE
    err = capsys.readouterr().err
    assert said in err
    assert f"is set in {'[chat] in ' if 'chat' in text else ''}{config})" in err
    assert err.count("\n") == 1
    # Of a flag nothing of the kind is said.
    config.write_text("[chat]\nframes = 8\n")
    assert run(["chat", "-p", "x", "--frames", "0"]) == ExitCode.USAGE
    assert "is set in" not in capsys.readouterr().err


def test_a_flag_drops_what_contradicts_it(
    config: Path, asked: list[ChatRequest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("[chat]\nfps = 2\nmax_frames = 9\nno_generate = true\n")
    ask("--frames", "3", "--yes")
    ask("--at", "1,2")
    ask("--fps=4")
    ask()
    monkeypatch.setenv("GPT4VIDEO_CHAT_FRAMES", "5")
    ask()
    plans = [(r.plan.frames, r.plan.fps, r.plan.max_frames, len(r.plan.at)) for r in asked]
    assert plans == [(3, None, None, 0), (None, None, None, 2), (None, 4, 9, 0), (None, 2, 9, 0), (5, None, None, 0)]
    assert [request.film.mode for request in asked[:2]] == ["yes", "no"]
    # Two that stand in the same place are a mistake there.
    config.write_text("[chat]\nfps = 2\nframes = 4\n")
    monkeypatch.delenv("GPT4VIDEO_CHAT_FRAMES")
    capsys.readouterr()
    assert run(["chat", "-p", "x"]) == ExitCode.USAGE
    assert "--frames and --fps contradict each other; give one of them" in capsys.readouterr().err


def test_what_is_gone_on_with_or_made_again_stays_as_it_was(tmp_path: Path) -> None:
    """A conversation keeps its model, and a clip everything that shapes it."""
    file = ConfigFile(
        tmp_path / "config.toml",
        {"model": "other", "generator": "other", "quiet": True},
        {"generate": {"seed": 3, "size": "64x64", "no_metadata": True}},
    )
    chat, generate = options_of("chat"), options_of("generate")
    assert settings("chat", chat, file, {})["model"].value == "other"
    for flag in ("resume", "last"):
        assert "model" not in settings("chat", chat, file, {}, {flag})
    assert settings("generate", generate, file, {}).keys() >= {"seed", "size", "generator"}
    for flag in ("from", "resume"):
        assert settings("generate", generate, file, {}, {flag}).keys() == {"model", "no_metadata", "quiet"}


def test_paths_of_the_file_start_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    values = {"model": "./mine", "generator": "zeroscope-v2-xl", "adapter": ["one", "~/two:0.5"], "policy": "p.toml"}
    file = ConfigFile(tmp_path / "config.toml", values, {"chat": {"output": "films"}, "batch": {"films": "."}})
    found = {key: one.value for key, one in settings("chat", options_of("chat"), file, {}).items()}
    assert found == {
        "model": str(tmp_path / "mine"),
        "generator": "zeroscope-v2-xl",
        "adapter": ["one", str(tmp_path / "me" / "two:0.5")],
        "policy": str(tmp_path / "p.toml"),
        "output": str(tmp_path / "films"),
    }
    assert settings("batch", options_of("batch"), file, {})["films"].value == "."


def test_guards_that_are_turned_off_for_good_are_told_at_every_start(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("quiet = true\nno_guard = ['text']\n")
    for _ in range(2):
        run(["safety", "check", "a red circle"])
        err = capsys.readouterr().err
        assert err.startswith("safety: guards are turned off: text;")
        assert f"(no_guard is set in {config})" in err
    monkeypatch.setenv("GPT4VIDEO_NO_GUARD", "frames")
    run(["safety", "check", "a red circle"])
    assert "turned off: frames;" in (err := capsys.readouterr().err)
    assert "(no_guard is set in GPT4VIDEO_NO_GUARD)" in err


def test_consent_comes_from_nowhere_but_the_command_line(
    asked: list[ChatRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("YES", "FORCE", "CHAT_YES", "CHAT_PROMPT", "GENERATE_FORCE"):
        monkeypatch.setenv(f"GPT4VIDEO_{name}", "1")
    monkeypatch.setenv("GPT4VIDEO_CHAT_NO_GENERATE", "1")
    ask()
    assert (asked[0].prompt, asked[0].film.mode) == ("x", "no")
    offered = {(command, key) for command in SECTIONS for key in options_of(command)}
    assert not {key for _, key in offered} & {"yes", "force", "from", "prompt", "template", "var"}
    assert ("generate", "output") not in offered and ("chat", "output") in offered


def test_every_name_in_the_tables_is_an_option() -> None:
    options = {command: {option_key(param) for param in load_command(command).params} for command in SECTIONS}
    everywhere = set().union(*options.values())
    assert everywhere >= ONE_RUN | SHARED.keys()
    for key, commands in SHARED.items():
        assert any(key in options[command] for command in commands or SECTIONS), key
        assert set(commands) <= set(SECTIONS)
    for command, table in GIVES_WAY.items():
        for key, rivals in table.items():
            assert {key, *rivals} <= options[command], (command, key)
    for command in SECTIONS:  # a shared key means the same everywhere: at least its kind does
        for key, option in options_of(command).items():
            kinds = {options_of(other)[key].kind for other in SECTIONS if key in options_of(other)}
            assert key not in SHARED or kinds == {option.kind}


@pytest.mark.parametrize("arguments", [["chat", "--help"], ["config", "path"], ["config", "init", "--force"]])
def test_a_wrong_file_does_not_stand_in_the_way(
    arguments: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("no = such key")
    assert run(arguments) == ExitCode.DONE
    assert capsys.readouterr().err == ""


def test_the_doctor_says_what_is_wrong_with_the_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[batch]\nworker = 3\n")
    run(["doctor", "--quick"])
    out, err = capsys.readouterr()
    assert f"note: {config}: unknown key batch.worker; did you mean workers?" in out
    assert err == ""


def test_show_says_where_each_value_is_from(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text('temperature = 0.5\n[batch]\nworkers = 4\nstop = ["a\\"b"]\n')
    monkeypatch.setenv("GPT4VIDEO_POLICY", "strict")
    monkeypatch.setenv("GPT4VIDEO_BACTH_WORKERS", "3")
    assert run(["config", "show", "--origin", "--json"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert (
        err == "note: the variable GPT4VIDEO_BACTH_WORKERS means nothing here; did you mean GPT4VIDEO_BATCH_WORKERS?\n"
    )
    shown = json.loads(out)["commands"]["batch"]
    assert shown["workers"] == {"value": 4, "origin": f"[batch] in {config}"}
    assert shown["temperature"] == {"value": 0.5, "origin": str(config)}
    assert shown["policy"] == {"value": "strict", "origin": "GPT4VIDEO_POLICY"}
    assert shown["batch_size"] == {"value": 8, "origin": "default"}

    assert run(["config", "show", "batch", "--changed", "--origin"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[batch]"
    assert {tuple(part.strip() for part in line.split("#")) for line in lines[1:]} == {
        ("workers = 4", f"[batch] in {config}"),
        ("temperature = 0.5", str(config)),
        ('stop = ["a\\"b"]', f"[batch] in {config}"),
        ('policy = "strict"', "GPT4VIDEO_POLICY"),
    }
    # What is shown can stand in the file, and then nothing is a default any more.
    assert run(["config", "show"]) == ExitCode.DONE
    config.write_text(first := capsys.readouterr().out)
    monkeypatch.delenv("GPT4VIDEO_POLICY")
    assert run(["config", "show", "--changed"]) == ExitCode.DONE
    assert capsys.readouterr().out == first
    assert run(["config", "show", "caht"]) == ExitCode.USAGE


def test_the_first_file_sets_nothing_and_names_everything(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "init"]) == ExitCode.DONE
    assert capsys.readouterr().out == f"{config}\n"
    text = config.read_text()
    assert tomllib.loads(text) == {command: {} for command in SECTIONS}
    named: dict[str, set[str]] = {"": set()}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            named[section] = set()
        elif line.startswith("#") and not line.startswith("# "):
            key = line[1:].split(" = ")[0]
            named[section].add(key)
            option = next(by[key] for by in map(options_of, [section] if section else SECTIONS) if key in by)
            if option.kind is str or option.default is not None:  # the others have a letter there
                ConfigFile(config).value(option, tomllib.loads(line[1:])[key])
    for command in SECTIONS:
        assert named[command] | named[""] >= options_of(command).keys()
    assert run(["config", "init"]) == ExitCode.USAGE
    assert "exists; edit it, or --force replaces it" in capsys.readouterr().err


def test_another_file_can_be_named(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "deep" / "mine.toml"
    monkeypatch.setenv("GPT4VIDEO_CONFIG", str(other))
    assert run(["chat", "-p", "x"]) == ExitCode.INPUT
    assert f"{other}: no such file; GPT4VIDEO_CONFIG names it" in capsys.readouterr().err
    assert run(["config", "init"]) == ExitCode.DONE
    assert other.is_file()
    monkeypatch.delenv("GPT4VIDEO_CONFIG")
    monkeypatch.delenv("GPT4VIDEO_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    capsys.readouterr()
    run(["config", "path"])
    assert capsys.readouterr().out == f"{tmp_path / 'xdg' / 'gpt4video' / 'config.toml'}\n"


def test_going_on_with_a_conversation_is_a_chat(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is set for `chat`, its policy above all, holds for `sessions resume`."""
    from gpt4video_cli.cli.folders import sessions_folder

    kept = SessionStore(sessions_folder()).keep(Session(), None)
    config.write_text("[chat]\npolicy = 'strct'\n")
    assert run(["sessions", "resume", kept.id]) == ExitCode.USAGE
    assert "did you mean strict" in capsys.readouterr().err
