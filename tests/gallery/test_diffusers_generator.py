"""Four pipeline classes of diffusers, with random weights, through one door: laws that hold for each."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4video_cli.errors import CancelledError, GenerationError, InputError, UsageError, WeightsError
from gpt4video_cli.events import GenerationProgress, Notice
from gpt4video_cli.gallery.decoding import to_pictures
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator, seeded
from gpt4video_cli.gallery.generator import FilmRequest, Happening
from gpt4video_cli.gallery.latents_file import read_header
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.gallery.random_generator import KINDS
from gpt4video_cli.model.strict_load import read_safetensors, write_safetensors

Loaded = Callable[[str], DiffusersGenerator]
REQUEST = FilmRequest("a red circle moves left", seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_has_the_asked_shape_and_says_how_it_was_made(loaded: Loaded, kind: str) -> None:
    heard: list[Happening] = []
    film = loaded(kind).film(REQUEST, listen=heard.append)
    defaults = loaded(kind).card.defaults
    assert film.frames.dtype == np.uint8
    assert film.frames.shape == (defaults.frames, defaults.height, defaults.width, 3)
    assert (film.fps, film.model, film.dtype, film.device) == (8.0, "random", "float32", "cpu")
    assert film.request.frames == defaults.frames and film.revision.startswith("sha256:")
    assert set(film.seconds) == {"load", "denoise", "decode"}
    steps = [(e.step, e.steps) for e in heard if isinstance(e, GenerationProgress) and e.stage == "filming"]
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    stages = [event.stage for event in heard if isinstance(event, GenerationProgress)]
    assert stages[0] == "loading" and stages[-1] == "decoding"
    left = [event.seconds_left for event in heard if isinstance(event, GenerationProgress) and event.step > 1]
    assert left[-1] == 0 and all(value is not None for value in left)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_frames_and_another_others(loaded: Loaded, kind: str) -> None:
    first = loaded(kind).film(REQUEST).frames
    assert np.array_equal(first, loaded(kind).film(REQUEST).frames)
    other = loaded(kind).film(replace(REQUEST, seed=4)).frames
    assert (first != other).mean() > 0.5


def test_a_scheduler_that_draws_noise_follows_the_seed_too(wan: DiffusersGenerator) -> None:
    ancestral = replace(REQUEST, scheduler="flow-euler-a")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = wan.film(ancestral).frames
    assert torch.equal(torch.rand(3), expected), "filming used up the caller's random numbers"
    assert np.array_equal(first, wan.film(ancestral).frames)
    assert not np.array_equal(first, wan.film(replace(ancestral, seed=4)).frames)
    assert not np.array_equal(first, wan.film(replace(REQUEST, scheduler="flow-euler")).frames)


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_gives_the_same_frames(generator_folder: Any, loaded: Loaded, kind: str) -> None:
    """Loading again, after other films, changes nothing."""
    fresh = DiffusersGenerator.open(str(generator_folder(kind)))
    assert np.array_equal(fresh.film(REQUEST).frames, loaded(kind).film(REQUEST).frames)


@pytest.mark.parametrize("kind", ["wan", "zeroscope", "cogvideox"])
def test_the_prompt_the_negative_prompt_and_the_steps_matter(loaded: Loaded, kind: str) -> None:
    first = loaded(kind).film(REQUEST).frames
    for change in ({"prompt": "a blue square"}, {"negative_prompt": "green"}, {"steps": 4}, {"guidance": 1.0}):
        assert not np.array_equal(first, loaded(kind).film(replace(REQUEST, **change)).frames), change  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_here_equals_the_pipelines_own_decoding(loaded: Loaded, kind: str) -> None:
    """The reference: the pipeline of diffusers run to its own end."""
    generator = loaded(kind)
    film, pipe, request = generator.film(REQUEST), generator.load().pipe, generator.check(REQUEST)
    arguments: dict[str, Any] = {**generator.card.call, "height": request.height, "width": request.width}
    frames = request.frames if kind != "wan" else int(request.frames or 0) - 1  # see frames_to_ask
    if kind == "ltx":
        arguments["frame_rate"] = request.fps
    with torch.no_grad():
        own = pipe(
            prompt=request.prompt,
            num_frames=frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="np",
            **arguments,
        ).frames[0]
    apart = (np.asarray(own) * 255).round().astype(int) - film.frames
    assert abs(apart).max() <= 1  # the pipeline's latents have another memory layout


@pytest.mark.parametrize("kind", KINDS)
def test_kept_latents_decode_to_the_same_frames(
    generator_folder: Any, loaded: Loaded, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.latents.safetensors"
    film = loaded(kind).film(REQUEST, latents=path)
    header = read_header(path)
    assert header.request == film.request and header.revision == film.revision
    fresh = DiffusersGenerator.open(str(generator_folder(kind)))
    again = fresh.finish(path)
    assert np.array_equal(again.frames, film.frames) and again.request == film.request
    parts = fresh.load(only_decoder=True).pipe.components
    assert parts["vae"] is not None and parts["text_encoder"] is None  # less memory than filming


@pytest.mark.parametrize("kind", ["wan", "zeroscope"])
def test_samples_are_films_of_the_next_seeds(loaded: Loaded, kind: str) -> None:
    films = [loaded(kind).film(seeded(REQUEST, number)).frames for number in range(3)]
    for number, frames in enumerate(films):
        assert np.array_equal(frames, loaded(kind).film(replace(REQUEST, seed=REQUEST.seed + number)).frames)
    assert not np.array_equal(films[0], films[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_ends_between_two_steps(loaded: Loaded, kind: str, tmp_path: Path) -> None:
    cancel, heard = threading.Event(), []

    def listen(event: Happening) -> None:
        heard.append(event)
        if isinstance(event, GenerationProgress) and event.stage == "filming" and event.step == 1:
            cancel.set()

    with pytest.raises(CancelledError):
        loaded(kind).film(REQUEST, latents=tmp_path / "x.safetensors", listen=listen, cancel=cancel)
    assert heard[-1] == GenerationProgress(1, 3, None)
    assert list(tmp_path.iterdir()) == []
    assert loaded(kind).film(REQUEST).frames.any()  # the model is usable afterwards


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_wan_films_the_asked_number_of_frames(wan: DiffusersGenerator, frames: int) -> None:
    """diffusers 0.42 turns F into F+1 where the VAE keeps every frame."""
    assert len(wan.film(replace(REQUEST, frames=frames)).frames) == frames


def test_sizes_and_schedulers_are_obeyed(loaded: Loaded) -> None:
    assert loaded("wan").film(replace(REQUEST, width=48, height=16)).frames.shape[1:3] == (16, 48)
    films = {
        name: loaded("zeroscope").film(replace(REQUEST, scheduler=name)).frames.tobytes()
        for name in ("ddim", "dpm++2m", "euler", "unipc", "euler-a", "ddpm")
    }
    assert len(set(films.values())) == len(films)
    with pytest.raises(UsageError, match="'flow-euler' is for a flow-matching model"):
        loaded("zeroscope").film(replace(REQUEST, scheduler="flow-euler"))
    with pytest.raises(UsageError, match="'ddim' is for a noise-predicting model"):
        loaded("wan").film(replace(REQUEST, scheduler="ddim"))


def test_a_prompt_that_is_too_long_is_told_with_what_is_cut(wan: DiffusersGenerator) -> None:
    heard: list[Happening] = []
    wan.film(replace(REQUEST, prompt="a red circle moves left " * 3 + "blue square right"), listen=heard.append)
    (notice,) = [event for event in heard if isinstance(event, Notice)]
    # 15 words fit before the end token.
    assert notice.text == 'random reads 16 tokens of a prompt; it does not see: "blue square right"'
    heard.clear()
    wan.film(REQUEST, listen=heard.append)
    assert not [event for event in heard if isinstance(event, Notice)]


def changed(source: Path, target: Path, part: str, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A copy of a model whose tensors in ``part`` are changed."""
    shutil.copytree(source, target)
    (file,) = (target / part).glob("*.safetensors")
    tensors, metadata = read_safetensors(file)
    write_safetensors(file, {name: change(name, tensor) for name, tensor in tensors.items()}, metadata)
    return target


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("transformer", float("nan"), "values that are not numbers"),
        ("vae", float("nan"), "values that are not numbers"),
        ("vae", 0.0, "flat frames only"),
    ],
)
def test_broken_weights_give_an_error_and_no_file(
    generator_folder: Any, tmp_path: Path, part: str, value: float, said: str
) -> None:
    folder = changed(generator_folder("wan"), tmp_path / "m", part, lambda _, t: torch.full_like(t, value))
    latents = tmp_path / "latents.safetensors"
    with pytest.raises(GenerationError, match=said):
        DiffusersGenerator.open(str(folder)).film(REQUEST, latents=latents)
    assert not latents.exists()


def test_black_and_flat_frames_and_wrong_numbers_are_told() -> None:
    request = FilmRequest("x", frames=2, width=4, height=4)
    black = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(GenerationError, match="black frames only"):
        to_pictures(black, request, "m")
    with pytest.raises(GenerationError, match="flat frames only"):
        to_pictures(black + 0.5, request, "m")
    one_shows = black.copy()
    one_shows[1, 0, 0] = 1
    assert to_pictures(one_shows, request, "m").max() == 255  # a fade from black may begin with black frames
    with pytest.raises(GenerationError, match="1 frames of 4x4 where 2 frames of 4x4"):
        to_pictures(black[:1], request, "m")


def test_a_missing_tensor_is_named(generator_folder: Any, tmp_path: Path) -> None:
    """diffusers alone would draw it at random and only warn."""
    folder = tmp_path / "m"
    shutil.copytree(generator_folder("wan"), folder)
    (file,) = (folder / "transformer").glob("*.safetensors")
    tensors, metadata = read_safetensors(file)
    del tensors["proj_out.weight"]
    write_safetensors(file, tensors, metadata)
    with pytest.raises(WeightsError, match=r"tensor proj_out\.weight is missing"):
        DiffusersGenerator.open(str(folder)).load()


def test_pickled_weights_and_wrong_classes_are_refused(generator_folder: Any, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(generator_folder("wan"), folder)
    (file,) = (folder / "vae").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="pickled weights only"):
        DiffusersGenerator.open(str(folder)).load()
    card = folder / "card.toml"
    card.write_text(card.read_text().replace("WanPipeline", "NoPipeline"))
    with pytest.raises(WeightsError, match="has no pipeline 'NoPipeline'"):
        DiffusersGenerator.open(str(folder)).load()


def test_latents_of_another_model_and_other_files_are_refused(loaded: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    loaded("wan").film(REQUEST, latents=path)
    with pytest.raises(UsageError, match="was made by random"):
        loaded("ltx").finish(path)
    (tmp_path / "b.safetensors").write_bytes(path.read_bytes()[:100])
    write_safetensors(tmp_path / "c.safetensors", {"latents": torch.zeros(1)}, {"gpt4video": json.dumps({"x": 1})})
    for name, said in [("b", "not a file of latents"), ("c", "not a file of latents"), ("d", "no such file")]:
        with pytest.raises(InputError, match=said):
            loaded("wan").finish(tmp_path / f"{name}.safetensors")


def test_options_that_cannot_be(generator_folder: Any) -> None:
    with pytest.raises(UsageError, match="--offload is 'some'"):
        LoadOptions(offload="some")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="but the device is cpu"):
        LoadOptions(device="cpu", offload="model")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="but the device is cpu"):
            DiffusersGenerator.open(str(generator_folder("wan")), LoadOptions(offload="model")).load()


def test_slicing_and_tiling_are_on_unless_turned_off(generator_folder: Any, loaded: Loaded) -> None:
    assert loaded("zeroscope").load().pipe.vae.use_slicing and loaded("zeroscope").load().pipe.vae.use_tiling
    options = LoadOptions(vae_slicing=False, vae_tiling=False)
    plain = DiffusersGenerator.open(str(generator_folder("zeroscope")), options)
    assert not plain.load().pipe.vae.use_slicing and not plain.load().pipe.vae.use_tiling
    # The same sums in another order: at most the last bit differs.
    apart = plain.film(REQUEST).frames.astype(int) - loaded("zeroscope").film(REQUEST).frames
    assert abs(apart).max() <= 1


def test_bfloat16_films_too(generator_folder: Any) -> None:
    film = DiffusersGenerator.open(str(generator_folder("wan")), LoadOptions(dtype="bfloat16")).film(REQUEST)
    assert film.dtype == "bfloat16" and film.frames.std() > 1


@pytest.mark.parametrize(
    ("stage", "said"),
    [("decode", "--resume .*latents.safetensors"), ("__call__", "--dtype bfloat16 needs half of it")],
)
def test_out_of_memory_says_what_would_help(
    generator_folder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, said: str
) -> None:
    generator = DiffusersGenerator.open(str(generator_folder("wan")))
    pipe = generator.load().pipe

    def full(*_: Any, **__: Any) -> None:
        torch.empty(2**50, dtype=torch.uint8)  # the allocator's own error

    if stage == "decode":
        monkeypatch.setattr(pipe.vae.decoder, "forward", full)
    else:
        monkeypatch.setattr(pipe.transformer, "forward", full)
    latents = tmp_path / "x.latents.safetensors"
    with pytest.raises(GenerationError, match="not enough memory") as error:
        generator.film(REQUEST, latents=latents)
    import re

    assert re.search(said, error.value.line()), error.value.line()
    assert latents.exists() == (stage == "decode")
