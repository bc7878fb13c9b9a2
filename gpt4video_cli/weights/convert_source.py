"""A checkpoint on disk, in one file or several: what is in it without its weights, and one tensor at a time.

safetensors files and pickles are mapped into memory, so that a tensor costs nothing until it is read. Pages that were
read count as this process's memory until the map goes: after ``MAPPED_AT_ONCE`` bytes the file is closed and mapped
anew. Pickles are read with ``weights_only=True``, which builds tensors and runs no code.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.errors import InputError, WeightsError
from gpt4video_cli.model.strict_load import read_json

MAPPED_AT_ONCE = 128 * 2**20
"""Bytes of one file that are read before it is mapped anew; opening a file of 1,000 tensors again takes about 10 ms."""

SAFETENSORS = ".safetensors"
INDEX = ".index.json"
_DAMAGED = "it is cut off or damaged: fetch it again"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
"""torch's dtype -> its name in a safetensors header."""


@dataclass(frozen=True)
class Entry:
    """A tensor that is in a checkpoint."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def size(self) -> int:
        """In bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Checkpoint:
    """Named tensors of ``files``. ``entries`` lists them in the order in which they are best read.

    ``tell`` hears what a person should know. Raises ``WeightsError`` for a file that is missing, cut off, no plain
    weights, or holds a name that another one holds too.
    """

    def __init__(self, place: Path, files: Sequence[Path], tell: Callable[[str], None] = lambda _: None) -> None:
        self.place = place
        self.entries: dict[str, Entry] = {}
        self._open: tuple[Path, _PickleFile | _SafetensorsFile] | None = None
        self._read = 0
        for path in files:
            file = self._file(path)
            if isinstance(file, _PickleFile) and not file.mapped:
                size = path.stat().st_size
                tell(f"{path} is a pickle of an old kind, which has to be read whole: {size / 1e9:.1f} GB of memory")
            for name, (shape, dtype) in file.contents().items():
                if name in self.entries:
                    raise WeightsError(f"{path}: tensor {name} is in {self.entries[name].file.name} too")
                self.entries[name] = Entry(shape, dtype, path)

    def read(self, name: str) -> Tensor:
        """A tensor on the CPU, as it is stored. It may be a view into the file: drop it before reading the next."""
        entry = self.entries[name]
        if self._read > MAPPED_AT_ONCE and self._open is not None and self._open[1].mapped:
            self.close()
        tensor = self._file(entry.file).tensor(name)
        self._read += entry.size
        return tensor

    def close(self) -> None:
        """Let go of the file that is open; ``read`` opens it again."""
        self._open, self._read = None, 0

    def _file(self, path: Path) -> _PickleFile | _SafetensorsFile:
        if self._open is None or self._open[0] != path:
            self.close()  # before the next one: two old pickles may not fit into memory
            self._open = (path, (_SafetensorsFile if path.suffix == SAFETENSORS else _PickleFile)(path))
        return self._open[1]


def open_checkpoint(
    source: Path, tell: Callable[[str], None] = lambda _: None, *, stems: Sequence[str] = ("model", "pytorch_model")
) -> Checkpoint:
    """The checkpoint in a folder, or in one file (weights, or the index of several).

    ``stems``: names of the safetensors file and of the pickle in a folder, without their endings. In a folder that has
    both, safetensors are taken, as transformers does. Raises ``InputError`` where there is nothing.
    """
    if source.is_file():
        return Checkpoint(source, _listed(source) if source.name.endswith(INDEX) else [source], tell)
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder")
    for file in (f"{stems[0]}{SAFETENSORS}", f"{stems[-1]}.bin"):
        if (source / file).is_file():
            return Checkpoint(source, [source / file], tell)
        if (source / f"{file}{INDEX}").is_file():
            return Checkpoint(source, _listed(source / f"{file}{INDEX}"), tell)
    raise WeightsError(
        f"{source}: neither {stems[0]}{SAFETENSORS} nor {stems[-1]}.bin is there, nor the index of several such files",
        hint="fetch the rest of the checkpoint, or name the file with the weights",
    )


def folder_of(source: Path) -> Path:
    """Where the configuration belonging to ``source`` lies: the folder itself, or that of the file."""
    return source if source.is_dir() else source.parent


def _listed(index: Path) -> list[Path]:
    """The files that an index names, in order; all of them are there."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise WeightsError(f"{index}: no weight_map that says which tensor is in which file")
    files = [index.parent / name for name in sorted(set(names.values()))]
    for file in files:
        if file.parent != index.parent:
            raise WeightsError(f"{index}: names {file}, which is not beside it")
        if not file.is_file():
            raise WeightsError(f"{file}: file is missing", hint="fetch the rest of the checkpoint")
    return files


class _SafetensorsFile:
    mapped = True

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = path
        try:
            self._handle = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            _refuse_pointer(path)
            raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_DAMAGED) from error

    def contents(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        found = {}
        for name in self._handle.keys():  # noqa: SIM118
            part = self._handle.get_slice(name)
            found[name] = (tuple(part.get_shape()), _known_dtype(self._path, name, _DTYPES.get(part.get_dtype())))
        return found

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor


class _PickleFile:
    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise WeightsError(f"{path}: file is missing", hint="fetch the rest of the checkpoint")
        _refuse_pointer(path)
        self._path = path
        # torch.save has written zip archives since 1.6 (2020); only those can be mapped.
        self.mapped = _starts_with(path, b"PK\x03\x04")
        try:
            found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=self.mapped)
        except pickle.UnpicklingError as error:
            raise _refused(path, error) from error
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise WeightsError(f"{path}: cannot be read as a PyTorch checkpoint", hint=_DAMAGED) from error
        if (
            not isinstance(found, Mapping)
            or not found
            or not all(isinstance(value, Tensor) for value in found.values())
        ):
            raise WeightsError(f"{path}: holds something other than named tensors")
        self._tensors: Mapping[str, Tensor] = found

    def contents(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return {
            str(name): (tuple(tensor.shape), _known_dtype(self._path, str(name), tensor.dtype, tensor.layout))
            for name, tensor in self._tensors.items()
        }

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name].detach()


def _refused(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    """The error for a pickle that ``weights_only`` refuses: it names a function or class, or is no pickle at all."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return WeightsError(
            f"{path}: is not plain weights: it holds {named[1]}, which may be code and is not run",
            hint="take a safetensors file, or save the state_dict alone",
        )
    return WeightsError(f"{path}: cannot be read as plain weights", hint=_DAMAGED)


def _known_dtype(path: Path, name: str, dtype: torch.dtype | None, layout: torch.layout = torch.strided) -> torch.dtype:
    if dtype not in DTYPE_NAMES or layout != torch.strided:
        raise WeightsError(
            f"{path}: tensor {name} is quantised, sparse or of an unknown number format",
            hint="take the weights in float16, bfloat16 or float32",
        )
    return dtype


def _refuse_pointer(path: Path) -> None:
    """Cloning a repository without Git LFS leaves small text files in place of weights."""
    if path.is_file() and _starts_with(path, b"version https://git-lfs"):
        raise WeightsError(
            f"{path}: is a Git LFS pointer, not the weights themselves", hint="run `git lfs pull` in its folder"
        )


def _starts_with(path: Path, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return os.read(file.fileno(), len(start)) == start
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
