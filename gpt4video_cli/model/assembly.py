"""The 7B assembly of the paper's parts with random weights: full size, or of any depth, and knowing nothing.

CLIP ViT-L/14, the paper's abstractor and LLaMA-7B, in 16 bits and in shards, written one tensor at a time. A hollow one
has files of the right size without content, which take no space: enough to plan with, and to load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.model.abstractor import FORMAT, FORMAT_VERSION, Abstractor, AbstractorConfig
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.model.tensor_headers import VISION_PREFIX
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.video.preprocess import PreprocessConfig
from gpt4video_cli.weights.llama_layout import llama_shapes
from gpt4video_cli.whole_file import whole_file, write_whole

LLAMA_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
}
"""Of the configuration that was published with LLaMA-7B (arXiv 2302.13971, table 2); its depth is 32."""
LAYERS_IN_A_SHARD = 4
STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
Shapes = Mapping[str, tuple[int, ...]]


def write_assembly(
    folder: Path,
    *,
    layers: int = 32,
    stored: str = "BF16",
    hollow: bool = False,
    device: str = "cpu",
    language: Mapping[str, int] | None = None,
) -> Path:
    """A model folder. ``hollow``: files of the right size without content, which take no space. ``device``: where the
    random numbers are drawn. ``language``: sizes other than those of LLaMA-7B."""
    write_random_model(folder, frames=4, name=f"assembly-{layers}-layers")  # card, tokenizer
    sizes = {**LLAMA_7B, **(language or {})}
    generator = torch.Generator(device).manual_seed(0)

    def write(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> None:
        write_weights(path, shapes, metadata, stored, None if hollow else generator)

    vision, condenser = VisualEncoderConfig(), AbstractorConfig.paper(output_width=sizes["hidden_size"])
    with torch.device("meta"):
        encoder, abstractor = VisualEncoder(vision), Abstractor(condenser)
    eyes = folder / "vision"
    write(eyes / "model.safetensors", {VISION_PREFIX + n: s for n, s in shapes_of(encoder).items()}, {"format": "pt"})
    write_whole(eyes / "config.json", json.dumps(vision.as_clip_vision_config()))
    write_whole(eyes / "preprocessor_config.json", json.dumps(PreprocessConfig.square(224).as_dict()))
    header = {"format_version": FORMAT_VERSION, "config": asdict(condenser)}
    write(folder / "abstractor.safetensors", shapes_of(abstractor), {FORMAT: json.dumps(header)})
    words = folder / "language"
    config = json.loads((words / "config.json").read_text()) | sizes | {"num_hidden_layers": layers}
    write_whole(words / "config.json", json.dumps(config))
    (words / "model.safetensors").unlink()
    fill_vocabulary(words / "tokenizer.json", sizes["vocab_size"])
    places: dict[str, str] = {}
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in llama_shapes(config).items():
        number = int(name.split(".")[2]) // LAYERS_IN_A_SHARD + 1 if ".layers." in name else 0
        places[name] = f"model-{number:05}.safetensors"
        shards.setdefault(places[name], {})[name] = shape
    for file, shapes in shards.items():
        write(words / file, shapes, {"format": "pt"})
    write_whole(words / "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def write_weights(
    path: Path, shapes: Shapes, metadata: Mapping[str, str], stored: str, generator: torch.Generator | None
) -> None:
    """A safetensors file, one tensor in memory at a time. Norms are 1, all else random; without a ``generator`` the
    file is a hole behind its header."""
    width = STORED[stored].itemsize
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + width * torch.Size(shape).numel()
        header[name] = {"dtype": stored, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if generator is None:
            file.truncate(8 + len(text) + end)
            return
        for name, shape in shapes.items():
            numbers = torch.empty(shape, device=generator.device)
            if len(shape) == 1:
                numbers.fill_(float(name.endswith("weight")))
            else:
                numbers.normal_(std=0.02, generator=generator)
            file.write(numbers.to("cpu", STORED[stored]).contiguous().view(torch.uint8).numpy().tobytes())


def fill_vocabulary(path: Path, size: int) -> None:
    """Add made-up words to a tokenizer until it has ``size``, so that every id can be shown."""
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"\u0120w{number}": number for number in range(len(vocabulary), size)}
    write_whole(path, json.dumps(content))
