"""What is chosen when a study is made is listed once: Python, the command line and their help take it from there."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typer

import pertstack as ps
from pertstack._base.errors import UnknownNameError
from pertstack.cli.entry import app
from pertstack.study.choices import StudyChoices, listed


def options_of_init():
    init = typer.main.get_command(app).commands["init"]
    return {p.name: p for p in init.params}


@pytest.mark.parametrize("choice", list(listed()), ids=lambda c: c.name)
def test_python_and_the_command_line_take_the_same_choices_with_the_same_help(choice):
    parameter = inspect.signature(ps.Study.create).parameters[choice.name]
    assert parameter.default == choice.default and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    told = f"{choice.name} : {choice.help.text[0].lower()}{choice.help.text[1:]}"
    assert told in inspect.getdoc(ps.Study.create)
    option = options_of_init()[choice.name]
    assert option.help == choice.help.text and (option.default or choice.default) == choice.default


def test_nothing_is_chosen_on_one_side_only():
    names = {c.name for c in listed()}
    assert set(options_of_init()) == names | {"study", "data", "dry_run"}
    assert set(inspect.signature(ps.Study.create).parameters) == names | {"root", "data"}


def test_text_is_taken_for_a_path_and_one_name_for_several():
    chosen = StudyChoices.of(plan="folds.csv", by="guide", support="kind=single", control_label=["ctrl", "NT"], seed=3)
    assert chosen.plan.plan == Path("folds.csv") and chosen.plan.seed == 3
    assert chosen.data.by == ("guide",) and chosen.data.control_label == ("ctrl", "NT")
    assert chosen.plan.support == ("kind=single",) and chosen.side.targets is None


def test_a_misspelt_option_is_refused_with_the_near_ones(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'grup'\. Did you mean 'group'"):
        ps.Study.create(tmp_path / "s", data="x.h5ad", grup="perturbation")
    assert not (tmp_path / "s").exists()
