"""``gpt4video``: the commands, and the one place where an error becomes a line on stderr and an exit code.

One file for each command, and ``command_table.py`` lists them. Importing this module costs typer and nothing more; a
command is imported when it is called, and imports what it needs.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer

from gpt4video_cli import __version__
from gpt4video_cli.cli.command_table import HELP_NAMES, CommandTable, add_names
from gpt4video_cli.cli.option_panels import help_width
from gpt4video_cli.cli.options import Debug, NoColor, Plain, switches
from gpt4video_cli.cli.terminal import clean, say_error
from gpt4video_cli.errors import ExitCode, Gpt4VideoError

app = typer.Typer(
    name="gpt4video",
    help="Talk about video clips with a language model that watches them.",
    # Plain help pages: 0.06 s instead of 0.14 s (rich), and they fit a narrow terminal and a screen reader.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    cls=CommandTable,
    context_settings=HELP_NAMES,
)


def _version(value: bool) -> None:
    if value:
        print(f"gpt4video {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Debug = False,
    no_color: NoColor = False,
    plain: Plain = False,
) -> None:
    pass


add_names(app)


def main() -> None:
    """The console script."""
    _prepare_streams()
    code = _finish(run(sys.argv[1:]))
    if "torch" in sys.modules:
        # Everything is written and the decoder is closed: leave now. Taking the interpreter down costs 1.0 s (2 cores,
        # torch and transformers loaded), and aborts where a thread is still inside an import of torch.
        from gpt4video_cli.video.url import remove_fetched

        remove_fetched()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code. Every error ends here, as one line on stderr."""
    switches.debug = False
    switches.settings = {}
    command = typer.main.get_command(app)
    try:
        # Outside standalone mode the usage errors come to us, and the exit code comes back.
        result: Any = command.main(arguments, prog_name="gpt4video", standalone_mode=False, terminal_width=help_width())
        return int(result or 0)
    except Gpt4VideoError as error:
        _show_traceback()
        say_error(error.line() + _where_set(str(error)))
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to say, and nobody to say it to.
        _discard(sys.stdout)
        return int(ExitCode.FAILED)
    except MemoryError:
        _show_traceback()
        say_error("not enough memory; a smaller model or fewer --frames need less")
        return int(ExitCode.FAILED)
    except ImportError as error:
        _show_traceback()
        say_error(f"{error}; `gpt4video doctor` says what is missing")
        return int(ExitCode.FAILED)
    except Exception as error:
        if isinstance(error, _click_exception()):
            return _usage_error(error)
        _show_traceback()
        hint = "" if switches.debug else "; run again with --debug to see where"
        say_error(f"{type(error).__name__}: {error}{hint}")
        return int(ExitCode.FAILED)


def _click_exception() -> type[Exception]:
    """The base of typer's usage errors: click's own class before typer 0.26, a copy of it inside typer since."""
    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _usage_error(error: Any) -> int:
    """One line: what is wrong, near names, where to read on."""
    if type(error).__name__ == "NoArgsIsHelpError":  # `gpt4video` alone: the help page is the answer
        print(error.format_message())
        return int(ExitCode.USAGE)
    near = getattr(error, "possibilities", None)
    option = getattr(error, "option_name", None)
    message = f"no such option: {option}" if near is not None and option else error.format_message().rstrip(".")
    message = (message[:1].lower() + message[1:]).replace(". Did you", "; did you")
    if near:
        message += f"; did you mean {' or '.join(near[:2])}?"
    context = getattr(error, "ctx", None)
    name = context.command_path if context is not None else "gpt4video"
    say_error(f"{message}{_where_set(message)} (see: {name} --help)")
    return int(error.exit_code)


def _where_set(message: str) -> str:
    """Where an option that an error is about was set, if not on the command line."""
    if not switches.settings:
        return ""
    from gpt4video_cli.cli.configuration import blame

    return blame(message)


def _prepare_streams() -> None:
    """Text that a stream's encoding lacks is shown as '?' instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _show_traceback() -> None:
    if switches.debug:
        print(clean(traceback.format_exc()), file=sys.stderr)


def _finish(code: int) -> int:
    """Flush what is left, quietly where the reader has gone."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return code or int(ExitCode.FAILED)
    except OSError as error:  # a full disk behind `> answer.txt`
        _discard(sys.stdout)
        say_error(f"the output cannot be written: {error.strerror or error}")
        return code or int(ExitCode.FAILED)
    return code


def _discard(stream: Any) -> None:
    """Send a closed pipe's rest to nowhere, so that the interpreter does not complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
