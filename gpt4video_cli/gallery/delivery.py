"""A film becomes files: the clip, its side-car, and away with the latents that were kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.gallery.clip_file import side_car_path, write_clip
from gpt4video_cli.gallery.generator import Film, FilmRequest
from gpt4video_cli.gallery.latents_file import latents_path
from gpt4video_cli.gallery.side_car import SideCar, metadata_of, write_side_car
from gpt4video_cli.safety.verdict import Verdict


@dataclass(frozen=True)
class FilmOrder:
    """What to film and where to put it. ``number`` counts the clips of one wish from 1. A ``clip``
    that is text may end in ``/``, which makes it a folder of pictures.

    ``metadata``: describe the clip in a side-car and in its own file. ``resume``: latents of an earlier run, to be
    decoded instead of filming ``request``.
    """

    request: FilmRequest
    clip: Path | str
    number: int = 1
    force: bool = False
    metadata: bool = True
    resume: Path | None = None

    @property
    def latents(self) -> Path:
        """Where the latents are until the clip is written."""
        return self.resume or latents_path(Path(self.clip))


def deliver(film: Film, order: FilmOrder, verdicts: Sequence[Verdict] = ()) -> Path:
    """Write the clip and its side-car, each whole, then remove the latents; returns the clip's path.

    ``verdicts``: of the gates that the clip passed, for the side-car. A killed run leaves the latents, or the clip, or
    both, and nothing else.
    """
    described = describe(film, order.number, verdicts) if order.metadata else None
    metadata = None if described is None else metadata_of(described)
    path = write_clip(order.clip, film.frames, film.fps, metadata=metadata, force=order.force)
    if described is not None:
        write_side_car(path, described, force=order.force)
    order.latents.unlink(missing_ok=True)
    return path


def describe(film: Film, number: int = 1, verdicts: Sequence[Verdict] = ()) -> SideCar:
    """How ``film`` was made, enough to make it again."""
    request = film.request
    return SideCar(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt or "",
        model=film.model,
        revision=film.revision,
        seed=request.seed,
        settings=settings_of(film),
        sample=number,
        verdicts=tuple(verdict.as_dict() for verdict in verdicts),
    )


def film_as_dict(film: Film, path: str, *, metadata: bool) -> dict[str, Any]:
    """Everything about the film that was written to ``path``, ready for JSON, without its frames."""
    request = film.request
    return {
        "path": path,
        "side_car": str(side_car_path(path)) if metadata else None,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "model": film.model,
        "revision": film.revision,
        "settings": settings_of(film),
        "seconds": {name: round(value, 4) for name, value in film.seconds.items()},
    }


def settings_of(film: Film) -> dict[str, Any]:
    """All settings but prompt and seed, as plain JSON."""
    settings = {name: value for name, value in asdict(film.request).items() if value is not None}
    for name in ("prompt", "negative_prompt", "seed"):
        settings.pop(name)
    return {**settings, "dtype": film.dtype, "device": film.device, **film.loading}
