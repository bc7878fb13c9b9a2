"""What an installed copy holds: from a wheel, from an editable installation, and from the checkout's root.

All three are made from a copy of the checkout, because building leaves files behind in the source tree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

import gpt4video_cli

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"gpt4video_cli", "gpt4video_kernels", "model_cards"}

LOOK = """
import importlib, importlib.util, json
from importlib.resources import files
from pathlib import Path

def list_files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(str(folder)).rglob("*") if p.is_file()) if folder else []

packages = {}
for name in ["gpt4video_cli", "gpt4video_kernels", "model_cards", "kernels", "tests", "benchmarks", "docs", "examples"]:
    spec = importlib.util.find_spec(name)
    if spec is not None:
        packages[name] = spec.origin
bundle = files("gpt4video_cli.bundle")
print(json.dumps({
    "packages": packages,
    "version": importlib.import_module("gpt4video_cli").__version__,
    "cards": [name for name in list_files(files("model_cards")) if name.endswith(".toml")],
    "bundle": [name for name in list_files(bundle) if name.startswith(("model", "clips"))],
}))
"""


def data_files(folder: Path, *parts: str) -> list[str]:
    """Relative names of all files under ``folder``'s ``parts``."""
    return sorted(str(p.relative_to(folder)) for part in parts for p in (folder / part).rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, with folders that must stay out and data files that must come along."""
    copy = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ["gpt4video_cli", "kernels", "model_cards"]:
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, copy / name)
    for name in ["tests", "benchmarks", "docs", "examples"]:
        (copy / name).mkdir()
        (copy / name / "__init__.py").touch()
    for name in ["model/card.toml", "model/vision/deep/part.safetensors", "model/language/part.json", "clips/part.mp4"]:
        part = copy / "gpt4video_cli" / "bundle" / name
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    (copy / "model_cards" / "part.toml").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(checkout))
    (built,) = out.glob("*.whl")
    return built


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True, stdin=subprocess.DEVNULL)


def installed_look(wheel: Path, folder: Path) -> dict[str, Any]:
    """What a fresh environment sees after installing ``wheel`` without dependencies, started far from the checkout."""
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    seen = subprocess.run(
        [python, "-I", "-c", LOOK], check=True, capture_output=True, text=True, cwd=folder, stdin=subprocess.DEVNULL
    )
    assert (folder / "venv" / "bin" / "gpt4video").exists()
    result: dict[str, Any] = json.loads(seen.stdout)
    return result


def check_look(look: dict[str, Any], checkout: Path) -> None:
    assert set(look["packages"]) == PACKAGES
    assert look["version"] == gpt4video_cli.__version__
    assert look["cards"] == sorted(p.name for p in (checkout / "model_cards").glob("*.toml"))
    assert look["bundle"] == data_files(checkout / "gpt4video_cli" / "bundle", "model", "clips")


def test_wheel_installs_packages_and_data(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    look = installed_look(wheel, tmp_path)
    check_look(look, checkout)
    assert all(Path(origin).is_relative_to(tmp_path) for origin in look["packages"].values())


def test_wheel_holds_every_module_and_nothing_else(wheel: Path, checkout: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == PACKAGES | {f"gpt4video-{gpt4video_cli.__version__}.dist-info"}
    sources = data_files(checkout, "gpt4video_cli", "model_cards") + data_files(
        checkout / "kernels", "gpt4video_kernels"
    )
    assert sorted(name for name in names if name.endswith(".py")) == sorted(s for s in sources if s.endswith(".py"))


def test_editable_installation_finds_packages_and_data(checkout: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_editable; print(build_editable(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=checkout, stdin=subprocess.DEVNULL)
    (editable,) = tmp_path.glob("*.whl")
    look = installed_look(editable, tmp_path)
    check_look(look, checkout)
    assert all(Path(origin).is_relative_to(checkout) for origin in look["packages"].values())


def test_root_of_the_checkout_finds_packages() -> None:
    """As ``python -m pytest`` sees it: the root and ``kernels`` on the path, nothing installed."""
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [str(ROOT), str(ROOT / "kernels")])
        assert spec is not None
        assert spec.origin is not None


def test_kernels_is_not_taken_for_the_package_of_that_name() -> None:
    """In the root, ``kernels`` can be imported as a folder without a file; transformers must not believe in it."""
    spec = PathFinder.find_spec("kernels", [str(ROOT)])
    assert spec is None or spec.origin is None, "kernels/ must have no __init__.py"
    ask = (
        "from importlib.metadata import packages_distributions as installed\n"
        "from transformers.utils import is_kernels_available\n"
        "print(is_kernels_available() and 'kernels' not in installed())"
    )
    seen = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True, cwd=ROOT)
    assert seen.stdout.split()[-1] == "False"


def test_the_bundle_and_the_cards_are_there() -> None:
    assert list((ROOT / "model_cards").glob("*.toml"))
    bundle = ROOT / "gpt4video_cli" / "bundle"
    assert (bundle / "model" / "abstractor.safetensors").is_file()
    assert list((bundle / "clips").glob("*.mp4"))
