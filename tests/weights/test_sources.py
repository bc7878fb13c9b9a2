"""Which files of a repository a pull takes."""

from __future__ import annotations

import pytest

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.hub import HubFile
from gpt4video_cli.weights.sources import Source, needed

TEXT = ["model_index.json", "LICENSE.md"]
PIPELINE = [
    *TEXT,
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/spiece.model",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def taken(names: list[str], source: Source | None = None, components: list[str] | None = None) -> list[str]:
    files = [HubFile(name, 1, f"{number:064x}") for number, name in enumerate(names)]
    return [file.path for file in needed(source or Source("pipeline", "team/film"), files, components)]


def shards(stem: str, ending: str, count: int = 2) -> list[str]:
    return [f"{stem}-{number:05}-of-{count:05}.{ending}" for number in range(1, count + 1)]


def test_configurations_and_one_set_of_weights_are_taken_in_the_repositorys_order() -> None:
    unwanted = ["README.md", ".gitattributes", "sample.mp4", "convert.py", "film.onnx", "flax_model.msgpack"]
    unwanted += ["model.safetensors.index.json", "flax_model.msgpack.index.json", "model.safetensors.index.fp16.json"]
    assert taken(PIPELINE[:3] + unwanted + PIPELINE[3:]) == PIPELINE


def test_safetensors_come_before_pickles_in_each_folder_of_its_own() -> None:
    both = ["vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors"]
    assert taken(["text_encoder/pytorch_model.bin", *both]) == ["text_encoder/pytorch_model.bin", both[1]]


WHOLE = ["unet/model.safetensors"]
HALF = ["unet/model.fp16.safetensors"]
WHOLE_SHARDS = [*shards("unet/model", "safetensors"), "unet/model.safetensors.index.json"]
HALF_SHARDS = [*shards("unet/model.fp16", "safetensors"), "unet/model.safetensors.index.fp16.json"]
OLD_HALF_SHARDS = [*shards("unet/model.fp16", "safetensors"), "unet/model.fp16.safetensors.index.json"]
PICKLED = ["unet/model.bin"]
PICKLED_HALF_SHARDS = [*shards("unet/model.fp16", "bin"), "unet/model.bin.index.fp16.json"]


@pytest.mark.parametrize(
    ("variant", "there", "chosen"),
    [
        (None, [WHOLE, HALF], WHOLE),
        ("fp16", [WHOLE, HALF], HALF),
        ("fp16", [WHOLE], WHOLE),
        ("bf16", [WHOLE, HALF], WHOLE),
        (None, [WHOLE_SHARDS, HALF_SHARDS], WHOLE_SHARDS),
        ("fp16", [WHOLE_SHARDS, HALF_SHARDS], HALF_SHARDS),
        ("fp16", [WHOLE_SHARDS, OLD_HALF_SHARDS], OLD_HALF_SHARDS),
        ("fp16", [WHOLE, HALF_SHARDS], HALF_SHARDS),
        (None, [WHOLE, HALF_SHARDS], WHOLE),
        ("fp16", [HALF, WHOLE_SHARDS], HALF),
        ("fp16", [PICKLED, PICKLED_HALF_SHARDS], PICKLED_HALF_SHARDS),
        ("fp16", [WHOLE, PICKLED_HALF_SHARDS], WHOLE),
    ],
)
def test_a_variant_is_taken_with_its_index_and_nothing_of_the_others(
    variant: str | None, there: list[list[str]], chosen: list[str]
) -> None:
    names = ["unet/config.json", *(name for files in there for name in files)]
    assert taken(names, Source("pipeline", "team/film", variant=variant)) == ["unet/config.json", *chosen]


def test_beside_a_pipelines_folders_only_weights_that_its_libraries_name_are_taken() -> None:
    assert taken([*PIPELINE, "all_in_one.safetensors", "film-pruned.safetensors"]) == PIPELINE
    alone = ["config.json", "model.safetensors", "tokenizer.json"]
    assert taken([*alone, "consolidated.safetensors"]) == alone
    assert taken(["adapter_config.json", "adapter_model.safetensors"]) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_folders_that_the_pipelines_index_does_not_name_are_left_out() -> None:
    more = ["safety_checker/config.json", "safety_checker/model.safetensors"]
    components = ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]
    assert taken([*PIPELINE, *more], components=components) == PIPELINE
    assert taken([*PIPELINE, *more]) == [*PIPELINE, *more]
    assert taken(PIPELINE, components=["vae"]) == [*TEXT, "vae/config.json", "vae/diffusion_pytorch_model.safetensors"]


def test_patterns_decide_alone() -> None:
    source = Source("model", "team/owl", files=("*.bin", "LICENSE*"))
    assert taken(["LICENSE.md", "config.json", "a.bin", "model.safetensors", "deep/b.bin"], source) == [
        "LICENSE.md",
        "a.bin",
        "deep/b.bin",
    ]
    with pytest.raises(WeightsError, match="team/owl: holds no weights"):
        taken(["a.BIN", "config.json"], source)


@pytest.mark.parametrize("names", [[], TEXT, ["README.md", "weights.npz"], ["model.safetensors.index.json"]])
def test_a_repository_without_weights_is_refused(names: list[str]) -> None:
    with pytest.raises(WeightsError, match="team/film: holds no weights that this program reads"):
        taken(names)
