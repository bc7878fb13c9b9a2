"""A warm start for the abstractor: each of its tokens learns to stand for one fact, as pretraining folds facts.

Through the language model alone (stage 1) the abstractor did not find out what to say: after 390 steps colours were
73 % right, backgrounds 32 %, motions 11 %, no better than after 274. Here the truth of rendered clips is told to each
token directly: three tokens for each colour (what it is, how it moves, whether it comes or goes), three for a second
shape of the same colour, and one each for background, number, camera, fade and a picture's main colour. Stage 1 goes
on from there, through the language model, and may use the tokens as it likes.

Letters: B clips, N tokens, C candidates of a token, D_llm width of the language model's embeddings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.model.abstractor import Abstractor
from gpt4video_cli.recipes.clips import KnownClips
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.examples import content_words
from gpt4video_cli.shapeworld.captions import CAMERA_PHRASES, CLUTTER_DESCRIPTION, FADE_PHRASES, MOTION_PHRASES, NUMBERS
from gpt4video_cli.shapeworld.pictures import PICTURE_COLOURS
from gpt4video_cli.shapeworld.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    FADES,
    PRESENCES,
    SHAPES,
    SIZELESS,
    SIZES,
    Scene,
)
from gpt4video_cli.training.loop import LoopOptions

OF_A_COLOUR = 3
SECOND = OF_A_COLOUR * len(COLOURS)
"""Place of the first of the three tokens for a second shape of the same colour."""
BACKGROUND, COUNT, CAMERA, FADE, DOMINANT = range(SECOND + OF_A_COLOUR, SECOND + OF_A_COLOUR + 5)
SLOTS = DOMINANT + 1
SHARPNESS = 1.0
"""Log odds for each unit of squared distance between a token and a candidate; word embeddings are about 1.3 long."""


def slot_facts(scene: Scene) -> dict[int, str]:
    """What each token has to say about ``scene``, by its place; the others say nothing."""
    facts = {}
    if scene.camera != "still":
        facts[CAMERA] = CAMERA_PHRASES[scene.camera][0]
    if scene.fade != "none":
        facts[FADE] = FADE_PHRASES[scene.fade][0]
    if scene.dominant:
        facts[DOMINANT] = f"picture mostly {scene.dominant}"
    if scene.clutter:
        return {**facts, BACKGROUND: CLUTTER_DESCRIPTION}
    facts |= {COUNT: _number(len(scene.shapes)), BACKGROUND: f"background {scene.background}"}
    events = scene.events()
    taken: set[str] = set()
    for shape in sorted(scene.shapes, key=lambda s: SHAPES.index(s.shape)):
        first = SECOND if shape.colour in taken else OF_A_COLOUR * list(COLOURS).index(shape.colour)
        taken.add(shape.colour)
        moves = scene.camera != "still"
        sized = not moves and shape.motion not in SIZELESS
        facts[first] = _what(shape.colour, shape.shape, shape.size if sized else "")
        if not moves:
            facts[first + 1] = _how(shape.colour, shape.shape, shape.motion)
        if shape.presence != "always":
            order = "" if events is None else "first" if shape is events[0] else "last"
            facts[first + 2] = _whether(shape.colour, shape.shape, shape.presence, order)
    return facts


def slot_candidates() -> list[list[str]]:
    """For each token everything that it may have to say; the first is nothing."""
    slots: list[list[str]] = []
    for colours in [*([colour] for colour in COLOURS), list(COLOURS)]:
        pairs = [(colour, shape) for colour in colours for shape in SHAPES]
        slots.append([_what(c, s, size) for c, s in pairs for size in ("", *SIZES)])
        slots.append([_how(c, s, motion) for c, s in pairs for motion in MOTION_PHRASES])
        slots.append([_whether(c, s, p, o) for c, s in pairs for p in PRESENCES[1:] for o in ("", "first", "last")])
    slots.append([*(f"background {name}" for name in BACKGROUNDS), CLUTTER_DESCRIPTION])
    slots.append([_number(count) for count in range(4)])
    slots.append([CAMERA_PHRASES[camera][0] for camera in CAMERAS if camera != "still"])
    slots.append([FADE_PHRASES[fade][0] for fade in FADES if fade != "none"])
    slots.append([f"picture mostly {name}" for name in PICTURE_COLOURS])
    return [["", *texts] for texts in slots]


def _what(colour: str, shape: str, size: str) -> str:
    return f"{colour} {shape} {size}".strip()


def _how(colour: str, shape: str, motion: str) -> str:
    return f"{colour} {shape} {MOTION_PHRASES[motion][0]}"


def _whether(colour: str, shape: str, presence: str, order: str) -> str:
    return f"{colour} {shape} {presence} {order}".strip()


def _number(count: int) -> str:
    return f"{NUMBERS[count]} {'shape' if count == 1 else 'shapes'}"


class FactSlots:
    """Candidates as embeddings ``[N, C, D_llm]``, padded, and the right ones of scenes as indices ``[B, N]``."""

    def __init__(self, words: torch.nn.Embedding, tokenizer: Tokenizer) -> None:
        self._places: list[dict[str, int]] = []
        candidates = slot_candidates()
        most = max(map(len, candidates))
        width = words.embedding_dim
        self.embeddings = torch.zeros(SLOTS, most, width)
        self.there = torch.zeros(SLOTS, most, dtype=torch.bool)
        for slot, texts in enumerate(candidates):
            self._places.append({text: i for i, text in enumerate(texts)})
            for i, text in enumerate(texts):
                self.there[slot, i] = True
                if text:
                    ids = tokenizer.encode(content_words(text), add_special_tokens=False).ids
                    self.embeddings[slot, i] = words(torch.tensor(ids)).sum(0).detach()

    def targets(self, scenes: Sequence[Scene]) -> Tensor:
        """int64 ``[B, N]``."""
        facts = [slot_facts(scene) for scene in scenes]
        return torch.tensor([[self._places[slot][said.get(slot, "")] for slot in range(SLOTS)] for said in facts])

    def logits(self, tokens: Tensor) -> Tensor:
        """How near tokens ``[B, >= N, D_llm]`` are to each candidate: ``[B, N, C]``."""
        tokens = tokens[:, :SLOTS].float()
        distance = (
            tokens.square().sum(-1, keepdim=True)
            - 2 * torch.einsum("bnd,ncd->bnc", tokens, self.embeddings)
            + self.embeddings.square().sum(-1)
        )
        return (-SHARPNESS * distance).masked_fill(~self.there, -torch.inf)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy over the candidates, and the distance to the right one, so that tokens look like folded facts.

        Most tokens have nothing to say about most clips; those that have weigh as much together as the others.
        """
        losses = F.cross_entropy(self.logits(tokens).transpose(1, 2), targets, reduction="none")
        right = self.embeddings[torch.arange(SLOTS), targets]
        losses = losses + 0.3 * (tokens[:, :SLOTS].float() - right).square().mean(-1)
        says = (targets != 0).float()
        return ((losses * says).sum() / says.sum() + (losses * (1 - says)).sum() / (1 - says).sum()) / 2


@torch.no_grad()
def prefer_times(abstractor: Abstractor, *, seed: int = 0) -> None:
    """Let half of the heads of each layer start by looking at one time each, so that motion is seen sooner.

    A head's keys get a random projection R of what they are made from, frame positions included, and its queries the
    bias R p of the position p that it shall prefer.
    """
    generator = torch.Generator().manual_seed(seed)
    width, heads = abstractor.config.width, abstractor.config.heads
    positions = abstractor.frame_positions
    count = 0
    for layer in abstractor.layers:
        for head in range(heads // 2):
            time = round(count * 0.618034 % 1 * (len(positions) - 1))  # the golden ratio spreads them evenly
            count += 1
            projection = torch.linalg.qr(torch.randn(width, width // heads, generator=generator))[0].T
            rows = slice(head * (width // heads), (head + 1) * (width // heads))
            layer.key.weight[rows] += projection  # type: ignore[union-attr, operator, index]
            layer.query.bias[rows] += projection @ positions[time]  # type: ignore[union-attr, operator, index]


def warm_up(
    abstractor: Abstractor,
    language_model: Any,
    tokenizer: Tokenizer,
    clips: KnownClips,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    seed: int,
) -> None:
    """Train ``abstractor`` in place on ``clips``."""
    if abstractor.config.tokens < SLOTS:
        raise ValueError(f"the abstractor has {abstractor.config.tokens} tokens, {SLOTS} facts need one each")
    slots = FactSlots(language_model.get_input_embeddings(), tokenizer)
    targets = slots.targets(clips.scenes)
    abstractor.requires_grad_(True).train()

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"facts/{seed}/{step}")
        shown = rng.sample(range(len(clips)), batch_size)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = abstractor(clips.features(shown))
        return slots.loss(tokens, targets[shown])

    train_loop(abstractor.named_parameters(), loss_of, options, folder=folder, name="warm_up")


@torch.no_grad()
def facts_right(
    abstractor: Abstractor, slots: FactSlots, features: Tensor, scenes: Sequence[Scene]
) -> dict[str, float]:
    """How often what there is to say is said, by kind of token."""
    abstractor.eval()
    targets = slots.targets(scenes)
    tokens = [abstractor(features[start : start + 32].float()) for start in range(0, len(features), 32)]
    right = slots.logits(torch.cat(tokens)).argmax(-1) == targets
    says = targets != 0
    of = torch.arange(SLOTS)
    kinds = {
        "what": (of < BACKGROUND) & (of % OF_A_COLOUR == 0),
        "how": (of < BACKGROUND) & (of % OF_A_COLOUR == 1),
        "whether": (of < BACKGROUND) & (of % OF_A_COLOUR == 2),
        "background": of == BACKGROUND,
        "count": of == COUNT,
        "camera": of == CAMERA,
        "fade": of == FADE,
        "dominant": of == DOMINANT,
    }
    shares = {name: float(right[:, k][says[:, k]].float().mean()) for name, k in kinds.items()}
    return {**shares, "nothing": float(right[~says].float().mean())}
