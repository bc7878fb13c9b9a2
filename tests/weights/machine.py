"""A person's machine as far as pulling goes: folders of its own, a card, and the program as a shell starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.weights.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
NAME = "team/tiny-film"
UNET = "transformer/diffusion_pytorch_model.safetensors"


@dataclass
class Machine:
    """A person's machine, with a card of their own that names the repository."""

    folder: Path
    hub: HubServer
    card: str

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
        own = {
            "HOME": str(self.folder),
            "GPT4VIDEO_HOME": str(self.folder / "gpt4video"),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "TERM": "xterm",
        }
        return {**kept, **own, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), **more}

    def write_card(self, name: str = "tiny", repository: str = NAME, more: str = "") -> None:
        path = self.folder / "gpt4video" / "cards" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.card.replace('name = "random"', f'name = "{name}"\nrepository = "{repository}"\n{more}')
        path.write_text(text)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gpt4video_cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**more),
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def pull(self, *more: str, **environment: str) -> tuple[int, str, str]:
        return self.run("models", "pull", "tiny", "--yes", *more, **environment)

    def lock(self, name: str = "tiny") -> dict[str, object]:
        return json.loads((self.folder / "gpt4video" / "locks" / f"{name}.json").read_text())  # type: ignore[no-any-return]

    def incomplete(self) -> list[Path]:
        return sorted((self.folder / "hf").rglob("*.incomplete"))
