"""A conversation to prompt segments, in the words a model was trained on; and keeping people's text out of its markup.

Each literal part of a template is one segment, tokenised on its own, so that training and chatting split text alike and
so that a longer conversation starts with exactly the tokens of the shorter one: the kept key/value cache relies on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.engine import EmbeddingSegment, Segment, TextSegment, TokenSegment


@dataclass(frozen=True, eq=False)
class PromptClip:
    """A clip of a message. ``embeddings`` [n, D_llm] as in ``EmbeddingSegment``; ``key`` names their content.

    ``number`` counts the clips of the conversation from 1; ``alone``: no other clip came with the same message.
    """

    key: str
    embeddings: Any
    number: int = 1
    alone: bool = True

    @property
    def tag(self) -> str:
        """``video`` for a first clip that came alone, else ``videoN`` (GPT4Video, section 3.4)."""
        return "video" if self.number == 1 and self.alone else f"video{self.number}"


@dataclass(frozen=True, eq=False)
class PromptTurn:
    """One message and its reply: text, or the token ids the engine made, or None for the turn to be answered."""

    text: str
    clips: tuple[PromptClip, ...] = ()
    reply: str | tuple[int, ...] | None = None


@dataclass(frozen=True)
class PromptTemplate:
    """The literal parts around what people and the model say. ``{tag}`` stands for ``video`` or ``videoN``."""

    name: str
    start: str
    """Once, before everything: the start token and a system text, if the model knows one."""
    between: str
    """After a reply, before the next message."""
    message_open: str
    clip_open: str
    clip_close: str
    user_open: str
    user_close: str
    reply_open: str
    reply_close: str
    stop: tuple[str, ...]
    """Strings that end a reply which forgot its end token."""
    role_markers: tuple[str, ...]
    """What nobody may type. ``\\n`` in front means: at the start of a line only."""

    def render(self, turns: Sequence[PromptTurn]) -> list[Segment]:
        """Segments of the conversation. Only the last turn may lack its reply; the prompt then ends where it begins."""
        return [segment for segment, _ in self.render_labelled(turns)]

    def render_labelled(self, turns: Sequence[PromptTurn]) -> list[tuple[Segment, bool]]:
        """``render``, and of each segment whether it is the assistant's: a reply, or what closes it."""
        segments: list[tuple[Segment, bool]] = []

        def literal(text: str, *, reply: bool = False) -> None:
            if text:
                segments.append((TextSegment(text, trusted=True), reply))

        for index, turn in enumerate(turns):
            literal(self.between if index else self.start)
            literal(self.message_open)
            for clip in turn.clips:
                literal(self.clip_open.format(tag=clip.tag))
                segments.append((EmbeddingSegment(clip.key, clip.embeddings), False))
                literal(self.clip_close.format(tag=clip.tag))
            literal(self.user_open)
            segments.append((TextSegment(neutralise(turn.text, self)), False))
            literal(self.user_close)
            literal(self.reply_open)
            if turn.reply is None:
                if index + 1 < len(turns):
                    raise ValueError(f"turn {index + 1} of {len(turns)} has no reply, only the last may lack one")
                break
            said = TextSegment(turn.reply) if isinstance(turn.reply, str) else TokenSegment(turn.reply)
            segments.append((said, True))
            literal(self.reply_close, reply=True)
        return segments


PAPER = PromptTemplate(
    name="paper",  # GPT4Video, section 3.3; start and end tokens as LLaMA has them
    start="<s>",
    between="\n",
    message_open="",
    clip_open="###Human: <{tag}>",
    clip_close="</{tag}>\n",
    user_open="###Human: ",
    user_close="",
    reply_open="\n###AI: ",
    reply_close="</s>",
    stop=("###Human", "###AI"),
    role_markers=("###Human:", "###AI:"),
)

MPLUG_OWL = PromptTemplate(
    # README of X-PLUG/mPLUG-Owl ("Video Inference"), cut into segments where its training data is cut
    # (pipeline/data_utils/xgpt3_dataset.py: around media, "\nHuman: " and "AI: ").
    name="mplug-owl",
    start="<s>The following is a conversation between a curious human and AI assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    between="",
    message_open="",
    clip_open="\nHuman: ",
    clip_close="",
    user_open="\nHuman: ",
    user_close="\n",
    reply_open="AI: ",
    reply_close="</s>",
    stop=("\nHuman:", "\nAI:"),
    role_markers=("\nHuman:", "\nAI:"),
)

VICUNA = PromptTemplate(
    # lm-sys/FastChat, conversation template "vicuna_v1.1", with the paper's tags around a clip
    name="vicuna",
    start="<s>A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
    between="",
    message_open="USER: ",
    clip_open="<{tag}>",
    clip_close="</{tag}>\n",
    user_open="",
    user_close="",
    reply_open=" ASSISTANT:",
    reply_close="</s>",
    stop=("USER:", "ASSISTANT:"),
    role_markers=("USER:", "ASSISTANT:"),
)

TEMPLATES: dict[str, PromptTemplate] = {template.name: template for template in (PAPER, MPLUG_OWL, VICUNA)}


def find_template(name: str) -> PromptTemplate:
    """The template that a model card names."""
    if name not in TEMPLATES:
        raise WeightsError(f"unknown prompt template {name!r}", hint=f"known templates: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


# In these patterns a run of spaces is one character, so that none of them takes quadratic time on long texts.
_TAG = r"<\s?/?\s?v\s?i\s?d\s?e\s?o\s?(?:\d\s?)*/?\s?(?:>|\Z)"
_INVISIBLE_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")  # category L or M, yet drawn as nothing
_INSTEAD = {"<": "(", ">": ")", "#": "", ":": " -"}


def neutralise(text: str, template: PromptTemplate = PAPER) -> str:
    """``text`` so that it cannot spell a clip's tag or a role marker of ``template``; harmless text is left as it is.

    For what a person typed, and for file names and metadata. Looks through case, spaces, full-width and other
    compatibility forms (NFKC) and invisible characters. ``<video>`` becomes ``(video)``, ``###AI:`` becomes ``AI -``.
    """
    pattern = _markup(template)
    while True:  # taking a marker apart can leave another one ("####" around it): each round removes some sign
        shadow, origin = _shadow(text)
        signs = {
            origin[at]: _INSTEAD[shadow[at]]
            for found in pattern.finditer(shadow)
            for at in range(found.start(), found.end())
            if shadow[at] in _INSTEAD
        }
        if not signs:
            return text
        text = "".join(signs.get(index, char) for index, char in enumerate(text))


def _shadow(text: str) -> tuple[str, list[int]]:
    """How ``text`` reads: folded, visible, a run of spaces as one; and where in ``text`` each character comes from."""
    letters: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        if char.isspace():
            seen = "\n" if char.splitlines() == [""] else " "
            if letters and letters[-1] in (" ", "\n"):
                letters[-1] = min(letters[-1], seen)  # a line break anywhere in the run makes it one
                continue
        elif _is_invisible(char):
            continue
        elif char.isascii():
            seen = char.lower()
        else:
            seen = unicodedata.normalize("NFKC", char).casefold()
        letters.append(seen)
        origin.extend([index] * len(seen))
    return "".join(letters), origin


def _is_invisible(char: str) -> bool:
    if char.isascii():
        return not char.isprintable()
    if char in _INVISIBLE_LETTERS or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return True
    return unicodedata.category(char) in ("Cf", "Cc")


@lru_cache(maxsize=16)
def _markup(template: PromptTemplate) -> re.Pattern[str]:
    return re.compile("|".join([_TAG, *(_marker_pattern(marker) for marker in template.role_markers)]), re.MULTILINE)


def _marker_pattern(marker: str) -> str:
    """``###AI:`` with any spaces between its parts and any more hashes before it; ``\\nAI:`` at the start of a line."""
    hashes, word = re.fullmatch(r"\n?(#*)(\w+):", marker).groups()  # type: ignore[union-attr]
    before = r"(?<!\w)"
    if marker.startswith("\n"):
        before = r"^\s?"
    elif hashes:
        before = r"(?<!#)(?<!#\s)" + r"#\s?" * len(hashes) + r"(?:#\s?)*"
    return before + re.escape(word.lower()) + r"\s?:"
