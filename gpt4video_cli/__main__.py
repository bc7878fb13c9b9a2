"""``python -m gpt4video_cli`` is ``gpt4video``."""

from __future__ import annotations

from gpt4video_cli.cli.app import main

if __name__ == "__main__":
    main()
