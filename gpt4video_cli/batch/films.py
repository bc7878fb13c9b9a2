"""Filming what the answers of a batch ask for: one text-to-video model, one film at a time."""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.assistant import film
from gpt4video_cli.batch.job import Job
from gpt4video_cli.errors import GenerationError
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.generator import FilmRequest, Generator

if TYPE_CHECKING:
    from gpt4video_cli.batch.conversation import Conversation
    from gpt4video_cli.safety.gates import Gates
    from gpt4video_cli.safety.verdict import Subject


class FilmMaker:
    """Films into ``folder``. ``named``: which model ``generator`` is. ``always``: also for jobs that do not ask for it.

    A clip is called after its job's key, so that a job which is done again after a kill replaces its own clip only.
    """

    def __init__(self, generator: Generator, named: str, folder: Path, gates: Gates, *, always: bool = False) -> None:
        self.named = named
        self._generator = generator
        self._folder = folder
        self._gates = gates
        self._always = always
        self._lock = threading.Lock()
        self._said: set[Subject] = set()

    def wants(self, job: Job) -> bool:
        """Whether what the job's answers ask for is filmed."""
        return self._always or job.generate

    def film(self, job: Job, key: str, talk: Conversation, cancel: threading.Event) -> None:
        """Film ``talk.prompts`` and note the clips in ``talk.films``. Raises ``GenerationError`` for a job that was to
        ask for a clip and did not, ``RefusedError`` where a guard refused, and what ``Generator.film`` raises."""
        if not self.wants(job):
            return
        if job.generate and not talk.prompts:
            answer = talk.done[-1].answer.strip()
            said = f", it said: {answer[:200]}" if answer else ""
            raise GenerationError(f"the assistant asked for no clip{said}")
        before: Counter[str] = Counter()
        with self._lock:
            for number, prompt in enumerate(talk.prompts, start=1):
                # The same words once more are a wish for another clip.
                request = FilmRequest(prompt, seed=job.options.seed + before[prompt])
                before[prompt] += 1
                clip = os.fspath(self._folder / f"{key[:16]}-{number}.mp4")
                order = FilmOrder(request, clip, number, force=True)
                try:
                    with closing(film(self._generator, order, self._gates, self._said, cancel)) as events:  # type: ignore[type-var]
                        for event in events:
                            talk.note(event)
                finally:
                    order.latents.unlink(missing_ok=True)  # the job is done as a whole or again
