"""Shortcuts of denoising: what must not change does not, and what they save is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.delivery import settings_of
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.guidance import denoisers, guided, guided_steps
from gpt4video_cli.gallery.latents_file import read_latents
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.gallery.replaced_forward import replaced_forward
from gpt4video_cli.gallery.text_memory import TextMemory, remember_texts
from gpt4video_cli.gallery.vae_slices import MOST, decode_frames, decode_volumes, frames_at_once, takes_any_number
from gpt4video_cli.model.free_memory import RESERVE, Device

Loaded = Callable[[str], DiffusersGenerator]
REQUEST = FilmRequest("a red circle moves left", seed=5, steps=6)


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    """The first dimension of what each call of ``module`` worked on."""
    sizes: list[int] = []
    forward = module.forward

    def noted(*arguments: Any, **named: Any) -> Any:
        tensors = [value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor)]
        sizes.append(len(tensors[0]))
        return forward(*arguments, **named)

    with replaced_forward(module, noted):
        yield sizes


@contextmanager
def counted_frames(module: Any) -> Iterator[list[int]]:
    """The number of frames that each call of ``module`` worked on."""
    frames: list[int] = []
    forward = module.forward

    def noted(x: torch.Tensor, **named: Any) -> Any:
        frames.append(x.shape[2])
        return forward(x, **named)

    with replaced_forward(module, noted):
        yield frames


def filmed(generator: DiffusersGenerator, folder: Path, **change: Any) -> tuple[torch.Tensor, list[int]]:
    """The latents of ``REQUEST`` with ``change``, and the batch of each call of the denoiser."""
    kept = folder / "kept.latents.safetensors"
    with counted(denoisers(generator.load().pipe)[0]) as sizes:
        generator.film(replace(REQUEST, **change), latents=kept)
    return read_latents(kept)[0], sizes


@pytest.mark.parametrize("until", [0.5, 1.0])
def test_both_texts_in_one_batch_give_what_one_after_the_other_gives(
    wan: DiffusersGenerator, tmp_path: Path, until: float
) -> None:
    change = {"negative_prompt": "green", "guidance_until": until}
    apart, sizes = filmed(wan, tmp_path, guidance_pass="in-turn", **change)
    assert sizes == [1] * (12 if until == 1 else 9)
    together, sizes = filmed(wan, tmp_path, guidance_pass="batched", **change)
    assert sizes == ([2] * 6 if until == 1 else [2, 2, 2, 1, 1, 1])
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["wan", "zeroscope", "cogvideox", "ltx"])
def test_no_guided_step_is_no_guidance(loaded: Loaded, tmp_path: Path, kind: str) -> None:
    """``negative + scale * (prompt - negative)`` of one answer twice is this answer."""
    none, _ = filmed(loaded(kind), tmp_path, guidance=1.0)
    late, sizes = filmed(loaded(kind), tmp_path, guidance=7.0, guidance_until=0.0)
    assert sizes == [1] * 6
    torch.testing.assert_close(late, none, atol=2e-5, rtol=0)
    half, sizes = filmed(loaded(kind), tmp_path, guidance_until=0.5)
    assert sum(sizes) == 9, "three steps with both texts, three with one"
    assert not torch.allclose(half, late, atol=1e-3)


def test_a_step_is_a_share_also_where_a_clip_is_redrawn() -> None:
    assert guided_steps(replace(REQUEST, steps=40, guidance_until=0.5)) == 20
    assert guided_steps(replace(REQUEST, steps=40, strength=0.6, guidance_until=0.5)) == 12
    assert guided_steps(replace(REQUEST, steps=40)) == 40


@pytest.mark.parametrize("kind", ["wan", "cogvideox", "ltx"])
def test_blocks_are_skipped_where_the_first_changed_little(loaded: Loaded, tmp_path: Path, kind: str) -> None:
    exact, _ = filmed(loaded(kind), tmp_path)
    transformer = denoisers(loaded(kind).load().pipe)[0]
    never, _ = filmed(loaded(kind), tmp_path, cache_threshold=1e-9)
    assert torch.equal(never, exact)
    linear = [m for n, m in transformer.named_modules() if isinstance(m, torch.nn.Linear) and "blocks.1." in n][-1]
    with counted(linear) as calls:
        skipping, _ = filmed(loaded(kind), tmp_path, cache_threshold=0.9)
    assert 0 < len(calls) < (12 if kind == "wan" else 6), "the second block rested in some steps"
    assert not torch.equal(skipping, exact) and torch.isfinite(skipping).all()
    filmed(loaded(kind), tmp_path, cache_threshold=0.9, guidance_until=0.5)  # another batch half way
    again, _ = filmed(loaded(kind), tmp_path)
    assert torch.equal(again, exact), "the cache went with the film that wanted it"


def test_inner_levels_rest_in_all_but_every_second_step(loaded: Loaded, tmp_path: Path) -> None:
    generator = loaded("zeroscope")
    unet = generator.load().pipe.unet
    exact, _ = filmed(generator, tmp_path)
    inner = [unet.down_blocks[1].resnets[0], unet.mid_block.resnets[0], unet.up_blocks[0].resnets[0]]
    with ExitStack() as stack:
        calls = [stack.enter_context(counted(module)) for module in (*inner, unet.up_blocks[1].resnets[0])]
        resting, _ = filmed(generator, tmp_path, cache_every=2)
    assert list(map(len, calls)) == [3, 3, 3, 6], "the last level up runs in each step"
    assert not torch.equal(resting, exact)
    with counted(inner[1]) as frames:
        filmed(generator, tmp_path, cache_every=4, guidance_until=0.5)
    assert frames == [2 * 4, 4], "steps 1 and 4: where guidance ends, features of two texts do not fit"
    assert torch.equal(filmed(generator, tmp_path)[0], exact)


def test_what_rests_is_what_the_last_whole_step_gave(loaded: Loaded) -> None:
    """With the same input in each step there is nothing to lose."""
    from gpt4video_cli.gallery.feature_cache import cached_features

    pipe = loaded("zeroscope").load().pipe
    torch.manual_seed(0)
    sample, text = torch.randn(1, 4, 4, 16, 16), torch.randn(1, 16, 32)
    with torch.no_grad(), cached_features(pipe, replace(REQUEST, cache_every=3)):
        first, second, _, other = (
            pipe.unet(given, 500, encoder_hidden_states=text).sample for given in (sample, sample, sample, sample + 1)
        )
    assert torch.equal(first, second) and not torch.allclose(first, other)
    with torch.no_grad():
        torch.testing.assert_close(other, pipe.unet(sample + 1, 500, encoder_hidden_states=text).sample)


def test_a_text_is_encoded_once(generator_folder: Any) -> None:
    generator = DiffusersGenerator.open(str(generator_folder("wan")))
    encoder = generator.load().pipe.text_encoder
    with counted(encoder.encoder.block[0]) as calls:
        first = generator.film(REQUEST).frames
        assert len(calls) == 2, "the prompt and the empty one"
        generator.film(replace(REQUEST, seed=6))
        assert len(calls) == 2
        generator.film(replace(REQUEST, prompt="a blue square"))
        assert len(calls) == 3
        assert np.array_equal(generator.film(REQUEST).frames, first)


def test_the_memory_of_texts_is_small_and_knows_no_gradients() -> None:
    calls: list[int] = []

    def encode(ids: torch.Tensor, attention_mask: Any = None, scale: Any = 1) -> tuple[torch.Tensor]:
        calls.append(int(ids[0, 0]))
        return (torch.zeros(6 << 20),)  # 24 MB

    memory = TextMemory(encode)
    ids = [torch.full((1, 3), number) for number in range(3)]
    with torch.no_grad():
        for number in (0, 1, 0, 2, 0, 1):
            memory(ids[number])
        assert calls == [0, 1, 2, 1], "1 was used least recently when 2 came"
        memory(ids[1], attention_mask=torch.ones(1, 3, dtype=torch.long))
        memory(ids[1], scale=0.5)
        memory(ids[1], scale=0.5)  # of a kind that is not compared
        assert calls[4:] == [1, 1, 1]
    memory(ids[1])
    assert calls[7:] == [1]


def test_what_an_encoder_said_outlives_the_hooks_of_offloading() -> None:
    """diffusers takes them off after each clip and puts them on again, for parts that are offloaded whole."""
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    encoder = torch.nn.Embedding(4, 2)
    pipe, ids = SimpleNamespace(text_encoder=encoder), torch.tensor([[1, 2]])
    with torch.no_grad(), counted(encoder) as calls:
        for _ in range(3):
            add_hook_to_module(encoder, ModelHook())
            remember_texts(pipe)
            remember_texts(pipe)
            encoder(ids)
            remove_hook_from_module(encoder)
        assert len(calls) == 1


def test_a_vae_that_is_offloaded_comes_to_the_device(loaded: Loaded) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    vae, asked = loaded("wan").load().pipe.vae, []

    class Coming(ModelHook):  # type: ignore[misc]
        def pre_forward(self, module: Any, *arguments: Any, **named: Any) -> Any:
            asked.append(module)
            return arguments, named

    add_hook_to_module(vae, Coming())
    with torch.no_grad():
        decode_volumes(vae, torch.zeros(1, 4, 1, 16, 16), 32, 32)
    remove_hook_from_module(vae)
    assert asked == [vae]


def test_all_steps_are_guided_where_no_end_is_said(loaded: Loaded) -> None:
    """A scheduler may ask once more than there are steps; a clip is redrawn in fewer than all."""
    pipe = loaded("zeroscope").load().pipe
    sample, text = torch.randn(2, 4, 4, 16, 16), torch.randn(2, 16, 32)
    request = replace(REQUEST, steps=1, guidance=7.0, strength=0.5, guidance_until=1.0)
    with torch.no_grad(), counted(pipe.unet) as sizes, guided(pipe, request):
        for _ in range(3):
            pipe.unet(sample, 500, encoder_hidden_states=text)
    assert sizes == [2, 2, 2]


def test_frames_are_decoded_as_many_at_a_time_as_there_is_memory_for(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = loaded("zeroscope").load().pipe.vae
    frame = 10 * 32 * 32 * 16 * 4
    assert [frames_at_once(vae, 32, 32, free) for free in (0, frame, 3 * frame + 1, 1 << 40)] == [1, 1, 3, MOST]
    latents = torch.randn(1, 4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = decode_frames(vae, latents, 32, 32)
    monkeypatch.setattr("gpt4video_cli.gallery.vae_slices.frames_at_once", lambda *_: 2)
    with torch.no_grad(), counted(vae.decoder) as sizes:
        sliced = decode_frames(vae, latents, 32, 32)
        assert sizes == [2, 2, 1] and vae.use_slicing
        torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=0)


def test_volumes_are_decoded_as_the_library_does_frame_by_frame(
    loaded: Loaded, generator_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    ours = loaded("wan").load().pipe.vae
    plain = diffusers.AutoencoderKLWan.from_pretrained(generator_folder("wan") / "vae")
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), "folded weights have the same values"
    latents = torch.randn(2, 4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    assert takes_any_number(ours, 32, 32) and not takes_any_number(ours, 1024, 32)
    frame = 3 * 10 * 32 * 32 * ours.config.base_dim * 4 * ours.config.dim_mult[:2][-1]
    for fits in (1, 2, 100):
        device = Device("cpu", RESERVE["cpu"] + fits * frame, 1 << 40)
        monkeypatch.setattr("gpt4video_cli.gallery.vae_slices.find_devices", lambda _, device=device: [device])
        with torch.no_grad(), counted_frames(ours.decoder) as frames:
            torch.testing.assert_close(
                decode_volumes(ours, latents, 32, 32), plain.decode(latents).sample, atol=1e-5, rtol=0
            )
        assert frames == {1: [1] * 5, 2: [2, 2, 1], 100: [5]}[fits]


def test_the_description_of_a_clip_says_all_of_it(loaded: Loaded) -> None:
    film = loaded("wan").film(replace(REQUEST, guidance_until=0.5, cache_threshold=0.2))
    said = settings_of(film)
    assert json.loads(json.dumps(said)) == said
    wanted = {"guidance_pass": "in-turn", "guidance_until": 0.5, "cache_threshold": 0.2}
    assert wanted.items() <= said.items() and "cache_every" not in said
    assert {"compile": False, "vae_slicing": True, "vae_tiling": True}.items() <= said.items()


def test_what_excludes_each_other_is_refused(generator_folder: Any) -> None:
    with pytest.raises(UsageError, match="--compile cannot be given with --offload sequential"):
        LoadOptions("cuda", offload="sequential", compile=True)
    generator = DiffusersGenerator.open(str(generator_folder("wan")), LoadOptions(compile=True))
    with pytest.raises(UsageError, match="--compile and --cache-threshold exclude each other"):
        generator.check(replace(REQUEST, cache_threshold=0.1))
    assert generator.check(REQUEST).cache_threshold == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wan", "zeroscope"])
def test_a_compiled_model_films_the_same(generator_folder: Any, loaded: Loaded, tmp_path: Path, kind: str) -> None:
    compiled = DiffusersGenerator.open(str(generator_folder(kind)), LoadOptions(compile=True))
    plain, _ = filmed(loaded(kind), tmp_path, steps=2)
    quick, _ = filmed(compiled, tmp_path, steps=2)
    torch.testing.assert_close(quick, plain, atol=2e-4, rtol=0)
