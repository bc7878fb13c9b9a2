"""A clip is encoded once: embeddings by the content of the file and by the moments looked at."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt
from gpt4video_cli.video.url import here

if TYPE_CHECKING:
    from gpt4video_cli.clip_cache import ClipCache
    from gpt4video_cli.model.checkpoint import Model

CAPACITY = 256
"""Clips remembered; one takes 1 MB with 64 float32 embeddings 4,096 wide."""


@dataclass(frozen=True, eq=False)
class SeenClip:
    """``embeddings`` float32 [N, D_llm]; ``key`` is the same for the same content seen at the same moments."""

    key: str
    receipt: SamplingReceipt
    embeddings: np.ndarray


class ClipMemory:
    """The clips that one assistant has encoded, the oldest forgotten first; and those on disk, if there is a ``disk``.

    Safe to use from several threads.
    """

    def __init__(self, model: Model, disk: ClipCache | None = None, capacity: int = CAPACITY) -> None:
        self._model = model
        self._disk = disk
        self._capacity = capacity
        self._clips: OrderedDict[str, SeenClip] = OrderedDict()
        self._paths: set[str] = set()
        self._unwritten: list[tuple[SeenClip, SamplingPlan]] = []
        self._lock = threading.Lock()

    def recall(self, path: str, plan: SamplingPlan) -> SeenClip | None:
        """The clip at ``path`` with its present content, if it was encoded before: in this run, or kept on disk.

        Only known paths, and regular files of a known size, are looked at here: a file that may hang or lie is opened
        by the decoder's own process.
        """
        if path in self._paths and Path(here(path)).is_file():
            try:
                if seen := self.find(path, fingerprint(path), plan):
                    return seen
            except OSError:
                return None
        if self._disk is None:
            return None
        # Also where nothing is found: the digest must be of the files as they are before they are loaded.
        seen = self._disk.find(path, plan, self._model.encoder_digest)
        return None if seen is None else self._remember(seen)

    def find(self, path: str, sha256: str, plan: SamplingPlan) -> SeenClip | None:
        """The clip with this content, seen at these moments, under whatever name; its receipt names ``path``."""
        key = clip_key(sha256, plan)
        with self._lock:
            seen = self._clips.get(key)
            if seen is None:
                return None
            self._clips.move_to_end(key)
            self._paths.add(path)
        return replace(seen, receipt=replace(seen.receipt, path=path))

    def keep(self, receipt: SamplingReceipt, plan: SamplingPlan, embeddings: np.ndarray) -> SeenClip:
        """Remember a clip that was just encoded; ``write`` brings it to the disk."""
        seen = self._remember(SeenClip(clip_key(receipt.sha256, plan), receipt, embeddings))
        with self._lock:
            self._unwritten.append((seen, plan))
        return seen

    def write(self) -> str:
        """Write clips that are new to the disk, where nobody waits for it; "" or one line about why that failed."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, []
        if self._disk is None or not unwritten:
            return ""
        try:
            for seen, plan in unwritten:
                self._disk.keep(seen, plan, encoder=self._model.encoder_digest, model=self._model.card.name)
        except OSError as error:
            return f"clips are not kept for later runs: {self._disk.folder}: {error.strerror or error}"
        return ""

    def _remember(self, seen: SeenClip) -> SeenClip:
        with self._lock:
            self._clips[seen.key] = seen
            self._paths.add(seen.receipt.path)
            if len(self._clips) > self._capacity:
                self._clips.popitem(last=False)
        return seen


def clip_key(sha256: str, plan: SamplingPlan) -> str:
    """What names the embeddings of a clip."""
    return f"{sha256} {json.dumps(plan.as_dict(), sort_keys=True)}"
