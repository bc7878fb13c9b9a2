"""Reading and writing weights so that nothing is missing, left over, mis-shaped or half written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.whole_file import whole_file

_REPAIR_HINT = "fetch or make the file again, or use the configuration it was made with"


def choose_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``auto`` is float32 on a CPU (float16 does not run on most of them) and bfloat16 elsewhere."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    known = {
        "float32": torch.float32,
        "fp32": torch.float32,
        "bfloat16": torch.bfloat16,
        "bf16": torch.bfloat16,
        "float16": torch.float16,
        "fp16": torch.float16,
    }
    if dtype not in known:
        raise UsageError(f"unknown dtype {dtype!r}", hint=f"use auto, {', '.join(known)}")
    return known[dtype]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; anything else is a ``WeightsError`` that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: file is missing", hint="the model folder is incomplete") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors (on the CPU, stored dtype) and the metadata of a safetensors file."""
    with _open_safetensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors."""
    with _open_safetensors(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path}: file is missing", hint="the model folder is incomplete")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_REPAIR_HINT) from error


def read_sharded_safetensors(folder: Path, stem: str = "model") -> tuple[dict[str, Tensor], Path]:
    """Tensors of ``stem.safetensors``, or of all shards that ``stem.safetensors.index.json`` lists; and that file."""
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        whole = folder / f"{stem}.safetensors"
        return read_safetensors(whole)[0], whole
    weight_map = read_json(index).get("weight_map", {})
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        tensors.update(read_safetensors(folder / shard)[0])
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise WeightsError(f"{index}: lists {missing[0]}, which is in none of its files", hint=_REPAIR_HINT)
    return tensors, index


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole (see ``whole_file``)."""
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata or {}))


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], file: Path | str) -> None:
    """Give ``module`` exactly ``tensors``: a missing, unexpected or mis-shaped one is an error that names it.

    ``module`` may be on the meta device; the tensors are taken over as they are (dtype and device included).
    """
    expected = module.state_dict()
    problems = [f"tensor {name} is missing" for name in expected if name not in tensors]
    problems += [f"tensor {name} is unexpected" for name in tensors if name not in expected]
    problems += [
        f"tensor {name} has shape {list(tensors[name].shape)}, expected {list(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise WeightsError(f"{file}: {problems[0]}{more}", hint=_REPAIR_HINT)
    module.load_state_dict(dict(tensors), strict=True, assign=True)
