"""``gpt4video models export``: the language model of a model folder as a GGUF file, for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt4video_cli.cli.models_import import Bar
from gpt4video_cli.cli.options import Debug, NoColor, Plain, Quiet
from gpt4video_cli.cli.terminal import clean_line, say
from gpt4video_cli.errors import ExitCode, WeightsError


def export(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Whose language model.")],
    gguf: Annotated[
        str, typer.Option("--gguf", metavar="KIND", help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0, ...")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else beside the model's safetensors.")
    ] = None,
    merge_adapter: Annotated[
        bool, typer.Option("--merge-adapter", help="Add the adapter to the weights, not as a file of its own.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Write a model's language model, with its tokenizer, as one GGUF file, and its adapter as another.

    Quantised kinds (q8_0, q4_k_m, ...) are made by llama.cpp itself. For a model inside the installed program or the
    Hugging Face cache, the files go into GPT4VIDEO_HOME, else the user's cache folder, where they are found again.
    """
    from gpt4video_cli.weights.gguf_adapter import is_current
    from gpt4video_cli.weights.gguf_export import check_kind, export_adapter_gguf, export_gguf
    from gpt4video_cli.weights.gguf_file import refuse_file
    from gpt4video_cli.weights.gguf_place import adapter_place, exported_place
    from gpt4video_cli.weights.locate import find_model

    def tell(note: str) -> None:
        bar.clear()
        if not quiet:
            say(note)

    kind = check_kind(gguf)
    card, folder = find_model(model)
    language, adapter = folder / "language", folder / "adapter"
    if merge_adapter and not adapter.is_dir():
        raise WeightsError(f"{folder}: has no adapter", hint="leave --merge-adapter away")
    file = output or exported_place(folder, kind, merged=merge_adapter)
    refuse_file(file, force=force)
    made = [file]
    if adapter.is_dir() and not merge_adapter:
        adapter_kind = "f32" if kind == "f32" else "f16"
        beside = (
            adapter_place(folder, adapter_kind) if output is None else file.with_name(f"adapter-{adapter_kind}.gguf")
        )
        if not is_current(beside, adapter):  # of an earlier export of another kind
            export_adapter_gguf(adapter, language, beside, adapter_kind, force=force)
        made.append(beside)
    with Bar("exporting", quiet=quiet) as bar:
        export_gguf(
            language,
            file,
            kind,
            adapter=adapter if merge_adapter else None,
            card=card,
            force=force,
            tell=tell,
            progress=bar.show,
        )
    for path in made:
        print(clean_line(str(path)), flush=True)
    return int(ExitCode.DONE)
