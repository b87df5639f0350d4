"""Awkward and bad input of the stack step, through the command line: the right answer, or a clear error.

The same list through ``ps.stack`` is in ``tests/unit/stacking/test_awkward_input.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from copies import copied
from pertstack.cli.entry import main
from pertstack.study.study import Study

N_DRUGS, GENES = 40, [f"g{i:02d}" for i in range(30)]
Command = Callable[..., tuple[int, str, str]]


def make_data(path: Path, lines=("A", "B"), n_drugs=N_DRUGS, skip=()) -> anndata.AnnData:
    """Every drug once in every cell line, except the (drug, line) pairs in ``skip``."""
    rng = np.random.default_rng(0)
    rows = [(f"d{d:02d}", line) for d in range(n_drugs) for line in lines if (f"d{d:02d}", line) not in skip]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line"], index=[f"{p}_{c}" for p, c in rows])
    effects = dict(zip([f"d{d:02d}" for d in range(n_drugs)], rng.normal(0, 1, (n_drugs, len(GENES))), strict=True))
    basal = {line: rng.normal(8, 1, len(GENES)) for line in lines}
    control = np.stack([basal[c] for c in obs["cell_line"]]) + rng.normal(0, 0.3, (len(obs), len(GENES)))
    effect = np.stack([effects[p] for p in obs["perturbation"]])
    treated = control + effect + rng.normal(0, 0.4, control.shape)
    data = anndata.AnnData(
        treated.astype(np.float32), obs, pd.DataFrame(index=GENES), layers={"control": control.astype(np.float32)}
    )
    data.write_h5ad(path)
    return data


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, anndata.AnnData]:
    """A study without predictions, and its data. Copy before changing."""
    root = tmp_path_factory.mktemp("bare")
    data = make_data(root / "data.h5ad")
    Study.create(root / "study", data=root / "data.h5ad", seed=1)
    return root / "study", data


@pytest.fixture
def study(bare: tuple[Path, anndata.AnnData], tmp_path: Path) -> Path:
    return copied(bare[0], tmp_path / "study")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The installed entry point with its exit codes and messages, in this process."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pertstack", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return int(left.value.code or 0), said.out, " ".join(said.err.split())

    return call


def model(data: anndata.AnnData, error: float, seed: int) -> np.ndarray:
    """What a model would say: the measured, with errors of its own."""
    return (data.X + np.random.default_rng(seed).normal(0, error, data.shape)).astype(np.float32)


def add(run: Command, study: Path, name: str, data: anndata.AnnData, values, rows=None, genes=None, **options):
    """Through the door, as cross-fitted on this study's folds."""
    rows = np.arange(len(data)) if rows is None else np.flatnonzero(rows)
    genes = np.arange(len(GENES)) if genes is None else np.flatnonzero(genes)
    path = study.parent / f"{name}.npz"
    np.savez(
        path,
        predictions=np.ascontiguousarray(values[np.ix_(rows, genes)]),
        sample_ids=np.asarray(data.obs_names[rows], dtype=str),
        gene_names=np.asarray(GENES)[genes],
        card=(study / "card.json").read_text(),
    )
    return run(
        "add",
        study,
        name,
        path,
        "--fitted-on",
        "plan",
        "--scale",
        "treated",
        *[w for k, v in options.items() for w in (f"--{k}", v)],
    )


def stacked(run: Command, study: Path) -> tuple[dict, dict]:
    """``pertstack stack`` must do it; oof.json and diversity.json."""
    code, _, said = run("stack", study)
    assert code == 0, said
    read = [json.loads((study / "results" / f"{name}.json").read_text()) for name in ("oof", "diversity")]
    assert read[0]["failures"] == []
    for name, gap in read[0]["gaps"].items():
        assert np.isfinite(list(gap.values())).all(), name
    return read[0], read[1]


def added(run: Command, study: Path, data: anndata.AnnData, **models) -> None:
    for name, values in models.items():
        code, _, said = add(run, study, name, data, values)
        assert code == 0, said


def test_one_model_ships_alone(run, study, bare):
    added(run, study, bare[1], only=model(bare[1], 1.0, 1))
    oof, diversity = stacked(run, study)
    assert oof["choice"]["chosen"] == "best_single" and oof["choice"]["best_single"] == "only"
    assert diversity["effective_number"]["kish"] == diversity["effective_number"]["participation"] == 1.0


def test_identical_models_are_named_and_change_nothing(run, study, bare):
    one = model(bare[1], 1.0, 1)
    added(run, study, bare[1], a=one, b=one, c=model(bare[1], 1.3, 2))
    oof, diversity = stacked(run, study)
    assert ["a", "b"] in diversity["redundancy"]["clusters"]
    weights = json.loads((study / "results" / "weights.json").read_text())["combiners"]
    assert np.isfinite(weights["global_ridge"]["weights"]["mean"]).all()
    assert oof["choice"]["best_single"] == "a"
    error = diversity["ambiguity"]
    assert error["ensemble_error"] == pytest.approx(error["mean_error"] - error["ambiguity"], abs=1e-10)
    assert set(diversity["effective_number"]) == {"kish", "entropy", "participation", "best_linear", "equicorrelated"}
    assert diversity["effective_number"]["best_linear"] is None  # two equal models: the correlations are singular
    assert len(diversity["highest_disagreement"]) == len(diversity["shared_failures"]) == 20
    assert run("report", study)[0] == 0
    page = " ".join((study / "report.html").read_text().split())
    assert "<dt>models beyond 0.95 correlated</dt><dd>a, b" in page
    first = diversity["highest_disagreement"][0]
    assert f"rms between models)</dt><dd>{first['sample_id']} ({first['perturbation']}" in page
    assert "shared failures" in page and "by cell line</dt><dd>A " in page


def test_a_constant_model_gets_no_credit(run, study, bare):
    code, _, said = add(run, study, "flat", bare[1], np.full(bare[1].shape, 8.0, dtype=np.float32))
    if code == 0:
        added(run, study, bare[1], a=model(bare[1], 1.0, 1), b=model(bare[1], 1.1, 2))
        oof, diversity = stacked(run, study)
        assert oof["choice"]["best_single"] == "a"
        assert diversity["correlation"]["predictions"][0][0] in (1.0, None)
    else:
        assert code in (2, 3) and "flat" in said and "constant" in said


def test_missing_rows_and_genes_are_recorded_not_padded(run, study, bare):
    data = bare[1]
    added(run, study, data, a=model(data, 1.0, 1), b=model(data, 1.1, 2))
    some = np.arange(len(data)) % 5 > 0
    code, _, said = add(run, study, "rows", data, model(data, 0.9, 3), rows=some)
    assert code != 0 and "--missing record" in said
    for name, lack in {"rows": {"rows": some}, "genes": {"genes": np.arange(30) > 4}}.items():
        code, _, said = add(run, study, name, data, model(data, 0.9, 3), missing="record", **lack)
        assert code == 0, said
    oof, diversity = stacked(run, study)
    assert diversity["n_genes"] == 25
    assert any("rows" in c for cautions in oof["cautions"].values() for c in cautions)


def test_a_gene_that_nobody_predicts_is_an_error_that_names_it(run, study, bare):
    for name in ("a", "b"):
        code, _, said = add(
            run, study, name, bare[1], model(bare[1], 1.0, 1), genes=np.arange(30) != 7, missing="record"
        )
        assert code == 0, said
    code, _, said = run("stack", study)
    assert code == 2 and "g07" in said and "No model predicts" in said


def test_unknown_combiners_show_the_near_ones(run, study, bare):
    added(run, study, bare[1], a=model(bare[1], 1.0, 1))
    code, _, said = run("stack", study, "--combiners", "simplx")
    assert code == 2 and "simplex" in said
    assert not (study / "results" / "weights.json").exists()
    assert not (study / "results" / "calibration.json").exists()  # refused before anything is read


def test_genes_never_seen_cannot_be_predicted(run, study, bare, tmp_path):
    data = bare[1]
    added(run, study, data, a=model(data, 1.0, 1))
    stacked(run, study)
    new = data[:4].copy()
    new.obs_names = [f"new{i}" for i in range(4)]
    new.obs["perturbation"] = [f"new{i}" for i in range(4)]
    new = new[:, 3:].copy()
    new.write_h5ad(tmp_path / "new.h5ad")
    code, _, said = run("predict", study, tmp_path / "new.h5ad", tmp_path / "out.h5ad")
    assert code in (2, 3) and "lacks 3 of the study's 30 genes" in said
    assert not (tmp_path / "out.h5ad").exists()


def test_a_fold_without_a_cell_line(run, tmp_path):
    """Line B is measured in folds 0 and 1 only: it is written down at init, and everything still works."""
    fold = {f"d{d:02d}": "test" if d % 5 == 4 else d % 5 % 3 for d in range(N_DRUGS)}
    skip = {(drug, "B") for drug, k in fold.items() if k == 2}
    data = make_data(tmp_path / "data.h5ad", skip=skip)
    table = pd.DataFrame({"sample_id": data.obs_names, "group": data.obs["perturbation"].to_numpy()})
    table["role"] = ["test" if fold[g] == "test" else "development" for g in table["group"]]
    table["fold"] = pd.array([None if fold[g] == "test" else fold[g] for g in table["group"]], dtype="Int64")
    table.to_csv(tmp_path / "plan.csv", index=False)
    study = tmp_path / "study"
    code, _, said = run("init", study, "--data", tmp_path / "data.h5ad", "--plan", tmp_path / "plan.csv")
    assert code == 0, said
    findings = json.loads((study / "plan" / "findings.json").read_text())
    findings = findings if isinstance(findings, list) else findings["findings"]
    assert any(f["code"] == "cell_line_absent_from_a_fold" and "B" in f["message"] for f in findings)
    added(run, study, data, a=model(data, 1.0, 1), b=model(data, 1.1, 2))
    oof, diversity = stacked(run, study)
    assert set(diversity["correlation_per_cell_line"]) == {"A", "B"}
    assert oof["choice"]["best_single"] == "a"


def test_fewer_rows_than_models(run, tmp_path):
    data = make_data(tmp_path / "data.h5ad", lines=("A",), n_drugs=9)
    study = tmp_path / "study"
    code, _, said = run("init", study, "--data", tmp_path / "data.h5ad", "--seed", 1)
    assert code == 0, said
    added(run, study, data, **{f"m{i}": model(data, 1.0, i) for i in range(9)})
    oof, _ = stacked(run, study)
    assert any("groups: bounds are a rough guide" in r for r in oof["choice"]["reasons"])


@pytest.mark.parametrize(
    ("primary", "metric", "best"),
    [
        ("r2_top20", "r2_top20@pooled", "loud"),
        ("rmse_all", "rmse_all@pooled", "quiet"),
        pytest.param("pearson_all@centroid", "pearson_all@centroid", "loud", marks=pytest.mark.slow),
        pytest.param("cod_all", "cod_all@pooled", "quiet", marks=pytest.mark.slow),
    ],
)
def test_the_primary_metric_is_obeyed_to_the_end(primary, metric, best, run, study, bare):
    """ "loud" has the profile at two and a half times its size, "quiet" the size and less of the profile."""
    data, rng = bare[1], np.random.default_rng(5)
    control, effect = data.layers["control"], data.X - data.layers["control"]
    loud, quiet = (
        (control + scale * (effect + rng.normal(0, error, data.shape))).astype(np.float32)
        for scale, error in ((2.5, 0.3), (0.6, 0.9))
    )
    added(run, study, data, loud=loud, quiet=quiet)
    assert run("plan", study, "--primary", primary)[0] == 0
    code, _, said = run("stack", study, "--combiners", "simplex,global_ridge")
    assert code == 0, said
    oof = json.loads((study / "results" / "oof.json").read_text())["choice"]
    assert (oof["primary"], oof["best_single"]) == (metric, best)
    assert all(gains[0]["metric"] == metric for gains in oof["panel"].values())
    weights = json.loads((study / "results" / "weights.json").read_text())["combiners"]["best_single"]["weights"]
    assert (weights["facts"]["chosen"], weights["facts"]["metric"]) == (best, metric)
    code, _, said = run("verdict", study, "--memory", "1 kB")
    assert code == 2 and "does not hold one sample" in said and Study.open(study).folder.ledger.looks() == 0
    assert run("verdict", study)[0] == 0
    board = json.loads((study / "results" / "leaderboard.json").read_text())
    assert f"{board['primary_metric']}@{board['reference']}" == metric
    assert (board["best_single"], board["chosen"]) == (best, oof["chosen"])
    assert all(metric in row["versus_best_single"] for row in board["rows"] if row["kind"] == "combiner")


def test_arrays_give_the_numbers_of_the_study(run, study, bare):
    """``ps.stack`` on the same predictions, folds and truth: same scores of every combiner, same choice."""
    data = bare[1]
    models = {f"m{i}": model(data, error, i) for i, error in enumerate((0.9, 1.0, 1.1))}
    added(run, study, data, **models)
    oof, _ = stacked(run, study)
    plan = pd.read_parquet(study / "plan" / "folds.parquet")
    plan = plan[plan["role"] == "development"]
    rows = data.obs_names.get_indexer(plan["sample_id"])
    fit = ps.stack(
        {m: p[rows] for m, p in models.items()},
        treated=data.X[rows],
        control=data.layers["control"][rows],
        folds=plan["fold"].astype(int).to_numpy(),
        perturbation=data.obs["perturbation"].to_numpy()[rows],
        cell_line=data.obs["cell_line"].to_numpy()[rows],
        group=plan["group"].to_numpy(),
        gene_names=GENES,
    )
    assert set(fit.nested.names) - {"no_change"} == set(oof["gaps"]) - {"no_change"}
    for name, gap in oof["gaps"].items():
        if name in fit.scores.names:
            assert fit.scores.mean(name, "r2_top20@pooled").value == pytest.approx(gap["out_of_fold"], abs=2e-4), name
    assert (fit.chosen, fit.choice.best_single) == (oof["choice"]["chosen"], oof["choice"]["best_single"])
