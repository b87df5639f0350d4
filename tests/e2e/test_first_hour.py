"""What hurt new users: messages that recommend what does not exist, a README that does not run, NumPy's warnings."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import typer.main
from typer.testing import CliRunner

import pertstack as ps
from pertstack.cli.entry import app
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.design.plan.folds import FoldPlan
from pertstack.stacking.registry import COMBINERS
from pertstack.study.steps.init import plan_in_words

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {
    name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "--debug"}
    for name, command in COMMANDS.items()
}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
ANSWERS_OF_DATA = {"--map", "--control", "--control-layer", "--control-label", "--controls", "--metadata"}
"""What a message about rows, columns or controls may recommend: commands that read rows with controls take it."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module, with NAME where a value is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "NAME" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def recommended() -> Iterator[tuple[str, str, str]]:
    """File, command and option of every `pertstack COMMAND ... --option` in a message."""
    for path in sorted((ROOT / "src" / "pertstack").rglob("*.py")):
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            for command, rest in re.findall(r"pertstack ([a-z]+)([^`;.\n]*)", text):
                if command in OPTIONS:
                    yield from ((path.name, command, option) for option in OPTION.findall(rest))


def test_messages_recommend_options_that_the_command_has():
    found = list(recommended())
    assert len(found) > 20
    assert not [f"{file}: {command} {option}" for file, command, option in found if option not in OPTIONS[command]]


@pytest.mark.parametrize("command", ["init", "predict"])
def test_what_a_message_about_rows_recommends_the_command_takes(command):
    assert OPTIONS[command] >= ANSWERS_OF_DATA


@pytest.mark.parametrize(("groups", "tested", "rough"), [(40, 8, True), (120, None, False)])
def test_the_plan_says_what_its_groups_mean_for_the_interval(groups, tested, rough):
    """Twelve groups in the test were printed, and nothing of what that does to the answer."""
    obs = pd.DataFrame({"perturbation": [f"p{i}" for i in range(groups)], "cell_line": "A"})
    obs.index = obs.index.astype(str)
    plan = FoldPlan.make(obs, test_share=0.2)
    said, n = plan_in_words(plan), tested or len(plan.sample_ids("test"))
    assert f"The verdict's interval comes from the {n} groups of the test; four times as many would halve" in said
    assert ("With fewer than 20 it is a rough guide" in said) is rough
    assert "interval" not in plan_in_words(FoldPlan.make(obs, test_share=0))


def python_of_the_readme() -> tuple[str, str]:
    """Its lines for a study, and its lines for arrays."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## In Python")[1]
    study, arrays = section.partition("```python\n")[2].split("```")[0].split("# arrays only")
    return study, "#" + arrays


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> anndata.AnnData:
    """``lincs.h5ad`` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    simulate_to_file("lincs.h5ad", SimulationConfig(samples=120, genes=30, cell_lines=2, perturbations=30, seed=3))
    return anndata.read_h5ad("lincs.h5ad")


def predicted(world: anndata.AnnData, noise: float, seed: int) -> np.ndarray:
    shape = world.shape
    return world.layers["control"] + world.layers["effect"] + np.random.default_rng(seed).normal(0, noise, shape)


def test_the_readmes_lines_for_arrays_run_as_printed(world):
    line, drug, first = world.obs["cell_line"].to_numpy(), world.obs["perturbation"].to_numpy(), slice(0, 90)
    a, b, c, new = predicted(world, 0.5, 0), predicted(world, 0.8, 1), world.layers["control"], slice(90, None)
    names = {"ps": ps, "y": np.asarray(world.X)[first], "drug": drug[first], "line": line[first], "line2": line[new]}
    names |= {"fold": np.unique(drug[first], return_inverse=True)[1] % 3, "c": c[first], "c2": c[new]}
    names |= {"a": a[first], "a2": a[new], "b": b[first], "b2": b[new]}
    *before, last = ast.parse(python_of_the_readme()[1]).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(before, []), "README.md", "exec"), names)
    shown = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    assert shown.shape == (30, 30) and np.isfinite(shown).all()


def test_the_loop_over_folds_of_the_how_to_page_runs_as_printed(world):
    """And no prediction of a row knows the row: a mean change of the others is the same within a fold."""
    page = (ROOT / "docs" / "howto" / "outside-models.md").read_text(encoding="utf-8")
    ps.Study.create("my-study", data="lincs.h5ad", seed=0)
    Path("lincs.h5ad").rename("my-data.h5ad")
    exec(compile(textwrap.dedent(page.split("```python\n")[1].split("```")[0]), "outside-models.md", "exec"), {})
    study = ps.Study.open("my-study")
    study.add("alpha", "alpha.h5ad", fitted_on="plan", scale="treated")
    plan, made = study.plan.table.set_index("sample_id").loc[world.obs_names], anndata.read_h5ad("alpha.h5ad").X
    change = pd.DataFrame(made - world.layers["control"], index=world.obs_names)
    assert change.groupby(plan["fold"].astype("string").fillna("test").to_numpy()).std().max().max() < 1e-5
    assert change.round(4).drop_duplicates().shape[0] == 4


@pytest.mark.slow
def test_the_readmes_lines_for_a_study_run_as_printed(world):
    """A table of predictions is made here; ridge is fitted in the place of a network."""
    rows, genes = pd.DataFrame(index=world.obs_names), pd.DataFrame(index=world.var_names)
    anndata.AnnData(predicted(world, 0.3, 0).astype("f4"), rows, genes).write_h5ad("biolord_oof.h5ad")
    names: dict[str, object] = {}
    exec(python_of_the_readme()[0].replace('"transigen"', '"ridge"').replace("workers=2", 'engine="inline"'), names)
    assert Path("study/report.html").exists()
    assert "biolord" in names["study"].predictions.models()  # type: ignore[attr-defined]


@pytest.mark.parametrize("lacking", ["rows", "genes", "everything of some rows"])
def test_no_combination_warns_of_numbers_where_predictions_are_missing(lacking):
    """A mean of nothing, a division by no model: NumPy's warnings came twenty at a time."""
    rng = np.random.default_rng(1)
    drug = np.repeat(np.arange(20), 4)
    effect = rng.normal(size=(20, 12))[drug]
    made = {m: effect + rng.normal(0, 0.5, effect.shape) for m in "abcd"}
    if lacking == "rows":
        made["a"][:9] = np.nan
    elif lacking == "genes":
        made["b"][:, 3] = np.nan
    else:
        for values in made.values():
            values[5:7] = np.nan
    names = [n for n, c in COMBINERS.items() if c.family == "reference"]
    assert {"winsorised_mean", "trimmed_mean", "median"} <= set(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = ps.stack(made, treated=effect, folds=drug % 3, perturbation=drug, combiners=names)
        for name in names:
            fit.predict(made, combiner=name)


def test_the_commands_help_names_no_option_that_is_not_there():
    """Examples in docstrings are copied first."""
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    for command, known in OPTIONS.items():
        shown = runner.invoke(app, [command, "--help"]).output
        for line in (x for x in shown.splitlines() if "Example:" in x):
            assert set(OPTION.findall(line)) <= known, line
