"""Text <-> token ids, from a Hugging Face folder, without importing transformers (which costs seconds).

Reads ``tokenizer.json`` through the ``tokenizers`` library (0.03 s to import), else a SentencePiece
``tokenizer.model``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """Two readers of the same vocabulary: one knows special tokens, the other takes their spelling for plain text.

    Text from a person goes to the second, so a typed ``</s>`` never ends a turn. No start token is ever added: prompt
    templates spell ``<s>`` themselves.
    """

    def __init__(self, spec: str, named_special: Iterable[str] = ()) -> None:
        """``spec`` is the content of a ``tokenizer.json``; ``named_special`` are more tokens to treat as special."""
        self._trusting = _from_spec(spec, named_special)
        self._plain = _from_spec(spec, named_special)
        self._plain.encode_special_tokens = True
        added = self._trusting.get_added_tokens_decoder()
        self.special_ids: dict[str, int] = {token.content: id_ for id_, token in added.items() if token.special}
        self.size = 1 + max(self._trusting.get_vocab().values(), default=-1)
        """One more than the highest id: an embedding table must have at least so many rows."""
        unknown = getattr(self._trusting.model, "unk_token", None)
        self._forbidden = {id_ for token, id_ in self.special_ids.items() if token != unknown}

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """From a folder with ``tokenizer.json`` or ``tokenizer.model``; raises ``WeightsError`` naming the file."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if path.is_file():
            try:
                return cls(path.read_text(encoding="utf-8"), named_special_tokens(folder).values())
            except Exception as error:  # the tokenizers library raises bare Exception
                raise WeightsError(f"{path}: not a tokenizer: {error}") from error
        path = folder / "tokenizer.model"
        if path.is_file():
            from gpt4video_cli.language.sentencepiece_model import tokenizer_spec

            return cls(tokenizer_spec(path), named_special_tokens(folder).values())
        raise WeightsError(f"{folder}: no tokenizer.json and no tokenizer.model", hint="the folder is incomplete")

    def encode(self, text: str, *, trusted: bool = False) -> list[int]:
        """Ids of ``text`` alone. Only ``trusted`` text can spell special tokens."""
        if trusted:
            return list(self._trusting.encode(text, add_special_tokens=False).ids)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if self._forbidden.isdisjoint(ids):
            return list(ids)
        # Some vocabularies hold "</s>" as an ordinary piece as well (Unigram ones do): break its spelling.
        ids = [id_ for part in self._broken(text) for id_ in self._plain.encode(part, add_special_tokens=False).ids]
        return [id_ for id_ in ids if id_ not in self._forbidden]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out; bytes that are not UTF-8 become U+FFFD."""
        return str(self._plain.decode(list(ids), skip_special_tokens=True))

    def spell(self, ids: Sequence[int]) -> str:
        """``decode`` with special tokens spelled out, to look at."""
        return str(self._plain.decode(list(ids), skip_special_tokens=False))

    def _broken(self, text: str) -> list[str]:
        """``text`` cut behind the first character of each spelling of a special token."""
        cuts = {0, len(text)}
        for token in self.special_ids:
            at = text.find(token)
            while at >= 0:
                cuts.add(at + 1)
                at = text.find(token, at + 1)
        ends = sorted(cuts)
        return [text[start:end] for start, end in pairwise(ends)]


def _from_spec(spec: str, named_special: Iterable[str]) -> tokenizers.Tokenizer:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(spec)
    tokenizer.no_truncation()  # a tokenizer.json remembers both from its training script
    tokenizer.no_padding()
    for token in named_special:
        if tokenizer.token_to_id(token) is not None:
            tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)])
    return tokenizer


def named_special_tokens(folder: str | Path) -> dict[str, str]:
    """``{"eos_token": "</s>", ...}`` as ``special_tokens_map.json`` and ``tokenizer_config.json`` name them."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for role, token in read_json(Path(folder) / name).items():
            content = token.get("content") if isinstance(token, dict) else token
            if role in ("bos_token", "eos_token", "unk_token", "pad_token") and isinstance(content, str) and content:
                named[role] = content
    return named


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; {} where there is no file; ``WeightsError`` where it is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return value
