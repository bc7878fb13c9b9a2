"""What is denoised and not yet decoded, on disk: decoding is where runs die of memory, denoising takes the time.

One safetensors file, written whole: the tensor ``latents`` as the pipeline gives it, and a JSON text that says what it
is, read back strictly.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import Gpt4VideoError, InputError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "gpt4video latents"
VERSION = 1
ENDING = ".latents.safetensors"
_KEY = "gpt4video"


@dataclass(frozen=True)
class LatentsHeader:
    """What the tensor is: the completed request, and which content of which model made it, in which dtype.

    ``generator`` is what the person named (a card's name, or a folder); ``seconds`` were spent on denoising.
    """

    request: FilmRequest
    model: str
    revision: str
    pipeline: str
    dtype: str
    generator: str
    seconds: float
    format: str = FORMAT
    version: int = VERSION


def latents_path(clip: Path) -> Path:
    """Where the latents of ``clip`` lie while it is not written: ``a.mp4.latents.safetensors`` beside ``a.mp4``."""
    return clip.with_name(clip.name + ENDING)


def save_latents(path: Path, latents: Tensor, header: LatentsHeader) -> None:
    """Write the file whole; raises ``Gpt4VideoError`` where it cannot be written."""
    from safetensors import SafetensorError

    from gpt4video_cli.model.strict_load import write_safetensors

    try:
        write_safetensors(path, {"latents": latents}, {_KEY: json.dumps(asdict(header), allow_nan=False)})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Gpt4VideoError(f"{path}: cannot be written: {reason}", hint="free some space, or use -o") from error


def read_header(path: Path) -> LatentsHeader:
    """What is in the file, without its tensor; raises ``InputError`` with the file and the reason."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a file of latents ({error})") from error
    if text is None or names != ["latents"]:
        raise InputError(f"{path}: not a file of latents")
    try:
        value = loads(text.encode())
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise StrictJsonError("not a file of latents")
        if value.get("version") != VERSION:
            raise StrictJsonError(f"version {value.get('version')!r}; this program reads {VERSION}")
        return from_json(value, LatentsHeader, "latents")
    except StrictJsonError as error:
        raise InputError(f"{path}: {error}") from error


def read_latents(path: Path) -> tuple[Tensor, LatentsHeader]:
    """The tensor (on the CPU) and what it is."""
    from gpt4video_cli.model.strict_load import read_safetensors

    header = read_header(path)
    return read_safetensors(path)[0]["latents"], header
