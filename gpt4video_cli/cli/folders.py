"""Where the program keeps what belongs to the person. ``GPT4VIDEO_HOME`` moves all of it into one folder."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """History, conversations and, later, configuration."""
    home = os.environ.get("GPT4VIDEO_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("gpt4video", appauthor=False))


def sessions_folder() -> Path:
    """Where conversations are kept, see ``session_store``."""
    return data_folder() / "sessions"
