"""What happens to one job: its clips are begun, seen, asked about, and what the answers ask for is filmed.

``Assistant.reply`` is the only way to an answer, so a job passes the same gates as a conversation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cache
from itertools import count
from typing import Any

from gpt4video_cli.assistant import Assistant, Message
from gpt4video_cli.batch.conversation import Conversation
from gpt4video_cli.batch.decoding import AheadReader
from gpt4video_cli.batch.films import FilmMaker
from gpt4video_cli.batch.job import Job
from gpt4video_cli.batch.job_key import job_key
from gpt4video_cli.batch.results import result_line
from gpt4video_cli.batch.seeing import see_all
from gpt4video_cli.errors import CancelledError
from gpt4video_cli.session import ClipRequest
from gpt4video_cli.video.url import hold, release


class Answering:
    """The stages of ``pipeline.py`` for jobs about clips.

    ``model``: see ``job_key.model_digest``. ``constants``: what every record says of the run (model, engine, versions),
    asked once, after the first answer. ``shown``: an answer as it is shown. ``maker``: films what the answers ask for;
    None: nothing is filmed. ``together``: write answers together where the engine can; else one after the other.
    """

    def __init__(
        self,
        assistant: Assistant,
        reader: AheadReader,
        *,
        model: str,
        constants: Callable[[], dict[str, Any]],
        shown: Callable[[str], str] = str.strip,
        maker: FilmMaker | None = None,
        together: bool = True,
    ) -> None:
        self._assistant = assistant
        self._reader = reader
        self._side = assistant.model.preprocess_config.decode_side
        self._model = model
        self._constants = cache(constants)
        self._shown = shown
        self._maker = maker
        self._cancel = threading.Event()
        self._together = together
        self._one = threading.Lock()
        self._turn: AbstractContextManager[Any] | None = None

    def begin(self, job: Job, ready: Callable[[], None]) -> None:
        """Start decoding the clips that are not known yet; ``ready`` is called when the last of them is there."""
        memory, decoding = self._assistant.memory, []
        hold(job.clips)
        for path in dict.fromkeys(job.clips):
            if memory.recall(path, job.plan) is None:
                begun = self._reader.begin(path, job.plan, min_side=self._side)
                decoding += [] if begun is None else [begun]
        left = count(len(decoding), -1)  # one more than decoders: this thread counts too

        def one_less(_: object = None) -> None:
            if next(left) == 0:
                ready()

        for future in decoding:
            future.add_done_callback(one_less)
        one_less()

    def see(self, jobs: Sequence[Job]) -> list[Any]:
        """Encode the clips of ``jobs`` together; for each job its share of the seconds, or what its clips raised."""
        timings = {"decode": 0.0, "vision": 0.0}
        requests = [ClipRequest(path, job.plan) for job in jobs for path in job.clips]
        try:
            seen = iter(see_all(self._assistant, requests, timings))
        except Exception:  # such as too little memory: ends all of these jobs
            for job in jobs:
                release(job.clips)
            raise
        for request in requests:  # begun for nothing where it was remembered by then: not to be held for ever
            self._reader.forget(str(request.path), request.plan, min_side=self._side)
        share = {name: seconds / len(jobs) for name, seconds in timings.items()}
        found: list[Any] = []
        for job in jobs:
            failed = [one for one in [next(seen) for _ in job.clips] if isinstance(one, Exception)]
            found.append(failed[0] if failed else share)
            if failed:
                release(job.clips)
        return found

    def answer(self, job: Job, seen: Mapping[str, float]) -> dict[str, Any]:
        """Ask all that the job asks, film what the answers ask for, and return the record."""
        try:
            return self._answer(job, seen)
        finally:
            release(job.clips)

    def _answer(self, job: Job, seen: Mapping[str, float]) -> dict[str, Any]:
        with self._my_turn():
            started = time.perf_counter()
            talk = self._converse(job)
        key = job_key(job, [clip["receipt"]["sha256"] for clip in talk.clips], self._model, self.films_with(job))
        if self._maker is not None:
            self._maker.film(job, key, talk, self._cancel)
        own = time.perf_counter() - started
        return result_line(job.id, key, self._model) | self._record(job, talk, seen, own) | self._constants()

    def _my_turn(self) -> AbstractContextManager[Any]:
        """Room for one more reply: at once where the engine writes several together, else when the others are done."""
        with self._one:
            if self._turn is None:
                together = self._together and self._assistant.model.answer_together()
                self._turn = nullcontext() if together else threading.Lock()
        return self._turn

    def films_with(self, job: Job) -> str | None:
        """Which text-to-video model films what the job's answers ask for, if any does."""
        return self._maker.named if self._maker is not None and self._maker.wants(job) else None

    def stop(self) -> None:
        """End the replies, the films and the decoders."""
        self._cancel.set()
        self._reader.close()

    def _converse(self, job: Job) -> Conversation:
        talk, session = Conversation(), self._assistant.new_session()
        for number, prompt in enumerate(job.prompts):
            clips = tuple(ClipRequest(path, job.plan) for path in job.clips) if number == 0 else ()
            events = self._assistant.reply(session, Message(prompt, clips), job.options, self._cancel)
            with closing(events):  # type: ignore[type-var]
                for event in events:
                    talk.note(event)
            if self._cancel.is_set():
                raise CancelledError("the run was stopped")
        return talk

    def _record(self, job: Job, talk: Conversation, seen: Mapping[str, float], own: float) -> dict[str, Any]:
        """``timings``: ``decode`` is how long the clips were waited for; the stages of different jobs overlap."""
        stages: dict[str, float] = {}
        for timings in (seen, *(done.timings for done in talk.done)):
            for name, seconds in timings.items():
                if name not in ("first_token", "total") and not name.startswith("load_"):
                    stages[name] = stages.get(name, 0.0) + seconds
        stages["total"] = sum(seen.values()) + own
        answers = [self._shown(done.answer) for done in talk.done]
        return {
            "answer": answers[-1],
            "answers": answers,
            "asked": list(job.prompts),
            "prompts": talk.prompts,
            "films": talk.films,
            "refusal": None,
            "clips": talk.clips,
            "notices": talk.notices,
            "verdicts": talk.verdicts,
            "finish_reason": talk.done[-1].finish_reason,
            "tokens": {
                "prompt": sum(done.prompt_tokens for done in talk.done),
                "reused": sum(done.reused_tokens for done in talk.done),
                "evaluated": sum(done.evaluated_tokens for done in talk.done),
                "new": sum(done.new_tokens for done in talk.done),
            },
            "timings": {name: round(seconds, 4) for name, seconds in stages.items()},
            "seed": job.options.seed,
        }
