"""``gpt4video frames``: what a clip shows at which time, as one picture."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli import options as opt
from gpt4video_cli.cli.clip_urls import SECONDS, SIZE, PrivateUrls, UrlSize, UrlTime, fetch_clips, set_up
from gpt4video_cli.cli.terminal import clean_line
from gpt4video_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_QUALITY = 90


def frames(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, an animation or an image.", show_default=False)],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write a contact sheet: NAME.png or .jpg.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Show N moments, evenly spread (default 8).", show_default=False)
    ] = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    start: opt.Start = None,
    end: opt.End = None,
    at: opt.At = None,
    sampling: opt.Sampling = None,
    columns: Annotated[int, typer.Option(metavar="N", help="Frames in a row of the sheet.")] = 4,
    width: Annotated[int, typer.Option(metavar="PX", help="Width of each frame on the sheet, in pixels.")] = 240,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    time_limit: opt.TimeLimit = 10.0,
    url_size: UrlSize = SIZE,
    url_time: UrlTime = SECONDS,
    allow_private_urls: PrivateUrls = False,
    json: opt.Json = False,
    no_preview: Annotated[bool, typer.Option("--no-preview", help="Draw no frames in the terminal.")] = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    plain: opt.Plain = False,
    debug: opt.Debug = False,
) -> int:
    """Show what is seen of a clip, and when.

    With --output, the frames go on one picture with their times and the clip's name, and its path to stdout. Otherwise
    the times do. On a terminal that can show pictures some frames are drawn.
    """
    plan = opt.sampling_plan(
        frames=frames, fps=fps, max_frames=max_frames, start=start, end=end, at=at, sampling=sampling
    )
    opt.check_time_limit(time_limit)
    set_up(url_size, url_time, allow_private_urls)
    _check_layout(columns, width)
    target = None
    if output is not None:
        from gpt4video_cli.cli.new_target import new_target

        target = new_target(output, FORMATS, force=force)

    from gpt4video_cli.cli.terminal import Status
    from gpt4video_cli.video.reader import FrameReader

    fetch_clips([clip], quiet=quiet)
    with FrameReader() as reader, Status(f"reading {clip} ...", quiet=quiet):
        seen = reader.read(clip, plan, min_side=width, time_limit=time_limit)
    if target is not None:
        from gpt4video_cli.gallery.new_file import write_new_file
        from gpt4video_cli.video.contact_sheet import contact_sheet

        sheet = contact_sheet(seen, title_of(clip, seen.receipt.duration), columns=columns, width=width)
        write_new_file(target, _encoded(sheet, FORMATS[target.suffix.lower()]), force=force)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"sheet": None if target is None else str(target), "receipt": seen.receipt.as_dict()})
    else:
        print(clean_line(seen.receipt.line() if target is None else str(target)), flush=True)
    if not (no_preview or quiet):
        from gpt4video_cli.cli.preview import draw_strip

        draw_strip(seen.frames)
    return int(ExitCode.DONE)


def title_of(clip: str, duration: float) -> str:
    """The line above the frames: the clip's name and how long it is."""
    from pathlib import Path

    return f"{Path(clip).name}  {duration:.2f} s" if duration else Path(clip).name


def _check_layout(columns: int, width: int) -> None:
    from gpt4video_cli.video.contact_sheet import LARGEST_SIDE, NARROWEST

    if columns < 1:
        raise UsageError(f"--columns is {columns}; it must be 1 or more")
    if not NARROWEST <= width <= LARGEST_SIDE:
        raise UsageError(f"--width is {width}; it must be between {NARROWEST} and {LARGEST_SIDE} pixels")


def _encoded(sheet: Image, kind: str) -> bytes:
    options: dict[str, Any] = {"quality": _QUALITY} if kind == "JPEG" else {}
    content = BytesIO()
    sheet.save(content, kind, **options)
    return content.getvalue()
