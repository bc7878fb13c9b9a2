"""What names a job by its content: the same clips, moments, model, prompts and options are the same work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gpt4video_cli.batch.job import Job
from gpt4video_cli.language.adapters import AdapterWish
from gpt4video_cli.language.choose_engine import choose_engine
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sniff import sniff
from gpt4video_cli.video.url import hold, release
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.find_adapter import OWN, find_adapter
from gpt4video_cli.weights.model_hashes import adapter_sha256, weights_sha256


def model_digest(card: Card, folder: Path, wish: LoadWish) -> str:
    """SHA-256, as hex, over the content of the weights and adapters that ``wish`` means; nothing is loaded.

    Raises ``OSError`` where a file cannot be read, and what choosing an engine and finding an adapter raise.
    """
    file = choose_engine(folder, card.name, wish).file
    weights = weights_sha256(card, folder, None if file is None else file.path)
    own = (AdapterWish(OWN),) if (folder / OWN).is_dir() else ()
    wished = own if wish.engine.adapters is None else wish.engine.adapters
    adapters = [[adapter_sha256(find_adapter(one.name, folder)), one.scale] for one in wished if one.scale != 0]
    return hashlib.sha256(json.dumps([weights, adapters]).encode()).hexdigest()


def job_key(job: Job, contents: Sequence[str], model: str, generator: str | None = None) -> str:
    """SHA-256 as hex. ``contents``: ``fingerprint`` of each clip, in order; ``model``: see ``model_digest``;
    ``generator``: which text-to-video model films what the answers ask for, if any does."""
    content = {
        "clips": list(contents),
        "plan": job.plan.as_dict(),
        "model": model,
        "prompts": job.prompts,
        "options": asdict(job.options),
        "generate": job.generate,
        "generator": generator,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def clip_contents(job: Job) -> list[str]:
    """``fingerprint`` of the job's clips as they are now. Raises ``ClipError`` or ``OSError``."""
    contents = []
    hold(job.clips)
    try:
        for path in job.clips:
            sniff(path)  # a pipe would never end
            contents.append(fingerprint(path))
    finally:
        release(job.clips)
    return contents
