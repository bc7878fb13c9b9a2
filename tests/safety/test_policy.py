"""Policies: what a file may say, what it may not, and that minors are refused at every setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.safety.categories import CATEGORIES, MINORS
from gpt4video_cli.safety.policy import PROFILES, STANDARD, find_policy, parse_policy

KNOWN = ("text", "toxic-bert")


def test_strict_refuses_all_that_standard_does() -> None:
    strict = PROFILES["strict"]
    assert set(strict.thresholds) == set(STANDARD.thresholds) == set(CATEGORIES)
    for category in CATEGORIES:
        assert strict.threshold("any", category) <= STANDARD.threshold("any", category)
    assert strict.threshold("any", "violence") < STANDARD.threshold("any", "violence")


def test_a_file_changes_what_it_names() -> None:
    policy = parse_policy(
        """
        schema = 1
        profile = "strict"
        [guards]
        frames = false
        toxic-bert = true
        [thresholds]
        violence = 0.8
        [thresholds.toxic-bert]
        hate = 0.9
        """,
        "mine.toml",
        KNOWN,
    )
    assert policy.threshold("text", "violence") == policy.threshold("toxic-bert", "violence") == 0.8
    assert (policy.threshold("text", "hate"), policy.threshold("toxic-bert", "hate")) == (0.3, 0.9)
    assert policy.is_on("toxic-bert", "text") and not policy.is_on("nsfw-image-vit", "frames")
    assert (policy.name, policy.off) == ("mine.toml", {"frames"})


WRONG = [
    ("", "schema is None"),
    ("schema = 2", "schema is 2"),
    ('schema = 1\nprofle = "strict"', "unknown key profle; did you mean profile"),
    ('schema = 1\nprofile = "strikt"', "unknown profile strikt; did you mean strict"),
    ("schema = 1\nprofile = 3", "profile is 3"),
    ("schema = 1\nguards = 3", "guards must be a table"),
    ("schema = 1\n[guards]\ntoxic-brt = false", "unknown key guards.toxic-brt; did you mean toxic-bert"),
    ("schema = 1\n[guards]\ntext = 0", "guards.text is 0; it must be true or false"),
    ("schema = 1\n[thresholds]\nviolense = 0.5", "unknown key thresholds.violense; did you mean violence"),
    ("schema = 1\n[thresholds]\nviolence = 1.5", "thresholds.violence is 1.5"),
    ("schema = 1\n[thresholds]\nviolence = true", "thresholds.violence is True"),
    ("schema = 1\n[thresholds]\nviolence = 0", "thresholds.violence is 0"),
    ("schema = 1\n[thresholds]\nviolence = nan", "thresholds.violence is nan"),
    ("schema = 1\n[thresholds]\ntoxic-bert = 0.5", "it must be a table of thresholds"),
    ("schema = 1\n[thresholds.toxic-brt]\nhate = 0.5", "unknown key thresholds.toxic-brt"),
    ("schema = 1\n[thresholds.toxic-bert]\nhat = 0.5", "unknown key thresholds.toxic-bert.hat; did you mean hate"),
    ("schema = 1\n[thresholds]\nminors = 0.5", "what involves minors is refused from 0.3 on"),
    ("schema = 1\n[thresholds.text]\nminors = 0.31", "thresholds.text.minors is 0.31; what involves minors"),
    ("schema = [", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_a_file_must_not_say(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_policy(text, "mine.toml", KNOWN)
    assert said in error.value.line()


def test_minors_can_be_refused_earlier() -> None:
    policy = parse_policy("schema = 1\n[thresholds]\nminors = 0.1", "mine.toml", KNOWN)
    assert policy.threshold("text", MINORS) == 0.1


def test_policies_are_found_by_name_and_by_file(tmp_path: Path) -> None:
    assert find_policy("strict", KNOWN) is PROFILES["strict"]
    file = tmp_path / "p.toml"
    file.write_text("schema = 1\n[guards]\ntext = false\n")
    assert find_policy(str(file), KNOWN).off == {"text"}
    file.write_text("schema = 1\n[gards]\n")
    with pytest.raises(InputError, match=r"p\.toml: unknown key gards"):
        find_policy(str(file), KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        find_policy(str(tmp_path / "missing.toml"), KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        find_policy(str(tmp_path), KNOWN)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        find_policy(str(file), KNOWN)
    with pytest.raises(UsageError) as error:
        find_policy("strct", KNOWN)
    assert "did you mean strict" in error.value.line()


def test_guards_are_turned_off_by_kind_or_name() -> None:
    assert STANDARD.without(["text", "toxic-bert"], KNOWN).off == {"text", "toxic-bert"}
    with pytest.raises(UsageError) as error:
        STANDARD.without(["frame"], KNOWN)
    assert "unknown guard frame; did you mean frames" in error.value.line()


def test_the_example_can_be_used() -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "policy.toml"
    known = [path.stem for path in (example.parents[1] / "model_cards").glob("*.toml")]
    policy = find_policy(str(example), known)
    assert (policy.threshold("text", "hate"), policy.threshold("toxic-bert", "threats")) == (0.4, 0.8)
    assert not policy.off
