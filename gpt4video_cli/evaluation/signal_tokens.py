"""Text prompts against signal tokens: of clips that are asked for, how many show what was asked for?

    python -m gpt4video_cli.evaluation.signal_tokens --work DIR --output signals.json

``DIR`` is the work folder of ``gpt4video train --recipe bundle``. From its pretrained language model, or from another
one (``--language FOLDER``), two are trained on the same dialogues for as many steps: one writes text prompts
(``recipes.language_model.practise``), one writes signal tokens whose hidden states a head turns into text features
(``recipes.signal_tokens``). Both then answer the held-out requests of ``evaluation.requests``, with described clips in
place of watched ones; the bundled text-to-video model films what they ask for, with the same seed and settings, and
``film_judge`` looks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from gpt4video_cli.evaluation.film_judge import look
from gpt4video_cli.evaluation.films import judge
from gpt4video_cli.evaluation.requests import Request, requests
from gpt4video_cli.evaluation.shapeworld import HELD_OUT, Tally
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator, frames_to_ask
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.recipes.bundle import Recipe
from gpt4video_cli.recipes.examples import END, collate, embed, encode_dialogue
from gpt4video_cli.recipes.language_model import practise
from gpt4video_cli.recipes.signal_tokens import (
    SignalHead,
    prompts_of,
    signal_ids,
    signal_places,
    train_signals,
    with_signals,
)
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn
from gpt4video_cli.shapeworld.scene import PLAIN_BACKGROUNDS
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR
from gpt4video_cli.whole_file import write_whole

LONGEST = 96
"""Tokens of a reply."""
KEYS = ("asked", "colour", "shape", "motion", "background", "all")


@torch.no_grad()
def replied(model: Any, tokenizer: Tokenizer, dialogue: Dialogue, rng: random.Random) -> tuple[list[int], Tensor]:
    """What ``model`` answers to the last message, greedily: token ids, and their hidden states ``[n, D]``."""
    example = encode_dialogue(tokenizer, dialogue, rng, folded=True)
    learned = [i for i, label in enumerate(example.labels) if label >= 0]
    start = next(i for i in reversed(learned) if i - 1 not in learned)
    words = model.get_input_embeddings()
    embeddings = embed(words, [example], collate([example])[0], seed=0)[:, :start]
    reply: list[int] = []
    for _ in range(LONGEST):
        hidden = model.model(inputs_embeds=embeddings).last_hidden_state[:, -1]
        token = int(model.lm_head(hidden).argmax())
        if token == END:
            break
        reply.append(token)
        embeddings = torch.cat([embeddings, words(torch.tensor([[token]]))], dim=1)
    return reply, model.model(inputs_embeds=embeddings).last_hidden_state[0, start:]


Ask = Callable[[Request, random.Random], dict[str, Any] | None]
"""What the pipeline gets for a request, a prompt or its features; None: nothing is asked for."""


def asking_by_text(model: Any, tokenizer: Tokenizer) -> Ask:
    """With the first prompt in the reply."""

    def ask(request: Request, rng: random.Random) -> dict[str, Any] | None:
        reply, _ = replied(model, tokenizer, request.dialogue, rng)
        prompts = prompts_of(Dialogue((), (Turn("", tokenizer.decode(reply)),)))
        return {"prompt": prompts[0]} if prompts else None

    return ask


def asking_by_signals(model: Any, head: SignalHead, tokenizer: Tokenizer) -> Ask:
    """With what ``head`` makes of the first signal tokens in the reply."""
    signals = signal_ids(tokenizer)

    @torch.no_grad()
    def ask(request: Request, rng: random.Random) -> dict[str, Any] | None:
        reply, hidden = replied(model, tokenizer, with_signals(request.dialogue), rng)
        places = signal_places(reply, signals)
        return {"prompt_embeds": head(hidden[None, places[0] : places[0] + len(signals)])} if places else None

    return ask


def filmable(count: int) -> Iterator[Request]:
    """``count`` held-out requests whose clip the bundled text-to-video model can film: on a plain background."""
    wanted = (r for r in requests(3 * count) if r.wanted is not None and r.wanted.background in PLAIN_BACKGROUNDS)
    return itertools.islice(wanted, count)


def compare(asks: dict[str, Ask], generator: DiffusersGenerator, count: int) -> dict[str, Any]:
    """Of ``count`` requests, how many get a clip, and one that shows each attribute, by the way of asking for it."""
    tallies = {name: {key: Tally() for key in KEYS} for name in asks}
    for index, request in enumerate(filmable(count)):
        assert request.wanted is not None
        for name, ask in asks.items():
            given = ask(request, random.Random(f"{HELD_OUT}/signals/{index}"))
            verdict = {"asked": given is not None}
            if given is not None:
                seen = look(_filmed(generator, given, index), most=len(request.wanted.shapes))
                verdict |= judge(seen, request.wanted)
            for key, tally in tallies[name].items():
                tally.add(verdict.get(key, False))
    return {name: {key: tally.as_dict() for key, tally in found.items()} for name, found in tallies.items()}


def _filmed(generator: DiffusersGenerator, given: dict[str, Any], seed: int) -> NDArray[np.uint8]:
    """Frames uint8 ``[T, H, W, 3]``, with the defaults of the generator's card."""
    request = generator.check(FilmRequest("from features", seed=seed))
    pipe = generator.load().pipe
    with torch.no_grad():
        frames = pipe(
            **generator.card.call,
            **given,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            num_frames=frames_to_ask(pipe, int(request.frames or 1)),
            height=request.height,
            width=request.width,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).frames[0]
    return (np.clip(frames[: request.frames], 0, 1) * 255).round().astype(np.uint8)


def train_both(language: Path, folder: Path, generator: DiffusersGenerator, recipe: Recipe) -> dict[str, Ask]:
    """Both ways from the language model ``language``, trained or, where they are finished, read from ``folder``."""
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    tokenizer = Tokenizer.from_file(str(language / "tokenizer.json"))
    parts = generator.load().pipe
    text_encoder = parts.text_encoder.float()
    writer, signaller = (LlamaForCausalLM.from_pretrained(language, dtype=torch.float32) for _ in range(2))
    torch.manual_seed(recipe.seed)
    head = SignalHead(writer.config.hidden_size, text_encoder.config.d_model)
    options, size = recipe.practice, recipe.practice_batch
    practise(writer, tokenizer, options, folder=folder, batch_size=size, seed=recipe.seed)
    train_signals(
        signaller,
        head,
        tokenizer,
        text_encoder,
        parts.tokenizer,
        options,
        folder=folder,
        batch_size=size,
        seed=recipe.seed,
    )
    for model in (writer, signaller, head):
        model.eval()
    return {
        "text prompts": asking_by_text(writer, tokenizer),
        "signal tokens": asking_by_signals(signaller, head, tokenizer),
    }


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="work folder of the bundle's recipe")
    parser.add_argument("--language", type=Path, help="the language model to begin with (else DIR/pretrained)")
    parser.add_argument("--steps", type=int, help="of each training (else the recipe's)")
    parser.add_argument("--generator", default=DEFAULT_GENERATOR, help="name or folder of the text-to-video model")
    parser.add_argument("--count", type=int, default=100, help="requests")
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    options = parser.parse_args()
    generator = DiffusersGenerator.open(options.generator)
    recipe = Recipe()
    if options.steps:
        recipe = replace(recipe, practice=replace(recipe.practice, steps=options.steps))
    asks = train_both(options.language or options.work / "pretrained", options.work / "signals", generator, recipe)
    result = compare(asks, generator, options.count)
    if options.output:
        write_whole(options.output, json.dumps(result, indent=1) + "\n")
    for name, found in result.items():
        for key, tally in found.items():
            print(f"{name:14} {key:11} {tally['right']:4} of {tally['asked']:4}  {tally['accuracy']:.3f}")


if __name__ == "__main__":
    main()
