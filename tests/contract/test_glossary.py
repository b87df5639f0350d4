"""Words that files and screens use for what a reader must tell apart are in the glossary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from pertstack.design import analysis_plan, blocks, metric_names, provenance
from pertstack.verdict import decision
from pertstack.verdict.boards import rows
from pertstack.verdict.gain import parts

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "glossary.md").read_text(encoding="utf-8")
CHOICES = {
    "what to do": decision.Action,
    "reading of a gain": parts.Reading,
    "role of a row": blocks.Role,
    "control reference": metric_names.Reference,
    "rule of choice": analysis_plan.ChoiceRule,
    "provenance": provenance.FittedKind,
}


@pytest.mark.parametrize("what", CHOICES)
def test_every_choice_of_words_is_explained(what: str):
    assert set(get_args(CHOICES[what])) - set(re.findall(r"`([^`]+)`", PAGE)) == set()


def test_kinds_of_rows_and_colours_are_explained():
    terms = {word for line in re.findall(r"^([^\n:#]+)\n: ", PAGE, flags=re.M) for word in re.split(r", | \(|\)", line)}
    assert {"base model", *get_args(rows.Kind)} - {"base"} <= terms
    assert all(light in PAGE.lower() for light in get_args(decision.Light))


def test_every_entry_is_short():
    entries = re.findall(r"^: (.+)$", PAGE, flags=re.M)
    assert len(entries) > 40
    assert [e for e in entries if len(re.sub(r"\(\[.*?\)\)|\]\([^)]*\)", "", e)) > 480] == []
