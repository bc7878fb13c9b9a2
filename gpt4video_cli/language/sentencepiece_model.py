"""A SentencePiece ``tokenizer.model`` of LLaMA's kind -> the same tokenizer as a ``tokenizer.json`` text.

transformers converts such files only where the ``sentencepiece`` and ``protobuf`` packages are installed; the part of
the format that LLaMA uses is small enough to read here. Field numbers: sentencepiece_model.proto
(github.com/google/sentencepiece, src/). The result is that of LLaMA's first published ``tokenizer.json``: BPE merges
ordered by the score of what they make, byte fallback, a space before each text (also behind a special token).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError

BPE = 2
"""TrainerSpec.ModelType"""
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""SentencePiece.Type; 1 is an ordinary piece, 6 a byte."""


def tokenizer_spec(path: Path) -> str:
    """The content of a ``tokenizer.json`` equal to the model in ``path``."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for number, value in fields(path.read_bytes()):
            if number == 1:
                piece = dict(fields(value))
                score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                pieces.append((piece[1].decode("utf-8"), score, piece.get(3, 1)))
            elif number == 2:
                trainer = dict(fields(value))
            elif number == 3:
                normalizer = dict(fields(value))
    except (OSError, ValueError, KeyError, IndexError, struct.error, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a SentencePiece model: {error}") from error
    if not pieces:
        raise WeightsError(f"{path}: a SentencePiece model without pieces")
    if trainer.get(3, 1) != BPE or normalizer.get(2):
        raise WeightsError(
            f"{path}: this kind of SentencePiece model is not LLaMA's (BPE without normalisation)",
            hint="save the tokenizer as tokenizer.json with transformers",
        )
    return json.dumps(_spec(pieces, dummy_prefix=bool(normalizer.get(3, 1))))


def _spec(pieces: list[tuple[str, float, int]], *, dummy_prefix: bool) -> dict[str, Any]:
    vocab = {piece: id_ for id_, (piece, _, _) in enumerate(pieces)}
    scores = {piece: score for piece, score, kind in pieces if kind == 1}
    merges = [
        (-scores[piece], vocab[piece[:cut]], vocab[piece[cut:]], piece[:cut], piece[cut:])
        for piece in scores
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": id_, "content": piece, "special": kind != USER_DEFINED, **flags}
        for id_, (piece, _, kind) in enumerate(pieces)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    prefix = [{"type": "Prepend", "prepend": "▁"}] if dummy_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if dummy_prefix else []
    return {
        "version": "1.0",
        "added_tokens": added,
        # Not the Metaspace pre-tokenizer of newer conversions: it adds no prefix where the text begins with a space.
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prefix, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [[left, right] for _, _, _, left, right in sorted(merges)],
            "unk_token": next((piece for piece, _, kind in pieces if kind == UNKNOWN), None),
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """``(field number, value)`` of one protobuf message; value: int, or bytes (strings, messages, fixed widths)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value: Any
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            if kind == 2:
                size, at = _varint(data, at)
            else:
                size = 8 if kind == 1 else 4
            if at + size > len(data):
                raise ValueError("the file ends too early")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"field type {kind} at byte {at}")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"number too long at byte {at}")
