"""What the frozen visual encoder says of a clip, computed once and kept in files.

A file's name is the SHA-256 of all that decides its content: the clip's bytes, the moments looked at, the encoder's
weights and how frames are prepared for it. When one of them changes the name changes, so that a file never serves for
anything else. Features are rounded to float16 whether they come from a file or were computed just now, so that both
train alike.

Letters: T frames, P patches of a frame, D_v width of the features.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gpt4video_cli.errors import ClipError, WeightsError
from gpt4video_cli.model.checkpoint import Model
from gpt4video_cli.model.strict_load import read_safetensors, write_safetensors
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import Mode, SamplingPlan
from gpt4video_cli.weights.locate import home

VERSION = 1
"""Of the files; another one never meets these names."""


def default_folder() -> Path:
    """Where features are kept unless another folder is named."""
    return home() / "features"


@dataclass
class Counts:
    """Clips whose features were found, computed and could not be had."""

    found: int = 0
    computed: int = 0
    failed: int = 0


class ClipFeatures:
    """Features of clips for ``model``. ``folder`` None: nothing is kept, every clip is decoded and encoded each time.

    Serves one thread.
    """

    def __init__(self, model: Model, reader: FrameReader, folder: Path | None) -> None:
        self.counts = Counts()
        self._model, self._reader, self._folder = model, reader, folder
        self._encoder_hash = ""
        self._content: dict[tuple[Path, int, int], str] = {}

    def get(self, path: Path, start: float | None = None, end: float | None = None) -> Tensor:
        """float16 ``[T, 1+P, D_v]`` on the CPU. Raises ``ClipError`` for a clip that cannot be read."""
        try:
            features = self._get(path, start, end)
        except (ClipError, OSError) as error:
            self.counts.failed += 1
            if isinstance(error, ClipError):
                raise
            raise ClipError(path, error.strerror or str(error)) from error
        return features

    def _get(self, path: Path, start: float | None, end: float | None) -> Tensor:
        plan = SamplingPlan(
            frames=self._model.card.frames, mode=cast(Mode, self._model.card.mode), start=start, end=end
        )
        file = self._file(path, plan)
        if file is not None and file.is_file():
            try:
                features = read_safetensors(file)[0]["features"]
                self.counts.found += 1
                return features
            except (WeightsError, KeyError):
                pass  # cut off or damaged: made again below
        clip = self._reader.read(path, plan, min_side=self._model.preprocess_config.decode_side)
        features = self._model.encode(clip.frames)[0].to("cpu", torch.float16)
        if not torch.isfinite(features).all():
            raise ClipError(path, "the encoder's features are not finite in float16")
        self.counts.computed += 1
        if file is not None:
            write_safetensors(file, {"features": features})
        return features

    def _file(self, path: Path, plan: SamplingPlan) -> Path | None:
        if self._folder is None:
            return None
        key = {
            "version": VERSION,
            "clip": self._print(path),
            "plan": plan.as_dict(),
            "encoder": self._encoder(),
            "computed in": str(self._model.dtype),
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def _print(self, path: Path) -> str:
        """The fingerprint of a clip, computed again only when size or time of its file have changed."""
        status = path.stat()
        known = (path, status.st_size, status.st_mtime_ns)
        if known not in self._content:
            self._content[known] = fingerprint(path)
        return self._content[known]

    def _encoder(self) -> str:
        """Hash of everything in the vision folder, and of how its output is taken."""
        if not self._encoder_hash:
            digest = hashlib.sha256(json.dumps([self._model.card.final_norm]).encode())
            for file in sorted((self._model.folder / "vision").iterdir()):
                if file.is_file():
                    digest.update(f"{file.name}\0{fingerprint(file)}\0".encode())
            self._encoder_hash = digest.hexdigest()
        return self._encoder_hash
