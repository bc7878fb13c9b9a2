"""Which part of a model goes to which device, decided before anything is loaded; or why it cannot be loaded at all.

One device takes everything where it can: the one with the most free memory. Else the language model's layers are spread
over as few GPUs as hold them, in order, and with ``offload`` the last ones that find no room stay in the main memory
and visit the first GPU for each token. Visual encoder, abstractor and embeddings stay on the first GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.model.free_memory import Device, find_devices, main_memory
from gpt4video_cli.model.model_sizes import (
    NUMBER_BYTES,
    QUANTISED,
    VISION_INT8,
    Block,
    ModelSizes,
    Precision,
    measure_model,
)
from gpt4video_cli.weights.card import Card

SPELLINGS = {
    "auto": "auto",
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "8bit": "8bit",
    "int8": "8bit",
    "4bit": "4bit",
    "int4": "4bit",
}
VISION_DTYPES = ("auto", *NUMBER_BYTES, VISION_INT8)
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_SHORTEST_CONTEXT = 512
_SUGGESTIONS = 4


@dataclass(frozen=True)
class LoadWish:
    """How a model shall be loaded. ``offload``: layers that no GPU has room for may stay in the main memory.
    ``vision_dtype``: of the visual encoder alone, where ``dtype`` shall not be its own too.
    ``context_length``: positions, to keep a smaller key/value cache than the model's own. ``engine``: of the language
    model; what is planned here is for PyTorch, see ``language/choose_engine.py``."""

    device: str = "auto"
    dtype: str = "auto"
    offload: bool = False
    context_length: int | None = None
    engine: EngineWish = EngineWish()
    vision_dtype: str = "auto"

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"--device is {self.device!r}; it must be auto, cpu, cuda, cuda:N or mps")
        if self.dtype not in SPELLINGS:
            raise UsageError(f"--dtype is {self.dtype!r}; it must be one of {', '.join(SPELLINGS)}")
        object.__setattr__(self, "dtype", SPELLINGS[self.dtype])
        seen_in = VISION_INT8 if self.vision_dtype == VISION_INT8 else SPELLINGS.get(self.vision_dtype)
        if seen_in not in VISION_DTYPES:
            raise UsageError(f"--vision-dtype is {self.vision_dtype!r}; it must be one of {', '.join(VISION_DTYPES)}")
        object.__setattr__(self, "vision_dtype", seen_in)
        if self.context_length is not None and self.context_length < 2:
            raise UsageError(f"--context-length is {self.context_length}; it must be 2 or more")
        if self.offload and self.dtype in QUANTISED:
            raise UsageError(
                f"--offload and --dtype {self.dtype} contradict each other: bitsandbytes computes where its weights are"
            )
        if self.device == "mps" and self.dtype in QUANTISED:
            raise UsageError(f"--dtype {self.dtype} needs a CUDA GPU or the CPU, the device is mps")
        if self.device in ("cpu", "mps"):
            self.check_device(self.device)
        if self.engine.name == "llama":
            self._check_llama()

    def _check_llama(self) -> None:
        if self.dtype != "auto":
            raise UsageError(
                f"--dtype {self.dtype} and --engine llama contradict each other: llama.cpp has the type of its file",
                hint="--engine llama:KIND chooses the file, such as llama:q8_0",
            )
        if self.offload:
            raise UsageError("--offload is an option of the PyTorch engine", hint="llama.cpp has --gpu-layers N")
        if self.device == "cpu" and self.engine.llama.gpu_layers > 0:
            raise UsageError(f"--device cpu and --gpu-layers {self.engine.llama.gpu_layers} contradict each other")

    def check_device(self, kind: str) -> None:
        """Refuse what the device cannot do; ``kind`` is known when the devices were looked for."""
        if self.offload and kind != "cuda":
            raise UsageError(f"--offload moves layers between a GPU and the main memory, but the device is {kind}")
        if self.vision_dtype == VISION_INT8 and kind != "cpu":
            raise UsageError(
                f"--vision-dtype int8 is for the CPU, but the device is {kind}",
                hint="on a GPU: --vision-dtype bfloat16",
            )

    def check_installed(self) -> None:
        """Refuse 8 and 4 bits without bitsandbytes. Nothing is imported for that."""
        if self.dtype in QUANTISED and not has_bitsandbytes():
            raise UsageError(f"--dtype {self.dtype} needs bitsandbytes", hint="pip install bitsandbytes")

    def precision(self, kind: str) -> Precision:
        """What ``auto`` means on a device of this kind: float32 on a CPU, else bfloat16 (``choose_dtype`` agrees)."""
        usual = "float32" if kind == "cpu" else "bfloat16"
        compute = usual if self.dtype in ("auto", *QUANTISED) else self.dtype
        vision = None if self.vision_dtype == "auto" else self.vision_dtype
        return Precision(compute, self.dtype if self.dtype in QUANTISED else compute, vision)


def has_bitsandbytes() -> bool:
    """Whether bitsandbytes is installed."""
    from importlib.util import find_spec

    return find_spec("bitsandbytes") is not None


@dataclass(frozen=True)
class Row:
    """One line of a plan: ``bytes`` of what lie on ``place``. ``parameters`` 0: it is no weight."""

    what: str
    parameters: int
    dtype: str
    place: str
    bytes: int


@dataclass(frozen=True)
class Placement:
    """A plan that fits. ``device_map``: module of the language model -> device, as accelerate takes it; empty where
    everything lies on ``main``."""

    sizes: ModelSizes
    main: str
    rows: tuple[Row, ...]
    devices: tuple[Device, ...]
    device_map: dict[str, str]

    def used(self, device: str) -> int:
        """Bytes of the plan on a device."""
        return sum(row.bytes for row in self.rows if row.place == device)


def place(sizes: ModelSizes, devices: Sequence[Device], host: Device | None = None) -> Placement | None:
    """Where everything goes on ``devices``; None if it does not fit. ``host``: main memory that layers may stay in."""
    roomiest = max(devices, key=lambda device: device.usable)
    if sizes.total <= roomiest.usable:
        return _laid_out(sizes, [roomiest], {block.name: roomiest.name for block in sizes.blocks}, 0)
    by_room = sorted(devices, key=lambda device: -device.usable)
    for count in range(2, len(devices) + 1):
        # In the order of their numbers: accelerate takes the lowest for the main one.
        if found := _spread(sizes, _in_order(by_room[:count]), 0, None):
            return found
    if host is not None:
        if sizes.adapter_apart:
            raise UsageError(
                f"--offload: the adapter of {sizes.name} cannot follow layers that stay in the main memory",
                hint=f"merge it first: gpt4video models merge {sizes.name} -o FOLDER",
            )
        for offloaded in range(1, sum(block.is_layer for block in sizes.blocks) + 1):
            for count in range(1, len(devices) + 1):
                if found := _spread(sizes, _in_order(by_room[:count]), offloaded, host):
                    return found
    return None


def _in_order(devices: Sequence[Device]) -> list[Device]:
    return sorted(devices, key=lambda device: int(device.name.partition(":")[2] or 0))


def _spread(sizes: ModelSizes, gpus: list[Device], offloaded: int, host: Device | None) -> Placement | None:
    """Blocks in order over ``gpus``, the last ``offloaded`` layers on ``host``. Every GPU needs working memory."""
    layers = [block for block in sizes.blocks if block.is_layer]
    staying = {block.name for block in layers[len(layers) - offloaded :]}
    visitors = [block for block in layers if block.name in staying]
    staged = max((block.bytes for block in visitors), default=0)  # one visits at a time
    if host is not None and sum(_held(block) for block in visitors) > host.usable:
        return None
    # Keys and values of a visiting layer are computed, and kept, on the main GPU.
    room = gpus[0].usable - sizes.eyes - sizes.working - staged - sum(block.cache for block in visitors)
    device_map: dict[str, str] = {}
    current = 0
    for block in sizes.blocks:
        if block.name in staying:
            device_map[block.name] = "cpu"
            continue
        needed = _held(block) + block.cache
        while needed > room and block.name != "model.embed_tokens":
            current += 1
            if current == len(gpus):
                return None
            room = gpus[current].usable - sizes.working
        if needed > room:
            return None
        room -= needed
        device_map[block.name] = gpus[current].name
    return _laid_out(sizes, [*gpus, *([host] if host is not None else [])], device_map, staged)


def _held(block: Block) -> int:
    return block.bytes + block.adapter


def _laid_out(sizes: ModelSizes, devices: list[Device], device_map: dict[str, str], staged: int) -> Placement:
    """The plan's lines: parts, then the language model's pieces by device, then cache and working memory."""
    main = devices[0].name
    rows = [
        Row(part.name, part.parameters, part.dtype, main, part.bytes)
        for part in sizes.parts
        if part.name in ("vision", "abstractor")
    ]
    kind = sizes.precision.weights
    for device in devices:
        here = [block for block in sizes.blocks if device_map[block.name] == device.name]
        for label, blocks in _pieces(here):
            dtype = kind if blocks[0].is_layer else sizes.precision.compute
            parameters, size = sum(b.parameters for b in blocks), sum(b.bytes for b in blocks)
            rows.append(Row(f"language, {label}", parameters, dtype, device.name, size))
        if added := sum(block.adapter for block in here):
            rows.append(Row("adapter", added // 4, "float32", device.name, added))
    compute = sizes.precision.compute
    gpus = [device for device in devices if device.name == main or device.kind != "cpu"]
    for device in gpus:
        blocks = [
            b for b in sizes.blocks if device_map[b.name] in (device.name, *(["cpu"] if device.name == main else []))
        ]
        if cache := sum(block.cache for block in blocks):
            rows.append(Row(f"keys and values, {sizes.context} positions", 0, compute, device.name, cache))
    for device in gpus:
        rows.append(Row("working memory", 0, compute, device.name, sizes.working))
    if staged:
        rows.append(Row("one visiting layer", 0, compute, main, staged))
    spread = {**device_map, "model.rotary_emb": main} if len(set(device_map.values())) > 1 else {}
    if spread and sizes.tied:
        spread["lm_head"] = main
    return Placement(sizes, main, tuple(rows), tuple(devices), spread)


def _pieces(blocks: list[Block]) -> list[tuple[str, list[Block]]]:
    """What of the language model one device has: before, in and after the layers."""
    layers = [block for block in blocks if block.is_layer]
    before = [block for block in blocks if block.name == "model.embed_tokens"]
    after = [block for block in blocks if block not in layers and block not in before]
    named = [("embeddings", before), (" and ".join(block.name.removeprefix("model.") for block in after), after)]
    if layers:
        first, last = (block.name.rpartition(".")[2] for block in (layers[0], layers[-1]))
        named.insert(1, (f"layers {first}-{last}", layers))
    return [(label, part) for label, part in named if part]


Measure = Callable[[LoadWish, str], ModelSizes]
"""The sizes of a model as wished, on a kind of device."""
Look = Callable[[], Sequence[Device]]
"""Looks for the GPUs of this machine."""


def plan(wish: LoadWish, devices: Sequence[Device], host: Device, measure: Measure, gpus: Look = tuple) -> Placement:
    """Where everything goes; ``WeightsError`` with what is needed, what is free and what would fit instead.

    ``devices``: those that ``wish`` allows; ``host``: the main memory; ``gpus``: asked for when nothing fits.
    """
    kind = devices[0].kind
    wish.check_device(kind)
    sizes = measure(wish, kind)
    found = place(sizes, devices, host if wish.offload else None)
    if found is None:
        raise WeightsError(_lack(sizes, devices, wish), hint=_advice(wish, devices, host, measure, gpus()))
    return found


def _lack(sizes: ModelSizes, devices: Sequence[Device], wish: LoadWish) -> str:
    free = ", ".join(f"{device.name} has {gigabytes(device.free)} GB free" for device in devices)
    even = " even with --offload" if wish.offload else ""
    what = f"{gigabytes(sizes.weights)} weights, {gigabytes(sizes.cache)} keys and values of {sizes.context} positions"
    return (
        f"model {sizes.name} does not fit{even}: it needs {gigabytes(sizes.total)} GB in {sizes.precision.weights} "
        f"({what}, {gigabytes(sizes.working)} working memory); {free}"
    )


def _advice(wish: LoadWish, devices: Sequence[Device], host: Device, measure: Measure, gpus: Sequence[Device]) -> str:
    """What would fit, tried out on the same numbers: first what costs nothing, then what costs precision or speed."""
    fitting: list[str] = []
    kind = devices[0].kind
    asked = measure(wish, kind)
    least = asked
    for words, other in _alternatives(wish, kind, asked.context, more=len(gpus) > len(devices) or kind == "cpu"):
        places = devices if other.device == wish.device else [host] if other.device == "cpu" else gpus
        shorter = other.context_length != wish.context_length  # the longest that fits is enough
        if not places or len(fitting) == _SUGGESTIONS or (shorter and any("--context" in said for said in fitting)):
            continue
        sizes = measure(other, places[0].kind)
        least = min(least, sizes, key=lambda found: found.total)
        if other.offload and sizes.adapter_apart:
            continue
        if place(sizes, places, host if other.offload else None) is not None:
            needs = "" if other.dtype not in QUANTISED or has_bitsandbytes() else ", needs bitsandbytes"
            fitting.append(f"{words} ({gigabytes(sizes.total)} GB{needs})")
    if fitting:
        return f"would fit: {' or '.join(fitting)}"
    return f"nothing would fit here: the least, {least.precision.weights}, is {gigabytes(least.total)} GB"


def _alternatives(wish: LoadWish, kind: str, context: int, *, more: bool) -> list[tuple[str, LoadWish]]:
    """Other wishes and the options that say them, the dearest last. ``more``: there may be GPUs that were not asked."""
    found: list[tuple[str, LoadWish]] = []
    quantised = wish.dtype in QUANTISED
    if more and wish.vision_dtype != VISION_INT8:
        found.append(("--device cuda", replace(wish, device="cuda")))
    if wish.precision(kind).compute == "float32" and not quantised:
        found.append(("--dtype bfloat16", replace(wish, dtype="bfloat16")))
    dropped = " without --offload" if wish.offload else ""
    narrower = QUANTISED[QUANTISED.index(wish.dtype) + 1 :] if quantised else QUANTISED
    if kind != "mps":
        found += [(f"--dtype {dtype}{dropped}", replace(wish, offload=False, dtype=dtype)) for dtype in narrower]
    if kind == "cuda" and not wish.offload:
        words = "--dtype bfloat16 --offload" if quantised else "--offload"
        found.append((words, replace(wish, dtype="bfloat16" if quantised else wish.dtype, offload=True)))
    shorter = 1 << (context - 1).bit_length() - 1
    while shorter >= _SHORTEST_CONTEXT:
        found.append((f"--context-length {shorter}", replace(wish, context_length=shorter)))
        shorter //= 2
    if kind != "cpu":
        dtype = "bfloat16" if wish.dtype == "auto" else wish.dtype
        found.append((f"--device cpu --dtype {dtype}{dropped}", LoadWish("cpu", dtype, False, wish.context_length)))
    return found


def plan_model(card: Card, folder: Path, wish: LoadWish) -> Placement:
    """``plan`` for the model in ``folder`` and the memory that is free now."""
    from gpt4video_cli.language.llama_folder import check_files

    wish.check_installed()
    check_files(folder / "language")
    devices = find_devices(wish.device)

    def measure(other: LoadWish, kind: str) -> ModelSizes:
        return measure_model(card, folder, other.precision(kind), other.context_length)

    def gpus() -> list[Device]:
        try:
            return find_devices("cuda")
        except UsageError:  # there are none
            return []

    return plan(wish, devices, main_memory(), measure, gpus)


def gigabytes(size: int) -> str:
    """10**9 bytes, to as many places as small sizes need."""
    value = size / 1e9
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
