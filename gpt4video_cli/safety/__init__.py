"""Verdicts on what goes in and what comes out. ``assistant.py`` is the only caller."""
