"""Where the program keeps what belongs to the person. ``GPT4VIDEO_HOME`` moves all of it into one folder."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG_VARIABLE = "GPT4VIDEO_CONFIG"


def data_folder() -> Path:
    """History and conversations."""
    home = os.environ.get("GPT4VIDEO_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("gpt4video", appauthor=False))


def sessions_folder() -> Path:
    """Where conversations are kept, see ``session_store``."""
    return data_folder() / "sessions"


def config_file() -> Path:
    """The configuration, which may not exist: ``GPT4VIDEO_CONFIG``, else ``config.toml`` in its folder."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("GPT4VIDEO_HOME")
    if home:
        return Path(home).expanduser() / "config.toml"
    import platformdirs

    return Path(platformdirs.user_config_dir("gpt4video", appauthor=False)) / "config.toml"


def templates_folder() -> Path:
    """Where saved prompts are kept, beside the configuration."""
    return config_file().parent / "templates"
