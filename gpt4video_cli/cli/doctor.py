"""``gpt4video doctor``: what is installed here and whether it is enough."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt4video_cli import __version__
from gpt4video_cli.cli.folders import data_folder
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain
from gpt4video_cli.cli.terminal import clean_line, print_lines
from gpt4video_cli.errors import ExitCode, Gpt4VideoError
from gpt4video_cli.weights.find_generator import find_generator, generator_folder, known_generators
from gpt4video_cli.weights.locate import DEFAULT_MODEL, find_model, home, known_models

# Name of the distribution, of its module, and what is missing without it. Nothing of these is imported for a version.
REQUIRED = [
    ("torch", "torch", "no model runs"),
    ("transformers", "transformers", "the torch engine cannot run"),
    ("peft", "peft", "adapters cannot be used"),
    ("safetensors", "safetensors", "weights cannot be read"),
    ("tokenizers", "tokenizers", "the torch engine cannot run"),
    ("av", "av", "clips cannot be read"),
    ("numpy", "numpy", "clips cannot be read"),
    ("pillow", "PIL", "pictures cannot be read"),
    ("prompt_toolkit", "prompt_toolkit", "conversations cannot be held"),
    ("platformdirs", "platformdirs", "folders cannot be found"),
    ("huggingface_hub", "huggingface_hub", "models cannot be fetched"),
]
OPTIONAL = [
    ("diffusers", "diffusers", "clips cannot be filmed"),
    ("llama-cpp-python", "llama_cpp", "the llama.cpp engine cannot run"),
]


def doctor(
    json: Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what needs PyTorch: the devices.")] = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Say what is installed and what is missing: packages, devices, engines, models, guards.

    Ends with exit code 1 if something is missing that the program cannot work without.
    """
    report = examine(quick=quick)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json(report)
    else:
        print_lines(map(clean_line_keeping_indent, as_lines(report)))
    return int(ExitCode.FAILED if report["missing"] else ExitCode.DONE)


def examine(*, quick: bool = False) -> dict[str, Any]:
    """Everything that the command reports, ready for JSON. A part that cannot be looked at says why."""
    packages, missing, warnings = _packages()
    models, model_problem = _models()
    if model_problem:
        missing.append(model_problem)
    report: dict[str, Any] = {
        "program": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "packages": packages,
        "ffmpeg": _ffmpeg() if packages["av"] else {},
        "cpu": {"cores": os.cpu_count(), "usable": _usable_cores(), "threads": None},
        "memory_bytes": _memory(),
        "devices": [],
        "engines": _engines(packages),
        "models": models,
        "generators": _generators(),
        "guards": _guards(),
        "folders": _folders(),
        "missing": missing,
        "warnings": [*warnings, *_configuration()],
    }
    if not quick and packages["torch"]:
        try:
            report["devices"], report["cpu"]["threads"] = _devices()
        except Exception as error:  # a broken installation can raise anything, and the rest is still worth showing
            missing.append(f"torch cannot be imported: {type(error).__name__}: {error}")
    return report


def _packages() -> tuple[dict[str, str | None], list[str], list[str]]:
    versions: dict[str, str | None] = {}
    missing: list[str] = []
    warnings: list[str] = []
    for packages, complaints in ((REQUIRED, missing), (OPTIONAL, warnings)):
        for name, module, without in packages:
            try:
                found = util.find_spec(module) is not None
                versions[name] = metadata.version(name) if found else None
            except (metadata.PackageNotFoundError, ImportError, ValueError):
                versions[name] = None
            if versions[name] is None:
                complaints.append(f"{name} is not installed: {without}")
    return versions, missing, warnings


def _configuration() -> list[str]:
    """What is wrong with the configuration file or a variable, if anything is; the first of it."""
    from gpt4video_cli.cli.configuration import settings_by_command

    try:
        settings_by_command()
    except Gpt4VideoError as error:
        return [error.line()]
    return []


def _ffmpeg() -> dict[str, str]:
    try:
        import av

        return {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {error}"}


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> tuple[list[dict[str, Any]], int]:
    import torch

    devices: list[dict[str, Any]] = [{"name": "cpu", "what": platform.processor() or platform.machine()}]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            device = {"name": f"cuda:{index}", "what": properties.name, "memory_bytes": properties.total_memory}
            devices.append(device)
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple GPU"})
    return devices, torch.get_num_threads()


def _engines(packages: dict[str, str | None]) -> dict[str, bool]:
    """Engines of this version whose packages are here."""
    return {
        "torch": bool(packages["torch"] and packages["transformers"]),
        "llama.cpp": bool(packages["llama-cpp-python"]),
    }


def _models() -> tuple[list[dict[str, Any]], str | None]:
    """Every known model, installed or not, and what is wrong with the default one."""
    models: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for name in sorted({DEFAULT_MODEL, *known_models()}):
        try:
            card, folder = find_model(name)
        except Gpt4VideoError as error:
            problems[name] = error.line()
            models.append({"name": name, "installed": False, "problem": problems[name]})
        else:
            place = {"folder": str(folder), "bytes": _size(folder), "gguf": _gguf_files(folder)}
            models.append({"name": name, "installed": True, "summary": card.summary, **place})
    problem = problems.get(DEFAULT_MODEL)
    return models, None if problem is None else f"the default model: {problem}"


def _generators() -> list[dict[str, Any]]:
    """Every known text-to-video model, on this machine or not."""
    found: list[dict[str, Any]] = []
    for name in sorted(known_generators()):
        try:
            known = find_generator(name)
            folder = generator_folder(known).path
        except Gpt4VideoError as error:
            found.append({"name": name, "installed": False, "problem": error.line()})
        else:
            place = {"folder": str(folder), "bytes": _size(folder)}
            found.append({"name": name, "installed": True, "summary": known.card.summary, **place})
    return found


def _gguf_files(folder: Path) -> list[dict[str, Any]]:
    """The model's GGUF files, beside its other weights or in the user's cache folder; llama.cpp runs these."""
    from gpt4video_cli.language.choose_engine import find_gguf_files

    try:
        files = find_gguf_files(folder)
    except (Gpt4VideoError, OSError) as error:
        return [{"problem": clean_line(str(error))}]
    return [{"kind": file.kind, "path": str(file.path), "bytes": _file_size(file.path)} for file in files]


def _guards() -> list[dict[str, Any]]:
    """Every known safety guard, on this machine or not; the first one is part of the program."""
    from gpt4video_cli.safety.gates import BUILTIN
    from gpt4video_cli.weights.find_guard import guard_folder, known_guards
    from gpt4video_cli.weights.guard_card import read_guard_card

    found: list[dict[str, Any]] = [{"name": BUILTIN, "installed": True, "part_of_the_program": True}]
    for name, path in sorted(known_guards().items()):
        try:
            folder = guard_folder(read_guard_card(path), path)
        except Gpt4VideoError as error:
            found.append({"name": name, "installed": False, "problem": error.line()})
        else:
            found.append({"name": name, "installed": True, "folder": str(folder), "bytes": _size(folder)})
    return found


def _folders() -> dict[str, dict[str, Any]]:
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    folders = {"data": data_folder(), "cache": home(), "hub cache": hub.expanduser()}
    return {
        name: {"path": str(folder), "exists": folder.is_dir(), "bytes": _size(folder)}
        for name, folder in folders.items()
    }


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size(folder: Path) -> int:
    """Bytes of all files below ``folder``, links counted as nothing: the hub's cache links to its own files."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            if not os.path.islink(os.path.join(root, name)):
                total += status.st_size
    return total


def as_lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    lines = [f"gpt4video {report['program']}, Python {report['python']}", f"  {report['platform']}", "", "packages"]
    lines += [f"  {name:22}{version or 'not installed'}" for name, version in report["packages"].items()]
    lines += [f"  {'ffmpeg ' + name:22}{version}" for name, version in report["ffmpeg"].items()]
    cpu = report["cpu"]
    threads = f", {cpu['threads']} threads used by PyTorch" if cpu["threads"] else ""
    memory = f", {_human(report['memory_bytes'])} memory" if report["memory_bytes"] else ""
    lines += ["", "devices", f"  {cpu['usable']} of {cpu['cores']} CPU cores{threads}{memory}"]
    for device in report["devices"]:
        memory = f", {_human(device['memory_bytes'])}" if "memory_bytes" in device else ""
        lines.append(f"  {device['name']:18}{device['what']}{memory}")
    lines += ["", "engines"]
    lines += [f"  {name:18}{'ready' if ready else 'packages missing'}" for name, ready in report["engines"].items()]
    for kind in ("models", "generators", "guards"):
        lines += ["", kind]
        for model in report[kind]:
            what = "not installed"
            if model["installed"]:
                own = model.get("part_of_the_program")
                what = "part of the program" if own else f"{_human(model['bytes'])}, {model['folder']}"
            lines.append(f"  {model['name']:20}  {what}")
            for file in model.get("gguf", ()):
                lines.append(
                    f"    {file['problem']}"
                    if "problem" in file
                    else f"    {'GGUF ' + file['kind']:18}  {_human(file['bytes'])}, {file['path']}"
                )
    lines += ["", "folders"]
    for name, folder in report["folders"].items():
        lines.append(f"  {name:18}{_human(folder['bytes']) if folder['exists'] else 'not there yet'}, {folder['path']}")
    lines += [
        "",
        *(f"missing: {text}" for text in report["missing"]),
        *(f"note: {text}" for text in report["warnings"]),
    ]
    if not report["missing"]:
        lines.append("everything needed is here")
    return lines


def clean_line_keeping_indent(line: str) -> str:
    """``clean_line`` for a line that is indented by blanks."""
    return " " * (len(line) - len(line.lstrip(" "))) + clean_line(line)


def _human(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
