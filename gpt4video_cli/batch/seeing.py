"""Vision for several clips at once: decoded, looked up, and what is new encoded together."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.clip_memory import SeenClip
from gpt4video_cli.session import ClipRequest
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.sampling import SamplingPlan


def see_all(
    assistant: Assistant, requests: Sequence[ClipRequest], timings: dict[str, float]
) -> list[SeenClip | Exception]:
    """``Assistant.see`` for many clips, so that a reply finds them; an error takes its clip's place.

    The plans name what ``Assistant.reply`` will ask for. Adds to the seconds ``decode`` and ``vision`` of ``timings``.
    """
    model, memory = assistant.model, assistant.memory
    found: dict[int, SeenClip | Exception] = {}
    new: dict[int, list[tuple[int, Clip]]] = {}  # by the number of frames
    first: dict[tuple[str, SamplingPlan], int] = {}
    for index, (path, plan) in enumerate((os.fspath(one.path), one.plan) for one in requests):
        if first.setdefault((path, plan), index) != index:
            continue
        began = time.perf_counter()
        try:
            seen = memory.recall(path, plan)
            if seen is None:
                clip = assistant.reader.read(path, plan, min_side=model.preprocess_config.decode_side)
                seen = memory.find(path, clip.receipt.sha256, plan)
            if seen is None:
                new.setdefault(len(clip.frames), []).append((index, clip))
            else:
                found[index] = seen
        except Exception as error:
            found[index] = error
        timings["decode"] += time.perf_counter() - began
    for group in new.values():
        _ = model.visual_encoder, model.abstractor  # loaded here, if these are the first clips: no vision time
        began = time.perf_counter()
        embeddings = model.embed_all([clip.frames for _, clip in group])
        timings["vision"] += time.perf_counter() - began
        for (index, clip), one in zip(group, embeddings, strict=True):
            found[index] = memory.keep(clip.receipt, requests[index].plan, one)
    return [found[first[os.fspath(one.path), one.plan]] for one in requests]
