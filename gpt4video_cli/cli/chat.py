"""``gpt4video chat``: one answer for a shell script, or a conversation for a person."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from gpt4video_cli.cli import options as opt
from gpt4video_cli.cli.chat_films import FilmWishes, Mode
from gpt4video_cli.cli.clip_urls import SECONDS, SIZE, PrivateUrls, UrlSize, UrlTime, fetch_clips, set_up
from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.engine_options import (
    Adapters,
    Engine,
    FlashAttention,
    GpuLayers,
    KvType,
    Threads,
    read_engine,
)
from gpt4video_cli.cli.keeping import Keeper, model_to_resume
from gpt4video_cli.cli.option_panels import FILMING, KEEPING, LOOKING
from gpt4video_cli.cli.policy_options import NoGuard, PolicyName, Verbose, read_policy
from gpt4video_cli.cli.schema_option import Schema, check_grammar, schema_text
from gpt4video_cli.cli.sessions import open_store, session_ids
from gpt4video_cli.cli.template_options import Template, Var, chosen_prompt
from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.safety.policy import STANDARD, Policy
from gpt4video_cli.session import ClipRequest, Session
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.sniff import sniff
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR, find_generator
from gpt4video_cli.weights.locate import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from gpt4video_cli.cli.startup import Startup
    from gpt4video_cli.clip_cache import ClipCache
    from gpt4video_cli.weights.card import Card

_LONGEST_STDIN = 1 << 20
"""Bytes. More than any model's context; a pipe that never ends must not fill the memory."""


@dataclass(frozen=True)
class ChatRequest:
    """Everything that the command line asks for, checked. ``prompt`` None: a conversation."""

    clips: tuple[ClipRequest, ...]
    prompt: str | None
    plan: SamplingPlan
    answer: SamplingOptions
    card: Card
    folder: Path
    model: str
    loading: LoadWish
    time_limit: float
    json: bool
    quiet: bool
    receipts: bool
    preview: bool = True
    film: FilmWishes = field(default_factory=FilmWishes)
    cache: ClipCache | None = None
    policy: Policy = STANDARD
    verbose: bool = False
    session: Session = field(default_factory=Session)
    keeper: Keeper = field(default_factory=lambda: Keeper(save=False))
    html: Path | None = None


def chat(
    clips: Annotated[
        list[str] | None, typer.Argument(metavar="CLIPS", help="Video or picture files to talk about.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Answer this and leave; '-' reads it from stdin."),
    ] = None,
    template: Template = None,
    var: Var = None,
    json: opt.Json = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            autocompletion=model_names,
            help="Which model answers (bundle, or that of --resume).",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="[ID]",
            help="Go on with this conversation (gpt4video sessions list); without ID: choose one.",
            autocompletion=session_ids,
            rich_help_panel=KEEPING,
        ),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Go on with the last conversation.", rich_help_panel=KEEPING)
    ] = False,
    no_save: Annotated[
        bool, typer.Option("--no-save", help="Do not keep the conversation.", rich_help_panel=KEEPING)
    ] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html", metavar="FILE", help="Write the conversation as a page when it is over.", rich_help_panel=KEEPING
        ),
    ] = None,
    frames: opt.Frames = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    start: opt.Start = None,
    end: opt.End = None,
    at: opt.At = None,
    sampling: opt.Sampling = None,
    time_limit: opt.TimeLimit = 10.0,
    url_size: UrlSize = SIZE,
    url_time: UrlTime = SECONDS,
    allow_private_urls: PrivateUrls = False,
    no_cache: opt.NoCache = False,
    temperature: opt.Temperature = None,
    top_p: opt.TopP = None,
    top_k: opt.TopK = None,
    repetition_penalty: opt.RepetitionPenalty = None,
    seed: opt.Seed = None,
    max_tokens: opt.MaxTokens = None,
    stop: opt.Stop = None,
    schema: Schema = None,
    device: opt.Device = "auto",
    dtype: opt.Precision = "auto",
    vision_dtype: opt.VisionDType = "auto",
    offload: opt.Offload = False,
    context_length: opt.ContextLength = None,
    engine: Engine = "auto",
    adapter: Adapters = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    flash_attention: FlashAttention = "auto",
    kv_type: KvType = "auto",
    explain: opt.Explain = False,
    show_receipt: Annotated[
        bool,
        typer.Option(
            "--show-receipt", help="Say on stderr which moments of each clip were seen.", rich_help_panel=LOOKING
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Film what the model asks for (the default with --prompt and in pipes).",
            rich_help_panel=FILMING,
        ),
    ] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask before filming (the default in a conversation).", rich_help_panel=FILMING)
    ] = False,
    no_generate: Annotated[bool, typer.Option("--no-generate", help="Film nothing.", rich_help_panel=FILMING)] = False,
    generator: opt.Generator = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where filmed clips go (default: this folder).",
            rich_help_panel=FILMING,
        ),
    ] = ".",
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Draw no frames in the terminal.", rich_help_panel=FILMING)
    ] = False,
    policy: PolicyName = STANDARD.name,
    no_guard: NoGuard = None,
    verbose: Verbose = False,
    quiet: opt.Quiet = False,
    no_color: opt.NoColor = False,
    plain: opt.Plain = False,
    debug: opt.Debug = False,
) -> int:
    """Talk about clips.

    With --prompt, or with text piped into stdin, only the answer goes to stdout. Otherwise a conversation starts;
    /help lists what can be typed there. With --prompt TEXT stdin is not read, so that it works inside shell loops.

    Nothing is loaded that does not fit into the memory that is free: --explain shows what goes where.
    """
    prompt = chosen_prompt(prompt, template, var)
    given = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "max_tokens": max_tokens,
        "stop": stop or None,
        "schema": (document := schema_text(schema, stop=stop, yes=yes, ask=ask)),
    }
    times: dict[str, Any] = {
        "frames": frames,
        "fps": fps,
        "max_frames": max_frames,
        "start": start,
        "end": end,
        "at": at,
    }
    language = read_engine(
        engine, adapter, threads=threads, gpu_layers=gpu_layers, flash_attention=flash_attention, kv_type=kv_type
    )
    loading = LoadWish(device, dtype, offload, context_length, language, vision_dtype)
    loading.check_installed()
    opt.check_time_limit(time_limit)
    set_up(url_size, url_time, allow_private_urls)
    opt.answer_options(given)  # wrong options are told before anything is looked for
    opt.sampling_plan(**times, sampling=sampling)
    screened_by = read_policy(policy, no_guard)
    cache = None if no_cache or explain else _open_cache()
    chosen = _film_mode(yes=yes, ask=ask, no=no_generate)
    if generator is not None:
        find_generator(generator)  # an unknown one is told now, not when a clip is to be filmed
    if not Path(output).is_dir():
        raise UsageError(f"--output is {output}; it must be a folder that exists")
    page = None
    if html is not None:
        from gpt4video_cli.cli.session_export import export_target

        if Path(html).exists():
            raise UsageError(f"--html is {html}, which exists", hint="name a new file")
        page = export_target(html, "html")
    keeper, session = Keeper(save=not no_save, quiet=quiet), Session()
    if resume is not None and last:
        raise UsageError("--resume and --last contradict each other")
    if resume == "":
        from gpt4video_cli.cli.session_picker import pick_session

        resume = pick_session(open_store())
    if resume is not None or last:
        session, clips = keeper.resume(resume, clips or ())
    model = model or model_to_resume(session) or DEFAULT_MODEL
    if explain:
        from gpt4video_cli.cli.explain import explain_model

        return explain_model(model, loading, json=json)
    text = read_prompt(prompt)
    if chosen == "ask" and not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--ask needs a terminal", hint="--yes films, --no-generate does not")
    film = FilmWishes(
        chosen or ("ask" if text is None else "yes"), generator or DEFAULT_GENERATOR, output, device=device
    )
    fetch_clips(clips or (), quiet=quiet)
    for path in clips or ():
        sniff(path)  # a missing file is told now, not after the model is loaded
    card, folder = find_model(model)
    check_grammar(document, card, folder, loading)
    plan = opt.sampling_plan(**times, sampling=sampling, card=card)
    request = ChatRequest(
        clips=tuple(ClipRequest(path, plan) for path in clips or ()),
        prompt=text,
        plan=plan,
        answer=opt.answer_options(given, card),
        card=card,
        folder=folder,
        model=model,
        loading=loading,
        time_limit=time_limit,
        json=json,
        quiet=quiet,
        receipts=show_receipt,
        preview=not no_preview,
        film=film,
        cache=cache,
        policy=screened_by,
        verbose=verbose,
        session=session,
        keeper=keeper,
        html=page,
    )
    if request.prompt is None:
        check_interactive(request)
    from gpt4video_cli.cli.startup import Startup

    with Startup(request) as startup:
        return _answer(request, startup)


def _open_cache() -> ClipCache:
    from gpt4video_cli.clip_cache import ClipCache

    return ClipCache()


def _film_mode(**given: bool) -> Mode | None:
    chosen = [mode for mode in get_args(Mode) if given[mode]]
    if len(chosen) > 1:
        raise UsageError("--yes, --ask and --no-generate contradict each other")
    return chosen[0] if chosen else None


def _answer(request: ChatRequest, startup: Startup) -> int:
    if request.prompt is not None:
        from gpt4video_cli.cli.oneshot import answer_once

        return answer_once(request, startup)
    from gpt4video_cli.cli.repl import converse

    return converse(request, startup)


def read_prompt(given: str | None) -> str | None:
    """The prompt of a one-shot answer, or None where a person sits at the terminal."""
    if given is None and sys.stdin is not None and sys.stdin.isatty():
        return None
    text = given if given is not None and given != "-" else _read_stdin()
    if not text.strip():
        raise UsageError("the prompt is empty", hint="give a question with -p, or pipe it into stdin")
    return text.strip()


def _read_stdin() -> str:
    if sys.stdin is None:
        return ""
    content = sys.stdin.buffer.read(_LONGEST_STDIN + 1)
    if len(content) > _LONGEST_STDIN:
        raise UsageError(f"the prompt on stdin is longer than {_LONGEST_STDIN} bytes", hint="clips are given as files")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError("stdin is not text in UTF-8", hint="a clip is given as a file: gpt4video chat CLIP")
    return text


def check_interactive(request: ChatRequest) -> None:
    """A conversation needs a terminal to be drawn on."""
    if request.json or request.answer.schema:
        what = "--json" if request.json else "--schema"
        raise UsageError(f"{what} needs a prompt", hint="give it with -p, or pipe it into stdin")
    if not (sys.stderr.isatty() or sys.stdout.isatty()):
        raise UsageError("no terminal to talk on", hint="give a question with -p")
