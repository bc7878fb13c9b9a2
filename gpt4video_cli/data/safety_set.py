"""Training dialogues in which harm is refused, made from RealToxicityPrompts (GPT4Video, section 3.4).

Texts with a score over 0.9 for sexually explicit or severely toxic content, so many of each kind, become dialogues with
a polite refusal. An endpoint writes them, or else templates do. What an endpoint wrote is kept line by line beside the
new file, so that a broken run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.data.chat_endpoint import ChatEndpoint
from gpt4video_cli.data.dialogue_file import DataDialogue, DataTurn, as_json, read_lines, write_dialogues
from gpt4video_cli.data.public_formats import TOXIC, TOXIC_SCORES, Unusable
from gpt4video_cli.errors import Gpt4VideoError, InputError, UsageError

SOURCE = "real-toxicity-prompts"
LONGEST = 600
"""Characters of what a person or the assistant says."""
_REQUESTS = (
    "Go on with this text: {}", "Make a video of this: {}", "{}", "Film a scene for this: {}",
    "Write more like this: {}", "Show me what this says: {}", "Read this and answer in the same tone: {}",
    "I want a clip about this: {}",
)  # fmt: skip
_REFUSALS = {
    "sexually_explicit": (
        "I am sorry, but I cannot help with sexual content.",
        "I am sorry, but I cannot write or film that, because it is sexually explicit. Shall I film something else?",
        "I cannot help with that, because it is sexual content. Shall we talk about something else?",
    ),
    "severe_toxicity": (
        "I am sorry, but I cannot help with insults or hatred.",
        "I am sorry, but I cannot go on with that, because it could hurt people. I am glad to help with another clip.",
        "I cannot help with that kind of language. Is there something else that I can do for you?",
    ),
}
_KINDS = {"sexually_explicit": "sexually explicit", "severe_toxicity": "severely toxic or threatening"}
_SYSTEM = (
    "You write training examples for a polite assistant that talks about video clips and makes new ones. You are given "
    "a {kind} text. Write one thing that a person might ask of the assistant in that direction, described without "
    "explicit words and without quoting the text, and the assistant's refusal: one or two friendly sentences that "
    'begin with "I am sorry, but I cannot", name the kind of content in general words, and offer other help. Answer '
    'with JSON only: {{"user": "...", "assistant": "..."}}'
)


@dataclass(frozen=True)
class ToxicText:
    """A text of the file. ``id``: its place there; ``kind``: one of ``TOXIC_SCORES``."""

    id: str
    kind: str
    text: str


@dataclass(frozen=True)
class SafetySetOrder:
    """``per_kind``: texts of each kind at most. ``endpoint`` and ``model``: who writes; empty: templates do."""

    source: Path
    output: Path
    per_kind: int = 1500
    seed: int = 0
    endpoint: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if bool(self.endpoint) != bool(self.model):
            raise UsageError("--endpoint and --model go together", hint="give both, or none for templates")

    @property
    def work(self) -> Path:
        """Where finished dialogues wait until all are there."""
        return self.output.with_name(self.output.name + ".work")


def choose_texts(order: SafetySetOrder, unusable: list[Unusable]) -> list[ToxicText]:
    """Texts over the limit, ``per_kind`` of each, in a fixed order. Lines that are no record go to ``unusable``."""
    found: dict[str, list[ToxicText]] = {kind: [] for kind in TOXIC_SCORES}
    try:
        with open(order.source, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    for text in _texts(f"{order.source}:{number}", number, line, unusable):
                        found[text.kind].append(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{order.source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    chosen = []
    for kind, texts in found.items():
        random.Random(f"{order.seed}/{kind}").shuffle(texts)
        chosen += texts[: order.per_kind]
    if not chosen:
        raise InputError(f"{order.source}: no text with a score over {TOXIC}", hint="is it RealToxicityPrompts' JSONL?")
    return chosen


def _texts(place: str, number: int, line: str, unusable: list[Unusable]) -> Iterator[ToxicText]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        unusable.append(Unusable(place, f"not JSON: {error}"))
        return
    parts = {name: record.get(name) for name in ("prompt", "continuation")} if isinstance(record, dict) else {}
    if not any(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts.values()):
        unusable.append(Unusable(place, 'neither a "prompt" nor a "continuation" with a "text"'))
        return
    for name, part in parts.items():
        if not isinstance(part, dict) or not str(part.get("text") or "").strip():
            continue
        scores = {kind: part[kind] for kind in TOXIC_SCORES if isinstance(part.get(kind), int | float)}
        over = {kind: score for kind, score in scores.items() if score > TOXIC}
        if over:  # both: the kind that it is more of
            kind = max(over, key=over.__getitem__)
            yield ToxicText(f"{SOURCE}-{number}-{name}", kind, " ".join(str(part["text"]).split())[:LONGEST])


def from_template(text: ToxicText, order: SafetySetOrder) -> DataDialogue:
    """A dialogue without an endpoint: always the same one for the same text and seed."""
    rng = random.Random(f"{order.seed}/{text.id}")
    said = text.text.replace("<", "(").replace(">", ")")  # no text of a stranger opens a tag
    turn = DataTurn(rng.choice(_REQUESTS).format(said), rng.choice(_REFUSALS[text.kind]))
    return DataDialogue(text.id, (turn,), source=SOURCE)


def from_endpoint(text: ToxicText, order: SafetySetOrder, endpoint: ChatEndpoint) -> DataDialogue:
    """A dialogue that the endpoint writes. Raises ``ValueError`` with the reason if it writes none that is fit."""
    messages = [
        {"role": "system", "content": _SYSTEM.format(kind=_KINDS[text.kind])},
        {"role": "user", "content": text.text},
    ]
    why = ""
    for number in range(2):
        answer = endpoint.ask(messages, seed=order.seed + number)
        try:
            return DataDialogue(text.id, (_turn(answer, text),), source=SOURCE)
        except ValueError as error:
            why = str(error)
    raise ValueError(why)


def _turn(answer: str, text: ToxicText) -> DataTurn:
    begin, end = answer.find("{"), answer.rfind("}")
    value = json.loads(answer[begin : end + 1] or "null")
    said = [value.get(name) for name in ("user", "assistant")] if isinstance(value, dict) else []
    if len(said) != 2 or not all(isinstance(part, str) and 0 < len(part.strip()) <= LONGEST for part in said):
        raise ValueError('the endpoint wrote no "user" and "assistant"')
    user, assistant = (str(part).strip() for part in said)
    if "<" in user + assistant:
        raise ValueError("the endpoint wrote a tag")
    if not assistant.lower().startswith(
        ("i am sorry", "i'm sorry", "sorry", "i cannot", "i can't", "i can’t", "i’m sorry")
    ):
        raise ValueError("the endpoint wrote no refusal")
    if len(text.text) > 20 and text.text.lower() in assistant.lower():
        raise ValueError("the refusal quotes the text")
    return DataTurn(user, assistant)


def build_safety_set(
    order: SafetySetOrder, *, resume: bool, unusable: list[Unusable], listen: Callable[[int, int], None]
) -> int:
    """Write the file whole; how many dialogues it has. ``listen`` hears how many of how many texts are done."""
    texts = choose_texts(order, unusable)
    if not order.endpoint:
        return write_dialogues(order.output, (from_template(text, order) for text in texts))
    endpoint = ChatEndpoint(order.endpoint, order.model)
    done = _begin(order, resume)
    try:
        with open(order.work, "a", encoding="utf-8") as file:
            for number, text in enumerate(texts, 1):
                if text.id not in done:
                    try:
                        done[text.id] = from_endpoint(text, order, endpoint)
                    except ValueError as error:
                        unusable.append(Unusable(text.id, str(error)))
                    else:
                        file.write(as_json(done[text.id]) + "\n")
                        file.flush()
                listen(number, len(texts))
    except OSError as error:
        raise Gpt4VideoError(f"{order.work}: cannot be written: {error.strerror or error}") from error
    count = write_dialogues(order.output, (done[text.id] for text in texts if text.id in done))
    order.work.unlink()
    return count


def _begin(order: SafetySetOrder, resume: bool) -> dict[str, DataDialogue]:
    """The dialogues that an earlier run left, by id; its first line says which order it was."""
    digest = hashlib.sha256(order.source.read_bytes()).hexdigest()
    kept: dict[str, Any] = {**asdict(order), "source": digest, "output": order.output.name}
    first = json.dumps({"order": kept}, sort_keys=True)
    if not order.work.exists():
        order.work.parent.mkdir(parents=True, exist_ok=True)
        order.work.write_text(first + "\n", encoding="utf-8")
        return {}
    if not resume:
        raise UsageError(f"{order.work}: an earlier run stopped here", hint="--resume goes on, or remove the file")
    content = order.work.read_text(encoding="utf-8")
    if content.partition("\n")[0] != first:
        raise UsageError(f"{order.work}: was begun with other options or another file", hint="remove it to begin anew")
    if not content.endswith("\n"):  # killed within a line: that text is asked for again
        order.work.write_text(content[: content.rfind("\n") + 1], encoding="utf-8")
    found = (line.dialogue for line in read_lines(order.work))
    return {dialogue.id: dialogue for dialogue in found if dialogue is not None}
