"""``gpt4video replay``: a kept conversation runs again, and what comes out otherwise is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli import options as opt
from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.sessions import session_ids
from gpt4video_cli.cli.terminal import clean, clean_line, say
from gpt4video_cli.errors import ExitCode

if TYPE_CHECKING:
    from gpt4video_cli.replay import Compared
    from gpt4video_cli.session import Session


def replay(
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="A session of gpt4video sessions list, or a file of /save.",
            show_default=False,
            autocompletion=session_ids,
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Print which answers differ, and end with exit code 1 if any does.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            autocompletion=model_names,
            help="Replay on this model (else only on the same one).",
        ),
    ] = None,
    device: opt.Device = "auto",
    dtype: opt.Precision = "auto",
    vision_dtype: opt.VisionDType = "auto",
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    plain: opt.Plain = False,
    debug: opt.Debug = False,
) -> int:
    """Ask everything in a conversation again, with the same clips, options and seeds.

    Prints the new answers; with --check, what is not as it was. Each turn is asked after the conversation as it was
    kept, so that one answer that differs does not change the next. Nothing is filmed.
    """
    from gpt4video_cli.language.engine_wish import EngineWish
    from gpt4video_cli.model.placement import LoadWish
    from gpt4video_cli.replay import check_same, model_of
    from gpt4video_cli.replay import replay as run_again

    found = _session(session)
    place, record = (model, None) if model is not None else model_of(found)
    wish = EngineWish() if record is None else record.engine_wish()
    from gpt4video_cli.cli.startup import quieten_libraries
    from gpt4video_cli.cli.terminal import Status

    quieten_libraries()
    rows: list[dict[str, Any]] = []
    with Status(f"loading {place} ...", quiet=quiet):
        from gpt4video_cli.assistant import Assistant
        from gpt4video_cli.model.checkpoint import open_model
        from gpt4video_cli.video.reader import FrameReader

        loading = LoadWish(device, dtype, engine=wish, vision_dtype=vision_dtype)
        assistant = Assistant(open_model(place, loading), FrameReader())
        if record is not None:
            check_same(assistant, record)
    with assistant:
        for compared in run_again(assistant, found):
            rows.append(_as_dict(compared))
            if not json:
                _print(compared, check=check)
    differing = sum(bool(row["differs"]) for row in rows)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"model": place, "turns": rows, "differing": differing})
    if check and not quiet:
        say(f"{differing} of {len(rows)} turns differ" if differing else f"all {len(rows)} turns are the same")
    return int(ExitCode.FAILED if check and differing else ExitCode.DONE)


def _session(text: str) -> Session:
    from gpt4video_cli.session import Session

    if Path(text).is_file():
        return Session.load(text)
    from gpt4video_cli.cli.sessions import open_store

    store = open_store()
    return store.load(store.find(text))[0]


def _as_dict(compared: Compared) -> dict[str, Any]:
    kept, again = compared.kept, compared.again
    return {
        "turn": compared.number,
        "differs": list(compared.differs),
        "kept": {"answer": kept.answer, "prompts": list(kept.prompts)},
        "again": {"answer": again.answer, "prompts": list(again.prompts)},
    }


def _print(compared: Compared, *, check: bool) -> None:
    number, kept, again = compared.number, compared.kept, compared.again
    if not check:
        print(f"> {clean_line(kept.text)}")
        print(clean(again.answer).strip() or "(no text)", flush=True)
        return
    if not compared.differs:
        print(f"turn {number}: the same", flush=True)
        return
    print(f"turn {number}: {' and '.join(compared.differs)} {'differs' if len(compared.differs) == 1 else 'differ'}")
    if "answer" in compared.differs:
        print(f"  was: {clean_line(kept.answer)}\n  now: {clean_line(again.answer)}")
    if "prompts" in compared.differs:
        print(f"  asked for: {clean_line('; '.join(kept.prompts)) or '-'}")
        print(f"  asks for:  {clean_line('; '.join(again.prompts)) or '-'}")
