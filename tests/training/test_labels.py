"""What is learned of a record of each public format: every reply with its end token, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.data.dialogue_file import write_dialogues
from gpt4video_cli.data.layout import Layout
from gpt4video_cli.data.public_formats import Options, read_public
from gpt4video_cli.training.dialogue_set import read_training_data
from gpt4video_cli.training.labels import marked
from gpt4video_cli.training.stages import find_stage
from gpt4video_cli.video.writer import write_mp4

VIDEOCHAT = [
    {"video": "1.mp4", "QA": [{"i": "Answer.", "q": "Who?", "a": "A man."}, {"i": "", "q": "Where?", "a": "At sea."}]}
]
VIDEO_CHATGPT = [{"q": "What is it?", "a": "A race.", "video_id": "1"}]
LLAVA = [
    {
        "id": "1",
        "image": "1.mp4",
        "conversations": [
            {"from": "human", "value": "<image>\nWhich colour?"},
            {"from": "gpt", "value": "White."},
            {"from": "human", "value": "Is it new?"},
            {"from": "gpt", "value": "Yes."},
        ],
    }
]
WEBVID = "videoid,contentUrl,duration,page_dir,name\n1,https://example.org/1.mp4,PT00H00M11S,,Aerial shot of a bay\n"
REALTOXICITY = [{"filename": "a.txt", "prompt": {"text": "x y", "sexually_explicit": 0.95, "severe_toxicity": 0.1}}]
SEEN = "<s>###Human: <video>(4 video tokens)</video>\n###Human: "


@pytest.mark.parametrize(
    ("kind", "stage", "content", "shown"),
    [
        ("videochat", 1, VIDEOCHAT, "Answer. Who?\n###AI: [[A man.</s>]]\n###Human: Where?\n###AI: [[At sea.</s>]]"),
        ("video-chatgpt", 1, VIDEO_CHATGPT, "What is it?\n###AI: [[A race.</s>]]"),
        ("llava", 1, LLAVA, "Which colour?\n###AI: [[White.</s>]]\n###Human: Is it new?\n###AI: [[Yes.</s>]]"),
        ("webvid", 1, WEBVID, "\n###AI: [[Aerial shot of a bay</s>]]"),
        ("realtoxicity", 2, REALTOXICITY, "<s>###Human: x y\n###AI: [["),
    ],
)
def test_replies_are_learned_and_nothing_else(
    base: Path, tmp_path: Path, kind: str, stage: int, content: Any, shown: str
) -> None:
    write_mp4(tmp_path / "1.mp4", np.zeros((4, 32, 32, 3), np.uint8), 4)
    source = tmp_path / "in"
    lines = "\n".join(map(json.dumps, content)) if kind == "realtoxicity" else json.dumps(content)
    source.write_text(content if isinstance(content, str) else lines)
    data = tmp_path / "data.jsonl"
    assert write_dialogues(data, read_public(source, kind, Options())) == 1  # type: ignore[arg-type]
    layout = Layout(str(base))
    found = read_training_data((str(data),), find_stage(stage), layout, on_error="stop")
    text = marked(found.samples[0], layout)
    if stage == 1:
        assert text.startswith(SEEN) and text.endswith(shown) and text.count("[[") == shown.count("[[")
    else:
        assert text.startswith(shown) and text.endswith("</s>]]") and text.count("[[") == 1


def test_a_person_can_look_at_them(base: Path, told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "labels", str(told), "--stage", "2", "--model", str(base), "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert f"{told}:1: " in out and f"{told}:2: " in out and "[[A " in out and "</s>]]" in out
