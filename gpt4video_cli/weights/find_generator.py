"""Where text-to-video models are: a folder with a card, or a card's name with weights in a folder or the hub's cache.

Nothing here touches the network: what is not on this machine is an error that names the command which fetches it.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.card import FILE_NAME, card_kind
from gpt4video_cli.weights.generator_card import KIND, GeneratorCard, read_generator_card
from gpt4video_cli.weights.lock_file import read_lock

DEFAULT_GENERATOR = "bundle-film"
INDEX = "model_index.json"
PIPELINE = "pipeline"
"""The part of a lock file that is a whole diffusers folder."""
_PACKAGE = "package:"


@dataclass(frozen=True)
class FoundGenerator:
    """A card and the file that it was read from; the weights may be missing yet."""

    card: GeneratorCard
    path: Path


@dataclass(frozen=True)
class GeneratorFolder:
    """The weights on this machine: a folder with a ``model_index.json``, folders of parts that lie elsewhere."""

    path: Path
    parts: dict[str, Path]


def known_generators() -> dict[str, Path]:
    """Name -> card file of the text-to-video models; see ``locate.known_cards``."""
    return {name: path for name, path in locate.known_cards().items() if card_kind(path) == KIND}


def find_generator(name_or_dir: str | Path) -> FoundGenerator:
    """The card for a known name, or in a folder. A name goes before a folder of that name; ``./NAME`` is the folder.

    Raises ``UsageError`` for a name that nobody knows, with the near ones.
    """
    text = str(name_or_dir)
    known = known_generators()
    if isinstance(name_or_dir, str) and text in known:
        return FoundGenerator(read_generator_card(known[text]), known[text])
    folder = Path(name_or_dir).expanduser()
    if text and folder.is_dir():
        if not (folder / FILE_NAME).is_file():
            raise UsageError(f"{folder}: no {FILE_NAME} in this folder", hint="a model folder has a card")
        return FoundGenerator(read_generator_card(folder / FILE_NAME), folder / FILE_NAME)
    if text and folder.exists():
        raise UsageError(f"{folder}: a generator is a folder, this is a file")
    near = difflib.get_close_matches(text.lower(), known, n=3, cutoff=0.5)
    near = near or [name for name in sorted(known) if text.lower() in name][:3] if text else near
    hint = f"did you mean {' or '.join(near)}?" if near else f"known generators: {', '.join(sorted(known)) or 'none'}"
    raise UsageError(f"no generator {text!r}: neither a known name nor a folder", hint=hint)


def generator_folder(found: FoundGenerator) -> GeneratorFolder:
    """Where the weights of a card are. Raises ``WeightsError`` with the command that gets them."""
    card = found.card
    beside = found.path.parent if found.path.name == FILE_NAME else locate.models_home() / card.name
    if card.folder is not None and card.folder.startswith(_PACKAGE):
        folder: Path | None = _package_folder(card.folder.removeprefix(_PACKAGE), found.path)
    elif card.folder is not None:
        start = found.path.parent if found.path.name == FILE_NAME else locate.home()
        folder = start / Path(card.folder).expanduser()
    elif (beside / INDEX).is_file() or card.repository is None:
        folder = beside
    else:
        folder = _cached(card.repository, _commit(card, PIPELINE, card.revision), INDEX)
    if folder is None or not (folder / INDEX).is_file():
        raise _not_here(card, f"{folder}: no {INDEX}" if folder else f"{card.repository} is not on this machine")
    parts = {}
    for name, part in card.parts.items():
        place = folder / name if (folder / name).is_dir() else None
        place = place or _cached(part.repository, _commit(card, name, part.revision), "config.json")
        if place is None:
            raise _not_here(card, f"its {name} ({part.repository}) is not on this machine")
        parts[name] = place
    index = read_index(folder)
    for name in index:
        if name not in parts and not (folder / name).is_dir():
            raise _not_here(card, f"{folder / name}: this part is missing")
    return GeneratorFolder(folder, parts)


def _commit(card: GeneratorCard, part: str, revision: str | None) -> str | None:
    """The commit that was pulled, else the card's revision. An interrupted pull is a ``WeightsError``."""
    lock = read_lock(card.name)
    if lock is None:
        return revision
    if not lock.complete:
        raise WeightsError(
            f"generator {card.name!r}: its download was interrupted",
            hint=f"gpt4video models pull {card.name} goes on with it",
        )
    return lock.parts[part].commit if part in lock.parts else revision


def read_index(folder: Path) -> dict[str, tuple[str, str]]:
    """Component -> (library, class), of the components that ``model_index.json`` has."""
    return {
        name: (str(value[0]), str(value[1]))
        for name, value in _components(folder).items()
        if all(isinstance(item, str) for item in value)
    }


def left_out(folder: Path) -> list[str]:
    """Components that the model was saved without, such as a safety checker: null in ``model_index.json``."""
    return [name for name, value in _components(folder).items() if value == [None, None]]


def _components(folder: Path) -> dict[str, list[Any]]:
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return {name: value for name, value in content.items() if isinstance(value, list) and len(value) == 2}


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The settings of the scheduler that the model was saved with."""
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{path}: cannot be read as JSON ({error})", hint="the model folder is incomplete"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return content


def _not_here(card: GeneratorCard, what: str) -> WeightsError:
    get = "its folder is incomplete"
    if card.repository:
        get = f"get it with: gpt4video models pull {card.name}"
    elif card.folder is not None and card.folder.startswith(_PACKAGE):
        get = "its weights are not in this installation; --generator names another, --no-generate films nothing"
    return WeightsError(f"generator {card.name!r}: {what}", hint=get)


def _cached(repository: str, revision: str | None, file: str) -> Path | None:
    """The snapshot of a hub repository in the hub's own cache, or None. Looks at the disk only."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _package_folder(place: str, card: Path) -> Path:
    package, _, inside = place.partition("/")
    try:
        return Path(str(resources.files(package))) / inside
    except (ModuleNotFoundError, TypeError) as error:
        raise WeightsError(f"{card}: folder names the package {package!r}, which is not installed") from error
