"""A clip is encoded once: embeddings by the content of the file and by the moments looked at."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt

if TYPE_CHECKING:
    from torch import Tensor

CAPACITY = 256
"""Clips remembered; one takes 1 MB with 64 float32 embeddings 4,096 wide."""


@dataclass(frozen=True, eq=False)
class SeenClip:
    """``embeddings`` float [N, D_llm]; ``key`` is the same for the same content seen at the same moments."""

    key: str
    receipt: SamplingReceipt
    embeddings: Tensor


class ClipMemory:
    """The clips that one assistant has encoded, the oldest forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._clips: OrderedDict[str, SeenClip] = OrderedDict()
        self._paths: set[str] = set()

    def recall(self, path: str, plan: SamplingPlan) -> SeenClip | None:
        """The clip at ``path`` if a file of that name was seen before and one with its present content still is known.

        Only known paths are looked at here: a file that may hang or lie is opened by the decoder's own process.
        """
        if path not in self._paths or not Path(path).is_file():
            return None
        try:
            return self.find(path, fingerprint(path), plan)
        except OSError:
            return None

    def find(self, path: str, sha256: str, plan: SamplingPlan) -> SeenClip | None:
        """The clip with this content, seen at these moments, under whatever name; its receipt names ``path``."""
        key = clip_key(sha256, plan)
        seen = self._clips.get(key)
        if seen is None:
            return None
        self._clips.move_to_end(key)
        self._paths.add(path)
        return replace(seen, receipt=replace(seen.receipt, path=path))

    def keep(self, receipt: SamplingReceipt, plan: SamplingPlan, embeddings: Tensor) -> SeenClip:
        """Remember a clip that was just encoded."""
        seen = SeenClip(clip_key(receipt.sha256, plan), receipt, embeddings)
        self._clips[seen.key] = seen
        self._paths.add(receipt.path)
        if len(self._clips) > self._capacity:
            self._clips.popitem(last=False)
        return seen


def clip_key(sha256: str, plan: SamplingPlan) -> str:
    """What names the embeddings of a clip."""
    return f"{sha256} {json.dumps(plan.as_dict(), sort_keys=True)}"
