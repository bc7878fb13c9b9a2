"""``gpt4video sessions``: the conversations that were kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain, Quiet, TimeLimit
from gpt4video_cli.cli.terminal import clean, clean_line, columns, say
from gpt4video_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gpt4video_cli.session_store import SessionStore

sessions = typer.Typer(
    help="Work with the conversations that were kept: list, read, continue, export, remove.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@sessions.callback()
def _sessions() -> None:
    """Work with the conversations that were kept: list, read, continue, export, remove.

    ID is a session's id, as much of its beginning as no other has, or its last six digits or the first of them.
    """


def session_ids(incomplete: str) -> list[str]:
    """For the completion of the shell."""
    return [name for name in open_store().ids() if name.startswith(incomplete)]


Id = Annotated[
    str, typer.Argument(metavar="ID", help="A session of gpt4video sessions list.", autocompletion=session_ids)
]


def open_store() -> SessionStore:
    """The user's own."""
    from gpt4video_cli.cli.folders import sessions_folder
    from gpt4video_cli.session_store import SessionStore

    return SessionStore(sessions_folder())


@sessions.command("list", short_help="Which conversations there are.")
def list_(
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="The last N only.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """List the conversations, the one that was changed last first: id, age, turns, clips and the first question."""
    from itertools import islice

    from gpt4video_cli.cli.session_views import print_list

    print_list(list(islice(open_store().sessions(), limit)), json=json, quiet=quiet)
    return int(ExitCode.DONE)


@sessions.command(short_help="Find conversations by their words.")
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All of them must be in it.", show_default=False)],
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """List the conversations in which all the words occur, in questions or answers; capitals do not matter.

    Ends with exit code 1 where there is none.
    """
    from gpt4video_cli.cli.session_views import print_list

    wanted = [word.casefold() for word in words if word.strip()]
    if not wanted:
        raise UsageError("nothing to search for")
    found = []
    for stored in open_store().sessions():
        turns = stored.session.turns if stored.session is not None else []
        text = "\n".join(part for turn in turns for part in (turn.text, turn.answer)).casefold()
        if turns and all(word in text for word in wanted):
            found.append(stored)
    print_list(found, json=json, quiet=quiet)
    return int(ExitCode.DONE if found else ExitCode.FAILED)


@sessions.command(short_help="Read a conversation.")
def show(session: Id, json: Json = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """Print a conversation: questions, clips, answers, and the clips that were filmed. With --json: its whole file."""
    from gpt4video_cli.cli.session_views import print_turns

    store = open_store()
    found, kept = store.load(store.find(session))
    if json:
        from json import loads

        from gpt4video_cli.cli.render import print_json

        print_json({"id": kept.id, **loads(found.as_bytes())})
        return int(ExitCode.DONE)
    print_turns(found, kept.id)
    return int(ExitCode.DONE)


@sessions.command(short_help="Go on with a conversation.")
def resume(
    context: typer.Context,
    session: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Which one; without it you choose.", autocompletion=session_ids),
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLIPS", help="New clips, or the new places of clips that were moved."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            autocompletion=model_names,
            help="Which model answers (else: the same).",
        ),
    ] = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Go on with a conversation; the same as gpt4video chat --resume ID, which takes more options."""
    from gpt4video_cli.cli.command_table import load_command

    chat = load_command("chat")  # the command and not its function: what is set for `chat` holds here, too
    arguments = [
        "--resume",
        session or "",
        *([] if model is None else ["--model", model]),
        *(["--quiet"] if quiet else []),
    ]
    with chat.make_context("chat", [*arguments, "--", *(clips or [])], parent=context.find_root()) as inner:
        return int(chat.invoke(inner))


@sessions.command(short_help="Write a conversation to a file.")
def export(
    session: Id,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="NAME.md, NAME.html or NAME.json.")
    ] = None,
    md: Annotated[str | None, typer.Option("--md", metavar="FILE", help="Markdown; frames go to NAME_files/.")] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="One page with all that is in it.")] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="All that is known, for /load.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    time_limit: TimeLimit = 10.0,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Write a conversation as Markdown, as one page of HTML or as JSON; the files' names go to stdout.

    The page carries frames and clips of up to 20 MB inside, needs no network and runs no script.
    """
    from gpt4video_cli.cli.options import check_time_limit
    from gpt4video_cli.cli.session_export import Kind, export_target
    from gpt4video_cli.cli.session_export import export as write
    from gpt4video_cli.cli.terminal import Status

    check_time_limit(time_limit)
    wanted: list[tuple[str | None, Kind | None]] = [(output, None), (md, "md"), (html, "html"), (json, "json")]
    store = open_store()
    found, _ = store.load(store.find(session))
    targets = [export_target(name, kind, force=force) for name, kind in wanted if name is not None]
    if not targets:
        raise UsageError("where to is missing", hint="-o NAME.md, NAME.html or NAME.json")
    from gpt4video_cli.cli.startup import EarlyReader

    with EarlyReader(limit=time_limit) as reader:
        for target in targets:
            with Status(f"writing {target} ...", quiet=quiet):
                write(found, target, reader, force=force)
            print(clean_line(str(target)), flush=True)
    return int(ExitCode.DONE)


@sessions.command(short_help="Remove conversations.")
def rm(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Which sessions.", autocompletion=session_ids, show_default=False),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Remove conversations. Clips, filmed ones too, are files of yours and stay."""
    from gpt4video_cli.cli.confirm import confirm

    store = open_store()
    chosen = list(dict.fromkeys(store.find(text) for text in ids))
    if not yes:
        width = max(20, columns(sys.stderr) - 1)
        for stored in store.sessions():
            if stored.id in chosen:
                title = stored.session.title if stored.session is not None else "(cannot be read)"
                say(f"{stored.id}  {clean(title)}"[:width])
        confirm("Remove this?" if len(chosen) == 1 else "Remove these?", refused="not removed", yes="--yes removes it")
    for session_id in chosen:
        store.remove(session_id)
    return int(ExitCode.DONE)
