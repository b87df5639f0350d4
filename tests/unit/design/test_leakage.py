"""Each leak is committed on purpose, and the finding names it with its numbers; a clean design is left in peace."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack._base.machine import scratch
from pertstack.design.leaks.check_plan import check_plan, placed
from pertstack.design.leaks.near import candidates, exact_correlations
from pertstack.design.leaks.rows import SKETCH, RowScan
from pertstack.design.plan.folds import FoldPlan

LINES = ("A549", "MCF7", "PC3")
N_GENES = 60
Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def world(n_perturbations: int = 60, replicates: int = 2) -> pd.DataFrame:
    names = [(f"d{p}", line, r) for p in range(n_perturbations) for line in LINES for r in range(replicates)]
    return pd.DataFrame(
        {"perturbation": [n[0] for n in names], "cell_line": [n[1] for n in names]},
        index=[f"{p}|{line}|{r}" for p, line, r in names],
    )


def rows_of(obs: pd.DataFrame, seed: int = 0) -> Rows:
    """(control, treated): no two rows alike."""
    rng = np.random.default_rng(seed)
    control = rng.normal(8, 1, (len(obs), N_GENES)).astype(np.float32)
    return control, (control + rng.normal(0, 1, control.shape)).astype(np.float32)


def cut(obs: pd.DataFrame, rows: Rows, size: int = 37) -> Iterator[tuple[Any, Any, Any]]:
    for start in range(0, len(obs), size):
        part = slice(start, start + size)
        yield obs.index[part], rows[0][part], rows[1][part]


def found(findings: list[Finding], code: str) -> Finding:
    matching = [f for f in findings if f.code == code]
    assert len(matching) == 1, [f.code for f in findings]
    return matching[0]


def place_of(plan: FoldPlan) -> pd.Series:
    return plan.table.set_index("sample_id")["fold"].fillna(-1)


def test_a_clean_design_gives_no_warning() -> None:
    obs = world()
    assert check_plan(FoldPlan.make(obs), obs, cut(obs, rows_of(obs))) == []
    assert [f.code for f in check_plan(FoldPlan.make(obs), obs)] == ["rows_not_checked"]


def test_random_rows_called_groups_are_an_error() -> None:
    obs = world()
    table = pd.DataFrame({"sample_id": obs.index, "fold": [i % 4 if i % 4 < 3 else None for i in range(len(obs))]})
    plan = FoldPlan.from_table(table, obs, group_by="perturbation")
    findings = check_plan(plan, obs)
    assert found(findings, "group_across_folds").severity == "error"
    roles = found(findings, "group_across_roles")
    assert roles.severity == "error"
    assert roles.numbers["groups"] == sum(
        len(set(part) - {-1}) > 0 and -1 in set(part) for _, part in place_of(plan).groupby(obs["perturbation"])
    )


def test_random_rows_called_random_rows_are_a_warning_with_the_share() -> None:
    obs = world()
    plan = FoldPlan.make(obs, "sample")
    findings = check_plan(plan, obs)
    finding = found(findings, "perturbation_across")
    place = place_of(plan)
    known = set(obs["perturbation"][(place >= 0).to_numpy()])
    share = obs["perturbation"][(place < 0).to_numpy()].isin(known).mean()
    assert finding.severity == "warning"
    assert finding.numbers["test_share"] == pytest.approx(share)
    assert found(findings, "replicate_across").severity == "warning"


@pytest.mark.parametrize("group_by", ["cell_line", "perturbation+cell_line"])
def test_known_perturbations_are_what_some_groupings_ask_for(group_by: str) -> None:
    obs = world()
    obs["cell_line"] = [f"line{i % 12}" for i in range(len(obs))]
    findings = check_plan(FoldPlan.make(obs, group_by, n_folds=2), obs)
    assert found(findings, "perturbation_across").severity == "note"
    assert not [f for f in findings if f.severity == "error"]


def test_one_compound_under_two_names_is_an_error() -> None:
    pytest.importorskip("rdkit")
    obs = world()
    obs["smiles"] = "C" * 3 + obs["perturbation"].map(lambda p: "C" * int(p[1:]))
    plan = FoldPlan.make(obs)
    assert not [f for f in check_plan(plan, obs) if f.severity == "error"]
    place = place_of(plan).groupby(obs["perturbation"]).first()
    here, there = place.index[place == -1][0], place.index[place == 0][0]
    obs.loc[obs["perturbation"] == here, "smiles"] = "OCCc1ccccc1"
    obs.loc[obs["perturbation"] == there, "smiles"] = "c1ccc(cc1)CCO"
    finding = found(check_plan(plan, obs), "structure_across")
    assert (finding.severity, finding.count, finding.numbers["in_test"]) == ("error", 1, 1)
    assert f"{min(here, there)} = {max(here, there)}" in finding.message
    assert not [f for f in check_plan(FoldPlan.make(obs, "smiles"), obs) if f.severity == "error"]


def test_tautomers_are_one_compound() -> None:
    """2-hydroxypyridine and 2-pyridone: two canonical SMILES, one InChIKey."""
    pytest.importorskip("rdkit")
    obs = world()
    obs["smiles"] = obs["perturbation"].map(lambda p: "C" * (int(p[1:]) + 1))
    plan = FoldPlan.make(obs, "smiles")
    place = place_of(plan).groupby(obs["perturbation"]).first()
    here, there = place.index[place == -1][0], place.index[place == 0][0]
    obs.loc[obs["perturbation"] == here, "smiles"] = "Oc1ccccn1"
    obs.loc[obs["perturbation"] == there, "smiles"] = "O=c1cccc[nH]1"
    for group_by, severity in (("perturbation", "error"), ("smiles", "warning")):
        table = plan.table[["sample_id", "fold"]]
        finding = found(check_plan(FoldPlan.from_table(table, obs, group_by=group_by), obs), "structure_across")
        assert (finding.severity, finding.count) == (severity, 1)


def test_the_founding_studys_export_is_reported_for_what_it_is() -> None:
    """PDGrapher as it was exported: rows split at random, controls paired in turn, scaling fitted on everything."""
    obs = world(40)
    control, treated = rows_of(obs)
    control = control[:12][np.arange(len(obs)) % 12]
    both = np.concatenate([control, treated])
    low, span = both.min(axis=0), both.max(axis=0) - both.min(axis=0)
    fold = np.random.default_rng(0).permutation(len(obs)) % 5
    table = pd.DataFrame({"sample_id": obs.index, "fold": [None if f == 4 else f for f in fold]})
    rows = (control - low) / span, (treated - low) / span
    honest = check_plan(FoldPlan.from_table(table, obs, group_by="sample"), obs, lambda: cut(obs, rows))
    codes = {f.code: f.severity for f in honest}
    expected = ("perturbation_across", "replicate_across", "control_across_roles", "scaling_fitted_on_all_rows")
    assert {codes[c] for c in expected} == {"warning"}
    claimed = check_plan(FoldPlan.from_table(table, obs, group_by="perturbation"), obs, lambda: cut(obs, rows))
    assert found(claimed, "group_across_roles").severity == "error"


@pytest.mark.parametrize("border", ["roles", "folds"])
def test_a_copied_profile_is_an_error_and_names_both(border: str) -> None:
    obs = world()
    plan, (control, treated) = FoldPlan.make(obs), rows_of(obs)
    place = place_of(plan).to_numpy()
    a, b = np.flatnonzero(place == 0)[3], np.flatnonzero(place == (-1 if border == "roles" else 1))[5]
    treated[a] = treated[b]
    finding = found(check_plan(plan, obs, cut(obs, (control, treated))), "identical_rows_across")
    assert (finding.severity, finding.count, finding.numbers["in_test"]) == ("error", 1, int(border == "roles"))
    assert set(finding.examples[0].split(" = ")) == {obs.index[a], obs.index[b]}


def test_copies_within_one_fold_are_a_note() -> None:
    obs = world()
    plan, (control, treated) = FoldPlan.make(obs), rows_of(obs)
    a, b = np.flatnonzero(place_of(plan).to_numpy() == 0)[:2]
    treated[a] = treated[b]
    findings = check_plan(plan, obs, cut(obs, (control, treated)))
    assert [(f.severity, f.code) for f in findings] == [("note", "identical_rows_inside")]


@pytest.mark.parametrize("twice", [True, False])
def test_a_nearly_copied_profile_is_found(twice: bool) -> None:
    obs = world()
    plan, rows = FoldPlan.make(obs), rows_of(obs)
    place = place_of(plan).to_numpy()
    line = obs["cell_line"].to_numpy()
    a = np.flatnonzero((place == 0) & (line == "PC3"))[3]
    b = np.flatnonzero((place == -1) & (line == "PC3"))[5]
    rows[1][a] = rows[1][b] + np.random.default_rng(1).normal(0, 0.02, N_GENES)
    finding = found(
        check_plan(plan, obs, (lambda: cut(obs, rows)) if twice else cut(obs, rows)), "near_duplicates_across"
    )
    assert (finding.severity, finding.count, finding.numbers["exact"]) == ("warning", 1, twice)
    assert {s.split(" (")[0] for s in finding.examples[0].split(" ~ ")} == {obs.index[a], obs.index[b]}


def test_many_sketches_lie_in_a_file_and_find_the_same(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    obs = world()
    plan, rows = FoldPlan.make(obs), rows_of(obs)
    rows[1][3] = rows[1][-1] + np.random.default_rng(1).normal(0, 0.02, N_GENES)
    plain = check_plan(plan, obs, lambda: cut(obs, rows))
    monkeypatch.setattr(scratch, "IN_MEMORY", 1000)
    reserved: list[int] = []
    monkeypatch.setattr(scratch.os, "posix_fallocate", lambda file, start, size: reserved.append(size), raising=False)
    assert check_plan(plan, obs, lambda: cut(obs, rows), scratch=tmp_path) == plain
    assert reserved == [len(obs) * SKETCH * 4] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("near", [0.999, 0.97, 0.9])
def test_no_pair_above_the_threshold_is_missed(near: float) -> None:
    """Against every pair, with rows at all distances around the threshold."""
    obs = world()
    plan, (_, treated) = FoldPlan.make(obs), rows_of(obs)
    rng = np.random.default_rng(2)
    for a in range(0, 200, 2):
        treated[a] = treated[a + 132] + rng.normal(0, np.sqrt(1 - near) * rng.uniform(0.5, 3), N_GENES)
    frame = placed(plan, obs)
    scan = RowScan.empty(frame)
    scan.add(np.arange(len(obs)), np.zeros_like(treated), treated)
    pairs, complete = candidates(scan, frame["place"].to_numpy(), near)
    again = lambda: [(np.arange(len(obs)), treated, treated)]  # noqa: E731
    ours = {tuple(p) for p, r in zip(pairs.tolist(), exact_correlations(scan, pairs, again), strict=True) if r >= near}
    centred = treated - pd.DataFrame(treated).groupby(obs["cell_line"].to_numpy()).transform("mean").to_numpy()
    r, place = np.corrcoef(centred.astype(float)), frame["place"].to_numpy()
    n = len(obs)
    expected = {(i, j) for i in range(n) for j in range(i + 1, n) if r[i, j] >= near and place[i] != place[j]}
    assert complete
    assert len(expected) > 3
    assert ours == expected


def test_the_search_for_near_duplicates_holds_little_beside_the_sketches() -> None:
    n = 20_000
    frame = pd.DataFrame({"cell_line": "A375", "place": np.arange(n) % 4 - 1})
    scan = RowScan.empty(frame)
    scan.add(np.arange(n), np.zeros((n, 30)), np.random.default_rng(0).normal(size=(n, 30)))
    arrays = [v for v in vars(scan).values() if isinstance(v, np.ndarray)]
    assert sum(v.nbytes for v in arrays if len(v) == n) < 640 * n  # 512 of them are the sketch
    tracemalloc.start()
    pairs, complete = candidates(scan, frame["place"].to_numpy(), 0.999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert complete and len(pairs) == 0
    assert peak < 800 * n, peak / n  # all unit vectors in float64 would be 1,024


def test_a_search_that_finds_too_much_stops_and_says_at_least() -> None:
    obs = world(100)
    control, treated = rows_of(obs)
    same = np.linspace(0, 5, N_GENES)[None, :] * np.random.default_rng(0).choice([-1, 1], (len(obs), 1))
    rows = (control, (8 + same + np.random.default_rng(1).normal(0, 1e-3, treated.shape)).astype(np.float32))
    finding = found(check_plan(FoldPlan.make(obs), obs, cut(obs, rows)), "near_duplicates_across")
    assert finding.message.startswith("at least 20,000 pairs")
    assert finding.numbers["complete"] is False


def test_shared_controls_are_counted_by_value_and_by_name() -> None:
    obs = world()
    plan, (control, treated) = FoldPlan.make(obs), rows_of(obs)
    pool = control[:10].copy()
    control = pool[np.arange(len(obs)) % 10]
    n_test = int((place_of(plan) < 0).sum())
    finding = found(check_plan(plan, obs, cut(obs, (control, treated))), "control_across_roles")
    assert (finding.severity, finding.count, finding.numbers["test_samples"]) == ("warning", 10, n_test)
    named = obs.assign(control_id=[f"c{i % 10}" for i in range(len(obs))])
    assert (
        found(check_plan(plan, named, cut(obs, (control, treated))), "control_across_roles").numbers == finding.numbers
    )
    zero = check_plan(plan, obs, cut(obs, (control * 0, treated)))
    assert [f.code for f in zero] == ["no_controls"]


@pytest.mark.parametrize("fitted_on", ["all", "development"])
def test_scaling_with_the_test_in_view_is_seen(fitted_on: str) -> None:
    obs = world()
    plan, (control, treated) = FoldPlan.make(obs), rows_of(obs)
    inside = (place_of(plan) >= 0).to_numpy() | (fitted_on == "all")
    both = np.concatenate([control[inside], treated[inside]])
    low, high = both.min(axis=0), both.max(axis=0)
    scaled = ((control - low) / (high - low), (treated - low) / (high - low))
    codes = [f.code for f in check_plan(plan, obs, cut(obs, scaled))]
    assert ("scaling_fitted_on_all_rows" in codes) == (fitted_on == "all")
    assert "scaling_fitted_on_all_rows" not in [f.code for f in check_plan(plan, obs, cut(obs, (control, treated)))]


def test_cell_lines_plates_and_fold_sizes() -> None:
    obs = world(12, 1)
    obs["plate"] = [f"p{i % 3}" for i in range(len(obs))]
    plan = FoldPlan.make(obs)
    place = place_of(plan).to_numpy()
    obs.loc[obs.index[np.flatnonzero(place == -1)[:2]], "cell_line"] = "ONLYTEST"
    obs.loc[obs.index[np.flatnonzero(place == 1)[:2]], "cell_line"] = "ONEFOLD"
    findings = check_plan(plan, obs)
    assert found(findings, "cell_line_only_in_test").examples == ("ONLYTEST",)
    assert found(findings, "cell_line_in_one_fold").examples == ("ONEFOLD",)
    assert found(findings, "plate_across").severity == "note"
    assert found(findings, "tiny_test").numbers["groups"] == 2
    assert [f.severity for f in findings if f.code == "tiny_fold"] == ["warning"] * 3


def test_one_group_much_larger_than_others() -> None:
    obs = world()
    big = pd.concat(
        [obs, pd.DataFrame({"perturbation": "d0", "cell_line": "A549"}, index=[f"x{i}" for i in range(900)])]
    )
    assert found(check_plan(FoldPlan.make(big, test_share=0), big), "uneven_folds").severity == "warning"


def test_metadata_that_changed_since_the_plan() -> None:
    obs = world()
    plan = FoldPlan.make(obs)
    finding = found(check_plan(plan, obs.assign(perturbation=["other", *obs["perturbation"][1:]])), "group_changed")
    assert (finding.severity, finding.examples) == ("error", (obs.index[0],))


def test_rows_and_metadata_that_do_not_belong_to_the_plan() -> None:
    obs = world()
    plan, rows = FoldPlan.make(obs), rows_of(obs)
    with pytest.raises(InputError, match="1 samples of the plan have no metadata"):
        check_plan(plan, obs.iloc[1:])
    with pytest.raises(InputError, match="not in the plan: 'strange'"):
        check_plan(plan, obs, [(["strange"], rows[0][:1], rows[1][:1])])
    with pytest.raises(InputError, match="have no rows"):
        check_plan(plan, obs, [(obs.index[:1], rows[0][:1], rows[1][:1])])
