"""What the replies and films of one job were made of, event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpt4video_cli.batch.job_errors import JobRefusedError
from gpt4video_cli.events import ClipReady, ClipSeen, Done, Event, GenerationPrompt, Notice, Refusal, Screened
from gpt4video_cli.gallery.delivery import film_as_dict


@dataclass
class Conversation:
    """Ready for JSON, but for ``done``. ``prompts``: clips that were asked for; ``films``: those that were filmed."""

    done: list[Done] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    clips: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    films: list[dict[str, Any]] = field(default_factory=list)

    def note(self, event: Event) -> None:
        """Keep what ``event`` says. Raises ``JobRefusedError`` for a refusal."""
        match event:
            case ClipSeen():
                seen = {"number": event.number, "path": event.path, "seconds": event.seconds}
                self.clips.append(seen | {"receipt": event.receipt})
            case GenerationPrompt():
                self.prompts.append(event.prompt)
            case Screened():
                self.verdicts.append(event.verdict.as_dict())
            case Notice():
                self.notices.append(event.text)
            case Refusal():
                raise JobRefusedError(event)
            case ClipReady() if event.film is not None:
                self.films.append(film_as_dict(event.film, event.path, metadata=True))
            case Done():
                self.done.append(event)
