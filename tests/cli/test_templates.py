"""Saved prompts: their variables, the folder they are in, and the commands that ask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.cli import batch_run, film, startup
from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode, InputError, UsageError
from gpt4video_cli.saved_prompt import LARGEST_FILE, PromptStore, SavedPrompt, read_variables


def test_variables_are_filled_in() -> None:
    prompt = SavedPrompt.parse("  Is the {thing} {colour=red}? {thing} as {{json}}: {{{thing}}}\n")
    assert prompt.variables == {"thing": None, "colour": "red"}
    assert prompt.fill({"thing": "ball"}) == "Is the ball red? ball as {json}: {ball}"
    assert prompt.fill({"thing": "{colour}", "colour": ""}) == "Is the {colour} ? {colour} as {json}: {{colour}}"


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_filled_in_is_never_read_as_a_template(before: str, value: str) -> None:
    try:
        prompt = SavedPrompt.parse("Say: " + before.replace("{", "{{").replace("}", "}}") + "{x}.")
        filled = prompt.fill({"x": value})
    except UsageError as error:  # the only text that no prompt may hold
        assert any(part in before + value for part in ("<video>", "</video>", "\0")), error
        return
    assert filled == f"Say: {before}{value}."


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("a { b", "the brace in '{ b' belongs to no variable"),
        ("a } b", "belongs to no variable"),
        ("{a b}", "belongs to no variable"),
        ("{x=1} {x=2}", "the variable x has two values, '1' and '2'"),
        ("film it: <video>a dog</video>", "holds <video>, which only the model may write"),
        ("stop</video>", "holds </video>"),
        ("a\0b", "zero byte"),
    ],
)
def test_text_that_is_no_prompt(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        SavedPrompt.parse(text)


def test_a_tag_cannot_be_put_together() -> None:
    with pytest.raises(UsageError, match="holds <video>"):
        SavedPrompt.parse("<{x}>a dog").fill({"x": "video"})


@pytest.mark.parametrize(
    ("given_values", "said"),
    [
        ({}, "the prompt needs thing, place; give it with --var thing=... --var place=..."),
        ({"thing": "a"}, "the prompt needs place; give it with --var place=..."),
        ({"thing": "a", "plce": "b"}, "the prompt has no variable 'plce'; did you mean place?"),
        ({"thing": "a", "q": "b"}, "the prompt has no variable 'q'; it has thing, colour, place"),
    ],
)
def test_missing_and_unknown_variables_are_named(given_values: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        SavedPrompt.parse("{thing} {colour=red} {place}").fill(given_values)
    assert error.value.line() == said


def test_variables_on_the_command_line() -> None:
    assert read_variables(["a=1", "b = x=y", "c="]) == {"a": "1", "b": " x=y", "c": ""}
    for words, part in ((["a"], "'a'; it must be NAME=VALUE"), (["=a"], "NAME=VALUE"), (["a=1", "a=2"], "given twice")):
        with pytest.raises(UsageError, match=part):
            read_variables(words)


def test_the_store(tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "templates")
    assert store.names() == []
    store.keep("colour", "What is {x}?\nSay it.")
    taken = "there is a template 'colour' already; --force replaces it"
    assert _line(lambda: store.keep("colour", "other")) == taken
    assert store.load("colour").text == "What is {x}?\nSay it."
    store.keep("colour", "other", replace=True)
    assert (store.names(), store.load("colour").text) == (["colour"], "other")
    assert _line(lambda: store.load("color")) == "no template 'color'; did you mean colour?"
    for name in ("../colour", "a/b", "", ".hidden", "a" * 65, "a b"):
        with pytest.raises(UsageError, match="cannot be a name"):
            store.load(name)
    store.remove("colour")
    assert "no template 'colour'" in _line(lambda: store.remove("colour"))
    (store.folder / "bytes.txt").write_bytes(b"\xff")
    (store.folder / "long.txt").write_text("x" * (LARGEST_FILE + 1))
    (store.folder / "brace.txt").write_text("{")
    for name, part in (("bytes", "not text in UTF-8"), ("long", "too large"), ("brace", "belongs to no variable")):
        with pytest.raises(InputError, match=part):
            store.load(name)
    assert "longer than" in _line(lambda: store.keep("new", "x" * LARGEST_FILE))
    assert "not in UTF-8" in _line(lambda: store.keep("new", "a \udcff b"))  # as the shell's bytes come


def _line(call: Any) -> str:
    with pytest.raises(UsageError) as error:
        call()
    return error.value.line()


def test_the_commands(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["templates", "new", "look", "What is {colour=red}\x1b[2J in {place}?"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert (out, err) == (f"{own_home / 'templates' / 'look.txt'}\n", "variables: colour, place\n")
    assert run(["templates", "list"]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == [
        "NAME  VARIABLES         TEXT",
        "look  colour=red place  What is {colour=red} in {place}?",
    ]
    assert run(["templates", "list", "--json"]) == ExitCode.DONE
    [row] = json.loads(capsys.readouterr().out)["templates"]
    assert row["variables"] == {"colour": "red", "place": None}
    assert run(["templates", "show", "look"]) == ExitCode.DONE
    assert capsys.readouterr().out == "What is {colour=red} in {place}?\n"
    assert run(["templates", "rm", "look", "lok"]) == ExitCode.USAGE
    assert "did you mean look?" in capsys.readouterr().err
    assert run(["templates", "rm", "look"]) == ExitCode.USAGE  # nobody to ask
    assert run(["templates", "rm", "look", "--yes"]) == ExitCode.DONE
    capsys.readouterr()
    (own_home / "templates" / "bad.txt").write_text("{")
    assert run(["templates", "list"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert out == "" and "bad.txt: the brace in" in err


def test_chat_batch_and_generate_ask_a_saved_prompt(
    own_home: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(startup, "Startup", seen.append)
    monkeypatch.setattr(batch_run, "run_batch", seen.append)
    monkeypatch.setattr(film, "film_all", seen.append)
    PromptStore(own_home / "templates").keep("look", "What is {colour=red} in the {place}?")
    saved = ["--template", "look", "--var", "place=box: <a>"]
    run(["chat", *saved])
    run(["batch", str(clip), *saved])
    run(["generate", *saved])
    text = "What is red in the box: <a>?"
    assert [seen[0].prompt, seen[1].defaults.prompt, seen[2].text] == [text] * 3

    capsys.readouterr()
    for arguments, said in (
        (["chat", "-p", "x", *saved], "--prompt and --template contradict each other"),
        (["generate", "x", *saved], "a text and --template contradict each other"),
        (["batch", str(clip), "--describe", *saved], "--prompt and --describe contradict each other"),
        (["chat", "-p", "x", "--var", "a=b"], "--template is missing"),
        (["chat", "--template", "lok"], "no template 'lok'; did you mean look?"),
        (["chat", "--template", "look"], "template 'look': the prompt needs place"),
    ):
        assert run(arguments) == ExitCode.USAGE
        assert said in capsys.readouterr().err
    assert len(seen) == 3
