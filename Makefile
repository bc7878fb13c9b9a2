# make demo    install into .venv and ask the bundled model about the bundled clip
# make bench   measure everything that this machine can in under 20 minutes, into benchmarks/RESULTS.md
# make test    install into .venv with the developers' tools, then lint, types and tests
#
# Needs Python 3.11 or later, a C++ compiler and a package index. The first installation takes some minutes, because
# llama-cpp-python is compiled.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLIP := gpt4video_cli/bundle/clips/demo.mp4
SPECIFICATION := pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# llama-cpp-python's build takes as many processes as there are cores.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DELETE_ON_ERROR:
.PHONY: help install dev demo bench test test-slow lint format clean

help:
	@sed -n '/^# make/s/^# //p' $(MAKEFILE_LIST)
	@echo "also: install, dev, lint, format, test-slow, clean"

install: $(VENV)/installed
dev: $(VENV)/installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; choose another: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than the specification, so that an installation happens once and again when that changes.
$(VENV)/installed: $(SPECIFICATION) | $(BIN)/python
	@echo "installing into $(VENV): some minutes the first time" >&2
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(SPECIFICATION) | $(BIN)/python
	@echo "installing into $(VENV): some minutes the first time" >&2
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(SPECIFICATION) | $(BIN)/python
	@echo "installing into $(VENV): some minutes the first time" >&2
	$(PIP) --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@ $(VENV)/installed $(VENV)/installed-dev

# Where the terminal is interactive, the demonstration stays in the chat.
demo: $(VENV)/installed
	@echo "The clip is $(CLIP)"
	@for question in \
		"What shape is the object?" \
		"What colour is the object?" \
		"How does the object move?"; \
	do \
		printf '\n> %s\n' "$$question"; \
		$(BIN)/gpt4video chat $(CLIP) --prompt "$$question" </dev/null || exit $$?; \
	done
	@if [ -t 0 ] && [ -t 1 ]; then echo; exec $(BIN)/gpt4video chat $(CLIP); fi

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.run_all

lint: $(VENV)/installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# Two processes: many tests wait for a program that they started, and each process loads its own models.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow --timeout 3600

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find gpt4video_cli kernels model_cards tests -name __pycache__ -type d -prune -exec rm -rf {} +
