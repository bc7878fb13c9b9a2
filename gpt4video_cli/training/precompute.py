"""Features of all clips of a dataset, before it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt4video_cli.data.dialogue_file import clip_path, read_lines
from gpt4video_cli.errors import ClipError, InputError
from gpt4video_cli.model.checkpoint import load_model
from gpt4video_cli.model.strict_load import choose_device
from gpt4video_cli.training.clip_features import ClipFeatures, Counts, default_folder
from gpt4video_cli.training.stage_run import choose_compute
from gpt4video_cli.video.reader import FrameReader


def precompute_files(
    files: Sequence[Path], model: str, folder: Path | None, *, device: str, failed: list[tuple[str, str]]
) -> Counts:
    """Keep the features of every clip in ``folder`` (None: the cache folder); ``failed`` gets (``FILE:LINE``, why).

    Raises ``InputError`` if there is no clip at all.
    """
    place = choose_device(device)
    # Computed as training would: in the same number format, which is part of a feature's key.
    opened = load_model(model, device=device, dtype=choose_compute("auto", place))
    seen: set[tuple[Path, float | None, float | None]] = set()
    with FrameReader() as reader:
        features = ClipFeatures(opened, reader, folder or default_folder())
        for file in files:
            for line in read_lines(file):
                if line.dialogue is None:
                    failed.append((line.place, line.error))
                    continue
                for clip in line.dialogue.clips:
                    path = clip_path(clip, line.file)
                    if path is None or (path, clip.start, clip.end) in seen:
                        continue
                    seen.add((path, clip.start, clip.end))
                    try:
                        features.get(path, clip.start, clip.end)
                    except ClipError as error:
                        failed.append((line.place, str(error)))
    if not seen:
        raise InputError(f"{', '.join(map(str, files))}: no clips")
    return features.counts
