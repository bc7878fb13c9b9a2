"""Plans for the 7B model on invented devices, and laws that hold for every plan. Nothing is loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.model import free_memory
from gpt4video_cli.model.assembly import write_assembly
from gpt4video_cli.model.free_memory import RESERVE, Device, _group_limits, find_devices, main_memory
from gpt4video_cli.model.model_sizes import ModelSizes, measure_model
from gpt4video_cli.model.placement import LoadWish, Measure, Placement, place, plan
from gpt4video_cli.weights.card import read_card

GB = 1_000_000_000
HOST = Device("cpu", 16 * GB, 16 * GB)


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    folder = write_assembly(tmp_path_factory.mktemp("hollow") / "7b", hollow=True)
    card, known = read_card(folder / "card.toml"), {}

    def sizes(wish: LoadWish, kind: str) -> ModelSizes:
        key = wish.precision(kind), wish.context_length
        if key not in known:
            known[key] = measure_model(card, folder, *key)
        return known[key]

    return sizes


def gpu(number: int, free: float) -> Device:
    return Device(f"cuda:{number}", int(free * GB), int(free * GB))


def refusal(wish: LoadWish, devices: Sequence[Device], measure: Measure, gpus: Sequence[Device] = ()) -> str:
    with pytest.raises(WeightsError) as caught:
        plan(wish, devices, HOST, measure, lambda: gpus)
    assert "\n" not in caught.value.line()
    return caught.value.line()


def layers_on(found: Placement, device: str) -> list[int]:
    pattern = re.compile(r"model\.layers\.(\d+)")
    return [int(m[1]) for name, at in found.device_map.items() if at == device and (m := pattern.fullmatch(name))]


def test_24_gb_take_all_of_it_in_16_bits(measure: Measure) -> None:
    found = plan(LoadWish(), [gpu(0, 24)], HOST, measure)
    assert found.main == "cuda:0" and found.device_map == {} and found.sizes.precision.weights == "bfloat16"
    assert 15.3 * GB < found.used("cuda:0") < 15.5 * GB
    assert [row.what for row in found.rows] == [
        "vision",
        "abstractor",
        "language, embeddings",
        "language, layers 0-31",
        "language, norm and lm_head",
        "keys and values, 2048 positions",
        "working memory",
    ]


def test_24_gb_in_32_bits_are_refused_with_what_would_fit(measure: Measure) -> None:
    said = refusal(LoadWish(dtype="float32"), [gpu(0, 24)], measure)
    assert "it needs 30.8 GB in float32" in said and "cuda:0 has 24.0 GB free" in said
    assert "would fit: --dtype bfloat16 (15.4 GB) or --dtype 8bit" in said and "--offload" in said


def test_two_gpus_of_16_gb_share_32_bits(measure: Measure) -> None:
    found = plan(LoadWish(dtype="fp32"), [gpu(0, 16), gpu(1, 16.5)], HOST, measure)
    first, second = layers_on(found, "cuda:0"), layers_on(found, "cuda:1")
    assert found.main == "cuda:0" and first + second == list(range(32)) and len(second) > 10
    assert found.device_map["model.embed_tokens"] == found.device_map["model.rotary_emb"] == "cuda:0"
    assert found.device_map["lm_head"] == found.device_map["model.norm"] == "cuda:1"
    assert "cpu" not in found.device_map.values()


def test_of_two_gpus_the_emptier_one_is_taken(measure: Measure) -> None:
    busy = Device("cuda:0", 3 * GB, 24 * GB)
    assert plan(LoadWish(), [busy, gpu(1, 16)], HOST, measure).main == "cuda:1"
    both = plan(LoadWish(), [Device("cuda:0", 9 * GB, 24 * GB), gpu(1, 9)], HOST, measure)
    assert both.used("cuda:0") <= 9 * GB - RESERVE["cuda"]


def test_8_gb_need_offload(measure: Measure) -> None:
    said = refusal(LoadWish(), [gpu(0, 8)], measure)
    assert "--dtype 4bit" in said and "--offload" in said and "--dtype 8bit" not in said
    found = plan(LoadWish(offload=True), [gpu(0, 8)], HOST, measure)
    here, there = layers_on(found, "cuda:0"), layers_on(found, "cpu")
    assert here + there == list(range(32)) and here and there
    visiting = next(row for row in found.rows if row.what == "one visiting layer")
    assert visiting.place == "cuda:0" and visiting.bytes == 2 * 202_383_360
    # One layer more on the GPU would not fit.
    layer = next(block for block in found.sizes.blocks if block.name == "model.layers.0")
    assert found.used("cuda:0") + layer.bytes > gpu(0, 8).usable
    assert "keys and values, 2048 positions" in [row.what for row in found.rows if row.place == "cuda:0"]
    tight = refusal(LoadWish(offload=True), [gpu(0, 2)], measure)
    assert "does not fit even with --offload" in tight


def test_16_gb_of_main_memory(measure: Measure) -> None:
    said = refusal(LoadWish(device="cpu"), [HOST], measure)
    assert "cpu has 16.0 GB free" in said and "--dtype bfloat16 (15.4 GB)" in said and "--offload" not in said
    roomier = replace(HOST, free=17 * GB)
    assert plan(LoadWish("cpu", "bf16"), [roomier], roomier, measure).main == "cpu"


def test_a_full_gpu_of_several_names_the_others(measure: Measure) -> None:
    full = Device("cuda:1", GB, 24 * GB)
    said = refusal(LoadWish(device="cuda:1"), [full], measure, [gpu(0, 24), full])
    assert "--device cuda (15.4 GB)" in said
    assert said.count("--dtype") == said.count("--device cpu --dtype"), "no type is narrow enough for the full one"


def test_where_nothing_fits_the_least_is_said(measure: Measure) -> None:
    small = Device("cpu", 2 * GB, 2 * GB)
    with pytest.raises(WeightsError) as caught:
        plan(LoadWish(device="cpu"), [small], small, measure)
    assert re.search(r"nothing would fit here: the least, 4bit, is \d\.\d\d GB$", caught.value.line())


MEMORY = st.floats(0.1, 40)


@settings(max_examples=60, deadline=None)
@given(
    free=st.lists(MEMORY, min_size=1, max_size=4),
    host=MEMORY,
    dtype=st.sampled_from(["float32", "bfloat16", "8bit", "4bit"]),
    offload=st.booleans(),
    more=st.floats(0, 10),
)
def test_laws(free: list[float], host: float, dtype: str, offload: bool, more: float, measure: Measure) -> None:
    """No device holds more than it may, nothing is lost, nothing is twice, and more memory never hurts."""
    wish = LoadWish("auto", dtype, offload and dtype not in ("8bit", "4bit"))
    devices, main = [gpu(number, size) for number, size in enumerate(free)], Device("cpu", int(host * GB), 64 * GB)
    sizes = measure(wish, "cuda")
    found = place(sizes, devices, main if wish.offload else None)
    if found is None:
        with pytest.raises(WeightsError):
            plan(wish, devices, main, measure)
        return
    for device in found.devices:
        assert found.used(device.name) <= device.usable
    assert sum(row.parameters for row in found.rows) == sum(part.parameters for part in sizes.parts)
    weights = sum(row.bytes for row in found.rows if row.parameters)
    assert weights == sizes.weights
    assert sum(row.bytes for row in found.rows if row.what.startswith("keys")) == sizes.cache
    if found.device_map:
        assert {block.name for block in sizes.blocks} <= set(found.device_map)
        order = [found.device_map[block.name] for block in sizes.blocks]
        gpus = [int(at.partition(":")[2]) for at in order if at != "cpu"]
        assert order[0] == found.main and gpus == sorted(gpus), "a token passes each GPU once"
    if not wish.offload:
        assert "cpu" not in found.device_map.values()
    roomier = [replace(device, free=device.free + int(more * GB)) for device in devices]
    assert place(sizes, roomier, main if wish.offload else None) is not None


@settings(max_examples=40, deadline=None)
@given(free=st.lists(MEMORY, min_size=1, max_size=3), host=MEMORY, dtype=st.sampled_from(["auto", "fp32", "8bit"]))
def test_every_suggestion_fits(free: list[float], host: float, dtype: str, measure: Measure) -> None:
    devices, main = [gpu(number, size) for number, size in enumerate(free)], Device("cpu", int(host * GB), 64 * GB)
    try:
        plan(LoadWish("cuda:0", dtype), devices[:1], main, measure, lambda: devices)
        return
    except WeightsError as error:
        hint = error.hint or ""
    if not hint.startswith("would fit: "):
        return
    for suggestion in hint.removeprefix("would fit: ").split(" or "):
        words = suggestion.partition(" (")[0].replace(" without --offload", "").split()
        given = dict(zip(words, [*words[1:], ""]))
        wish = LoadWish(
            given.get("--device", "cuda:0"),
            given.get("--dtype", dtype),
            "--offload" in words,
            int(given["--context-length"]) if "--context-length" in given else None,
        )
        allowed = {"cpu": [main], "cuda": devices}.get(wish.device, devices[:1])
        assert plan(wish, allowed, main, measure) is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cpu", "offload": True}, "--offload moves layers between a GPU and the main memory"),
        ({"dtype": "int4", "offload": True}, "--offload and --dtype 4bit contradict"),
        ({"dtype": "8bit", "device": "mps"}, "--dtype 8bit needs a CUDA GPU or the CPU"),
        ({"dtype": "int3"}, "--dtype is 'int3'"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"context_length": 1}, "--context-length is 1"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        LoadWish(**options)  # type: ignore[arg-type]


def test_offload_without_a_gpu_is_refused_when_that_is_known(measure: Measure) -> None:
    with pytest.raises(UsageError, match="the device is cpu"):
        plan(LoadWish(offload=True), [HOST], HOST, measure)


def test_a_context_longer_than_the_model_has(measure: Measure) -> None:
    with pytest.raises(UsageError, match="between 2 and the model's 2048"):
        plan(LoadWish(context_length=4096), [gpu(0, 24)], HOST, measure)


def test_torch_is_asked_only_where_there_may_be_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now fails
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(free_memory, "GPU_NODES", ("/dev/no such node",))
    assert [device.name for device in find_devices("auto")] == ["cpu"]
    with pytest.raises(ImportError):
        find_devices("cuda")
    monkeypatch.setattr(free_memory, "GPU_NODES", ("/dev/no such node", "/dev/null"))
    with pytest.raises(ImportError):
        find_devices("auto")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [device.name for device in find_devices("auto")] == ["cpu"]
    monkeypatch.setattr(sys, "platform", "win32")  # no nodes there to look at
    with pytest.raises(ImportError):
        find_devices("auto")


def test_this_machine(tmp_path: Path) -> None:
    here = main_memory()
    assert 0 < here.free <= here.total and find_devices("cpu")[0].total == here.total
    group = tmp_path / "box"
    group.mkdir()
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("anon 300\ninactive_file 250\nactive_file 50\n")
    (tmp_path / "own").write_text("0::/box\n")
    assert _group_limits(tmp_path, tmp_path / "own") == [(1000, 400)]
    (group / "memory.max").write_text("max\n")
    assert _group_limits(tmp_path, tmp_path / "own") == []
