"""``models pull``: what of a model's weights is missing, and bringing it here."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.after_pull import make_folder, needs_folder
from gpt4video_cli.weights.card import read_card
from gpt4video_cli.weights.find_generator import INDEX, PIPELINE, known_generators
from gpt4video_cli.weights.find_guard import known_guards
from gpt4video_cli.weights.generator_card import GeneratorCard, read_generator_card
from gpt4video_cli.weights.guard_card import read_guard_card
from gpt4video_cli.weights.hub import Hub, HubFile, Listing, Report, sha256_of
from gpt4video_cli.weights.lock_file import LockedPart, LockFile, every_lock, one_at_a_time, read_lock, write_lock
from gpt4video_cli.weights.sources import AnyCard, Source, needed, sources

AT_ONCE = 4
"""Files that are fetched side by side."""
SPARE = 200e6
"""Bytes of the disk that are left free."""


@dataclass(frozen=True)
class Wanted:
    """A part's repository as it is now, and the files of it that are needed."""

    source: Source
    listing: Listing
    files: tuple[HubFile, ...]


@dataclass(frozen=True)
class PullPlan:
    """What ``pull`` would fetch. Bytes."""

    card: AnyCard
    path: Path
    """The card's file."""
    parts: tuple[Wanted, ...]
    total: int
    here: int
    """Of ``total``, in the cache already."""
    makes_folder: bool
    """Whether the files are converted into a model folder afterwards, which takes about ``total`` bytes more."""

    def licences(self) -> list[str]:
        """The card's, and what the hub states about each repository where that is another."""
        stated = [f"{w.source.repository}: {w.listing.licence}" for w in self.parts if w.listing.licence]
        return [self.card.licence, *dict.fromkeys(stated)]


def find_card(name: str) -> tuple[AnyCard, Path]:
    """The card of a known model and its file. ``UsageError`` for any other name, with the near ones."""
    import difflib

    generators, guards, assistants = known_generators(), known_guards(), locate.known_models()
    if name in generators:
        return read_generator_card(generators[name]), generators[name]
    if name in guards:
        return read_guard_card(guards[name]), guards[name]
    if name in assistants:
        return read_card(assistants[name]), assistants[name]
    known = sorted({**generators, **guards, **assistants})
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "gpt4video models list names the known ones"
    raise UsageError(f"no model {name!r}", hint=hint)


def plan_pull(name: str, hub: Hub) -> PullPlan:
    """What is to be fetched for ``name``: asks the hub for sizes and hashes, and fetches no weights."""
    card, path = find_card(name)
    if not sources(card):
        raise UsageError(f"{name} has no repository to pull from", hint=f"its weights: gpt4video models path {name}")
    parts = []
    for source in sources(card):
        listing = hub.listing(source.repository, source.revision)
        components = _components(hub, listing) if source.part == PIPELINE and not source.files else None
        if source.part == PIPELINE and isinstance(card, GeneratorCard) and components is not None:
            components = [c for c in components if c not in card.parts]
        parts.append(Wanted(source, listing, tuple(needed(source, listing.files, components))))
    each = {(w.listing.repository, file.digest): file for w in parts for file in w.files}
    here = sum(hub.bytes_here(repository, file) for (repository, _), file in each.items())
    return PullPlan(
        card,
        path,
        tuple(parts),
        sum(f.size for f in each.values()),
        here,
        any(needs_folder(w.source, w.files) for w in parts),
    )


def _components(hub: Hub, listing: Listing) -> list[str] | None:
    """The folders that a diffusers folder's index names, fetched first: it is small. None: there is no index."""
    index = next((file for file in listing.files if file.path == INDEX), None)
    if index is None:
        return None
    path = hub.fetch(listing, index, lambda name, done: None, threading.Event())
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [name for name, value in content.items() if isinstance(value, list) and value[:1] != [None]]
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{listing.repository}/{INDEX}: cannot be read as JSON ({error})") from error


def pull(
    plan: PullPlan,
    hub: Hub,
    report: Report = lambda name, done: None,
    *,
    stop: threading.Event | None = None,
    waiting: Callable[[], None] | None = None,
    making: Callable[[], None] | None = None,
) -> Path:
    """Fetch what ``plan`` names, several files at once, and return the folder that the model is loaded from.

    The model counts as complete when the last file is there, checked, and converted where that is needed.
    ``waiting()`` is called if another process pulls the same model, ``making()`` before converting. Raises
    ``WeightsError``; run again, it goes on where it stopped.
    """
    name, stop = plan.card.name, stop or threading.Event()
    with one_at_a_time(name, waiting):
        _check_disk(plan, hub)
        before = read_lock(name)
        parts = {w.source.part: _locked(w, hub) for w in plan.parts}
        done = before is not None and before.complete and before.parts == parts
        if not done:
            write_lock(LockFile(name, parts, complete=False))
        _fetch_all(plan, hub, report, stop)
        folder = locate.models_home() / name if plan.makes_folder else hub.snapshot(plan.parts[0].listing)
        made = before.made if before is not None else {}
        if plan.makes_folder and not (done and folder.is_dir()):
            if making is not None:
                making()
            pulled = [(w.source, hub.snapshot(w.listing), w.files) for w in plan.parts]
            make_folder(plan.card, plan.path, pulled, folder)
            made = {str(path.relative_to(folder)): sha256_of(path) for path in _files_in(folder)}
        write_lock(LockFile(name, parts, complete=True, made=made))
    return folder


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _locked(wanted: Wanted, hub: Hub) -> LockedPart:
    """The lock's part. What the cache holds already and no pull of ours brought is another tool's."""
    listing, files = wanted.listing, wanted.files
    ours = {
        file.digest
        for lock in every_lock().values()
        for part in lock.parts.values()
        if part.repository == listing.repository
        for file in part.files
        if file.path not in part.found
    }
    there = [
        file.path
        for file in files
        if file.path != INDEX and file.digest not in ours and hub.blob(listing.repository, file).is_file()
    ]
    return LockedPart(listing.repository, listing.revision, listing.commit, files, tuple(there))


def _check_disk(plan: PullPlan, hub: Hub) -> None:
    each = {(w.listing.repository, f.digest): f for w in plan.parts for f in w.files}
    rest = sum(file.size - hub.bytes_here(repository, file) for (repository, _), file in each.items())
    needs: dict[Path, float] = {}
    disks: dict[int, Path] = {}
    for place, size in ((hub.cache, rest), (locate.models_home(), plan.total if plan.makes_folder else 0)):
        exists = next(folder for folder in (place, *place.parents) if folder.exists())
        there = disks.setdefault(exists.stat().st_dev, exists)
        needs[there] = needs.get(there, 0) + size
    for there, need in needs.items():
        free = shutil.disk_usage(there).free
        if need and need + SPARE > free:
            raise WeightsError(
                f"{there}: {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
                hint="free some space, or move the caches: HF_HOME, GPT4VIDEO_HOME",
            )


def _fetch_all(plan: PullPlan, hub: Hub, report: Report, stop: threading.Event) -> None:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull") as pool:
        waiting = [pool.submit(hub.fetch, w.listing, file, report, stop) for w in plan.parts for file in w.files]
        try:
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
