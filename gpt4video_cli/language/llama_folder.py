"""A Hugging Face LLaMA folder -> a model whose every weight came from that folder.

transformers fills tensors that a file lacks with random numbers and only prints a report; here that is an error. Only
safetensors are read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.tokenizer import read_json

if TYPE_CHECKING:
    import torch
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

# Buffers that old checkpoints hold and the model computes by itself.
COMPUTED = re.compile(r"rotary_emb\.inv_freq$")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_llama(
    folder: str | Path,
    *,
    device: str,
    dtype: torch.dtype,
    four_bit: bool = False,
    eight_bit: bool = False,
    device_map: Mapping[str, str] | None = None,
) -> LlamaForCausalLM:
    """The model in evaluation mode on ``device``. ``WeightsError`` names the file or tensor that is wrong.

    Tensor by tensor straight to its place and type. ``four_bit``: its linear layers as NF4 with their scales quantised
    too (QLoRA, arXiv 2305.14314), to be trained around; ``eight_bit``: as LLM.int8 (arXiv 2208.07339); both need
    bitsandbytes. ``device_map``: module -> device, spread over several, see ``model.placement``.
    """
    folder = Path(folder)
    check_files(folder)
    # Seconds to import, 2 cores, warm, OMP_NUM_THREADS=1: torch 1.2; this line 3.6 in all, the same as `from
    # transformers import LlamaForCausalLM` (3.6), so there is no cheaper path into it; transformers.modeling_utils
    # alone is 3.5 of them (torch._dynamo 0.4, torch.distributed 0.5, sympy 0.3 among its imports).
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    if four_bit and eight_bit:
        raise UsageError("weights are held in 4 or in 8 bits, not in both")
    quantised = _quantised(dtype, 4 if four_bit else 8) if four_bit or eight_bit else {}
    # Without a map weights on the CPU stay views of their file, and a start does not wait for accelerate.
    placed = device_map or (None if device == "cpu" and not quantised else {"": device})
    try:
        with quiet():
            model, report = LlamaForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below, with the tensor's name
                output_loading_info=True,
                device_map=None if placed is None else {module: _numbered(where) for module, where in placed.items()},
                **quantised,
            )
    except Exception as error:  # transformers, safetensors and torch each raise their own kinds
        raise WeightsError(f"{folder}: cannot be loaded: {first_line(error)}") from error
    _refuse_gaps(folder, report)
    loaded: LlamaForCausalLM = model.eval()
    return loaded


def _numbered(device: str) -> str | int:
    """``cuda:1`` as 1: of several devices accelerate takes the first of a set for the main one, and only the order of
    small numbers in a set is certain."""
    kind, _, number = device.partition(":")
    return int(number) if kind == "cuda" and number else device


def _quantised(dtype: torch.dtype, bits: int) -> dict[str, Any]:
    import importlib.util
    import logging

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"{bits}-bit weights need bitsandbytes", hint="pip install bitsandbytes")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast to 16 bits
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config}


def check_files(folder: Path) -> None:
    """Raise ``WeightsError`` unless the folder has a LLaMA configuration and all its safetensors files."""
    config = read_json(folder / "config.json")
    if not config:
        raise WeightsError(f"{folder}: no config.json", hint="a language model is a Hugging Face LLaMA folder")
    if config.get("model_type") != "llama":
        raise WeightsError(f"{folder}: model type is {config.get('model_type')!r}, only 'llama' is supported")
    if (folder / "model.safetensors").is_file():
        return
    index = read_json(folder / "model.safetensors.index.json")
    if not index:
        pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
        if pickles:
            raise WeightsError(
                f"{folder}: {pickles[0]} is a pickle, which can run code and is never opened here",
                hint="gpt4video models import --format hf-llama makes safetensors of it",
            )
        raise WeightsError(f"{folder}: no model.safetensors", hint="the folder is incomplete")
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{folder / 'model.safetensors.index.json'}: no weight_map")
    for shard in sorted(set(map(str, shards.values()))):
        if not shard.endswith(".safetensors"):
            raise WeightsError(f"{folder}: {shard} is not a safetensors file, and nothing else is opened here")
        if not (folder / shard).is_file():
            raise WeightsError(f"{folder}: {shard} is missing", hint="the download is incomplete")


def _refuse_gaps(folder: Path, report: dict[str, Any]) -> None:
    for key, *shapes in sorted(report.get("mismatched_keys") or ()):
        found, wanted = (list(shape) for shape in shapes)
        raise WeightsError(f"{folder}: {key} has shape {found}, config.json asks for {wanted}")
    for problem, keys in (("is missing", "missing_keys"), ("is unexpected", "unexpected_keys")):
        names = sorted(key for key in report.get(keys) or () if not COMPUTED.search(key))
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise WeightsError(f"{folder}: tensor {names[0]} {problem}{more}", hint="weights and config.json disagree")
    if report.get("error_msgs"):
        raise WeightsError(f"{folder}: {report['error_msgs'][0]}")


def first_line(error: BaseException) -> str:
    """What an exception says, shortened to its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and peft's log lines, warnings and progress bars off the terminal while they load."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
