"""Where guards are: a card's name with weights in a folder or in the hub's cache. Nothing here touches the network."""

from __future__ import annotations

from pathlib import Path

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.card import FILE_NAME, card_kind
from gpt4video_cli.weights.guard_card import KIND, GuardCard, read_guard_card
from gpt4video_cli.weights.lock_file import read_lock

CONFIG = "config.json"
WHOLE = "guard"
"""The part of a lock file that is a whole guard."""


def known_guards() -> dict[str, Path]:
    """Name -> card file of the guards; see ``locate.known_cards``."""
    return {name: path for name, path in locate.known_cards().items() if card_kind(path) == KIND}


def guard_folder(card: GuardCard, path: Path) -> Path:
    """Where the weights of ``card``, read from ``path``, are. Raises ``WeightsError`` with the command that gets them.

    Beside the card; else in a folder that it names; else where a pull put them or the hub's cache has them.
    """
    beside = path.parent if path.name == FILE_NAME else locate.models_home() / card.name
    if card.folder is not None:
        start = path.parent if path.name == FILE_NAME else locate.home()
        folder: Path | None = start / Path(card.folder).expanduser()
    elif (beside / CONFIG).is_file() or card.repository is None:
        folder = beside
    else:
        folder = _pulled(card)
    if folder is None or not (folder / CONFIG).is_file():
        what = f"{folder}: no {CONFIG}" if folder else f"{card.repository} is not on this machine"
        get = f"get it with: gpt4video models pull {card.name}" if card.repository else "its folder is incomplete"
        raise WeightsError(f"guard {card.name!r}: {what}", hint=get)
    return folder


def installed_guards() -> dict[str, tuple[GuardCard, Path]]:
    """Name -> card and folder of the guards whose weights are on this machine, whole.

    Raises ``WeightsError`` for a card that cannot be read: a guard that somebody relies on must not vanish silently.
    """
    found = {}
    for name, path in known_guards().items():
        card = read_guard_card(path)
        try:
            found[name] = card, guard_folder(card, path)
        except WeightsError:
            if (lock := read_lock(name)) is not None and lock.complete:  # it was here: it is not to go unnoticed
                raise
    return found


def _pulled(card: GuardCard) -> Path | None:
    """The snapshot in the hub's cache that a pull brought, or of the card's revision; None where it is not there."""
    from huggingface_hub import constants

    assert card.repository is not None
    lock = read_lock(card.name)
    if lock is not None and not lock.complete:
        raise WeightsError(
            f"guard {card.name!r}: its download was interrupted",
            hint=f"gpt4video models pull {card.name} goes on with it",
        )
    revision = lock.parts[WHOLE].commit if lock is not None and WHOLE in lock.parts else card.revision
    if not (Path(constants.HF_HUB_CACHE) / f"models--{card.repository.replace('/', '--')}").is_dir():
        return None  # the usual case, without an import that would cost every start 0.17 s
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(card.repository, CONFIG, revision=revision)
    return Path(found).parent if isinstance(found, str) else None
