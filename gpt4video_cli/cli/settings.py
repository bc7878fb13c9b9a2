"""What ``/set`` changes and ``/video``'s options mean, during one conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt4video_cli.cli.chat_films import FilmWishes
from gpt4video_cli.cli.options import answer_options, parse_size, sampling_plan
from gpt4video_cli.cli.typed_paths import split_paths
from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.session import ClipRequest
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.find_generator import find_generator


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError
    return text == "on"


@dataclass(frozen=True)
class _Setting:
    read: Callable[[str], Any]
    kind: str
    about: str


SETTINGS: dict[str, _Setting] = {
    "temperature": _Setting(float, "a number", "0: the likeliest words; above: varied"),
    "top-p": _Setting(float, "a number", "choose among words of this total chance"),
    "top-k": _Setting(int, "a whole number", "choose among the K likeliest words; 0: all"),
    "repetition-penalty": _Setting(float, "a number", "above 1: repeat less"),
    "seed": _Setting(int, "a whole number", "the same seed gives the same answer"),
    "max-tokens": _Setting(int, "a whole number", "longest answer, in tokens"),
    "stop": _Setting(lambda text: (text,), "a text", "end the answer before this text"),
    "frames": _Setting(int, "a whole number", "moments to look at in the next clips"),
    "fps": _Setting(float, "a number", "moments a second in the next clips, instead of frames"),
    "max-frames": _Setting(int, "a whole number", "with fps: at most so many"),
    "sampling": _Setting(str, "exact or keyframe", "how the next clips are looked at"),
    "receipts": _Setting(_switch, "on or off", "say which moments of a clip were seen"),
    "preview": _Setting(_switch, "on or off", "draw frames in the terminal"),
    "save": _Setting(_switch, "on or off", "keep the conversation (gpt4video sessions)"),
    "generate": _Setting(str, "ask, yes or no", "what happens when the model asks for a clip"),
    "generator": _Setting(str, "a name or a folder", "which text-to-video model films"),
    "film-seed": _Setting(int, "a whole number", "the same seed gives the same clip"),
    "film-frames": _Setting(int, "a whole number", "frames of the clips to film"),
    "film-fps": _Setting(float, "a number", "frames shown in a second"),
    "film-size": _Setting(parse_size, "WIDTHxHEIGHT", "in pixels"),
    "film-steps": _Setting(int, "a whole number", "steps of denoising"),
    "film-guidance": _Setting(float, "a number", "how closely to follow the prompt"),
    "film-scheduler": _Setting(str, "a name", "ddim, dpm++2m, euler, unipc, flow-euler, ..."),
    "film-negative": _Setting(str, "a text", "what the clips shall not show"),
}
_FILM = {name: name.removeprefix("film-") for name in SETTINGS if name.startswith("film-")} | {
    "film-negative": "negative_prompt"
}
_SWITCHES = ("receipts", "preview", "save")
_PLAN = ("frames", "fps", "max-frames", "sampling")


class Settings:
    """The present values. A wrong value changes nothing and raises ``UsageError``."""

    def __init__(
        self,
        card: Card,
        plan: SamplingPlan,
        answer: SamplingOptions,
        *,
        receipts: bool,
        preview: bool = True,
        film: FilmWishes | None = None,
        save: bool = True,
    ) -> None:
        self._card = card
        self.film = film or FilmWishes()
        self.answer = answer
        self.receipts = receipts
        self.preview = preview
        self.save = save
        # A range or times belong to the clips they were given with; how densely to look holds for the next ones too.
        self.plan = SamplingPlan(
            frames=plan.frames or (None if plan.fps else card.frames),
            fps=plan.fps,
            max_frames=plan.max_frames,
            mode=plan.mode,
        )
        self._first = self._all()

    def _all(self) -> tuple[SamplingOptions, SamplingPlan, bool, bool, bool, FilmWishes]:
        return self.answer, self.plan, self.receipts, self.preview, self.save, self.film

    def value(self, name: str) -> Any:
        """The present value of a setting."""
        field = name.replace("-", "_")
        if name in _SWITCHES:
            return getattr(self, name)
        if name == "sampling":
            return self.plan.mode
        if name == "generate":
            return self.film.mode
        if name == "generator":
            return self.film.generator
        if name == "film-size":
            wanted = self.film.request
            return {name: side for name in ("width", "height") if (side := getattr(wanted, name)) is not None}
        if name in _FILM:
            return getattr(self.film.request, _FILM[name])
        return getattr(self.plan if name in _PLAN else self.answer, field)

    def set(self, name: str, text: str) -> None:
        """Change one setting; ``default`` as a value takes back what was set."""
        setting = find_setting(name)
        if text == "default":
            self._put(name, self._default(name))
            return
        try:
            value = setting.read(text)
        except (ValueError, UsageError):
            raise UsageError(f"{name} is {text!r}; it must be {setting.kind}") from None
        self._put(name, value)

    def _default(self, name: str) -> Any:
        now = self._all()
        self.answer, self.plan, self.receipts, self.preview, self.save, self.film = self._first
        value = self.value(name)
        self.answer, self.plan, self.receipts, self.preview, self.save, self.film = now
        return value

    def _put(self, name: str, value: Any) -> None:
        if name in _SWITCHES:
            setattr(self, name, value)
        elif name == "generate":
            self.film = replace(self.film, mode=value)
        elif name == "generator":
            find_generator(value)  # an unknown one is told now
            self.film = replace(self.film, generator=value)
        elif name in _FILM:
            field = {"width": None, "height": None} | value if name == "film-size" else {_FILM[name]: value}
            self.film = replace(self.film, request=replace(self.film.request, **field))
        elif name == "sampling":
            self.plan = replace(self.plan, mode=value)
        elif name == "frames":
            self.plan = SamplingPlan(frames=value or self._card.frames, mode=self.plan.mode)
        elif name == "fps":
            frames = None if value else self._card.frames
            most = self.plan.max_frames if value else None
            self.plan = SamplingPlan(frames=frames, fps=value, max_frames=most, mode=self.plan.mode)
        elif name == "max-frames":
            self.plan = replace(self.plan, max_frames=value)
        else:
            now = {field: getattr(self.answer, field) for field in SamplingOptions.__dataclass_fields__}
            self.answer = answer_options(now | {name.replace("-", "_"): value})

    def lines(self) -> list[str]:
        """All settings for a person."""
        return [f"{name} = {show(self.value(name))}  ({setting.about})" for name, setting in SETTINGS.items()]


def find_setting(name: str) -> _Setting:
    """A setting by its name, or an error with the nearest names."""
    if name in SETTINGS:
        return SETTINGS[name]
    from difflib import get_close_matches

    near = get_close_matches(name, SETTINGS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "/set alone lists them"
    raise UsageError(f"no setting {name!r}", hint=hint)


def show(value: Any) -> str:
    """A setting's value for a person."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):  # a size
        return "x".join(map(str, value.values())) or "-"
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


_OPTIONS = {
    "--frames": int,
    "--fps": float,
    "--max-frames": int,
    "--start": str,
    "--end": str,
    "--at": str,
    "--sampling": str,
}


def read_video_command(text: str, default: SamplingPlan) -> list[ClipRequest]:
    """``PATH... [--frames N] [--start TIME] ...`` as clip requests; what is not given comes from ``default``."""
    paths, words = split_paths(text)
    if not paths:
        raise UsageError("/video needs a path", hint="/video clip.mp4 [--frames N] [--start TIME] [--end TIME]")
    plan = _plan(words, default)
    return [ClipRequest(path, plan) for path in paths]


def _plan(words: Sequence[str], default: SamplingPlan) -> SamplingPlan:
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if name not in _OPTIONS:
            from difflib import get_close_matches

            near = get_close_matches(name, _OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_OPTIONS)}"
            raise UsageError(f"no option {name!r} for /video", hint=hint)
        if not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            text = rest.pop(0)
        try:
            value = _OPTIONS[name](text)
        except ValueError:
            raise UsageError(f"{name} is {text!r}; it must be a number") from None
        field = name[2:].replace("-", "_")
        given[field] = [*given.get("at", []), value] if field == "at" else value
    if not {"frames", "fps", "at"} & set(given):
        given |= {"frames": default.frames, "fps": default.fps}
        given.setdefault("max_frames", default.max_frames)
    return sampling_plan(**{"sampling": default.mode, **given})
