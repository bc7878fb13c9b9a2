"""``gpt4video models pull`` against a hub on the loopback address, with huggingface_hub's real client."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt4video_cli.errors import ExitCode
from tests.weights.hub_server import digest
from tests.weights.machine import NAME, UNET, Machine


def large(machine: Machine, size: int = 6_000_000) -> bytes:
    """Make the transformer's weights large enough to be interrupted."""
    content = random.Random(5).randbytes(size)
    machine.hub.repositories[NAME].files[UNET] = content
    return content


def test_a_pulled_model_films_and_needs_no_network_afterwards(machine: Machine) -> None:
    code, out, err = machine.pull()
    assert (code, machine.hub.repositories[NAME].commit in out) == (ExitCode.DONE, True), err
    assert "CC0-1.0" in err and "apache-2.0" in err and "to fetch" in err
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path, _ in machine.hub.fetched()}
    assert not fetched & {
        "README.md",
        "sample.mp4",
        "all_in_one.safetensors",
        "transformer/diffusion_pytorch_model.bin",
    }
    assert UNET in fetched and "model_index.json" in fetched
    lock = machine.lock()
    assert lock["complete"] is True
    assert lock["parts"]["pipeline"]["commit"] == machine.hub.repositories[NAME].commit  # type: ignore[index]
    before = len(machine.hub.requests)
    clip = machine.folder / "clip.mp4"
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        code, out, err = machine.run(
            "generate", "--raw", "--force", "--generator", "tiny", "-o", str(clip), "a red circle", **more
        )
        assert code == ExitCode.DONE, err
    assert clip.stat().st_size > 500
    assert machine.pull("--offline")[:2] == (ExitCode.DONE, machine.run("models", "path", "tiny")[1])
    assert len(machine.hub.requests) == before, "the network was used after the pull"


def test_a_second_pull_fetches_nothing(machine: Machine) -> None:
    first = machine.pull()
    machine.hub.requests.clear()
    assert machine.pull()[:2] == first[:2]
    assert machine.hub.fetched() == []


@pytest.mark.parametrize("place", ["early", "middle", "late"])
def test_a_killed_pull_goes_on_where_it_was(machine: Machine, place: str) -> None:
    content = large(machine)
    repository = machine.hub.repositories[NAME]
    repository.seconds_per_chunk = 0.02
    wanted = {"early": 300_000, "middle": 3_000_000, "late": 5_500_000}[place]
    process = machine.start("models", "pull", "tiny", "--yes")
    deadline = time.monotonic() + 60
    while machine.hub.sent.get(UNET, 0) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL if place == "middle" else signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, ExitCode.INTERRUPTED), err
    assert machine.lock()["complete"] is False
    code, _, err = machine.run("generate", "--raw", "--generator", "tiny", "-o", str(machine.folder / "x.mp4"), "a")
    assert code == ExitCode.WEIGHTS and "interrupted" in err and "models pull tiny" in err
    assert "partial" in machine.run("models", "list")[1]
    (kept,) = (path for path in machine.incomplete() if path.name.startswith(digest(content)))
    have = kept.stat().st_size
    assert 0 < have < len(content)
    assert kept.read_bytes() == content[:have]

    repository.seconds_per_chunk = 0.0
    finished = {path for path, _ in machine.hub.fetched() if UNET not in path}
    machine.hub.requests.clear()
    machine.hub.sent.clear()
    code, out, err = machine.pull()
    assert code == ExitCode.DONE, err
    again = machine.hub.fetched()
    assert [span for path, span in again if path.endswith(UNET)] == [f"bytes={have}-"]
    assert machine.hub.sent[UNET] == len(content) - have
    whole = {path for path, _ in again} & finished
    assert not any(path.endswith((".json", ".safetensors")) and _is_whole(machine, path) for path in whole)
    assert (Path(out.strip()) / UNET).read_bytes() == content
    assert machine.incomplete() == []


def _is_whole(machine: Machine, path: str) -> bool:
    """Whether a file of the first run was fetched a second time from its beginning to its end."""
    name = path.partition("/resolve/")[2].partition("/")[2]
    return machine.hub.sent.get(name, 0) > len(machine.hub.repositories[NAME].files[name])


def test_a_connection_that_breaks_is_taken_up_again(machine: Machine) -> None:
    content = large(machine)
    machine.hub.repositories[NAME].cut[UNET] = 2_500_000
    code, out, err = machine.pull()
    assert code == ExitCode.DONE, err
    assert (Path(out.strip()) / UNET).read_bytes() == content
    assert machine.hub.sent[UNET] == len(content)


def test_a_server_without_ranges_sends_all_again(machine: Machine) -> None:
    content = large(machine)
    repository = machine.hub.repositories[NAME]
    repository.cut[UNET], repository.honours_ranges = 2_500_000, False
    code, out, err = machine.pull()
    assert code == ExitCode.DONE, err
    assert (Path(out.strip()) / UNET).read_bytes() == content


def test_a_flipped_bit_is_found_and_refused(machine: Machine) -> None:
    repository = machine.hub.repositories[NAME]
    repository.flipped.add(UNET)
    code, out, err = machine.pull()
    assert (code, out) == (ExitCode.WEIGHTS, "")
    assert UNET in err and "hash" in err and machine.lock()["complete"] is False
    code, _, err = machine.run("generate", "--raw", "--generator", "tiny", "-o", str(machine.folder / "x.mp4"), "a")
    assert code == ExitCode.WEIGHTS
    repository.flipped.clear()
    assert machine.pull()[0] == ExitCode.DONE


def test_verify_finds_what_changed_on_the_disk_and_a_pull_mends_it(machine: Machine) -> None:
    folder = Path(machine.pull()[1].strip())
    assert "as they were fetched" in machine.run("models", "verify", "tiny")[1]
    blob = (folder / UNET).resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    code, out, _ = machine.run("models", "verify", "tiny")
    assert code == ExitCode.WEIGHTS and UNET in out and "changed" in out
    assert machine.run("models", "verify", "tiny", "--repair")[0] == ExitCode.WEIGHTS
    assert machine.pull()[0] == ExitCode.DONE
    assert machine.run("models", "verify", "tiny")[0] == ExitCode.DONE


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_repository_says_how_to_get_in(machine: Machine, token: str | None) -> None:
    machine.hub.repositories[NAME].token = "hf_right"
    code, out, err = machine.pull(**({"HF_TOKEN": token} if token else {}))
    assert (code, out) == (ExitCode.WEIGHTS, "")
    assert "accept the terms" in err and "HF_TOKEN" in err and f"{machine.hub.url}/{NAME}" in err
    assert machine.pull(HF_TOKEN="hf_right")[0] == ExitCode.DONE


def test_what_is_not_there_is_told(machine: Machine) -> None:
    machine.write_card(repository="team/nothing")
    code, _, err = machine.pull()
    assert code == ExitCode.WEIGHTS and "team/nothing" in err and "private" in err
    machine.write_card(more='revision = "v9"\n')
    code, _, err = machine.pull()
    assert code == ExitCode.WEIGHTS and "no revision 'v9'" in err
    code, _, err = machine.run("models", "pull", "tinny", "--yes")
    assert code == ExitCode.USAGE and "did you mean tiny?" in err
    code, _, err = machine.run("models", "pull", "bundle", "--yes")
    assert code == ExitCode.USAGE and "no repository" in err
    assert "Traceback" not in err


def test_a_hub_that_is_not_there_or_broken_is_told(machine: Machine) -> None:
    code, _, err = machine.pull(HF_ENDPOINT="http://127.0.0.1:9")
    assert code == ExitCode.WEIGHTS and "127.0.0.1:9 cannot be reached" in err and "HF_ENDPOINT" in err
    machine.hub.repositories[NAME].status = 403
    code, _, err = machine.pull()
    assert code == ExitCode.WEIGHTS and "403" in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1


def test_offline_nothing_is_asked(machine: Machine) -> None:
    for arguments, more in ((["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})):
        code, _, err = machine.pull(*arguments, **more)
        assert code == ExitCode.WEIGHTS and "models pull tiny" in err
    assert machine.hub.requests == []


def test_two_pulls_at_once_fetch_everything_once(machine: Machine) -> None:
    content = large(machine)
    machine.hub.repositories[NAME].seconds_per_chunk = 0.01
    both = [machine.start("models", "pull", "tiny", "--yes") for _ in range(2)]
    ended = [(process.communicate(timeout=100), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    assert ended[0][0][0] == ended[1][0][0]
    assert machine.hub.sent[UNET] == len(content)
    assert sum("another process" in err for (_, err), _ in ended) == 1


def test_too_small_a_disk_is_told_before_anything_is_fetched(machine: Machine) -> None:
    code = (
        "import shutil, sys; usage = shutil.disk_usage('/');"
        "shutil.disk_usage = lambda path: usage._replace(free=150_000_000);"
        "sys.argv = ['gpt4video', 'models', 'pull', 'tiny', '--yes'];"
        "from gpt4video_cli.cli.app import main; main()"
    )
    found = subprocess.run([sys.executable, "-c", code], env=machine.environment(), capture_output=True, text=True)
    assert found.returncode == ExitCode.WEIGHTS and "are free" in found.stderr
    assert not any(path.endswith(UNET) for path, _ in machine.hub.fetched())


def test_a_disk_that_fills_up_is_told_and_the_next_pull_goes_on(machine: Machine) -> None:
    content = large(machine)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000));"
        "sys.argv = ['gpt4video', 'models', 'pull', 'tiny', '--yes'];"
        "from gpt4video_cli.cli.app import main; main()"
    )
    found = subprocess.run([sys.executable, "-c", code], env=machine.environment(), capture_output=True, text=True)
    assert found.returncode == ExitCode.WEIGHTS and "disk is full" in found.stderr, found.stderr
    (kept,) = (path for path in machine.incomplete() if path.name.startswith(digest(content)))
    have = kept.stat().st_size
    assert 0 < have <= 2_000_000 and kept.read_bytes() == content[:have]
    machine.hub.requests.clear()
    assert machine.pull()[0] == ExitCode.DONE
    assert [span for path, span in machine.hub.fetched() if path.endswith(UNET)] == [f"bytes={have}-"]


def test_nobody_to_ask_means_nothing_is_fetched(machine: Machine) -> None:
    code, _, err = machine.run("models", "pull", "tiny")
    assert code == ExitCode.USAGE and "--yes" in err
    assert not any(path.endswith(UNET) for path, _ in machine.hub.fetched())
    code, out, err = machine.run("models", "pull", "tiny", "--dry-run")
    assert (code, out) == (0, "") and "to fetch" in err


def test_rm_leaves_what_another_model_or_tool_uses(machine: Machine) -> None:
    machine.write_card("twin")
    folder = Path(machine.pull()[1].strip())
    assert machine.run("models", "pull", "twin", "--yes")[0] == ExitCode.DONE
    code, _, err = machine.run("models", "rm", "tiny", "--yes")
    assert code == ExitCode.DONE and "used by twin too" in err and "frees 0 bytes" in err
    assert (folder / UNET).is_file()
    assert machine.run("models", "path", "twin")[0] == ExitCode.DONE
    assert machine.run("models", "rm", "twin", "--yes")[0] == ExitCode.DONE
    assert not folder.exists()


def test_rm_leaves_what_was_in_the_cache_before(machine: Machine) -> None:
    code = f"from huggingface_hub import hf_hub_download; print(hf_hub_download({NAME!r}, {UNET!r}))"
    found = subprocess.run([sys.executable, "-c", code], env=machine.environment(), capture_output=True, text=True)
    theirs = Path(found.stdout.strip())
    folder = Path(machine.pull()[1].strip())
    assert theirs == folder / UNET and machine.hub.sent[UNET] == theirs.stat().st_size, "fetched twice"
    code_, _, err = machine.run("models", "rm", "tiny", "--yes")
    assert code_ == ExitCode.DONE and "another tool may use them" in err
    assert theirs.is_file() and not (folder / "vae").exists()


def test_rm_frees_what_the_pull_brought(machine: Machine) -> None:
    folder = Path(machine.pull()[1].strip())
    code, _, err = machine.run("models", "rm", "tiny")
    assert code == ExitCode.USAGE and folder.is_dir(), "nobody was asked"
    code, _, err = machine.run("models", "rm", "tiny", "--yes")
    assert code == ExitCode.DONE and "frees" in err
    assert not (machine.folder / "hf" / "hub" / "models--team--tiny-film").exists()
    assert machine.run("models", "path", "tiny")[0] == ExitCode.WEIGHTS
    assert machine.run("models", "rm", "tiny", "--yes")[0] == ExitCode.USAGE
    assert machine.run("models", "rm", "bundle", "--yes")[0] == ExitCode.USAGE


def test_a_repository_cannot_write_outside_its_folder(machine: Machine) -> None:
    machine.hub.repositories[NAME].files["../../../evil.json"] = b"{}"
    code, _, err = machine.pull()
    assert code == ExitCode.WEIGHTS and "evil.json" in err
    assert not list(machine.folder.rglob("evil.json"))
