"""Grouped by parts: no fit meets a part of what it predicts in another combination (issue 16, E4)."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.design.plan.apart import apart_findings
from pertstack.design.plan.assign import linked_places, salt_of
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.known import ALONE, JOINED, SINGLE, fitted_of, known_levels
from pertstack.fit.jobs.job import Job
from pertstack.study.development.fit_rows import fit_rows
from pertstack.study.study import Study

from .conftest import ok, pertstack

N = 30
PAIRS = [f"g{i:02d}+g{(i + 1) % N:02d}" for i in range(N)]  # a ring: every gene is in two doubles
NAMES = [f"g{i:02d}+ctrl" for i in range(N)] + [
    p if i % 2 else "+".join(p.split("+")[::-1]) for i, p in enumerate(PAIRS)
]


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    rng = np.random.default_rng(0)
    effect = {f"g{i:02d}": rng.normal(0, 1, N) for i in range(N)}
    control = np.full((len(NAMES), N), 8, dtype=np.float32)
    treated = control + np.stack([sum(effect[g] for g in n.split("+") if g in effect) for n in NAMES])
    treated = treated + rng.normal(0, 0.2, treated.shape)
    obs = pd.DataFrame({"perturbation": NAMES, "cell_line": "K562"}, index=[f"s{i:02d}" for i in range(len(NAMES))])
    var = pd.DataFrame(index=[f"g{i:02d}" for i in range(N)])
    path = tmp_path_factory.mktemp("ring") / "ring.h5ad"
    anndata.AnnData(treated.astype(np.float32), obs, var, layers={"control": control}).write_h5ad(path)
    return path


def genes(names):
    return {g for n in names for g in str(n).split("+")} - {"ctrl"}


def test_no_fit_meets_a_part_of_what_it_predicts(ring, tmp_path):
    said = ok("init", tmp_path / "s", "--data", ring, "--group", "parts", "--support", "kind=single", "--test", 0.1)
    assert "new combinations of parts that no fitted combination has" in said
    study = Study.open(tmp_path / "s")
    assert "parts_kept_apart" in (tmp_path / "s" / "plan" / "findings.json").read_text()
    samples = study.folder.samples
    doubles = samples[~samples["perturbation"].str.contains("ctrl")]
    left_out = 0
    for fold, also in ((0, None), (1, None), (2, None), (0, 1), (1, 2), (None, None)):
        asked = doubles[doubles["role"] == "test"] if fold is None else doubles[doubles["fold"].isin([fold, also])]
        rows = fit_rows(study.folder, Job.of("additive", fold=fold, also=also)).obs["perturbation"]
        fitted = [n for n in rows if "ctrl" not in n]
        assert not genes(fitted) & genes(asked["perturbation"])
        others = doubles.drop(asked.index)
        others = others[others["role"] == "development"]
        assert set(fitted) == {n for n in others["perturbation"] if not genes([n]) & genes(asked["perturbation"])}
        assert len(rows) - len(fitted) == N  # all singles, always
        left_out += len(others) - len(fitted)
    assert left_out
    assert all(r.ok for r in study.cross_fit(["mean_treated", "additive", "scaled_sum"], engine="inline"))
    study.stack(["mean", "simplex"])
    study.verdict()
    levels = known_levels(doubles["perturbation"], doubles["fold"], fitted_of(samples), apart=True)
    assert set(levels[JOINED]) == {"0 of 2"} and set(levels[ALONE]) == {"2 of 2"}
    assert "known_at_fit" not in study.leaderboard().several  # one level: nothing differs
    assert pertstack("audit", tmp_path / "s").returncode == 0


def test_combinations_that_share_parts_go_together():
    parts = {p: tuple(sorted(p.split("+"))) for p in PAIRS}
    places = linked_places(parts, salt=salt_of(3), n_folds=3, test_share=0.2)
    assert places == linked_places(dict(reversed(parts.items())), salt=salt_of(3), n_folds=3, test_share=0.2)
    sizes = [sum(v == k for v in places.values()) for k in (None, 0, 1, 2)]
    assert sizes == [6, 8, 8, 8]
    crossing = sum(places[a] != places[b] for a, b in zip(PAIRS, PAIRS[1:] + PAIRS[:1], strict=True))
    assert crossing <= 8  # of 30 neighbours on the ring; three in four cross where folds are drawn
    assert places != linked_places(parts, salt=salt_of(4), n_folds=3, test_share=0.2)
    alone = {f"x{i}": (f"x{i}",) for i in range(9)}
    assert set(linked_places(alone, salt=salt_of(0), n_folds=3, test_share=0).values()) == {0, 1, 2}


def test_the_plan_says_what_it_costs_and_proposes_itself():
    obs = pd.DataFrame({"perturbation": NAMES, "cell_line": "K562"}, index=[f"s{i}" for i in range(len(NAMES))])
    single = obs["perturbation"].str.contains("ctrl")
    (plain,) = apart_findings(FoldPlan.make(obs, seed=1, support=single), obs)
    assert plain.code == "parts_shared" and "--group parts" in plain.message
    (kept,) = apart_findings(FoldPlan.make(obs, "parts", seed=1, support=single), obs)
    gone = sum(lost for lost, _ in kept.numbers.values())
    assert kept.code == "parts_kept_apart" and kept.severity == "note" and 0 < gone < plain.numbers["rows_that_share"]
    dense = pd.DataFrame({"perturbation": [f"a+b{i}" for i in range(12)], "cell_line": "K562"})
    dense.index = dense.index.map(lambda i: f"d{i}")
    (warned,) = apart_findings(FoldPlan.make(dense, "parts", seed=1), dense)
    assert warned.severity == "warning" and "4 of 4" not in warned.message and "folds 5" in warned.message
    drugs = pd.DataFrame(
        {"perturbation": [f"drug{i}" for i in range(12)], "cell_line": "A"}, index=list("abcdefghijkl")
    )
    assert apart_findings(FoldPlan.make(drugs), drugs) == []


def test_what_cannot_be_grouped_by_parts_is_refused():
    drugs = pd.DataFrame(
        {"perturbation": [f"drug{i}" for i in range(12)], "cell_line": "A"}, index=list("abcdefghijkl")
    )
    with pytest.raises(InputError, match="no perturbation here joins parts"):
        FoldPlan.make(drugs, "parts")
    pairs = drugs.assign(perturbation=[f"a{i}+b{i}" for i in range(12)], parts="x")
    with pytest.raises(InputError, match="rename the column"):
        FoldPlan.make(pairs, "parts")


def test_new_rows_are_held_against_what_final_fits_saw():
    fitted = {0: ("a+b",), 1: ("b+c", "d+e"), -1: ("a+ctrl", "b+ctrl", "c+ctrl")}
    found = known_levels(["a+b", "a+ctrl"], [0, None], fitted, apart=True)
    assert found[JOINED] == ["0 of 2", SINGLE]
    assert known_levels(["a+b"], [0], fitted)[JOINED] == ["1 of 2"]
