"""Whether a GGUF file's own tokenizer, which other programs use, reads text as the model's own does."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.llama_library import library, reason, running
from gpt4video_cli.language.tokenizer import Tokenizer

TEXTS = (
    "What happens in the clip?",
    " A red circle moves to the left;  a blue one, too.",
    "It's 12:34, they'll say it'S 3.14159 or 1,000,000!",
    "line\nline\n\n\tindented   line \r\n end  ",
    "Ünïcödé, naïve café, Straße, façade",
    "Привет, мир! Γειά σου. שלום עולם مرحبا بالعالم नमस्ते दुनिया",
    "你好,世界。こんにちは世界 안녕하세요",
    "🎬🎥 👩‍👩‍👧 e\u0301 \u00a0 \u200b \ufeff",
    "def f(x):\n    return x**2  # x²\n",
    "<video>a green star</video> <s> </s> [INST] <|eot_id|> <unk>",
    "",
    " ",
    "▁▁ Ġ Ċ <0x0A>",
)
"""Short, and of many kinds: what tokenizers differ in shows in a few characters."""


def first_difference(path: Path, folder: Path, texts: Iterable[str] = TEXTS) -> str | None:
    """The first of ``texts`` that the file ``path`` cuts otherwise than the tokenizer in ``folder``; None: none.

    Each text is read as a person's, which spells no special token, and behind the start token as a template's. Only the
    vocabulary is loaded. Raises ``WeightsError`` where llama.cpp refuses it.
    """
    llama_cpp, tokenizer = library(), Tokenizer.load(folder)
    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    with running():
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), options)
        if not model:
            raise WeightsError(f"{path}: llama.cpp cannot read the file: {reason()}")
    try:
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        start = llama_cpp.llama_vocab_bos(vocabulary)
        spelled_start = tokenizer.spell([start]) if start >= 0 else ""
        for text in texts:
            for spelled, trusted in ((text, False), (spelled_start + text, True)):
                if _tokens(vocabulary, spelled, trusted) != tokenizer.encode(spelled, trusted=trusted):
                    return spelled
    finally:
        llama_cpp.llama_model_free(model)
    return None


def _tokens(vocabulary: ctypes.c_void_p, text: str, special: bool) -> list[int]:
    llama_cpp, content = library(), text.encode()
    room = len(content) + 16  # a byte never becomes more than one token, and prefixes are few
    ids = (ctypes.c_int32 * room)()
    count = llama_cpp.llama_tokenize(vocabulary, content, len(content), ids, room, False, special)
    if count < 0:
        raise WeightsError(f"llama.cpp made {-count} tokens of {len(content)} bytes")
    return list(ids[:count])
