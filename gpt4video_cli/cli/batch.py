"""``gpt4video batch``: many jobs from a shell script, each result written as soon as it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli import options as opt
from gpt4video_cli.cli.clip_urls import SECONDS, SIZE, PrivateUrls, UrlSize, UrlTime, set_up
from gpt4video_cli.cli.engine_options import (
    Adapters,
    Engine,
    FlashAttention,
    GpuLayers,
    KvType,
    Threads,
    read_engine,
)
from gpt4video_cli.cli.option_panels import FILMING, OUTPUT, RUNNING
from gpt4video_cli.cli.policy_options import NoGuard, PolicyName, read_policy
from gpt4video_cli.cli.schema_option import Schema, check_grammar, schema_text
from gpt4video_cli.cli.template_options import Template, Var, chosen_prompt
from gpt4video_cli.errors import UsageError
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.safety.policy import STANDARD, Policy
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR, find_generator
from gpt4video_cli.weights.locate import find_model

if TYPE_CHECKING:
    from gpt4video_cli.batch.job import Defaults
    from gpt4video_cli.batch.on_ray import RayWish
    from gpt4video_cli.batch.shard import Shard
    from gpt4video_cli.video.url import FetchLimits
    from gpt4video_cli.weights.card import Card

MOST_WORKERS = 64
DEFAULT_WORKERS = 2


@dataclass(frozen=True)
class BatchRequest:
    """Everything that the command line asks for, checked. ``output`` None: results go to stdout.

    ``order``: the seed of the order that ``--shuffle`` draws; None: as they come. ``films``: where filmed clips go.
    ``film_all``: film what any answer asks for, not only those of jobs that say so. ``ray``: None for this machine.
    """

    jobs: tuple[str, ...]
    defaults: Defaults
    card: Card
    folder: Path
    model: str
    loading: LoadWish
    time_limit: float
    fetching: FetchLimits
    output: Path | None
    errors: Path | None
    resume: bool
    force: bool
    fail_fast: bool
    workers: int
    rows: int
    shard: Shard
    limit: int | None
    order: int | None
    films: Path
    film_all: bool
    generator: str
    log: Path | None
    cache: bool
    policy: Policy
    ray: RayWish | None
    quiet: bool
    verbose: bool


def batch(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="JOBS|CLIPS", help="JOBS.jsonl, JOBS.csv, '-' for stdin; or clips and folders."),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where results go, one JSON object a line.")
    ] = None,
    errors: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where failures go (default: errors.jsonl beside the results).")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What is asked where a job asks nothing.")
    ] = None,
    template: Template = None,
    var: Var = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Ask for a description where a job asks nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: what the results hold is not done again.", rich_help_panel=RUNNING)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Drop the results of an earlier run.", rich_help_panel=RUNNING)
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=RUNNING)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say how many jobs would run, and how long; load nothing.", rich_help_panel=RUNNING
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Decode N clips at a time.", rich_help_panel=RUNNING)
    ] = DEFAULT_WORKERS,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            metavar="N",
            help="Write N answers at a time, where the engine can.",
            rich_help_panel=RUNNING,
        ),
    ] = 8,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do part I of N, decided by the jobs' ids: one for each machine.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Do the jobs on a Ray cluster: HOST:PORT, auto (the default) or local.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Do N jobs at most.", rich_help_panel=RUNNING)] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="In an order drawn with --seed.", rich_help_panel=RUNNING)
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Add a line every 30 s to this file: rate, failures, time left.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Film what any answer asks for.", rich_help_panel=FILMING)
    ] = False,
    films: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Where filmed clips go (default: films beside the results).", rich_help_panel=FILMING
        ),
    ] = None,
    generator: opt.Generator = None,
    model: opt.Model = "bundle",
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
    no_cache: opt.NoCache = False,
    policy: PolicyName = STANDARD.name,
    no_guard: NoGuard = None,
    quiet: opt.Quiet = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Say every failure and every verdict of the safety guards.", rich_help_panel=OUTPUT
        ),
    ] = False,
    no_color: opt.NoColor = False,
    plain: opt.Plain = False,
    debug: opt.Debug = False,
) -> int:
    """Answer many jobs.

    A job is a JSON object on a line: {"id": "a", "clips": ["a.mp4"], "prompt": "What moves?"}; instead of a prompt
    "prompts" (several turns) or "describe": true, with "generate": true for a clip that the answer asks for, and any
    of the options below by their names (max_tokens: 20). Relative paths start in the folder of the file. Clips and
    folders are jobs with the prompt of -p.

    Results are written as jobs end, in that order. A job that fails is a line in the errors file, and the others go
    on; the exit code is then 6. --resume goes on after a kill, a crash or Ctrl-C: it knows what is done by the content
    of clips, model, prompts and options.
    """
    prompt = chosen_prompt(prompt, template, var)
    answer = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "max_tokens": max_tokens,
        "stop": tuple(stop) if stop else None,
        "schema": (document := schema_text(schema, stop=stop, generate=generate)),
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
    screened_by = read_policy(policy, no_guard)
    loading.check_installed()
    opt.check_time_limit(time_limit)
    fetching = set_up(url_size, url_time, allow_private_urls)
    opt.answer_options(answer)
    plan = opt.sampling_plan(**times, sampling=sampling)
    _check_counts(workers=workers, batch_size=batch_size, limit=limit)
    if resume and force:
        raise UsageError("--resume and --force contradict each other")
    if resume and output is None:
        raise UsageError("--resume needs the results of the earlier run", hint="name them with -o")
    if prompt is not None and (describe or not prompt.strip()):
        raise UsageError("--prompt and --describe contradict each other" if describe else "the prompt is empty")
    if generator is not None:
        find_generator(generator)  # an unknown one is told now
    from gpt4video_cli.batch.job import DESCRIBE, Defaults
    from gpt4video_cli.batch.shard import Shard

    part = Shard() if shard is None else Shard.parse(shard)
    card, folder = find_model(model)
    check_grammar(document, card, folder, loading)
    given = {**plan.as_dict(), **answer, "sampling": sampling}
    fields = {name: value for name, value in given.items() if name != "mode" and value not in (None, ())}
    beside = Path(output).parent if output is not None else Path()
    request = BatchRequest(
        jobs=tuple(jobs),
        defaults=Defaults(card, DESCRIBE if describe else prompt, fields),
        card=card,
        folder=folder,
        model=model,
        loading=loading,
        time_limit=time_limit,
        fetching=fetching,
        output=None if output is None else Path(output),
        errors=_errors_file(errors, output, part),
        resume=resume,
        force=force,
        fail_fast=fail_fast,
        workers=workers,
        rows=batch_size,
        shard=part,
        limit=limit,
        order=(seed or 0) if shuffle else None,
        films=Path(films) if films is not None else beside / "films",
        film_all=generate,
        generator=generator or DEFAULT_GENERATOR,
        log=None if log is None else Path(log),
        cache=not no_cache,
        policy=screened_by,
        ray=None if ray is None else _ray_wish(ray, device, threads),
        quiet=quiet,
        verbose=verbose and not quiet,
    )
    from gpt4video_cli.cli.batch_run import run_batch, tell_plan

    return tell_plan(request) if dry_run else run_batch(request)


def _check_counts(*, workers: int, batch_size: int, limit: int | None) -> None:
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers is {workers}; it must be between 1 and {MOST_WORKERS}")
    if not 1 <= batch_size <= MOST_WORKERS:
        raise UsageError(f"--batch-size is {batch_size}; it must be between 1 and {MOST_WORKERS}")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be 1 or more")


def _ray_wish(address: str, device: str, threads: int | None) -> RayWish:
    """A worker has as many CPUs as it has ``threads``, and a GPU if the cluster has any and ``device`` allows it."""
    from gpt4video_cli.batch.on_ray import ADDRESS, RayWish, check_ray_installed

    address = address or "auto"
    if not ADDRESS.fullmatch(address):
        raise UsageError(f"--ray is {address!r}; it must be HOST:PORT, auto or local", hint="put the jobs before --ray")
    if ":" in device:
        raise UsageError(f"--device {device} and --ray contradict each other: Ray chooses the GPU of each worker")
    check_ray_installed()
    return RayWish(address, cpus=threads or 1, gpus=device != "cpu")


def _errors_file(errors: str | None, output: str | None, shard: Shard) -> Path | None:
    """Beside the results, for each shard its own; None where neither is named."""
    if errors is None and output is None:
        return None
    if errors is None:
        part = "" if shard.count == 1 else f".{shard.index}-of-{shard.count}"
        return Path(str(output)).parent / f"errors{part}.jsonl"
    if output is not None and Path(errors).absolute() == Path(output).absolute():
        raise UsageError("--errors and --output name the same file")
    return Path(errors)
