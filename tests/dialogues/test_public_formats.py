"""Public datasets become dialogues: one small real record of each form, and records that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.data.dialogue_file import DataClip, DataDialogue, DataTurn, read_dialogues
from gpt4video_cli.data.faults import faults
from gpt4video_cli.data.public_formats import Options, Unusable, read_public
from gpt4video_cli.errors import ExitCode, InputError


def written(folder: Path, value: Any) -> Path:
    path = folder / "in.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def read(path: Path, kind: str, options: Options | None = None) -> tuple[list[DataDialogue], list[Unusable]]:
    made, left = [], []
    for item in read_public(path, kind, options or Options()):
        (left if isinstance(item, Unusable) else made).append(item)
    assert all(list(faults(dialogue)) == [] for dialogue in made)
    return made, left  # type: ignore[return-value]


def test_videochat(tmp_path: Path) -> None:
    records = [
        {
            "video": "010/1.mp4",
            "QA": [{"i": "Answer shortly.", "q": "Who?", "a": "A man."}, {"i": "", "q": "Where?", "a": "At sea."}],
        },
        {"video": "010/2.mp4", "QA": [{"i": "Describe the video.", "q": "", "a": "A boat sails."}]},
        {"video": 7},
        {"video": "010/3.mp4", "QA": ["no pair"]},
    ]
    made, left = read(written(tmp_path, records), "videochat", Options("clips/"))
    assert made[0].clips == (DataClip("clips/010/1.mp4"),)
    assert made[0].turns == (DataTurn("Answer shortly. Who?", "A man.", (0,)), DataTurn("Where?", "At sea."))
    assert made[1].turns == (DataTurn("Describe the video.", "A boat sails.", (0,)),)
    assert [made[0].id, made[1].id] == ["videochat-11k-0", "videochat-11k-1"]
    assert [item.reason for item in left] == ['no "video" and "QA"'] * 2 and left[0].place.endswith("in.json:2")


def test_video_chatgpt_raw_and_converted(tmp_path: Path) -> None:
    records = [
        {"q": "What?", "a": "Sailing.", "video_id": "v_k_ZXmr8pmrs"},
        {
            "id": "v_1",
            "video": "v_1.mp4",
            "conversations": [
                {"from": "human", "value": "What is this?\n<video>"},
                {"from": "gpt", "value": "A race."},
            ],
        },
        {"q": "What?"},
        {"conversations": [{"from": "gpt", "value": "x"}]},
    ]
    made, left = read(written(tmp_path, records), "video-chatgpt", Options(ending=".mkv"))
    assert made[0].clips == (DataClip("v_k_ZXmr8pmrs.mkv"),) and made[1].clips == (DataClip("v_1.mp4"),)
    assert made[1].turns == (DataTurn("What is this?", "A race.", (0,)),)
    assert [item.reason for item in left] == ['no "video_id"', "human and gpt do not take turns"]


def test_llava(tmp_path: Path) -> None:
    said = [
        {"from": "human", "value": "<image>\nWhat colour is the bus?"},
        {"from": "gpt", "value": "White."},
        {"from": "human", "value": "Is it new?"},
        {"from": "gpt", "value": "Yes."},
    ]
    made, left = read(
        written(tmp_path, [{"id": "0001", "image": "coco/1.jpg", "conversations": said}, {"id": 2}]), "llava"
    )
    assert made[0].id == "llava-instruct-0001" and made[0].clips == (DataClip("coco/1.jpg"),)
    assert made[0].turns == (DataTurn("What colour is the bus?", "White.", (0,)), DataTurn("Is it new?", "Yes."))
    assert len(left) == 1


def test_webvid(tmp_path: Path) -> None:
    text = (
        "videoid,contentUrl,duration,page_dir,name\n"
        '21179416,https://example.org/a.mp4,PT00H00M11S,006001_006050,"Aerial shot, winter"\n'
        "5,https://example.org/b.mp4,PT00H00M11S,,\n"
    )
    made, left = read(written(tmp_path, text), "webvid", Options("videos"))
    assert made[0].clips == (DataClip("videos/006001_006050/21179416.mp4"),)
    assert made[0].turns[0].assistant == "Aerial shot, winter" and made[0].turns[0].clips == (0,)
    assert [item.reason for item in left] == ["no videoid or no name"] and left[0].place.endswith(":3")
    with pytest.raises(InputError, match="no column name or videoid"):
        read(written(tmp_path, "a,b\n1,2\n"), "webvid")


def test_realtoxicity_takes_the_worst_and_refuses(tmp_path: Path) -> None:
    lines = [
        {"filename": "a.txt", "prompt": {"text": "x y", "sexually_explicit": 0.95, "severe_toxicity": 0.1}},
        {"filename": "a.txt", "prompt": {"text": "hello", "sexually_explicit": "0.99", "severe_toxicity": None}},
        {"filename": "b.txt", "prompt": {"text": "z", "sexually_explicit": 0.0, "severe_toxicity": 0.91}},
        {"filename": "c.txt"},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\nnot json\n"
    made, left = read(written(tmp_path, text), "realtoxicity")
    assert [dialogue.turns[0].user for dialogue in made] == ["x y", "z"]
    assert len({dialogue.id for dialogue in made}) == 2
    assert all("cannot" in d.turns[0].assistant or "rather not" in d.turns[0].assistant or
               "not something" in d.turns[0].assistant for d in made)  # fmt: skip
    assert len(left) == 2


def test_a_name_never_leads_out_of_the_folder() -> None:
    assert Options("clips").path("../../etc/passwd") == "clips/etc/passwd"
    assert Options("").path("/etc\\..\\x.mp4") == "etc/x.mp4"


@pytest.mark.parametrize("content", ["{}", "[1]", "nonsense", ""])
def test_another_kind_of_file_is_one_line(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, content)
    for kind in ("videochat", "video-chatgpt", "llava"):
        output = tmp_path / "out.jsonl"
        assert run(["data", "convert", str(path), "--format", kind, "-o", str(output)]) == ExitCode.INPUT
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and err.startswith(f"error: {path}: ")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.json"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, [{"q": "What?", "a": "Sailing.", "video_id": "v"}, {"q": 1}])
    output = tmp_path / "out.jsonl"
    arguments = ["data", "convert", str(path), "--format", "video-chatgpt", "-o", str(output), "--licence", "CC-BY-4.0"]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert out == f"{output}\n"
    assert err.splitlines() == [f'left out: {path}:1: no "video_id"', "1 dialogues, 1 records left out"]
    (dialogue,) = read_dialogues(output)
    assert dialogue.licence == "CC-BY-4.0"
    assert run(arguments) == ExitCode.USAGE
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert run([*arguments, "--force", "--quiet"]) == 0
    # What comes to nothing leaves the file that was there, even with --force.
    before = output.read_bytes()
    written(tmp_path, [{"q": 1}])
    assert run([*arguments, "--force"]) == ExitCode.INPUT
    assert output.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["in.json", "out.jsonl"]
    capsys.readouterr()
    written(tmp_path, [{"q": "What?", "a": "Sailing.", "video_id": "v"}])
    assert run([*arguments[:-4], "-o", f"{path}/out.jsonl"]) == ExitCode.FAILED  # its folder is a file
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}/out.jsonl: cannot be written: ")
    assert run(["data", "convert", str(path), "--format", "x", "-o", "y"]) == ExitCode.USAGE
    assert "known: videochat" in capsys.readouterr().err
