"""One generator for every text-to-video pipeline of diffusers, maintained or not; the model's card says what differs.

B clips (1), C channels, T frames, H height, W width; t, h, w the same in latents.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import CancelledError, GenerationError, UsageError
from gpt4video_cli.events import GenerationProgress, Notice
from gpt4video_cli.gallery.decoding import DECODERS, decode, to_pictures
from gpt4video_cli.gallery.generator import Film, FilmRequest, Listener
from gpt4video_cli.gallery.latents_file import LatentsHeader, read_latents, save_latents
from gpt4video_cli.gallery.limits import VIDEO_TO_VIDEO, complete
from gpt4video_cli.gallery.memory import explained_memory
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.gallery.schedulers import build, check_fits
from gpt4video_cli.gallery.shortcuts import IN_TURN, check_compiled
from gpt4video_cli.gallery.side_car import model_revision
from gpt4video_cli.weights.find_generator import FoundGenerator, find_generator, generator_folder, scheduler_config
from gpt4video_cli.weights.generator_card import GeneratorCard

if TYPE_CHECKING:
    from gpt4video_cli.gallery.loading import LoadedPipeline

_NOTHING = threading.Event()


class DiffusersGenerator:
    """A text-to-video model of diffusers. Its weights are read by the first ``film``, or by ``load``."""

    def __init__(self, found: FoundGenerator, options: LoadOptions | None = None, *, named: str = "") -> None:
        self._card = found.card
        self.named = named or found.card.name
        self.folder = generator_folder(found)
        self.options = options or LoadOptions()
        self._loaded: LoadedPipeline | None = None

    @classmethod
    def open(cls, name_or_dir: str | Path, options: LoadOptions | None = None) -> DiffusersGenerator:
        """By a card's name or a folder. Raises ``UsageError`` or ``WeightsError``; reads no weights yet."""
        return cls(find_generator(name_or_dir), options, named=str(name_or_dir))

    @property
    def card(self) -> GeneratorCard:
        """What the model is."""
        return self._card

    @cached_property
    def revision(self) -> str:
        """The hub's commit, or a hash of the folder."""
        return model_revision(self.folder.path)

    @property
    def loaded(self) -> bool:
        """Whether all of the model is in memory."""
        return self._loaded is not None and self._loaded.whole

    def check(self, request: FilmRequest) -> FilmRequest:
        """The completed request; raises ``UsageError`` for what this model cannot do. Loads nothing."""
        request = complete(request, self.card)
        check_fits(str(request.scheduler), scheduler_config(self.folder.path), self.card.name)
        if self.options.compile:
            check_compiled(request)
        return request

    def load(self, *, only_decoder: bool = False) -> LoadedPipeline:
        """The pipeline, loaded now or before."""
        from gpt4video_cli.gallery.loading import load_pipeline

        if self._loaded is None or not (self._loaded.whole or only_decoder):
            self._loaded = None  # the old one's memory goes before the new one is read
            with explained_memory("loading", self.options, self.card.name):
                self._loaded = load_pipeline(self.card, self.folder, self.options, only_decoder=only_decoder)
        return self._loaded

    def film(
        self,
        request: FilmRequest,
        *,
        latents: Path | None = None,
        listen: Listener | None = None,
        cancel: threading.Event | None = None,
    ) -> Film:
        """See ``Generator.film``."""
        request, tell, stop = self.check(request), listen or _ignore, cancel or _NOTHING
        video = read_video(request) if self.card.pipeline in VIDEO_TO_VIDEO else None
        began = time.perf_counter()
        tell(GenerationProgress(0, 1, None, "loading"))
        loaded = self.load()
        seconds = {"load": time.perf_counter() - began}
        _stop_if(stop)
        if cut := cut_from_prompt(loaded.pipe, request.prompt, self.card.prompt_tokens):
            limit = self.card.prompt_tokens
            tell(Notice(f'{self.card.name} reads {limit} tokens of a prompt; it does not see: "{cut}"'))
        loaded.pipe.scheduler = build(str(request.scheduler), loaded.saved_scheduler, self.card.scheduler)
        began = time.perf_counter()
        split = self.card.pipeline in DECODERS
        with explained_memory("denoising", self.options, self.card.name):
            output = self._denoise(loaded, request, video, tell, stop, split)
        seconds["denoise"] = time.perf_counter() - began
        if not split:
            return self._finished(loaded, output, request, seconds)
        if latents is not None:
            save_latents(latents, output, self._header(loaded, request, seconds["denoise"]))
        return self._decode(loaded, output, request, latents, seconds, tell, stop)

    def finish(self, latents: Path, *, listen: Listener | None = None, cancel: threading.Event | None = None) -> Film:
        """See ``Generator.finish``."""
        tensor, header = read_latents(latents)
        tell = listen or _ignore
        if (header.pipeline, header.revision) != (self.card.pipeline, self.revision):
            raise UsageError(
                f"{latents}: was made by {header.model} ({header.revision}), not by {self.card.name} ({self.revision})",
                hint="name the generator that made it with --generator",
            )
        began = time.perf_counter()
        tell(GenerationProgress(0, 1, None, "loading"))
        loaded = self.load(only_decoder=True)
        seconds = {"load": time.perf_counter() - began, "denoise": header.seconds}
        return self._decode(loaded, tensor, header.request, latents, seconds, tell, cancel or _NOTHING)

    def _denoise(
        self,
        loaded: LoadedPipeline,
        request: FilmRequest,
        video: Any,
        tell: Listener,
        stop: threading.Event,
        split: bool,
    ) -> Any:
        """Latents as the pipeline gives them (``split``), or float frames [T, H, W, 3] in 0..1."""
        import torch

        from gpt4video_cli.gallery.feature_cache import cached_features
        from gpt4video_cli.gallery.guidance import guided, texts_for_batch
        from gpt4video_cli.gallery.text_memory import remember_texts

        pipe = loaded.pipe
        remember_texts(pipe)
        takes = set(inspect.signature(type(pipe).__call__).parameters)
        # Drawn on the CPU, so that the same seed is the same noise on every device.
        noise = torch.Generator().manual_seed(request.seed)
        arguments: dict[str, Any] = {
            **self.card.call,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "generator": noise,
            "output_type": "latent" if split else "np",
            "return_dict": False,
        }
        if "num_frames" in takes:
            arguments["num_frames"] = frames_to_ask(pipe, int(request.frames or 1))
        if "video_length" in takes:
            arguments["video_length"] = request.frames
        if "height" in takes:
            arguments |= {"height": request.height, "width": request.width}
        if "frame_rate" in takes:
            arguments["frame_rate"] = request.fps
        if video is not None:
            arguments |= {"video": video, "strength": request.strength}
        steps = _Steps(int(request.steps or 1), tell, stop)
        if "callback_on_step_end" in takes:
            arguments["callback_on_step_end"] = steps.on_step_end
        elif "callback" in takes:  # the unmaintained pipelines
            arguments |= {"callback": steps.callback, "callback_steps": 1}
        tell(GenerationProgress(0, steps.steps))
        with torch.no_grad(), noise_of_steps(request.seed), cached_features(pipe, request):
            if self.card.pipeline in IN_TURN and request.guidance_pass == "batched" and (request.guidance or 0) > 1:
                texts = texts_for_batch(pipe, request, arguments)
                arguments |= {"prompt": None, "negative_prompt": None, **texts}
            with guided(pipe, request, arguments.get("negative_prompt_embeds")):
                output = pipe(**arguments)[0]
        _stop_if(stop)
        if split and not torch.isfinite(output).all():
            raise GenerationError(
                f"{self.card.name} filmed values that are not numbers", hint="--dtype float32 or bfloat16 may help"
            )
        return output

    def _decode(
        self,
        loaded: LoadedPipeline,
        latents: Any,
        request: FilmRequest,
        kept: Path | None,
        seconds: dict[str, float],
        tell: Listener,
        stop: threading.Event,
    ) -> Film:
        _stop_if(stop)
        tell(GenerationProgress(0, 1, None, "decoding"))
        began = time.perf_counter()
        with explained_memory("decoding", self.options, self.card.name, kept):
            frames = decode(loaded.pipe, latents, request)
        _stop_if(stop)
        return self._finished(loaded, frames, request, {**seconds, "decode": time.perf_counter() - began}, kept)

    def _finished(
        self,
        loaded: LoadedPipeline,
        frames: Any,
        request: FilmRequest,
        seconds: dict[str, float],
        kept: Path | None = None,
    ) -> Film:
        try:
            pictures = to_pictures(frames, request, self.card.name)
        except GenerationError:
            if kept is not None:  # decoding them again would show the same
                kept.unlink(missing_ok=True)
            raise
        return Film(
            frames=pictures,
            fps=float(request.fps or 1),
            request=request,
            model=self.card.name,
            revision=self.revision,
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(loaded.device),
            seconds=seconds,
            loading={name: getattr(self.options, name) for name in ("vae_slicing", "vae_tiling", "compile")},
        )

    def _header(self, loaded: LoadedPipeline, request: FilmRequest, seconds: float) -> LatentsHeader:
        dtype = str(loaded.dtype).removeprefix("torch.")
        return LatentsHeader(
            request, self.card.name, self.revision, self.card.pipeline, dtype, self.named, round(seconds, 3)
        )


@contextmanager
def noise_of_steps(seed: int) -> Iterator[None]:
    """Seed what stochastic schedulers draw: pipelines such as WanPipeline hand them no generator.

    Another seed than the request's, or the first draw would be the noise that filming starts from once more.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed((seed * 2_654_435_761 + 1) % 2**63)
        yield


class _Steps:
    """Tells each finished step and how long the rest will take, and stops between two steps when it is asked to."""

    def __init__(self, steps: int, tell: Listener, stop: threading.Event) -> None:
        self.steps, self._tell, self._stop = steps, tell, stop
        self._done = 0
        self._first = 0.0

    def callback(self, step: int, timestep: Any, latents: Any) -> None:
        """What ``callback`` of the older pipelines calls."""
        self._step()

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """What ``callback_on_step_end`` calls; gives the tensors back unchanged."""
        self._step()
        return tensors

    def _step(self) -> None:
        now = time.perf_counter()
        self._done = min(self._done + 1, self.steps)  # some pipelines go over the last steps twice
        left = None
        if self._done == 1:
            self._first = now  # the first step also encodes the prompt and warms up: no measure for the rest
        else:
            left = (now - self._first) / (self._done - 1) * (self.steps - self._done)
        self._tell(GenerationProgress(self._done, self.steps, left))
        _stop_if(self._stop)


def frames_to_ask(pipe: Any, frames: int) -> int:
    """What to pass as ``num_frames`` so that ``frames`` come out.

    diffusers 0.42's WanPipeline keeps ``num_frames`` only if it is 1 modulo the VAE's factor in time. Nothing is 1
    modulo 1, so with a VAE that keeps every frame (factor 1) it adds one.
    """
    if type(pipe).__name__ == "WanPipeline" and pipe.vae_scale_factor_temporal == 1:
        return frames - 1
    return frames


def cut_from_prompt(pipe: Any, prompt: str, limit: int | None) -> str:
    """The end of ``prompt`` that the text encoder does not read; empty if it reads all."""
    tokenizer = getattr(pipe, "tokenizer", None)
    if limit is None or tokenizer is None:
        return ""
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    room = limit - tokenizer.num_special_tokens_to_add()
    return tokenizer.decode(ids[room:]).strip() if len(ids) > room else ""


def read_video(request: FilmRequest) -> list[Any]:
    """The clip to start from, at the request's size: T pictures (PIL), evenly spread over its length."""
    from PIL import Image

    from gpt4video_cli.video.reader import FrameReader
    from gpt4video_cli.video.sampling import SamplingPlan

    with FrameReader() as reader:
        clip = reader.read(str(request.video), SamplingPlan(frames=request.frames))
    size = (int(request.width or 0), int(request.height or 0))
    return [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in clip.frames]


def seeded(request: FilmRequest, number: int) -> FilmRequest:
    """The request of sample ``number`` (from 0): each has the next seed, so that each can be filmed again alone."""
    return replace(request, seed=request.seed + number)


def _ignore(_: object) -> None:
    pass


def _stop_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise CancelledError("cancelled")
