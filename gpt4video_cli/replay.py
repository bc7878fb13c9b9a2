"""A kept conversation is run again, and each new answer is compared with the kept one.

Every turn is asked as it was: with the kept conversation before it and with its kept options. So one answer that
differs does not make those after it differ too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.session import Session, Turn
from gpt4video_cli.session_clips import lost_clips
from gpt4video_cli.used_model import UsedModel, place_of, used_model

if TYPE_CHECKING:
    from gpt4video_cli.assistant import Assistant


@dataclass(frozen=True)
class Compared:
    """A turn, counted from 1, as it was kept and as it came out now; ``differs`` lists what is not the same."""

    number: int
    kept: Turn
    again: Turn
    differs: tuple[str, ...]


def replay(assistant: Assistant, session: Session) -> Iterator[Compared]:
    """Ask all turns of ``session`` again, which stays as it is. Clips that are asked for are compared, not filmed.

    Raises ``ClipError`` for a clip that is not what it was, ``UsageError`` where a guard refuses a turn this time.
    """
    for lost in lost_clips(session.clips):
        raise lost.error("put the file back to replay the conversation")
    again = assistant.new_session()
    for number, kept in enumerate(session.turns, start=1):
        for _ in assistant.reply(again, kept.message(), kept.options):
            pass
        if len(again.turns) < number:  # a guard refused what it had let pass
            raise UsageError(f"turn {number} was refused this time", hint="replay with the guards it was made with")
        new = again.turns[-1]
        yield Compared(number, kept, new, _differences(kept, new))
        again.turns[-1] = kept


def _differences(kept: Turn, new: Turn) -> tuple[str, ...]:
    if kept.finish_reason == "cancelled":  # stopped by a person somewhere: what there was must be how it begins
        same = new.written.startswith(kept.written)
        return () if same else ("answer",)
    found = []
    if new.answer != kept.answer:
        found.append("answer")
    if new.prompts != kept.prompts:
        found.append("prompts")
    return tuple(found)


def model_of(session: Session) -> tuple[str, UsedModel]:
    """The name or folder of the model that answered all turns, and what it was.

    Raises ``UsageError`` where there are several, or where nobody knows which it was.
    """
    hint = "-m MODEL replays it on a model of your choice"
    used = {(turn.model, turn.used) for turn in session.turns}
    if not used:
        raise UsageError("the conversation is empty: there is nothing to replay")
    if len(used) > 1:
        raise UsageError(f"{len(used)} models, engines or adapters took part in the conversation", hint=hint)
    ((name, record),) = used
    if record is None:
        raise UsageError("the conversation does not say which weights answered", hint=hint)
    return place_of(name, record.folder), record


def check_same(assistant: Assistant, record: UsedModel) -> None:
    """Raise ``WeightsError`` if what ``assistant`` loaded is not what answered."""
    if not record.is_same(used_model(assistant.model)):
        raise WeightsError(
            f"the model at {assistant.model.folder} is not the one that answered: its weights differ",
            hint="-m MODEL replays the conversation on it all the same",
        )
