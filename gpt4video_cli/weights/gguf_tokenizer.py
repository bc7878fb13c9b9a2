"""A language model's tokenizer as GGUF's metadata, for other programs; ours reads the folder's own files.

llama.cpp knows two kinds that LLaMAs have. ``llama`` is SentencePiece's BPE: of all neighbours whose joined text is a
token, those with the highest score are joined first. ``gpt2`` is BPE over bytes: merges in their order, inside words
that a pattern cuts, which llama.cpp knows by a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.tokenizer import named_special_tokens, read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's token types (enum llama_token_type of its llama.h), the numbers of SentencePiece."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ROLES = ("bos", "eos", "unk", "pad")

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT_2 = ("ByteLevel", "cuts")
_CUTS: dict[tuple[object, ...], str] = {
    (_GPT_2,): "gpt-2",
    (("Split", _LLAMA_3), ("ByteLevel", "")): "llama-bpe",
    (("Digits", True), _GPT_2): "smollm",
}
"""How a ``tokenizer.json`` cuts words -> llama.cpp's name of the same (llama-vocab.cpp)."""

_OWN_CUTS = "llama.cpp has no name for how this tokenizer cuts words: other programs will read some texts otherwise"
_NO_FORM = "a {} tokenizer of this kind has no form in GGUF: other programs cannot read text with the file"


@dataclass(frozen=True)
class GgufTokenizer:
    """What is written. ``model`` is ``llama``, ``gpt2``, or ``none``: a vocabulary that llama.cpp cannot use on text.

    ``special``: role (bos, eos, unk, pad) -> id. ``note``: what a person should know.
    """

    model: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    special: dict[str, int]
    pre: str | None = None
    add_bos: bool = True
    add_eos: bool = False
    space_prefix: bool = False
    note: str | None = None


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> GgufTokenizer:
    """The tokenizer of a LLaMA folder, filled up with unused tokens to the ``vocab_size`` of its ``config``.

    Raises ``WeightsError`` where there is none, or it has more tokens than the model.
    """
    spec = _spec(folder)
    model: dict[str, Any] = spec.get("model") or {}
    kind, pre, note = _kind(spec, model)
    size = int(config["vocab_size"])
    listed = model.get("vocab") or {}
    if isinstance(listed, list):  # Unigram: pairs of piece and score, in the order of their ids
        listed = {piece: id_ for id_, (piece, _) in enumerate(listed)}
    vocabulary: dict[str, int] = dict(listed)
    added = {token["content"]: token for token in spec.get("added_tokens") or ()}
    vocabulary |= {content: int(token["id"]) for content, token in added.items()}
    if vocabulary and max(vocabulary.values()) >= size:
        raise WeightsError(
            f"{folder}: the tokenizer has {max(vocabulary.values()) + 1} tokens, the model {size}",
            hint="tokenizer and weights must belong together",
        )
    merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges") or ()]
    unknown = model.get("unk_token")
    tokens = [f"[PAD{id_}]" for id_ in range(size)]  # named as llama.cpp's own converter names them
    types = [UNUSED] * size
    special = {t["content"] for t in added.values() if t.get("special")}
    special |= set(named_special_tokens(folder).values()) & vocabulary.keys()
    for token, id_ in vocabulary.items():
        tokens[id_] = token
        if token == unknown and kind == "llama":
            types[id_] = UNKNOWN
        elif token in special:
            types[id_] = CONTROL
        elif token in added:
            tokens[id_], types[id_] = token.replace("▁", " ") if kind == "llama" else token, USER_DEFINED
        elif kind == "llama" and _BYTE.fullmatch(token):
            types[id_] = BYTE
        else:
            types[id_] = NORMAL
    ids = _special_ids(folder, config, vocabulary, unknown)
    add_bos, add_eos = _added(folder, spec, tokens, ids)
    return GgufTokenizer(
        kind,
        tokens,
        types,
        _scores(vocabulary, merges, size) if kind == "llama" else [],
        [f"{left} {right}" for left, right in merges] if kind == "gpt2" else [],
        ids,
        pre,
        add_bos,
        add_eos,
        _space_prefix(spec),
        note,
    )


def add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer, folder: Path) -> None:
    """Write ``tokenizer``, and the chat template of ``folder`` if it has one."""
    writer.add_tokenizer_model(tokenizer.model)
    if tokenizer.pre is not None:
        writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.scores:
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(tokenizer.space_prefix)
    if tokenizer.merges:
        writer.add_token_merges(tokenizer.merges)
    for role, id_ in tokenizer.special.items():
        getattr(writer, f"add_{role}_token_id")(id_)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    if template := _chat_template(folder):
        writer.add_chat_template(template)


def _spec(folder: Path) -> dict[str, Any]:
    """The content of ``tokenizer.json``, or what it would be for ``tokenizer.model``: as ``Tokenizer.load`` reads."""
    if (folder / "tokenizer.json").is_file():
        return read_json(folder / "tokenizer.json")
    if (folder / "tokenizer.model").is_file():
        from gpt4video_cli.language.sentencepiece_model import tokenizer_spec

        found: dict[str, Any] = json.loads(tokenizer_spec(folder / "tokenizer.model"))
        return found
    raise WeightsError(f"{folder}: no tokenizer.json and no tokenizer.model", hint="the folder is incomplete")


def _kind(spec: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """GGUF's names of the model and of how words are cut, and a note."""
    cuts = _steps(spec.get("pre_tokenizer"))
    if model.get("type") == "BPE" and any(step[0] == "ByteLevel" for step in cuts) and model.get("merges"):
        name = _CUTS.get(tuple(cuts))
        if name is None:
            return "gpt2", "default", _OWN_CUTS
        return "gpt2", name, None
    if model.get("type") == "BPE" and model.get("byte_fallback"):
        return "llama", "default", None
    return "none", None, _NO_FORM.format(model.get("type"))


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[tuple[object, ...]]:
    if pre_tokenizer is None:
        return []
    kind = pre_tokenizer.get("type")
    if kind == "Sequence":
        return [step for part in pre_tokenizer["pretokenizers"] for step in _steps(part)]
    if kind == "ByteLevel":
        prefix = ("prefix",) if pre_tokenizer.get("add_prefix_space") else ()
        return [("ByteLevel", "cuts" if pre_tokenizer.get("use_regex", True) else "", *prefix)]
    if kind == "Split" and pre_tokenizer.get("behavior") == "Isolated" and not pre_tokenizer.get("invert"):
        return [("Split", pre_tokenizer["pattern"].get("Regex"))]
    if kind == "Digits":
        return [("Digits", bool(pre_tokenizer.get("individual_digits")))]
    return [(kind, json.dumps(pre_tokenizer, sort_keys=True))]


def _scores(vocabulary: Mapping[str, int], merges: list[list[str]], size: int) -> list[float]:
    """A score for each id: the earlier a token is merged, the higher; below these what no merge makes."""
    order: dict[str, int] = {}
    for left, right in merges:
        order.setdefault(left + right, len(order))
    scores = [0.0] * size
    for token, id_ in vocabulary.items():
        scores[id_] = -float(order.get(token, len(order)))
    return scores


def _special_ids(
    folder: Path, config: Mapping[str, Any], vocabulary: Mapping[str, int], unknown: str | None
) -> dict[str, int]:
    """What the tokenizer's files name, else what ``config.json`` says."""
    named = named_special_tokens(folder) | ({"unk_token": unknown} if unknown else {})
    ids = {}
    for role in _ROLES:
        token, said = named.get(f"{role}_token"), config.get(f"{role}_token_id")
        said = said[0] if isinstance(said, list) and said else said  # LLaMA 3.1 has several ends
        if token is not None and token in vocabulary:
            ids[role] = vocabulary[token]
        elif type(said) is int and 0 <= said < config["vocab_size"]:  # some say -1 for none
            ids[role] = said
    return ids


def _added(folder: Path, spec: Mapping[str, Any], tokens: list[str], ids: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether a program should put bos before a text, and eos behind it. Our prompts begin with bos, so it should
    unless the tokenizer's files say no."""
    said = read_json(folder / "tokenizer_config.json")
    after = spec.get("post_processor") or {}
    steps = [after, *after.get("processors", ())]
    template = [next(iter(part.values())).get("id") for step in steps for part in step.get("single") or ()]
    add_bos, add_eos = said.get("add_bos_token"), said.get("add_eos_token")
    if not isinstance(add_bos, bool):
        add_bos = "bos" in ids and (not template or template[0] == tokens[ids["bos"]])
    if not isinstance(add_eos, bool):
        add_eos = "eos" in ids and bool(template) and template[-1] == tokens[ids["eos"]]
    return add_bos, add_eos


def _space_prefix(spec: Mapping[str, Any]) -> bool:
    normalizer, cut = spec.get("normalizer") or {}, spec.get("pre_tokenizer") or {}
    steps = [normalizer, *normalizer.get("normalizers", ())]
    prepends = any(step.get("type") == "Prepend" for step in steps)
    return prepends or (cut.get("type") == "Metaspace" and cut.get("prepend_scheme", "always") != "never")


def _chat_template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
