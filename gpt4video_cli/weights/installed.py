"""What of the known models is on this machine, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.find_generator import FoundGenerator, generator_folder, known_generators
from gpt4video_cli.weights.find_guard import guard_folder, known_guards
from gpt4video_cli.weights.generator_card import GeneratorCard
from gpt4video_cli.weights.guard_card import GuardCard
from gpt4video_cli.weights.hub import INCOMPLETE, HubFile, digest_of, disk_errors, sha256_of
from gpt4video_cli.weights.lock_file import LockedPart, LockFile, every_lock, lock_path, one_at_a_time, read_lock
from gpt4video_cli.weights.pull import find_card
from gpt4video_cli.weights.sources import AnyCard, sources

INSTALLED, PARTIAL, AVAILABLE, MISSING = "installed", "partial", "available", "missing"
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.0, "4bit": 0.5}
"""Of one parameter; 8 and 4 bits without what their scales take."""


@dataclass(frozen=True)
class Entry:
    """A known model. ``bytes``: on the disk, else about what will be fetched, None where nobody knows."""

    name: str
    kind: str
    """``assistant``, ``generator`` or ``guard``."""
    state: str
    """``installed``; ``partial``: a pull was interrupted; ``available``: can be pulled; ``missing``: cannot."""
    bytes: int | None
    licence: str
    summary: str


def entries() -> list[Entry]:
    """All known models, installed ones first. A card that cannot be read is shown as missing, with the reason."""
    kinds = (("assistant", locate.known_models()), ("generator", known_generators()), ("guard", known_guards()))
    found = []
    for kind, names in kinds:
        for name in names:
            try:
                card, path = find_card(name)
            except Gpt4VideoError as error:
                found.append(Entry(name, kind, MISSING, None, "?", str(error)))
                continue
            found.append(_entry(kind, name, card, path))
    return sorted(found, key=lambda e: ((INSTALLED, PARTIAL, AVAILABLE, MISSING).index(e.state), e.kind, e.name))


def _entry(kind: str, name: str, card: AnyCard, path: Path) -> Entry:
    try:
        folder = folder_of(card, path)
        return Entry(name, kind, INSTALLED, folder_bytes(folder), card.licence, card.summary)
    except Gpt4VideoError:
        pass
    if not sources(card):
        return Entry(name, kind, MISSING, None, card.licence, card.summary)
    size = None if card.parameters is None else int(card.parameters * BYTES["float16"])
    try:
        lock = read_lock(name)
    except Gpt4VideoError:
        lock = None
    state = AVAILABLE if lock is None else PARTIAL
    return Entry(name, kind, state, lock.bytes() if lock else size, card.licence, card.summary)


def folder_of(card: AnyCard, path: Path) -> Path:
    """Where the weights of a card are, complete. Raises ``WeightsError`` with what to do."""
    if isinstance(card, GeneratorCard):
        return generator_folder(FoundGenerator(card, path)).path
    if isinstance(card, GuardCard):
        return guard_folder(card, path)
    return locate.from_card(path)[1]


def folder_bytes(folder: Path) -> int:
    """Of all files below ``folder``, links followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def faults(name: str) -> tuple[int, list[str]]:
    """Hash all files that were pulled for ``name`` again: how many, and a line for each that is not what it was.

    Raises ``UsageError`` for a name that is not known, with the near ones, and for a model that was not pulled.
    """
    find_card(name)
    lock = read_lock(name)
    if lock is None:
        raise UsageError(f"{name} was not pulled, so there are no hashes to compare with")
    found, count = [], 0
    for part in lock.parts.values():
        for file in part.files:
            path = _snapshot(part) / file.path
            count += 1
            if not path.is_file():
                found.append(f"{path}: is missing")
            elif path.stat().st_size != file.size:
                found.append(f"{path}: has {path.stat().st_size} bytes instead of {file.size}")
            elif digest_of(path, file) != file.digest:
                found.append(f"{path}: its content changed since it was pulled")
    folder = locate.models_home() / name
    for place, digest in lock.made.items():
        count += 1
        if not (folder / place).is_file():
            found.append(f"{folder / place}: is missing")
        elif sha256_of(folder / place) != digest:
            found.append(f"{folder / place}: its content changed since it was converted")
    if not lock.complete:
        found.append(f"{name}: its pull was interrupted; gpt4video models pull {name} goes on")
    return count, found


def drop_faulty(name: str) -> None:
    """Take the files of ``name`` that do not hash to what was pulled out of the cache, so that a pull fetches them."""
    find_card(name)
    lock = read_lock(name)
    for part in lock.parts.values() if lock else ():
        for file in part.files:
            path = _snapshot(part) / file.path
            if path.is_file() and digest_of(path, file) != file.digest:
                path.resolve().unlink()
                path.unlink(missing_ok=True)
    folder = locate.models_home() / name
    if lock and any(not (folder / f).is_file() or sha256_of(folder / f) != digest for f, digest in lock.made.items()):
        shutil.rmtree(folder, ignore_errors=True)  # pull converts it again


@dataclass(frozen=True)
class Removal:
    """What ``models rm`` would do. ``kept``: lines about what stays, and why."""

    name: str
    folder: Path | None
    parts: tuple[tuple[LockedPart, tuple[HubFile, ...]], ...]
    """Files of the hub's cache that go, by part."""
    bytes: int
    kept: tuple[str, ...]


def plan_removal(name: str) -> Removal:
    """What belongs to ``name`` alone: its folder, and of the hub's cache what its pull brought and nobody else uses.

    Raises ``UsageError`` for a model that is part of the installation or is not here.
    """
    card, _ = find_card(name)
    if card.folder is not None:
        raise UsageError(f"{name} is not one that was pulled: its card points to {card.folder}")
    lock, folder = read_lock(name), locate.models_home() / name
    if lock is None and not folder.is_dir():
        raise UsageError(f"{name} is not on this machine")
    size = folder_bytes(folder) if folder.is_dir() else 0
    parts, kept = [], []
    others = {other: value for other, value in every_lock().items() if other != name}
    for part in lock.parts.values() if lock else ():
        users = _users(part, others)
        going = tuple(f for f in part.files if f.path not in part.found and f.digest not in users)
        size += sum(_bytes_of(part, file) for file in going)
        parts.append((part, going))
        shared = sorted({users[file.digest] for file in part.files if file.digest in users})
        if shared:
            kept.append(f"{part.repository}: used by {', '.join(shared)} too")
        if part.found:
            kept.append(f"{part.repository}: {len(part.found)} files were here before, another tool may use them")
    return Removal(name, folder if folder.is_dir() else None, tuple(parts), size, tuple(kept))


def _users(part: LockedPart, others: dict[str, LockFile]) -> dict[str, str]:
    """Hash -> another model that pulled the same file of the same repository."""
    return {
        file.digest: name
        for name, lock in others.items()
        for other in lock.parts.values()
        if other.repository == part.repository
        for file in other.files
    }


def remove(removal: Removal) -> None:
    """Do what ``plan_removal`` said. The lock file goes first: a model that is half removed is not taken for whole."""
    with one_at_a_time(removal.name), disk_errors(lock_path(removal.name)):
        lock_path(removal.name).unlink(missing_ok=True)
        if removal.folder is not None:
            shutil.rmtree(removal.folder)
        for part, files in removal.parts:
            _drop(part, files)


def _drop(part: LockedPart, files: tuple[HubFile, ...]) -> None:
    """Unlink ``files`` from their snapshot, and their bytes where no other snapshot of the repository has them."""
    snapshot = _snapshot(part)
    for file in files:
        (snapshot / file.path).unlink(missing_ok=True)
    used = {path.resolve().name for path in (snapshot.parent).rglob("*") if path.is_symlink()}
    for file in files:
        blob = snapshot.parents[1] / "blobs" / file.digest
        if file.digest not in used:
            blob.unlink(missing_ok=True)
        blob.with_name(blob.name + INCOMPLETE).unlink(missing_ok=True)
    for folder in sorted((path for path in snapshot.rglob("*") if path.is_dir()), reverse=True):
        _remove_empty(folder)
    if _remove_empty(snapshot):
        for ref in (snapshot.parents[1] / "refs").rglob("*"):
            if ref.is_file() and ref.read_text(encoding="utf-8").strip() == part.commit:
                ref.unlink()
    for folder in (snapshot.parent, snapshot.parents[1] / "blobs"):
        _remove_empty(folder)
    if not (snapshot.parents[1] / "snapshots").exists() and not (snapshot.parents[1] / "blobs").exists():
        shutil.rmtree(snapshot.parents[1], ignore_errors=True)  # only notes of commits are left


def _remove_empty(folder: Path) -> bool:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        return True
    return False


def _bytes_of(part: LockedPart, file: HubFile) -> int:
    blob = _snapshot(part).parents[1] / "blobs" / file.digest
    return next((p.stat().st_size for p in (blob, blob.with_name(blob.name + INCOMPLETE)) if p.is_file()), 0)


def _snapshot(part: LockedPart) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{part.repository.replace('/', '--')}" / "snapshots" / part.commit


def path_of(name: str) -> Path:
    """The folder that ``name`` is loaded from. Raises ``WeightsError`` where it is not here or not whole."""
    card, path = find_card(name)
    folder = folder_of(card, path)
    if not folder.is_dir():
        raise WeightsError(f"{name}: its folder {folder} is not there")
    return folder


def about(name: str) -> dict[str, Any]:
    """All that is known of a model, in the order in which a person reads it; JSON-ready."""
    card, path = find_card(name)
    kind = {GeneratorCard: "generator", GuardCard: "guard"}.get(type(card), "assistant")
    entry = _entry(kind, name, card, path)
    found: dict[str, Any] = {
        "name": name,
        "summary": card.summary,
        "kind": kind,
        "licence": card.licence,
        "state": entry.state,
        "folder": str(folder_of(card, path)) if entry.state == INSTALLED else None,
        "size": entry.bytes,
        "parameters": card.parameters,
    }
    if card.parameters:
        found["memory of the weights"] = {k: f"{card.parameters * b / 1e9:.1f} GB" for k, b in BYTES.items()}
    found["repositories"] = [f"{s.repository} ({s.part}, {s.revision or 'main'})" for s in sources(card)]
    lock = read_lock(name)
    if lock is not None:
        found["commits"] = {f"{part} ({locked.repository})": locked.commit for part, locked in lock.parts.items()}
    if isinstance(card, GeneratorCard):
        found["pipeline"] = card.pipeline
        found["defaults"] = {key: value for key, value in asdict(card.defaults).items() if value != ""}
        found["memory of a clip"] = None if card.memory_gb is None else f"{card.memory_gb} GB"
    elif isinstance(card, GuardCard):
        found["judges"] = "text" if card.judges_text else "pictures"
        found["labels"] = dict(card.labels)
    else:
        names = ("template", "frames", "mode", "temperature", "top_p", "max_tokens")
        found["defaults"] = {key: getattr(card, key) for key in names}
    found |= {"made from": card.made_from, "cite": card.citation, "limits": list(card.limits), "card": str(path)}
    found["measured"] = dict(card.measured)
    return {key: value for key, value in found.items() if value not in (None, "", {}, [])}
