"""Dialogues to train on: one documented JSONL format, readers of public ones, a check. See ``dialogue_file``."""
