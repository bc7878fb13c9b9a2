"""llama.cpp's own quantisation of a GGUF file, in a child process: it cannot be interrupted, and may end the process.

python -m gpt4video_cli.weights.gguf_quantise SOURCE TARGET NUMBER_OF_KIND
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.gguf_header import read_gguf_header
from gpt4video_cli.language.llama_library import LOGGER, is_installed, library, physical_cores, reason

QUANTISED = {
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_nl": 25,
    "iq4_xs": 30,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "q2_k": 10,
}
"""Kind -> number in enum llama_ftype of llama.h; those that need no importance matrix."""
LARGEST_BITS = 8.5
"""Of a number in any of them: q8_0 has 8 and a scale of 16 for each 32 numbers."""

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_AT_ONCE = 256 * 2**20
"""Bytes of rows that llama.cpp keeps at once; by itself it takes 8 GiB."""
_PROGRESS = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_REASON = "gpt4video: "


def check_installed() -> None:
    """Raise ``UsageError`` where llama.cpp is not there to quantise."""
    if not is_installed():
        raise UsageError(
            "quantising needs llama-cpp-python, which is not installed",
            hint="pip install llama-cpp-python, or export f16, bf16 or f32",
        )


def quantise(source: Path, target: Path, kind: str, progress: Callable[[float], None] = lambda done: None) -> None:
    """Write ``source`` (f32, f16 or bf16) to ``target`` as ``kind``. ``progress`` hears which part is done, 0-1.

    Raises ``WeightsError`` with llama.cpp's reason where it fails.
    """
    search = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", __name__, str(source), str(target), str(QUANTISED[kind])]
    told = ""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": search},
        text=True,
        errors="replace",
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if found := _PROGRESS.search(line):
                    progress(int(found[1]) / int(found[2]))
                elif line.startswith(_REASON):
                    told = line.removeprefix(_REASON).strip()
        except BaseException:  # Ctrl-C: what it writes is thrown away
            child.kill()
            raise
    if child.returncode:
        ended = f"it was ended by signal {-child.returncode}" if child.returncode < 0 else "it gave no reason"
        raise WeightsError(f"llama.cpp could not quantise to {kind}: {told or ended}")


def fallback_note(path: Path, kind: str, rows: dict[str, int]) -> str | None:
    """What llama.cpp made of matrices that ``kind`` does not fit. ``rows``: matrix -> numbers in one of its rows."""
    from gguf import GGMLQuantizationType

    block = 256 if "_k" in kind or kind == "iq4_xs" else 32
    types = read_gguf_header(path).types
    other = Counter(GGMLQuantizationType(types[name]).name.lower() for name, row in rows.items() if row % block)
    if not other:
        return None
    became = ", ".join(f"{count} {name}" for name, count in other.most_common())
    return (
        f"{kind} needs rows of a multiple of {block} numbers: {other.total()} of {len(rows)} matrices became {became}"
    )


def _main(source: str, target: str, number: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes of the terminal: end at once
    llama_cpp = library()
    log = logging.getLogger(LOGGER)
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler(sys.stdout))
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = int(number)
    options.nthread = physical_cores()
    options.max_buf_size = _AT_ONCE
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(options)):
        sys.stdout.write(f"{_REASON}{reason()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
