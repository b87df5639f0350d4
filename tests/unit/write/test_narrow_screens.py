"""At 80 columns names are whole, cells keep apart, and what would be said is said once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pertstack.cli.models_table import models_table
from pertstack.fit.registry import list_models
from pertstack.verdict.several import NOT_CHOSEN, several_in_words


def shown(what: object, width: int) -> list[str]:
    text = io.StringIO()
    Console(width=width, file=text).print(what)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 140])
def test_models_are_listed_under_whole_names(width: int):
    lines = shown(models_table(width=width), width)
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert {row.name for row in list_models()} <= words
    assert not any("``" in line for line in lines)


def test_a_gain_of_what_was_not_chosen_is_no_second_answer():
    """A plate of LINCS: the headline said that nothing beats the best single model, a line above that one does."""
    row = {"name": "nonneg", "difference": 0.007, "ci": [0.0002, 0.0119], "p": 0.02}
    facts = {"simultaneous": {"against": "mlp", "level": 0.95, "more_is_better": True, "rows": [row]}}
    assert NOT_CHOSEN in several_in_words(facts, "global_ridge")[0]
    assert NOT_CHOSEN not in several_in_words(facts, "nonneg")[0]
    assert NOT_CHOSEN not in several_in_words(facts)[0]
