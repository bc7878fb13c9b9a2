"""Which token ids end a reply, as the language model's folder names them."""

from __future__ import annotations

from pathlib import Path

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.tokenizer import Tokenizer, named_special_tokens, read_json


def find_end_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """All ids that the folder's files name as the end of a reply.

    Read from the JSON files, because LlamaConfig makes up an end id (2) where config.json has none.
    """
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        named = read_json(folder / name).get("eos_token_id")
        ends.update(named if isinstance(named, list) else [named] if isinstance(named, int) else [])
    for token in (named_special_tokens(folder).get("eos_token"), "</s>"):
        if token in tokenizer.special_ids:
            ends.add(tokenizer.special_ids[token])
    if not ends:
        raise WeightsError(f"{folder}: no end token is named", hint="add eos_token_id to config.json")
    return frozenset(ends)
