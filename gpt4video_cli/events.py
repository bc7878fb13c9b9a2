"""What a reply is made of. ``Assistant.reply`` yields these; every front end only renders them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4video_cli.gallery.generator import Film
    from gpt4video_cli.safety.verdict import Verdict


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's visible text."""

    text: str


@dataclass(frozen=True)
class ClipSeen:
    """A clip was decoded and encoded for this conversation.

    ``receipt`` is ``video.SamplingReceipt.as_dict()``: which times were seen, the largest gap. ``number`` counts the
    clips of the conversation from 1.
    """

    number: int
    path: str
    receipt: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class GenerationPrompt:
    """The model asked for a clip: the text between ``<video>`` and ``</video>`` of its reply."""

    prompt: str
    number: int


@dataclass(frozen=True)
class Screened:
    """A gate's verdict, whatever it is."""

    verdict: Verdict


@dataclass(frozen=True)
class Refusal:
    """A guard refused; nothing more of this reply follows except ``Done``.

    ``message`` says so politely, without quoting what was refused. ``subject`` is the verdict's. ``path``: the clip
    that was refused. ``prompt``: the generation prompt, for the person to rewrite it; it is not for showing.
    """

    guard: str
    category: str
    message: str
    subject: str = ""
    path: str = ""
    prompt: str = field(default="", repr=False)


@dataclass(frozen=True)
class GenerationProgress:
    """Filming: ``step`` of ``steps`` is finished. ``stage`` is one of ``loading``, ``filming``, ``decoding``.

    Loading and decoding are one step each, told when it begins. ``seconds_left`` counts the steps of filming only.
    """

    step: int
    steps: int
    seconds_left: float | None = None
    stage: str = "filming"


@dataclass(frozen=True)
class ClipReady:
    """A filmed clip was written to ``path``. ``film`` is what was filmed: its frames, settings and timings."""

    path: str
    number: int
    film: Film | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Notice:
    """Something the person should know that is not part of the answer (turns dropped, a tag left open)."""

    text: str


@dataclass(frozen=True)
class Done:
    """The reply is complete.

    ``answer`` is the whole visible text. Token counts: ``prompt_tokens`` in the whole prompt, of which
    ``reused_tokens`` came from the kept key/value cache and ``evaluated_tokens`` were computed now (text tokens and
    video embeddings alike); ``new_tokens`` were generated. ``timings`` are seconds by stage. ``finish_reason`` is one
    of ``stop`` (end token or stop string), ``length`` (token budget), ``context`` (context full), ``cancelled``,
    ``refused`` (see ``Assistant.reply``).
    """

    answer: str
    prompt_tokens: int
    reused_tokens: int
    evaluated_tokens: int
    new_tokens: int
    finish_reason: str
    seed: int
    timings: dict[str, float] = field(default_factory=dict)


Event = TextDelta | ClipSeen | GenerationPrompt | Screened | Refusal | GenerationProgress | ClipReady | Notice | Done
