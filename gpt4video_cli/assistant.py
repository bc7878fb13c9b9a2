"""READ FIRST: the path of a clip through the program, from a file to an answer, and from a prompt to a new clip.

``Assistant.see`` is its first half and ``Assistant.reply`` its second; each arrow of the path is one line there. What a
reply is made of stands in ``events.py``; the rooms on the path are ``video/``, ``model/`` and ``language/``. ``film``
is the way of a generation prompt through ``gallery/``.

Letters: B clips (1), T frames, P patches of a frame, S side of the square that the encoder sees, N video tokens of a
clip, D_v width of the visual features, D_llm width of the language model's embeddings.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Generator as Coroutine
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpt4video_cli.clip_cache import ClipCache
from gpt4video_cli.clip_memory import ClipMemory, SeenClip
from gpt4video_cli.errors import ClipError, UsageError
from gpt4video_cli.events import ClipReady, ClipSeen, Done, Event, GenerationPrompt, Notice
from gpt4video_cli.gallery.delivery import FilmOrder, deliver
from gpt4video_cli.gallery.filming import film_events
from gpt4video_cli.gallery.generator import Generator
from gpt4video_cli.gallery.latents_file import read_header
from gpt4video_cli.history import fit, reply_of
from gpt4video_cli.language.engine import GenerationStats, KeptCache, SamplingOptions
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.language.json_answer import stream_json
from gpt4video_cli.language.stream import stream_text
from gpt4video_cli.model.prompt import PromptClip, PromptTurn
from gpt4video_cli.reply import ReplyEvent, ReplyParser
from gpt4video_cli.safety.gates import Gates
from gpt4video_cli.safety.screening import screening
from gpt4video_cli.safety.verdict import Subject, Verdict
from gpt4video_cli.session import ClipRequest, Message, Session, SessionClip, Turn
from gpt4video_cli.used_model import used_model
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import full_path

if TYPE_CHECKING:
    from gpt4video_cli.model.checkpoint import Model

__all__ = ["Assistant", "ClipRequest", "Message", "Session"]

_ANY_ENGINE = EngineWish()

Timings = dict[str, float]
"""Seconds by stage: safety (all gates), decode, vision, prefill, first_token (since the message was given), generate,
total; load_vision, load_abstractor and load_language once they were loaded."""


@dataclass
class _Kept:
    """What a session keeps between turns, in memory only."""

    model: Model
    cache: KeptCache | None = None
    replies: dict[Turn, str | tuple[int, ...]] = field(default_factory=dict)
    passed: set[Turn] = field(default_factory=set)
    said: set[Subject] = field(default_factory=set)


class Assistant:
    """A loaded model and a clip reader. Serves any number of sessions, one reply at a time, or one for each of several
    threads after ``Model.answer_together``."""

    def __init__(
        self, model: Model, reader: FrameReader, cache: ClipCache | None = None, gates: Gates | None = None
    ) -> None:
        """``cache``: where clips' embeddings are kept between runs; None: nowhere.

        ``gates``: what everything passes; None: all guards that are installed, under the standard policy.
        """
        self.model = model
        self.reader = reader
        self.gates = gates or Gates.open()
        self._screened: dict[str, Verdict] = {}  # the clips' verdicts, by the hash of their content
        self.memory = ClipMemory(model, cache)

    @classmethod
    def open(
        cls,
        name_or_dir: str | Path = "bundle",
        *,
        device: str = "auto",
        dtype: str = "auto",
        vision_dtype: str = "auto",
        offload: bool = False,
        context_length: int | None = None,
        engine: EngineWish = _ANY_ENGINE,
        cache: ClipCache | None = None,
        gates: Gates | None = None,
    ) -> Assistant:
        """Load a model by name or folder; ``WeightsError`` if it does not fit. See ``model.placement.LoadWish``."""
        reader = FrameReader()
        reader.warm()  # the decoder's process starts while the weights are read
        from gpt4video_cli.model.checkpoint import open_model
        from gpt4video_cli.model.placement import LoadWish

        try:
            wish = LoadWish(device, dtype, offload, context_length, engine, vision_dtype)
            return cls(open_model(name_or_dir, wish), reader, cache, gates)
        except BaseException:
            reader.close()
            raise

    def close(self) -> None:
        """End the decoder's process."""
        self.reader.close()

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def new_session(self) -> Session:
        """An empty conversation."""
        return Session()

    def default_options(self) -> SamplingOptions:
        """What the model's card recommends; ``dataclasses.replace`` changes single options."""
        card = self.model.card
        return SamplingOptions(temperature=card.temperature, top_p=card.top_p, max_tokens=card.max_tokens)

    def see(self, path: str, plan: SamplingPlan, timings: Timings) -> SeenClip:
        """A clip's embeddings, encoded now or remembered. Raises ``ClipError``. Adds to the seconds in ``timings``."""
        model, began = self.model, time.perf_counter()
        if seen := self.memory.recall(path, plan):
            return seen
        side = model.preprocess_config.decode_side
        clip = self.reader.read(path, plan, min_side=side)  # file -> frames uint8 [T, H, W, 3]
        timings["decode"] += time.perf_counter() - began
        if seen := self.memory.find(path, clip.receipt.sha256, plan):
            return seen
        _ = model.visual_encoder, model.abstractor  # loaded here, if this is the first clip: no vision time
        began = time.perf_counter()
        features = model.encode(clip.frames)  # -> pixels [T, 3, S, S] -> patch features [B, T, 1+P, D_v]
        embeddings = model.condense(features)  # -> video tokens, projected: embeddings float32 [N, D_llm]
        timings["vision"] += time.perf_counter() - began
        return self.memory.keep(clip.receipt, plan, embeddings)

    def reply(
        self,
        session: Session,
        message: Message,
        options: SamplingOptions | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Answer ``message``: events as they come, ``Done`` last. Only then is the session longer by one turn.

        Whatever is raised before (``ClipError``, ``ContextFullError``, …), or the caller stopping to listen, leaves the
        session as it was. A ``cancel`` is not an error: what was said until then is the answer.

        A ``Refusal`` of the text or of a clip leaves the session as it was, too, and one of a generation prompt ends
        the answer before that prompt, so that the model never reads again what was refused. ``Done`` comes even then,
        with ``refused`` for its reason.
        """
        started = time.perf_counter()
        model, options = self.model, options or self.default_options()
        text = message.text.encode("utf-8", "replace").decode()
        if not text.strip():
            raise UsageError("the message is empty", hint="ask something about the clip")
        kept, timings, stats = self._kept(session), {"decode": 0.0, "vision": 0.0}, GenerationStats()

        if not (yield from self._gate_texts(session, text, kept, timings)):
            yield _refused(options, timings, started)
            return
        clips: list[SessionClip] = []
        for request in message.clips:
            began = time.perf_counter()
            clip = self._add(request, len(session.clips) + len(clips) + 1, len(message.clips) == 1, timings)
            clips.append(clip)
            yield ClipSeen(clip.number, str(request.path), clip.receipt.as_dict(), time.perf_counter() - began)
        if not (yield from self._gate_clips(session, clips, kept, timings)):
            yield _refused(options, timings, started)
            return

        turns = [self._prompt_turn(turn, kept, timings) for turn in session.turns]  # clips and replies of old turns
        turns.append(PromptTurn(text, tuple(self._prompt_clip(clip, timings) for clip in clips)))
        fitted = fit(model.engine, model.template, turns, options.max_tokens)
        yield from fitted.notices(options.max_tokens)
        segments = model.template.render(fitted.turns)  # embeddings and texts -> segments

        stopping = replace(options, stop=(*options.stop, *model.template.stop))
        if kept.cache is None:
            kept.cache = model.engine.new_cache()
        write = stream_text if options.schema is None else stream_json
        tokens = write(model.engine, segments, stopping, cache=kept.cache, stats=stats, cancel=cancel)
        # A tag inside a JSON document is data: nothing is filmed for it.
        reply, refused = ReplyParser(tags=options.schema is None), False
        with closing(tokens):  # type: ignore[type-var]
            for piece in tokens:  # segments -> tokens -> text as the model writes it
                timings.setdefault("first_token", time.perf_counter() - started)
                # -> visible text and generation prompts
                refused = not (yield from self._gate_prompts(reply.feed(piece), reply, kept, timings))
                if refused:
                    break
        if refused or not (yield from self._gate_prompts(reply.finish(), reply, kept, timings)):
            stats.finish_reason, stats.ids = "refused", []  # the ids spell what was refused, too

        session.add(
            Turn(
                text=text,
                clips=tuple(clips),
                answer=reply.answer,
                written=reply.written,
                ids=tuple(stats.ids),
                model=model.card.name,
                prompts=tuple(reply.prompts),
                options=options,
                finish_reason=stats.finish_reason,
                used=used_model(model),
            )
        )
        kept.passed.add(session.turns[-1])
        if failure := self.memory.write():
            yield Notice(failure)
        timings |= {**model.timings, "prefill": stats.prefill_seconds, "generate": stats.decode_seconds}
        yield Done(
            answer=reply.answer,
            prompt_tokens=stats.prompt_tokens,
            reused_tokens=stats.reused_tokens,
            evaluated_tokens=stats.evaluated_tokens,
            new_tokens=stats.new_tokens,
            finish_reason=stats.finish_reason,
            seed=options.seed,
            timings={**timings, "total": time.perf_counter() - started},
        )

    def retry(
        self, session: Session, options: SamplingOptions | None = None, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        """Answer the last message once more. Without a new answer the old one stays."""
        old = session.undo()
        if old is None:
            raise UsageError("there is no message to retry")
        length = len(session.turns)
        try:
            yield from self.reply(session, old.message(), options, cancel)
        finally:
            if len(session.turns) == length:
                session.turns.append(old)

    def _gate_texts(self, session: Session, text: str, kept: _Kept, timings: Timings) -> Coroutine[Event, None, bool]:
        """Whether the message may pass, and what a stored conversation holds: a file may come from a stranger."""
        old = [(number, turn.text) for number, turn in enumerate(session.turns, 1) if turn not in kept.passed]
        for number, asked in [*old, (None, text)]:
            judge = partial(self.gates.text, asked, "user text")
            if (yield from screening(judge, kept.said, timings, turn=number)).outcome == "refused":
                return False
        kept.passed.update(session.turns)
        return True

    def _gate_clips(
        self, session: Session, clips: list[SessionClip], kept: _Kept, timings: Timings
    ) -> Coroutine[Event, None, bool]:
        """Whether the message's ``clips`` may pass, and those of the conversation that were not judged yet."""
        old = [(number, clip) for number, turn in enumerate(session.turns, 1) for clip in turn.clips]
        for number, clip in [*old, *((None, clip) for clip in clips)]:
            known = self._screened.get(clip.receipt.sha256)
            if number is not None and known is not None and known.outcome != "refused":
                continue
            judge = partial(self._judge_clip, clip)
            verdict = yield from screening(judge, kept.said, timings, turn=number, path=clip.path)
            if verdict.outcome == "refused":
                return False
        return True

    def _judge_clip(self, clip: SessionClip) -> Verdict:
        content = clip.receipt.sha256
        if content not in self._screened:
            self._screened[content] = self.gates.clip(clip.path, self.reader, content)
        return self._screened[content]

    def _gate_prompts(
        self, events: list[ReplyEvent], reply: ReplyParser, kept: _Kept, timings: Timings
    ) -> Coroutine[Event, None, bool]:
        """Pass ``events`` on up to a prompt that is refused: the reply ends before it, and False is returned."""
        for event in events:
            if isinstance(event, GenerationPrompt):
                judge = partial(self.gates.text, event.prompt, "generation prompt")
                verdict = yield from screening(judge, kept.said, timings, prompt=event.prompt)
                if verdict.outcome == "refused":
                    reply.take_back(event.number)
                    return False
            yield event
        return True

    def _kept(self, session: Session) -> _Kept:
        if not isinstance(session.runtime, _Kept) or session.runtime.model is not self.model:
            session.runtime = _Kept(self.model)
        return session.runtime

    def _add(self, request: ClipRequest, number: int, alone: bool, timings: Timings) -> SessionClip:
        """A new clip of the conversation. The card says how many frames where the request does not."""
        plan, card = request.plan, self.model.card
        if plan == SamplingPlan():
            plan = SamplingPlan.from_dict({"frames": card.frames, "mode": card.mode})
        elif plan.frames is None and plan.fps is None and not plan.at:
            plan = replace(plan, frames=card.frames)
        seen = self.see(os.fspath(request.path), plan, timings)
        return SessionClip(number, full_path(request.path), plan, seen.receipt, alone)

    def _prompt_turn(self, turn: Turn, kept: _Kept, timings: Timings) -> PromptTurn:
        if turn not in kept.replies:
            kept.replies[turn] = reply_of(self.model.engine, self.model.card.name, turn)
        clips = tuple(self._prompt_clip(clip, timings) for clip in turn.clips)
        return PromptTurn(turn.text, clips, kept.replies[turn])

    def _prompt_clip(self, clip: SessionClip, timings: Timings) -> PromptClip:
        """A clip of the conversation for the prompt; read again where it is not remembered (a loaded session)."""
        seen = self.memory.find(clip.path, clip.receipt.sha256, clip.plan) or self.see(clip.path, clip.plan, timings)
        if seen.receipt.sha256 != clip.receipt.sha256:
            raise ClipError(
                clip.path,
                f"is not the file that this conversation saw as clip {clip.number}",
                hint="put the old file back, or start a new conversation",
            )
        return PromptClip(seen.key, seen.embeddings, clip.number, clip.alone)


def film(
    generator: Generator,
    order: FilmOrder,
    gates: Gates | None = None,
    said: set[Subject] | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Event]:
    """Film a prompt and write the clip: events as they come, ``ClipReady`` or ``Refusal`` last. No language model.

    ``gates``: see ``Assistant``. ``said``: what was already told about missing guards. Closing the iterator cancels,
    and so does ``cancel``, between two steps of the generator, with ``CancelledError``. Only ``ClipReady`` means that
    there is a new file.
    """
    gates, said, cancel = gates or Gates.open(), set() if said is None else said, cancel or threading.Event()
    verdicts: list[Verdict] = []
    seconds: dict[str, float] = {}
    for judge in _before_filming(order, gates):  # before anything of the generator is loaded
        verdicts.append((yield from screening(judge, said, seconds)))
        if verdicts[-1].outcome == "refused":
            return
    options: Any = {"latents": order.latents, "cancel": cancel}
    if order.resume:
        made = yield from film_events(lambda tell: generator.finish(listen=tell, **options), cancel)
    else:  # prompt -> latents, kept on disk -> frames uint8 [T, H, W, 3]
        made = yield from film_events(lambda tell: generator.film(order.request, listen=tell, **options), cancel)
    # Before there is a file that somebody could watch.
    verdicts.append((yield from screening(partial(gates.film, made.frames, made.fps), said, seconds)))
    if verdicts[-1].outcome == "refused":
        order.latents.unlink(missing_ok=True)
        return
    made = replace(made, seconds={**made.seconds, **seconds})
    yield ClipReady(os.fspath(deliver(made, order, verdicts)), order.number, made)  # -> clip file and side-car


def _before_filming(order: FilmOrder, gates: Gates) -> Iterator[Callable[[], Verdict]]:
    """The gates of what ``order`` films; of latents, what their own file says that they were made of."""
    request = read_header(order.resume).request if order.resume else order.request
    yield partial(gates.text, request.prompt, "generation prompt")
    if request.negative_prompt:
        yield partial(gates.text, request.negative_prompt, "negative prompt")
    if request.video is not None and not order.resume:
        with FrameReader() as reader:
            yield partial(gates.clip, request.video, reader)


def _refused(options: SamplingOptions, timings: Timings, started: float) -> Done:
    """The end of a reply that did not begin."""
    timings = {**timings, "total": time.perf_counter() - started}
    return Done("", 0, 0, 0, 0, "refused", options.seed, timings)
