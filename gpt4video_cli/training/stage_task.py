"""The two stages as a ``Task`` of the loop: a step's dialogues to rows and features, validation, a few answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from gpt4video_cli.data.samples import IGNORED
from gpt4video_cli.errors import ClipError, InputError
from gpt4video_cli.language.engine import EmbeddingSegment, GenerationStats, SamplingOptions, Segment, TokenSegment
from gpt4video_cli.language.tokenizer import Tokenizer
from gpt4video_cli.training.batches import Order, make_rows, packed_rows, shares
from gpt4video_cli.training.clip_features import ClipFeatures
from gpt4video_cli.training.cluster import Cluster
from gpt4video_cli.training.dialogue_set import TrainingSample
from gpt4video_cli.training.loop import Batch
from gpt4video_cli.training.settings import Settings
from gpt4video_cli.training.stage_model import Inputs, StageModel, stack_features

LONGEST_ANSWER = 64
"""Tokens of an answer at an evaluation."""


@dataclass(frozen=True)
class Answer:
    """What the model says after ``step`` steps, and what the data says."""

    step: int
    question: str
    answer: str
    expected: str


class StageTask:
    """See ``loop.Task``. The next step is prepared in a thread while one is computed."""

    def __init__(
        self,
        model: StageModel,
        wrapped: nn.Module,
        samples: Sequence[TrainingSample],
        validation: Sequence[TrainingSample],
        order: Order,
        settings: Settings,
        cluster: Cluster,
        features: ClipFeatures | None,
        *,
        language: Path,
        skipped: list[tuple[str, str]],
        told: Callable[[Answer], None],
        answers: Path,
    ) -> None:
        self.module: nn.Module | None = wrapped
        self._model, self._wrapped = model, wrapped
        self._samples, self._validation, self._order = samples, validation, order
        self._settings, self._cluster, self._features = settings, cluster, features
        self._language, self._told, self._answers = language, told, answers
        self._skipped = skipped
        self._packing = settings.packing and not model.stage.sees_clips
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def __enter__(self) -> StageTask:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """See ``Task``."""
        prefix = "module."
        named = ((name.removeprefix(prefix), p) for name, p in self._wrapped.named_parameters())
        return [(name, p) for name, p in named if p.requires_grad]

    def batches(self, step: int) -> Sequence[Batch]:
        """See ``Task``."""
        if self._next is None or self._next[0] != step:
            self._next = step, self._worker.submit(self._prepare, step)
        ready = self._next[1].result()
        self._next = step + 1, self._worker.submit(self._prepare, step + 1)
        return ready

    def _prepare(self, step: int) -> list[Batch]:
        mine = shares(
            self._order.batch(step),
            processes=self._cluster.processes,
            micro_batch_size=self._micro_batch_size(),
        )[self._cluster.rank]
        return [self._batch([self._samples[i] for i in indices]) for indices in mine]

    def _micro_batch_size(self) -> int:
        share = -(-self._order.size // self._cluster.processes)
        return min(self._settings.micro_batch_size, share)

    def _batch(self, samples: Sequence[TrainingSample]) -> Batch:
        """Rows and features; a sample whose clip cannot be read is left out, or stops the run."""
        seen: dict[tuple[Path, float | None, float | None], Tensor] = {}
        usable = []
        for sample in samples:
            try:
                for use in sample.clips if self._features is not None else ():
                    key = (use.path, use.start, use.end)
                    if key not in seen and self._features is not None:
                        seen[key] = self._features.get(*key)
                usable.append(sample)
            except ClipError as error:
                if self._settings.on_error == "stop":
                    raise InputError(f"{sample.place}: {error}", hint="--on-error skip leaves it out") from error
                if (sample.place, str(error)) not in self._skipped:
                    self._skipped.append((sample.place, str(error)))
        lengths = [len(sample.ids) for sample in usable]
        width = int(self._model.llama().config.hidden_size)
        rows = make_rows(usable, packed_rows(lengths, width) if self._packing else None)
        features, mask = stack_features([seen[use.path, use.start, use.end] for _, _, use in rows.clips])
        tokens = sum(len(sample.ids) for sample in usable)
        return Batch(Inputs(rows, features, mask), float(len(rows.targets)), len(usable), tokens)

    def loss(self, content: Any) -> Tensor:
        """See ``Task``."""
        loss: Tensor = self._wrapped(content)
        return loss

    def places(self, step: int) -> list[str]:
        """See ``Task``."""
        return [self._samples[i].place for i in self._order.batch(step)]

    @torch.no_grad()
    def evaluate(self, step: int) -> float | None:
        """The mean loss of a token over the validation data; also lets a few of its questions be answered."""
        if not self._validation:
            return None
        self._wrapped.eval()
        try:
            batch = sorted(range(len(self._validation)), key=lambda i: -len(self._validation[i].ids))
            parts = shares(batch, processes=self._cluster.processes, micro_batch_size=self._settings.micro_batch_size)[
                self._cluster.rank
            ]
            total = weight = 0.0
            for indices in parts:
                made = self._worker.submit(self._batch, [self._validation[i] for i in indices]).result()
                total += float(self._wrapped(made.content))
                weight += made.weight
            total, weight = self._cluster.totals([total, weight])
            if self._cluster.rank == 0 and self._cluster.processes == 1:
                self._answer_some(step)
        finally:
            self._wrapped.train()
        return total / max(weight, 1.0)

    def _answer_some(self, step: int) -> None:
        tokenizer = Tokenizer.load(self._language)
        for sample in self._validation[: self._settings.prompts]:
            answer = Answer(step, sample.question, self._answer(sample, tokenizer), _expected(sample, tokenizer))
            with open(self._answers, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
            self._told(answer)

    def _answer(self, sample: TrainingSample, tokenizer: Tokenizer) -> str:
        """Greedy, to the first message of the sample, through the engine that chats."""
        from gpt4video_cli.language.end_tokens import find_end_ids
        from gpt4video_cli.language.torch_engine import TorchEngine

        llama = self._model.llama()
        context = int(llama.config.max_position_embeddings)
        engine = TorchEngine(llama, tokenizer, find_end_ids(self._language, tokenizer), context_length=context)
        first = next(i for i, label in enumerate(sample.labels) if label != IGNORED)
        segments: list[Segment] = []
        at = 0
        for use in sample.clips:
            if use.position >= first or self._features is None or self._model.abstractor is None:
                continue
            try:
                features = self._worker.submit(self._features.get, use.path, use.start, use.end).result()
            except ClipError as error:
                return f"({error})"
            video = self._model.abstractor(features[None].to(self._cluster.device, torch.float32))[0]
            segments.append(TokenSegment(tuple(sample.ids[at : use.position])))
            segments.append(EmbeddingSegment(str(use.position), video))
            at = use.position + len(video)
        segments.append(TokenSegment(tuple(sample.ids[at:first])))
        stats, options = GenerationStats(), SamplingOptions(max_tokens=LONGEST_ANSWER)
        return tokenizer.decode(list(engine.generate(segments, options, cache=engine.new_cache(), stats=stats))).strip()


def _expected(sample: TrainingSample, tokenizer: Tokenizer) -> str:
    """The first reply that the data has."""
    first = next(i for i, label in enumerate(sample.labels) if label != IGNORED)
    end = next((i for i in range(first, len(sample.labels)) if sample.labels[i] == IGNORED), len(sample.labels))
    return tokenizer.decode(sample.ids[first:end]).strip()
