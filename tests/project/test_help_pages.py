"""The pages in docs/ are those of the program as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gpt4video_cli.cli.help_pages import MADE_BY, main, pages
from tests.project.test_documents import parse

ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def test_pages_are_as_the_program_prints_them() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "commands").iterdir()}
    assert kept == pages(), "run: python -m gpt4video_cli.cli.help_pages docs/commands"


def test_pages_are_written_whole_and_old_ones_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone.md").write_text(MADE_BY)
    (tmp_path / "own.md").write_text("# Mine")
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: {len(pages())} pages\n"
    assert {path.name for path in tmp_path.iterdir()} == {*pages(), "own.md"}
    assert main([]) == 2


def test_links_between_pages_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", pages()["README.md"])
    assert sorted(links) == sorted(set(pages()) - {"README.md"})


@pytest.mark.parametrize("line", re.findall(r"^\$ (gpt4video .*)$", TOUR, re.M))
def test_the_tour_shows_commands_that_there_are(line: str) -> None:
    parse(shlex.split(line.split(" | ")[0].split("$(")[0])[1:])


def test_the_tour_says_where_it_is_cut_and_names_no_place_of_its_own() -> None:
    assert "more lines, cut here" in TOUR
    assert TOUR.count("```") % 2 == 0
    assert str(ROOT) not in TOUR and "/tmp/" not in TOUR
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", TOUR)
