"""Requests are completed from the card, or refused with what the model can do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.limits import complete
from gpt4video_cli.weights.find_generator import find_generator
from gpt4video_cli.weights.generator_card import GeneratorCard


def card(name: str) -> GeneratorCard:
    return find_generator(name).card


def test_the_card_fills_in_and_the_person_overrides() -> None:
    whole = complete(FilmRequest("  a\n red \t circle ", seed=7, steps=3), card("zeroscope-v2-576w"))
    chosen = {"guidance_pass": "batched", "guidance_until": 1.0, "cache_every": 1}  # all shortcuts are off
    assert whole == FilmRequest("a red circle", "", 7, 24, 8.0, 576, 320, 3, 9.0, "dpm++2m", **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("zeroscope-v2-576w", {"prompt": " \n "}, "the prompt is empty"),
        ("zeroscope-v2-576w", {"width": 570}, "multiples of 8 from 128 to 1024; the nearest is 568x320"),
        ("zeroscope-v2-576w", {"height": 99999}, "the nearest is 576x1024"),
        ("zeroscope-v2-576w", {"width": 0}, "the nearest is 128x320"),
        ("cogvideox-2b", {"width": 640}, "cogvideox-2b can do 720x480 only"),
        ("wan2.1-1.3b", {"frames": 80}, "5 to 161 of the form 4k+1; the nearest is 81"),
        ("wan2.1-1.3b", {"frames": 0}, "the nearest is 5"),
        ("ltx-video", {"frames": 1000}, "9 to 257 of the form 8k+1; the nearest is 257"),
        ("cogvideox-5b", {"frames": 13}, "9 to 49 of the form 8k+1"),
        ("bundle-film", {"frames": 10}, "--frames is 10; bundle-film can do 8 only"),
        ("zeroscope-v2-576w", {"frames": 129}, "--frames is 129; zeroscope-v2-576w can do 1 to 128"),
        ("zeroscope-v2-576w", {"fps": 0.0}, "--fps is 0.0"),
        ("zeroscope-v2-576w", {"fps": float("nan")}, "--fps is nan"),
        ("zeroscope-v2-576w", {"steps": 0}, "--steps is 0"),
        ("text2video-zero", {"steps": 20}, "text2video-zero can do 49 to 1000"),
        ("text2video-zero", {"guidance": 1.0}, "can do 1.01 to 100"),
        ("zeroscope-v2-576w", {"guidance": float("inf")}, "--guidance is inf"),
        ("zeroscope-v2-576w", {"seed": -1}, "--seed is -1"),
        ("zeroscope-v2-576w", {"seed": 2**63}, "--seed is"),
        ("zeroscope-v2-576w", {"scheduler": "dimm"}, "'dimm' is not known; possible: ddim, ddpm"),
        ("cogvideox-2b", {"scheduler": "ddim"}, "'ddim' does not work with cogvideox-2b; possible: cogvideox-ddim"),
        ("zeroscope-v2-576w", {"video": "a.mp4"}, "films from text alone"),
        ("zeroscope-v2-xl", {"video": None}, "starts from a clip; name it with --video"),
        ("zeroscope-v2-xl", {"video": "a.mp4", "strength": 0.0}, "--strength is 0.0"),
        ("zeroscope-v2-576w", {"guidance_pass": "in-turn"}, "zeroscope-v2-576w (TextToVideoSDPipeline) can do batched"),
        ("wan2.1-1.3b", {"guidance_pass": "both"}, "--guidance-pass is 'both'; it must be one of batched, in-turn"),
        ("hunyuan-video", {"guidance_pass": "batched"}, "--guidance-pass cannot be given: hunyuan-video"),
        ("text2video-zero", {"guidance_until": 0.5}, "--guidance-until cannot be given: text2video-zero"),
        ("wan2.1-1.3b", {"guidance_until": 1.5}, "--guidance-until is 1.5"),
        ("wan2.1-1.3b", {"cache_threshold": float("nan")}, "--cache-threshold is nan"),
        ("zeroscope-v2-576w", {"cache_threshold": 0.1}, "no such shortcut; --cache-every is for it"),
        ("wan2.1-1.3b", {"cache_every": 2}, "--cache-every cannot be given: wan2.1-1.3b (WanPipeline)"),
        ("zeroscope-v2-576w", {"cache_every": 0}, "--cache-every is 0"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_what_it_can(name: str, change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as error:
        complete(replace(FilmRequest("a red circle"), **change), card(name))  # type: ignore[arg-type]
    assert said in error.value.line() and "\n" not in error.value.line()


def test_half_characters_of_a_prompt_do_not_reach_the_model() -> None:
    assert complete(FilmRequest("a \ud83d dog"), card("bundle-film")).prompt == "a ? dog"
