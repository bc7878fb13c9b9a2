"""``gpt4video probe``: what is in a file, and what is wrong with it."""

from __future__ import annotations

from typing import Annotated

import typer

from gpt4video_cli.cli.clip_urls import SECONDS, SIZE, PrivateUrls, UrlSize, UrlTime, fetch_clips, set_up
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain
from gpt4video_cli.cli.terminal import clean_line


def probe(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, an animation or an image.", show_default=False)],
    url_size: UrlSize = SIZE,
    url_time: UrlTime = SECONDS,
    allow_private_urls: PrivateUrls = False,
    json: Json = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Say what is in a clip: container, codec, size, rotation, frame rate, duration, sound, damage.

    What the header claims stands beside what the packets show.
    """
    from gpt4video_cli.video.probe import probe_clip

    set_up(url_size, url_time, allow_private_urls)
    fetch_clips([clip])
    info = probe_clip(clip)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json(info.as_dict())
        return
    for name, value in info.lines():
        print(f"{name:<12} {clean_line(value)}")
