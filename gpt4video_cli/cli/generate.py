"""``gpt4video generate``: text to a new clip. The path goes to stdout, everything else to stderr."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli import options as opt
from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.option_panels import FILMING, MODEL, OUTPUT
from gpt4video_cli.cli.policy_options import NoGuard, PolicyName, Verbose, read_policy
from gpt4video_cli.cli.template_options import Template, Var, chosen_prompt
from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.limits import LARGEST_SEED, complete
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.safety.policy import STANDARD, Policy
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR, FoundGenerator, find_generator

if TYPE_CHECKING:
    from gpt4video_cli.gallery.side_car import SideCar

MOST_SAMPLES = 1000


@dataclass(frozen=True)
class GenerateRequest:
    """Everything that the command line asks for, checked. ``film`` gets other prompts where ``text`` is set.

    ``text``: what the assistant turns into prompts first; None: ``film`` is sent as it is. ``resume``: latents of an
    earlier run, decoded instead. ``output`` is text, because a ``/`` at its end means a folder of pictures.
    """

    film: FilmRequest
    found: FoundGenerator
    named: str
    loading: LoadOptions
    text: str | None = None
    resume: Path | None = None
    output: str | None = None
    samples: int = 1
    force: bool = False
    metadata: bool = True
    preview: bool = True
    model: str = "bundle"
    json: bool = False
    quiet: bool = False
    policy: Policy = STANDARD
    verbose: bool = False
    made_by: str | None = None
    """The revision of the model that made the clip to be made again."""


def generate(
    prompt: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What the clip shall show; '-' reads it from stdin.")
    ] = None,
    template: Template = None,
    var: Var = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Film the text as it is, without an assistant that describes it in detail.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="NAME.mp4, .gif or .webm, or NAME/ for PNG files."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", metavar="N", help="Several clips, one seed apart.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="The same seed gives the same clip (default 0).", rich_help_panel=FILMING),
    ] = None,
    frames: Annotated[int | None, typer.Option(metavar="N", help="How many frames.", rich_help_panel=FILMING)] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="RATE", help="Frames shown in a second.", rich_help_panel=FILMING)
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels.", rich_help_panel=FILMING)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Steps of denoising: more are slower and finer.", rich_help_panel=FILMING),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(metavar="X", help="How closely to follow the text.", rich_help_panel=FILMING)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ddim, dpm++2m, euler, unipc, flow-euler, ...", rich_help_panel=FILMING),
    ] = None,
    negative: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the clip shall not show.", rich_help_panel=FILMING)
    ] = None,
    generator: opt.Generator = None,
    video: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The clip to start from, for models that redraw one.", rich_help_panel=FILMING
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --video: how much is drawn anew, up to 1.", rich_help_panel=FILMING),
    ] = None,
    guidance_pass: opt.GuidancePass = None,
    guidance_until: opt.GuidanceUntil = None,
    cache_threshold: opt.CacheThreshold = None,
    cache_every: opt.CacheEvery = None,
    again: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Make a clip again, from its .json or from itself.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="FILE", help="Finish a run that died while decoding, from its latents.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            autocompletion=model_names,
            help="Which assistant describes the clip.",
        ),
    ] = "bundle",
    device: opt.Device = "auto",
    dtype: opt.DType = "auto",
    offload: Annotated[
        str,
        typer.Option(
            metavar="none|model|sequential",
            help="Keep parts off the GPU until it is their turn.",
            rich_help_panel=MODEL,
        ),
    ] = "none",
    no_vae_slicing: Annotated[
        bool, typer.Option("--no-vae-slicing", help="Decode all frames at once.", rich_help_panel=MODEL)
    ] = False,
    no_vae_tiling: Annotated[
        bool, typer.Option("--no-vae-tiling", help="Decode large frames in one piece.", rich_help_panel=MODEL)
    ] = False,
    compile_blocks: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model first: pays back over many clips.", rich_help_panel=MODEL),
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Do not say in the clip and beside it how it was made.")
    ] = False,
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="No film strip in the terminal.", rich_help_panel=OUTPUT)
    ] = False,
    policy: PolicyName = STANDARD.name,
    no_guard: NoGuard = None,
    verbose: Verbose = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    plain: opt.Plain = False,
    debug: opt.Debug = False,
) -> int:
    """Film a text.

    The assistant writes a detailed prompt first, which gives better clips; --raw sends the text as it is. The clip's
    path goes to stdout. Beside the clip a .json says how it was made.
    """
    prompt = chosen_prompt(prompt, template, var, written="a text")
    given: dict[str, Any] = {
        "seed": seed,
        "frames": frames,
        "fps": fps,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler,
        "negative_prompt": negative,
        "video": video,
        "strength": strength,
        "guidance_pass": guidance_pass,
        "guidance_until": guidance_until,
        "cache_threshold": cache_threshold,
        "cache_every": cache_every,
        **opt.parse_size(size),
    }
    given = {name: value for name, value in given.items() if value is not None}
    opt.check_device(device, dtype, 1.0)
    chosen = read_policy(policy, no_guard)
    loading = LoadOptions(device, dtype, _offload(offload), not no_vae_slicing, not no_vae_tiling, compile_blocks)
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"-n is {samples}; it must be between 1 and {MOST_SAMPLES}")
    if resume is not None:
        request = _resumed(resume, generator, loading, refused=(*given, *_named(prompt=prompt, again=again)))
        if samples != 1:
            raise UsageError("--resume finishes one clip; -n cannot be given with it")
    else:
        request = _ordered(read_text(prompt, again), again, given, generator, loading, raw=raw)
    if not 0 <= request.film.seed <= LARGEST_SEED - samples:
        raise UsageError(f"--seed is {request.film.seed}; it must be between 0 and {LARGEST_SEED - samples}")
    request = replace(
        request,
        output=output,
        samples=samples,
        force=force,
        metadata=not no_metadata,
        preview=not no_preview,
        model=model,
        policy=chosen,
        verbose=verbose,
        json=json,
        quiet=quiet,
    )
    from gpt4video_cli.cli.film import film_all

    return film_all(request)


def read_text(prompt: str | None, again: str | None) -> str | None:
    """The text to film; None where ``--from`` has one."""
    if prompt == "-":
        from gpt4video_cli.cli.chat import read_prompt

        return read_prompt("-")
    if prompt is None and again is None:
        raise UsageError("there is no text to film", hint='say what the clip shall show: gpt4video generate "..."')
    if prompt is not None and not prompt.strip():
        raise UsageError("the prompt is empty", hint="say what the clip shall show")
    return prompt


def _offload(text: str) -> Any:
    return text  # LoadOptions checks the spelling


def _named(**given: Any) -> list[str]:
    return [name for name, value in given.items() if value is not None]


def _ordered(
    text: str | None,
    again: str | None,
    given: dict[str, Any],
    generator: str | None,
    loading: LoadOptions,
    *,
    raw: bool,
) -> GenerateRequest:
    """A clip to film from a text, or again from the description of a clip, with ``given`` options before its own."""
    described = None if again is None else _described(again)
    if described is not None:
        base = _film_of(described, str(again))
        raw = raw or text is None  # the description already holds the prompt that was filmed
        dtype = described.settings.get("dtype")
        if loading.dtype == "auto" and isinstance(dtype, str):
            opt.check_device(loading.device, dtype, 1.0)
            loading = replace(loading, dtype=dtype)
        film = replace(base, **{**given, "prompt": base.prompt if text is None else text})
    else:
        film = FilmRequest(prompt=text or "", **given)
    named = generator or (described.model if described is not None else DEFAULT_GENERATOR)
    try:
        found = find_generator(named)
    except UsageError as error:
        if generator is None and described is not None:
            raise UsageError(f"{again}: {error}", hint="name its folder with --generator") from error
        raise
    complete(film, found.card)  # refused now, not after something was loaded
    made_by = described.revision if described is not None else None
    return GenerateRequest(film, found, named, loading, text=None if raw else film.prompt, made_by=made_by)


def _described(path: str) -> SideCar:
    from gpt4video_cli.gallery.side_car import read_side_car

    return read_side_car(path)


def _film_of(described: SideCar, path: str) -> FilmRequest:
    """The request in a clip's description; what is not of a request (dtype, device) is left out."""
    from gpt4video_cli.strict_json import StrictJsonError, from_json

    names = FilmRequest.__dataclass_fields__
    values = {name: value for name, value in described.settings.items() if name in names}
    values |= {"prompt": described.prompt, "negative_prompt": described.negative_prompt, "seed": described.seed}
    try:
        return from_json(values, FilmRequest, "clip.settings")
    except StrictJsonError as error:
        raise InputError(f"{path}: {error}") from error


def _resumed(path: str, generator: str | None, loading: LoadOptions, *, refused: tuple[str, ...]) -> GenerateRequest:
    """A clip whose latents are on disk; what shapes a clip was decided when they were made."""
    if refused:
        option = {"again": "--from", "prompt": "a text", "negative_prompt": "--negative"}.get(refused[0])
        option = option or ("--size" if refused[0] in ("width", "height") else f"--{refused[0].replace('_', '-')}")
        raise UsageError(f"--resume finishes a clip as it was begun; {option} cannot be given with it")
    from gpt4video_cli.gallery.latents_file import read_header

    header = read_header(Path(path))
    named = generator or header.generator
    if loading.dtype == "auto":
        loading = replace(loading, dtype=header.dtype)
    return GenerateRequest(header.request, find_generator(named), named, loading, resume=Path(path))
