"""An adapter folded into its language model: a model folder that needs no peft."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from gpt4video_cli.errors import Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.training.trained_model import ABSTRACTOR, link_file, link_folder
from gpt4video_cli.weights.card import FILE_NAME, render_card
from gpt4video_cli.weights.locate import find_model
from gpt4video_cli.whole_file import write_whole


def merge_adapter(model: str, output: Path) -> Path:
    """Write ``model`` to the new folder ``output`` with W + alpha/r B A in place of W (LoRA, arXiv 2106.09685).

    The sums are taken in float32 and rounded to the format that the language model has. Raises ``WeightsError`` if
    there is no adapter, ``UsageError`` if ``output`` holds something.
    """
    import torch

    from gpt4video_cli.language.adapter import attach_adapter
    from gpt4video_cli.language.llama_folder import load_llama, quiet
    from gpt4video_cli.language.tokenizer import read_json

    card, folder = find_model(model)
    if not (folder / "adapter").is_dir():
        raise WeightsError(f"{folder}: has no adapter", hint="there is nothing to merge")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: is not empty; --output must be a new folder")
    config = read_json(folder / "language" / "config.json")
    stored = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), torch.float32)
    llama = load_llama(folder / "language", device="cpu", dtype=torch.float32)
    merged = attach_adapter(llama, folder / "adapter", merge=True)
    try:
        language = output / "language"
        link_folder(folder / "vision", output / "vision")
        link_file(folder / ABSTRACTOR, output / ABSTRACTOR)
        language.mkdir(parents=True)
        with quiet():
            merged.to(stored).save_pretrained(language)
        for file in language.iterdir():
            file.chmod(0o644)  # safetensors makes its files readable by their owner alone
        for file in (folder / "language").iterdir():  # tokenizer and the like; weights and configuration are new
            if file.is_file() and not file.name.startswith(("model", "merged-", "pytorch_model", "config.json")):
                link_file(file, language / file.name)
        made_from = f"{card.name} with its adapter merged. Before: {card.made_from or 'not said'}"
        merged_card = replace(card, name=f"{card.name}-merged", folder=None, made_from=made_from, measured={})
        write_whole(output / FILE_NAME, render_card(merged_card))
    except OSError as error:
        shutil.rmtree(output, ignore_errors=True)
        raise Gpt4VideoError(f"{output}: the model cannot be written: {error.strerror or error}") from error
    return output
