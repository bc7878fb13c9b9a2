"""The settings of a training run: flags over a TOML file over the stage's own numbers, resolved once and kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.training.stages import Stage, find_stage
from gpt4video_cli.weights.card import toml_value

PRECISIONS = ("auto", "float32", "bfloat16")
ON_ERROR = ("stop", "skip")
FILE_NAME = "settings.toml"
_NUMBERS = ("epochs", "batch_size", "learning_rate", "weight_decay", "warm_up")
"""Numbers that the stage has and a run may change."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run of ``gpt4video train`` can be told. None: as the stage says."""

    stage: int
    data: tuple[str, ...]
    """JSONL files of dialogues."""
    output: str
    model: str = "bundle"
    validation: tuple[str, ...] = ()
    """JSONL files to measure the loss on; none: a hundredth of the data is held out for it (1 to 256 dialogues)."""
    epochs: float | None = None
    max_steps: int | None = None
    """So many steps, however often that goes through the data; with ``epochs`` too, whichever comes first."""
    batch_size: int | None = None
    """Dialogues in each step, over all processes."""
    micro_batch_size: int = 8
    """Dialogues that one process has in memory at once; gradients add up to ``batch_size``."""
    learning_rate: float | None = None
    weight_decay: float | None = None
    warm_up: float | None = None
    """Share of the steps over which the learning rate rises; it then falls as a cosine to a twentieth."""
    clip: float = 1.0
    """Largest length of the gradient."""
    seed: int = 0
    precision: str = "auto"
    """``auto``: bfloat16 where the GPU has it, float32 elsewhere."""
    device: str = "auto"
    packing: bool = True
    """Stage 2: several short dialogues in one row; none sees another."""
    bucketing: bool = True
    """Whether dialogues of like length meet in a step."""
    gradient_checkpointing: bool = False
    """Forget what lies within the language model's layers and compute it again: less memory, a third more time."""
    four_bit: bool = False
    """Hold the frozen language model in 4 bits (NF4; needs a GPU and bitsandbytes)."""
    shard: bool = False
    """With several processes: each holds a piece of every weight, instead of all (FSDP)."""
    on_error: str = "stop"
    """What to do about a dialogue that cannot be used: ``stop``, or ``skip`` it and write it to skipped.jsonl."""
    features: str = ""
    """Folder of the frozen encoder's features; empty: ``features`` in the cache folder."""
    keep_features: bool = True
    """Whether what the frozen encoder says of a clip is kept there after its first use."""
    evaluate_every: int = 200
    """Steps between measurements of the validation loss."""
    save_every: float = 180.0
    """Seconds between checkpoints."""
    keep: int = 2
    """Newest checkpoints that stay; the best stays too."""
    log_every: int = 10
    prompts: int = 2
    """Dialogues of the validation data whose first question is answered at each evaluation."""
    lora_rank: int | None = None
    lora_alpha: int | None = None
    lora_dropout: float | None = None

    def __post_init__(self) -> None:
        find_stage(self.stage)
        if not self.data:
            raise UsageError("no data", hint="name one or more JSONL files with --data")
        for name, ok, must in (
            ("epochs", self.epochs is None or self.epochs > 0, "above 0"),
            ("max_steps", self.max_steps is None or self.max_steps > 0, "1 or more"),
            ("batch_size", self.batch_size is None or self.batch_size > 0, "1 or more"),
            ("micro_batch_size", self.micro_batch_size > 0, "1 or more"),
            ("learning_rate", self.learning_rate is None or 0 < self.learning_rate < math.inf, "above 0"),
            ("weight_decay", self.weight_decay is None or 0 <= self.weight_decay < math.inf, "0 or more"),
            ("warm_up", self.warm_up is None or 0 <= self.warm_up < 1, "a share of the steps, from 0 to below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("seed", 0 <= self.seed < 2**63, "0 or more"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            ("on_error", self.on_error in ON_ERROR, f"one of {', '.join(ON_ERROR)}"),
            ("evaluate_every", self.evaluate_every > 0, "1 or more"),
            ("save_every", self.save_every >= 0, "0 or more seconds"),
            ("keep", self.keep > 0, "1 or more"),
            ("log_every", self.log_every > 0, "1 or more"),
            ("prompts", self.prompts >= 0, "0 or more"),
            ("lora_rank", self.lora_rank is None or self.lora_rank > 0, "1 or more"),
            ("lora_alpha", self.lora_alpha is None or self.lora_alpha > 0, "1 or more"),
            ("lora_dropout", self.lora_dropout is None or 0 <= self.lora_dropout < 1, "from 0 to below 1"),
        ):
            if not ok:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {must}")
        if self.shard and self.four_bit:
            raise UsageError("shard and four_bit contradict each other: weights in 4 bits cannot be cut in pieces")
        if find_stage(self.stage).lora is None:
            for name in ("lora_rank", "lora_alpha", "lora_dropout", "four_bit"):
                if getattr(self, name):
                    raise UsageError(f"{name} belongs to stage 2; stage {self.stage} trains no adapter")

    def resolved(self) -> tuple[Stage, Settings]:
        """The stage with its numbers as this run wants them, and the settings with nothing left open but max_steps."""
        stage = find_stage(self.stage)
        lora = stage.lora
        shape: dict[str, Any] = {}
        if lora is not None:
            dropout = lora.dropout if self.lora_dropout is None else self.lora_dropout
            lora = replace(lora, rank=self.lora_rank or lora.rank, alpha=self.lora_alpha or lora.alpha, dropout=dropout)
            shape = {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
        given: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS if getattr(self, name) is not None}
        stage = replace(stage, **given, lora=lora)
        numbers: dict[str, Any] = {name: getattr(stage, name) for name in _NUMBERS}
        if self.max_steps is not None and self.epochs is None:
            numbers["epochs"] = None  # the steps decide, also when these settings are read again
        # A micro-batch is never larger than a batch; said here, so that the settings that are kept are the ones used.
        micro = min(self.micro_batch_size, stage.batch_size)
        files: dict[str, Any] = {
            name: tuple(os.path.abspath(file) for file in getattr(self, name)) for name in ("data", "validation")
        }
        return stage, replace(self, **numbers, **shape, **files, micro_batch_size=micro)

    def deciding(self) -> dict[str, Any]:
        """Those settings on which the trained weights depend: a run goes on only with the same ones.

        How often something is said or saved, the device and where features are kept may change in between.
        """
        free = ("output", "device", "features", "keep_features", "evaluate_every", "save_every", "keep", "log_every")
        values = {name: value for name, value in asdict(self).items() if name not in (*free, "prompts", "data")}
        values["data"] = [file_hash(name) for name in self.data]
        values["validation"] = [file_hash(name) for name in self.validation]
        return typing.cast(dict[str, Any], json.loads(json.dumps(values)))

    def as_toml(self) -> str:
        """The file that ``--config`` reads back to the same settings."""
        values = asdict(self)
        lines = [f"{name} = {toml_value(value)}" for name, value in values.items() if value is not None]
        return "\n".join(lines) + "\n"


def file_hash(path: str) -> str:
    """``NAME sha256:…`` of a data file."""
    try:
        with open(path, "rb") as file:
            return f"{Path(path).name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def configuration_hash(deciding: Mapping[str, Any]) -> str:
    """SHA-256 of what ``Settings.deciding`` says."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """The values of a TOML file, each known and of its setting's type. Paths in it are relative to its folder."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error})") from error
    kinds = typing.get_type_hints(Settings)
    known = [field.name for field in fields(Settings)]
    values = {}
    for name, value in content.items():
        if name not in known:
            raise InputError(f"{path}: unknown setting {name}", hint=f"known: {', '.join(known)}")
        values[name] = _typed(value, kinds[name], f"{path}: {name}")
    for name in ("data", "validation"):
        if name in values:
            values[name] = tuple(str(path.parent / item) for item in values[name])
    return values


def _typed(value: Any, kind: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(item for item in kind.__args__ if item is not type(None))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{where} must be a list of strings, found {value!r}")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{where} must be of type {kind.__name__}, found {value!r}")
    return value


def make_settings(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Settings from a file, if one is given, under the flags that were given (None: not given)."""
    values = read_config(config) if config is not None else {}
    values |= {name: value for name, value in flags.items() if value is not None}
    for name in ("stage", "data", "output"):
        if name not in values:
            raise UsageError(f"--{name} is missing", hint="give it, or --config with a file that has it")
    return Settings(**values)
