"""Where models are: the cards that ship with the program, the folder of what was converted or trained, or any path."""

from __future__ import annotations

import difflib
import os
from importlib import resources
from pathlib import Path

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.card import FILE_NAME, Card, card_kind, read_card
from gpt4video_cli.weights.generator_card import KIND as GENERATOR
from gpt4video_cli.weights.guard_card import KIND as GUARD

DEFAULT_MODEL = "bundle"
_PACKAGE = "package:"


def home() -> Path:
    """Where what we convert, train and keep lies: ``GPT4VIDEO_HOME``, else the user's cache folder. May not exist."""
    chosen = os.environ.get("GPT4VIDEO_HOME")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("gpt4video"))


def models_home() -> Path:
    """Folder of converted and trained models, one folder each."""
    return home() / "models"


def cards_folder() -> Path:
    """The cards that ship with the program: found in a wheel, in an editable install and in a bare checkout."""
    try:
        return Path(str(resources.files("model_cards")))
    except ModuleNotFoundError:  # the program was started with another folder's Python path
        return Path(__file__).resolve().parents[2] / "model_cards"


def user_cards_folder() -> Path:
    """The user's own cards, which go before those that ship: GPT4VIDEO_HOME/cards, else in the configuration folder."""
    if os.environ.get("GPT4VIDEO_HOME"):
        return home() / "cards"
    import platformdirs

    return Path(platformdirs.user_config_dir("gpt4video")) / "cards"


def known_cards() -> dict[str, Path]:
    """Name -> card file of every kind: of ``models_home()``, of those that ship, of the user's; the later win."""
    # Hidden folders are being made, or a killed run left them.
    own = {path.parent.name: path for path in sorted(models_home().glob(f"[!.]*/{FILE_NAME}"))}
    shipped = {path.stem: path for path in sorted(cards_folder().glob("*.toml"))}
    users = {path.stem: path for path in sorted(user_cards_folder().glob("*.toml"))}
    return own | shipped | users


def known_models() -> dict[str, Path]:
    """Name -> card file of the assistants. ``find_generator.py`` and ``find_guard.py`` find the other kinds."""
    return {name: path for name, path in known_cards().items() if card_kind(path) not in (GENERATOR, GUARD)}


def find_model(name_or_dir: str | Path) -> tuple[Card, Path]:
    """The card and the model folder for a known name, or for a folder with a ``card.toml``.

    A bare name is looked up among the known models first, so that a folder which happens to be called ``bundle`` does
    not take the default model's place; write ``./bundle`` for that folder.
    """
    text = str(name_or_dir)
    known = known_models()
    if isinstance(name_or_dir, str) and text in known:
        return from_card(known[text])
    folder = Path(name_or_dir).expanduser()
    if folder.is_dir():
        if not (folder / FILE_NAME).is_file():
            raise WeightsError(f"{folder}: no {FILE_NAME} in this folder", hint="a model folder has a card")
        return from_card(folder / FILE_NAME)
    if folder.exists():
        raise WeightsError(f"{folder}: a model is a folder, this is a file")
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known models: {', '.join(sorted(known)) or 'none'}"
    raise WeightsError(f"no model {text!r}: neither a known name nor a folder", hint=hint)


def from_card(path: Path) -> tuple[Card, Path]:
    """A card's weights are beside it; else in a package's data; else on a path, from ``home()`` for shipped cards.

    Raises ``WeightsError`` where they are not there, with the command that gets them.
    """
    card = read_card(path)
    if card.folder is None:
        folder = path.parent if path.name == FILE_NAME else models_home() / card.name
    elif card.folder.startswith(_PACKAGE):
        folder = _package_folder(card.folder.removeprefix(_PACKAGE), path)
    else:
        start = path.parent if path.name == FILE_NAME else home()
        folder = start / Path(card.folder).expanduser()
    if not folder.is_dir():
        if card.parts:
            raise WeightsError(
                f"model {card.name!r} is not on this machine", hint=f"get it with: gpt4video models pull {card.name}"
            )
        raise WeightsError(
            f"model {card.name!r}: its folder {folder} is not there", hint="its weights were not fetched"
        )
    return card, folder


def _package_folder(place: str, card: Path) -> Path:
    package, _, inside = place.partition("/")
    try:
        return Path(str(resources.files(package))) / inside
    except (ModuleNotFoundError, TypeError) as error:
        raise WeightsError(f"{card}: folder names the package {package!r}, which is not installed") from error
