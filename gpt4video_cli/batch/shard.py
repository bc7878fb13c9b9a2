"""Which of the jobs this machine does: a part that is decided by their ids alone, so that no two need to talk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from gpt4video_cli.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 1. Together the parts are all jobs, and no job is in two of them."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/4``: the second of four."""
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard is {text!r}; it must be I/N, such as 1/4 to 4/4")
        return cls(int(found[1]), int(found[2]))

    def holds(self, job_id: str) -> bool:
        """Whether the job of this id is in the part. Other jobs and their order do not matter."""
        digest = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1
