"""``gpt4video cache``: the clips whose embeddings are kept on disk, so that a later question needs no decoding."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from gpt4video_cli.cli.confirm import confirm
from gpt4video_cli.cli.models_pull import human
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain, Quiet
from gpt4video_cli.cli.table import print_table
from gpt4video_cli.cli.terminal import clean_line, say
from gpt4video_cli.errors import ExitCode, UsageError

cache = typer.Typer(
    help="See and clear what is kept of clips.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@cache.callback()
def _cache() -> None:
    """See and clear what is kept of clips.

    What a model saw of a clip is kept, so that the next question about it comes at once. GPT4VIDEO_CACHE_SIZE says how
    much of it at most (1GB); the clips that were not asked about for longest go first.
    """


@cache.command(short_help="Which clips are kept.")
def ls(
    json: Json = False, quiet: Quiet = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False
) -> int:
    """List the clips that are kept, the last used first, and how much room they take."""
    from gpt4video_cli.clip_cache import ClipCache

    kept = ClipCache()
    clips = kept.clips()
    total = sum(clip.bytes for clip in clips)
    now = time.time()
    if json:
        from gpt4video_cli.cli.render import print_json

        rows = [
            {
                "path": clip.path,
                "model": clip.model,
                "frames": clip.frames,
                "bytes": clip.bytes,
                "used_seconds_ago": round(max(0.0, now - clip.used), 1),
            }
            for clip in clips
        ]
        print_json({"folder": str(kept.folder), "clips": rows, "bytes": total, "limit": kept.limit})
        return int(ExitCode.DONE)
    if clips:
        cells = [(_ago(now - c.used), human(c.bytes), str(c.frames), c.model, c.path) for c in clips]
        print_table(("USED", "SIZE", "FRAMES", "MODEL", "CLIP"), cells)
    if not quiet:
        say(f"{_count(len(clips))}, {human(total)} of {human(kept.limit)} in {kept.folder}", style="0")
    return int(ExitCode.DONE)


@cache.command(short_help="Drop clips that were not used for long.")
def prune(
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Keep so much at most, such as 500MB.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Drop what was not used for so long, as in 30d.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Drop the clips that were not used for longest, until the rest is small enough and new enough.

    Without options, down to the limit that holds anyway (GPT4VIDEO_CACHE_SIZE, or 1GB).
    """
    from gpt4video_cli.byte_size import read_size
    from gpt4video_cli.clip_cache import ClipCache

    limit = None if max_size is None else read_size(max_size, "--max-size")
    age = None if older_than is None else _seconds(older_than)
    return _told(*ClipCache().prune(limit, age), json=json, quiet=quiet)


@cache.command(short_help="Drop all clips.")
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Drop everything that is kept of clips. The clips themselves are not touched."""
    from gpt4video_cli.clip_cache import ClipCache

    kept = ClipCache()
    if not yes:
        confirm(
            f"Drop everything that is kept in {clean_line(str(kept.folder))}?",
            refused="not cleared",
            yes="--yes clears it",
        )
    return _told(*kept.clear(), json=json, quiet=quiet)


def _told(count: int, size: int, *, json: bool, quiet: bool) -> int:
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"dropped": count, "bytes": size})
    elif not quiet:
        say(f"dropped {_count(count)}, {human(size)}", style="0")
    return int(ExitCode.DONE)


def _count(clips: int) -> str:
    return f"{clips} clip{'' if clips == 1 else 's'}"


def _ago(seconds: float) -> str:
    """``3 min``, ``5 h``, ``12 d``: how long ago, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds / length)} {unit}"
    return "now"


def _seconds(text: str) -> float:
    """``30d``, ``12h``, ``90m``, ``2w`` in seconds."""
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d*)?)\s*([smhdw])\s*", text.lower())
    if found is None:
        raise UsageError(f"--older-than is {text!r}; it must be a time such as 30d, 12h or 2w")
    return float(found[1]) * _UNITS[found[2]]
