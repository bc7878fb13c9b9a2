"""Reading and writing weights so that nothing is missing, left over, mis-shaped or half written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.model.tensor_headers import INDEX, shards
from gpt4video_cli.model.tensor_headers import read_json as read_json
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


def read_safetensors(
    path: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, straight on ``device``, and its metadata.

    ``dtype`` None: as stored, and on the CPU a view of the file itself, of which the system loads what is touched. Else
    each tensor is converted alone, so that there is never a second copy of more than one. ``rename`` gives a tensor's
    new name, or None for one that is left on disk.
    """
    tensors: dict[str, Tensor] = {}
    with _open_safetensors(path, device) as file:
        for name in file.keys():  # noqa: SIM118
            wanted = name if rename is None else rename(name)
            if wanted is not None:
                tensor = file.get_tensor(name)
                tensors[wanted] = tensor if dtype is None else tensor.to(dtype)
        return tensors, dict(file.metadata() or {})


@contextmanager
def _open_safetensors(path: Path, device: torch.device | str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path}: file is missing", hint="the model folder is incomplete")
    try:
        # torch's "cpu:0", which accelerate says, is unknown to safetensors.
        place = "cpu" if torch.device(device).type == "cpu" else str(device)
        with safe_open(path, framework="pt", device=place) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_REPAIR_HINT) from error


def read_sharded_safetensors(
    folder: Path,
    stem: str = "model",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> tuple[dict[str, Tensor], Path]:
    """Tensors of ``stem.safetensors``, or of all shards that ``stem.safetensors.index.json`` lists; and that file.

    For the rest see ``read_safetensors``.
    """
    index, whole = folder / INDEX.format(stem=stem), folder / f"{stem}.safetensors"
    if whole.is_file() or not index.is_file():
        return read_safetensors(whole, device=device, dtype=dtype, rename=rename)[0], whole
    tensors: dict[str, Tensor] = {}
    for shard in shards(index):
        tensors.update(read_safetensors(folder / shard, device=device, dtype=dtype, rename=rename)[0])
    listed = read_json(index)["weight_map"]
    wanted = {name: name if rename is None else rename(name) for name in listed}
    missing = sorted(name for name, new in wanted.items() if new is not None and new not in tensors)
    if missing:
        raise WeightsError(f"{index}: lists {missing[0]}, which is in none of its files", hint=_REPAIR_HINT)
    return tensors, index


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole (see ``whole_file``)."""
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata or {}))


class Unfilled(TorchFunctionMode):
    """Modules made inside get no start values, for ``load_strict`` replaces them all.

    Memory that nobody writes to takes no room, so the CPU serves as well as the meta device, where the first random
    number and the first product make torch import torch._dynamo and sympy: 1.1 s, as much as torch itself.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return (torch.empty if function is torch.randn else function)(*args, **kwargs)


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], file: Path | str) -> None:
    """Give ``module`` exactly ``tensors``: a missing, unexpected or mis-shaped one is an error that names it.

    ``module`` may be on the meta device, or ``Unfilled``; the tensors are taken over as they are (dtype and device
    included).
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
