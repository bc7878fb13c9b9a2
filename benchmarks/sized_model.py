"""Model folders of any size with random weights, and dialogues, to measure training on.

A size is (width of the language model, its layers, width of the visual encoder, its layers, side of a frame). A hollow
model has files of the right size without content, which take no space: enough for a dry run.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import torch

from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, save_abstractor
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig, save_visual_encoder
from gpt4video_cli.recipes.clips import film_scene
from gpt4video_cli.shapeworld.dialogues import watching
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.video.preprocess import PreprocessConfig

Size = tuple[int, int, int, int, int]
SIZES: dict[str, Size] = {
    "small": (256, 6, 128, 4, 96),
    "middle": (512, 8, 256, 6, 112),
    "large": (1024, 8, 384, 8, 112),
    "vit-l": (256, 4, 1024, 24, 224),  # the 7B model's visual side with a language model that costs nothing
}
VOCABULARY = 320


def write_sized_model(folder: Path, size: Size, *, context: int = 1024, seed: int = 0) -> Path:
    """A complete model folder whose weights are random."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    width, layers, vision_width, vision_layers, side = size
    write_random_model(folder, context_length=context, frames=4, name=folder.name)  # tokenizer, card, preprocessing
    torch.manual_seed(seed)
    vision = VisualEncoderConfig(
        width=vision_width,
        layers=vision_layers,
        heads=vision_width // 64,
        mlp_width=4 * vision_width,
        patch_size=8 if side < 100 else 14,
        image_size=side,
    )
    save_visual_encoder(VisualEncoder(vision), folder / "vision")
    preprocessing = json.dumps(PreprocessConfig.square(side).as_dict())
    (folder / "vision" / "preprocessor_config.json").write_text(preprocessing)
    config = AbstractorConfig.paper(width=vision_width, output_width=width, heads=vision_width // 64)
    save_abstractor(Abstractor(config), folder / "abstractor.safetensors")
    tokenizer_files = {file: file.read_bytes() for file in (folder / "language").glob("tokenizer*")}
    llama = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(llama).save_pretrained(folder / "language")
    for file, content in tokenizer_files.items():
        file.write_bytes(content)
    return folder


def write_text_dialogues(path: Path, count: int, *, seed: int = 0, longest: int = 6) -> Path:
    """Dialogues about described clips, of 1 to ``longest`` turns."""
    lines = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        scene = sample_scene(rng)
        turns = [{"user": t.user, "assistant": t.answer} for t in watching(rng, scene=scene, turns=longest).turns]
        lines.append({"schema": 1, "id": str(number), "turns": turns[: rng.randint(1, longest)]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_clip_dialogues(folder: Path, count: int, *, seed: int = 0, side: int = 256) -> Path:
    """Dialogues about drawn clips of ``side`` x ``side`` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        scene = sample_scene(rng)
        film_scene(folder / f"{number}.mp4", scene, rng, side=side)
        turns = [{"user": t.user, "assistant": t.answer} for t in watching(rng, scene=scene, turns=2).turns]
        turns[0]["clips"] = [0]  # type: ignore[assignment]
        lines.append({"schema": 1, "id": str(number), "clips": [{"path": f"{number}.mp4"}], "turns": turns})
    path = folder / "dialogues.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_hollow_model(folder: Path, *, context: int = 2048) -> Path:
    """The 7B model's shapes (LLaMA-7B, ViT-L/14, the paper's abstractor): configurations and an abstractor's header."""
    write_random_model(folder, context_length=context, frames=4, name="hollow-7b")
    with torch.device("meta"):
        abstractor = Abstractor(AbstractorConfig.paper())
    small = Abstractor(AbstractorConfig.paper(width=64, output_width=64, heads=1))
    save_abstractor(small, folder / "abstractor.safetensors")
    content = (folder / "abstractor.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    metadata = header["__metadata__"]
    key = next(iter(metadata))
    saved = json.loads(metadata[key])
    saved["config"] |= {"width": 1024, "output_width": 4096, "heads": abstractor.config.heads}
    saved["config"]["mlp_width"] = abstractor.config.mlp_width
    header, at = {"__metadata__": {key: json.dumps(saved, sort_keys=True)}}, 0
    for name, tensor in abstractor.state_dict().items():
        end = at + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with open(folder / "abstractor.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)  # a hole: it takes no space
    vision = VisualEncoderConfig(width=1024, layers=24, heads=16, mlp_width=4096, patch_size=14, image_size=224)
    (folder / "vision" / "config.json").write_text(json.dumps(vision.as_clip_vision_config()))
    preprocessing = json.dumps(PreprocessConfig.square(224).as_dict())
    (folder / "vision" / "preprocessor_config.json").write_text(preprocessing)
    file = folder / "language" / "config.json"
    config = json.loads(file.read_text())
    config |= {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}
    config |= {"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": context}
    file.write_text(json.dumps(config))
    return folder
