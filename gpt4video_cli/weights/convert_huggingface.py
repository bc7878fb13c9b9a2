"""Hugging Face folders of CLIP and LLaMA as the ``vision/`` and ``language/`` parts of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.llama_folder import COMPUTED
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.video.preprocess import CONFIG_NAME, PreprocessConfig
from gpt4video_cli.weights.convert_plan import Plan, Wanted, WeightsFile, common_dtype, plan_tensors
from gpt4video_cli.weights.convert_source import Checkpoint, folder_of
from gpt4video_cli.weights.llama_layout import llama_shapes

NO_TOKENIZER = (
    "has no tokenizer.json and no tokenizer.model, without which the model cannot read; put one into language/"
)

_ALONGSIDE = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)
"""What goes with a language model's weights. Licences ask that their text does."""

_CLIP_PREFIX = "vision_model."
# The text half and its maps, and an index that old versions of transformers saved.
_CLIP_LEFT_OUT = r"^(text_model|text_projection|visual_projection)\.|^logit_scale$|embeddings\.position_ids$"
_LLAMA_NOT_COPIED = ("torch_dtype", "auto_map", "_name_or_path")  # auto_map names code to run


def plan_clip(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> Plan:
    """``vision/`` of a CLIP folder, whole (its text half is left out) or of the vision tower alone."""
    folder = folder_of(checkpoint.place)
    file = folder / "config.json"
    values = read_json(file)
    if values.get("model_type") not in ("clip", "clip_vision_model"):
        raise WeightsError(f"{file}: model type is {values.get('model_type')!r}, not 'clip' or 'clip_vision_model'")
    config = VisualEncoderConfig.from_clip_vision_config(values, file)
    preprocessing = PreprocessConfig.square(config.image_size)
    if (folder / CONFIG_NAME).is_file():
        preprocessing = PreprocessConfig.from_folder(folder)
        if (preprocessing.crop_height, preprocessing.crop_width) != (config.image_size, config.image_size):
            raise WeightsError(
                f"{folder / CONFIG_NAME}: makes {preprocessing.crop_width} x {preprocessing.crop_height} pixels, "
                f"config.json beside it says {config.image_size} x {config.image_size}"
            )
    # transformers 5 saves a vision tower without the prefix that it has inside a whole CLIP.
    prefix = _CLIP_PREFIX if any(name.startswith(_CLIP_PREFIX) for name in checkpoint.entries) else ""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in VisualEncoder(config).state_dict().items()}
    wanted = [Wanted(_CLIP_PREFIX + name, shape, prefix + name) for name, shape in shapes.items()]
    tensors = plan_tensors(checkpoint, {"model": wanted}, left_out=_CLIP_LEFT_OUT, dtype=dtype)["model"]
    texts = {"config.json": as_json(config.as_clip_vision_config()), CONFIG_NAME: as_json(preprocessing.as_dict())}
    return Plan([WeightsFile("model", tensors)], texts)


def plan_llama(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> Plan:
    """``language/`` of a LLaMA folder (LLaMA 1 to 3, Vicuna): ``LlamaForCausalLM`` without biases."""
    folder = folder_of(checkpoint.place)
    file = folder / "config.json"
    config = read_json(file)
    if config.get("model_type") != "llama":
        raise WeightsError(f"{file}: model type is {config.get('model_type')!r}, only 'llama' is supported")
    left_out = COMPUTED.pattern
    if config.get("tie_word_embeddings") and "lm_head.weight" in checkpoint.entries:
        _check_tied(checkpoint)
        left_out += r"|^lm_head\.weight$"
    wanted = [Wanted(name, shape, name) for name, shape in shapes_of(config, file).items()]
    tensors = plan_tensors(checkpoint, {"model": wanted}, left_out=left_out, dtype=dtype)["model"]
    config = {key: value for key, value in config.items() if key not in _LLAMA_NOT_COPIED}
    copies = copied_files(folder)
    texts = {"config.json": as_json(with_dtype(config, common_dtype(tensors)))}
    return Plan([WeightsFile("model", tensors)], texts, copies, tokenizer_notes(folder, copies))


def shapes_of(config: Mapping[str, Any], file: Path) -> dict[str, tuple[int, ...]]:
    """``llama_shapes``, with a ``WeightsError`` that names ``file`` where the configuration lacks a size."""
    try:
        shapes = llama_shapes(config)
        wrong = next((size for shape in shapes.values() for size in shape if type(size) is not int or size < 1), None)
    except KeyError as error:
        raise WeightsError(f"{file}: {error.args[0]} is missing") from error
    except (TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{file}: a size is not a number ({error})") from error
    if wrong is not None:
        raise WeightsError(f"{file}: a size is {wrong!r}, which is not a number of 1 or more")
    return shapes


def copied_files(folder: Path) -> dict[str, Path]:
    """Name -> file, of what goes with a language model's weights unchanged."""
    found = {file.name: file for pattern in _ALONGSIDE for file in sorted(folder.glob(pattern)) if file.is_file()}
    return dict(sorted(found.items()))


def tokenizer_notes(folder: Path, copies: Mapping[str, Path]) -> tuple[str, ...]:
    """What to say of a folder without a tokenizer."""
    return () if {"tokenizer.json", "tokenizer.model"} & copies.keys() else (f"{folder} {NO_TOKENIZER}",)


def with_dtype(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    """A ``config.json`` that says in which dtype the weights beside it are; None: in several."""
    return {**{key: value for key, value in config.items() if key != "dtype"}, **({"dtype": dtype} if dtype else {})}


def as_json(value: Mapping[str, Any]) -> str:
    """The content of a JSON file for people too."""
    return json.dumps(value, indent=2) + "\n"


def _check_tied(checkpoint: Checkpoint) -> None:
    head, words = "lm_head.weight", "model.embed_tokens.weight"
    if words in checkpoint.entries and not torch.equal(checkpoint.read(head), checkpoint.read(words)):
        raise WeightsError(
            f"{checkpoint.place}: config.json says that {head} equals {words}, but it does not",
            hint='set "tie_word_embeddings": false there if the model was trained so',
        )
