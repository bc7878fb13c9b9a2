"""A kept clip changes no answer and saves decoder and encoder; whatever changed is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message, Session
from gpt4video_cli.clip_cache import ClipCache
from gpt4video_cli.errors import ClipError
from gpt4video_cli.events import ClipSeen, Done, Notice
from gpt4video_cli.model.checkpoint import Model, load_model
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.safety.gates import Gates
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.writer import write_mp4


class CountingReader(FrameReader):
    """The real decoder; ``reads`` are the clips it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def read(self, path: Any, *arguments: Any, **options: Any) -> Clip:
        self.reads.append(Path(path).name)
        return super().read(path, *arguments, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model") / "random", context_length=1024)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """Its language model is shared by the tests, as loading it takes longest."""
    model = load_model(folder, device="cpu")
    assert model.engine
    return model


@pytest.fixture(scope="module")
def reader() -> Iterator[CountingReader]:
    with CountingReader() as reader:
        yield reader


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write_clip(tmp_path / "clip.mp4", 4))


def write_clip(path: Path, step: int) -> Path:
    frames = np.full((10, 48, 48, 3), 60, np.uint8)
    for t, frame in enumerate(frames):
        frame[8:20, step * t : step * t + 12] = (250, 200, 40)
    return write_mp4(path, frames, 10)


def assistant_of(model: Model, reader: FrameReader, cache: ClipCache | None, folder: Path | None = None) -> Assistant:
    """As another process would open it: nothing seen so far, no visual encoder loaded."""
    fresh = load_model(folder or model.folder, device="cpu")
    fresh._engine = model._engine
    return Assistant(fresh, reader, cache, Gates())


def ask(assistant: Assistant, clip: str, session: Session | None = None) -> tuple[Done, list[str]]:
    """The end of the reply about ``clip``, and what was said beside it."""
    session = session or assistant.new_session()
    events = list(assistant.reply(session, Message("What moves?", (ClipRequest(clip),))))
    assert any(isinstance(event, ClipSeen) for event in events)
    done = events[-1]
    assert isinstance(done, Done) and done.answer
    return done, [e.text for e in events if isinstance(e, Notice) and "screened" not in e.text]


def test_a_kept_clip_is_neither_decoded_nor_encoded(model: Model, reader: CountingReader, clip: str) -> None:
    cache = ClipCache()
    reader.reads.clear()
    without = ask(assistant_of(model, reader, None), clip)[0]
    first = assistant_of(model, reader, cache)
    new = ask(first, clip)[0]
    assert reader.reads == ["clip.mp4"] * 2 and new.timings["vision"] > 0
    later = assistant_of(model, reader, cache)
    session = later.new_session()
    kept = ask(later, clip, session)[0]
    assert len(reader.reads) == 2
    assert later.model._vision._value is None and later.model._abstractor._value is None
    assert (kept.timings["decode"], kept.timings["vision"]) == (0.0, 0.0)
    assert kept.answer == new.answer == without.answer
    receipt = session.clips[0].receipt
    mine = first.memory.find(clip, receipt.sha256, session.clips[0].plan)
    found = later.memory.find(clip, receipt.sha256, session.clips[0].plan)
    assert mine is not None and found is not None and found.receipt == mine.receipt
    assert found.embeddings.tobytes() == mine.embeddings.tobytes()
    assert found.embeddings.dtype == np.float32


def test_narrow_numbers_come_back_as_they_were(model: Model, reader: CountingReader, clip: str) -> None:
    """bfloat16 embeddings fit into float32 exactly; kept apart from those that were computed in float32."""
    cache = ClipCache()
    narrow = Assistant(load_model(model.folder, device="cpu", dtype="bfloat16"), reader, cache, Gates())
    plan = ClipRequest(clip).plan
    seen = narrow.see(clip, plan, {"decode": 0.0, "vision": 0.0})
    assert narrow.memory.write() == ""
    exact = narrow.model.embed(reader.read(clip, plan, min_side=narrow.model.preprocess_config.decode_side).frames)
    assert seen.embeddings.dtype == np.float32 and seen.embeddings.tolist() == exact.tolist()
    assert assistant_of(model, reader, cache).memory.recall(clip, plan) is None
    again = Assistant(load_model(model.folder, device="cpu", dtype="bfloat16"), reader, cache, Gates())
    found = again.memory.recall(clip, plan)
    assert found is not None and found.embeddings.tobytes() == seen.embeddings.tobytes()


def test_a_replaced_abstractor_is_a_miss(model: Model, reader: CountingReader, clip: str, tmp_path: Path) -> None:
    cache = ClipCache()
    copy = Path(shutil.copytree(model.folder, tmp_path / "copy"))
    ask(assistant_of(model, reader, cache, copy), clip)
    reader.reads.clear()
    ask(assistant_of(model, reader, cache, copy), clip)
    assert reader.reads == []
    other = write_random_model(tmp_path / "other", seed=1)
    shutil.copyfile(other / "abstractor.safetensors", copy / "abstractor.safetensors")
    ask(assistant_of(model, reader, cache, copy), clip)
    assert reader.reads == ["clip.mp4"]
    assert len(cache.clips()) == 2


def test_a_conversation_notices_a_changed_clip(model: Model, reader: CountingReader, clip: str, tmp_path: Path) -> None:
    cache = ClipCache()
    first = assistant_of(model, reader, cache)
    session = first.new_session()
    ask(first, clip, session)
    session.save(tmp_path / "talk.json")
    reader.reads.clear()
    ask(assistant_of(model, reader, cache), clip, Session.load(tmp_path / "talk.json"))
    assert reader.reads == []  # the old clip came from the disk, and so did the same one in the new message

    other = str(write_clip(tmp_path / "other.mp4", 1))
    ask(assistant_of(model, reader, cache), other)
    shutil.copyfile(other, clip)  # known, too, but not what this conversation saw
    resumed = assistant_of(model, reader, cache)
    with pytest.raises(ClipError, match="is not the file that this conversation saw"):
        list(resumed.reply(Session.load(tmp_path / "talk.json"), Message("And now?")))
    Path(clip).unlink()
    with pytest.raises(ClipError):
        list(resumed.reply(Session.load(tmp_path / "talk.json"), Message("And now?")))


def test_without_room_the_answer_comes_with_a_notice(
    model: Model, reader: CountingReader, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").write_text("a file in the place of the folder")
    reader.reads.clear()
    blocked = ClipCache(tmp_path / "clips")
    done, notices = ask(assistant_of(model, reader, blocked), clip)
    assert len(notices) == 1 and f"clips are not kept for later runs: {tmp_path / 'clips'}" in notices[0]

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt4video_cli.clip_cache.whole_file", full)
    assistant, session = assistant_of(model, reader, ClipCache()), Session()
    again, notices = ask(assistant, clip, session)
    assert notices == [f"clips are not kept for later runs: {ClipCache().folder}: No space left on device"]
    assert again.answer == done.answer
    second = list(assistant.reply(session, Message("And now?")))  # said once: nothing new was encoded
    assert not [e for e in second if isinstance(e, Notice) and "kept" in e.text]
    assert len(reader.reads) == 2 and ClipCache().clips() == []
