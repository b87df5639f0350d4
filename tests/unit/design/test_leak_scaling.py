"""Scaling seen from the values: every set of rows that people fit scalings on, and what must not be accused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pertstack._base.findings import Finding
from pertstack.design.leaks.check_plan import check_plan
from pertstack.design.leaks.scaling import ScaleScan
from pertstack.design.plan.folds import FoldPlan

N_GENES = 30
CODES = {"scaling_fitted_on_all_rows", "test_scaled_by_itself", "scaled_on_development_rows", "scaled_min_max"}


@pytest.fixture
def world() -> tuple[pd.DataFrame, FoldPlan, Any, Any, Any]:
    """(metadata, plan, test mask, control, treated), two cell lines on different levels."""
    obs = pd.DataFrame(
        {"perturbation": [f"d{i // 8}" for i in range(400)], "cell_line": ["A", "B"] * 200},
        index=[f"s{i}" for i in range(400)],
    )
    rng = np.random.default_rng(0)
    level = rng.normal(7, 2, N_GENES) + (obs["cell_line"] == "B").to_numpy()[:, None] * rng.normal(0, 1, N_GENES)
    control = level + rng.normal(0, 0.7, (400, N_GENES))
    treated = control + rng.normal(0, 1.0, (400, N_GENES))
    plan = FoldPlan.make(obs, seed=1)
    test = plan.table.set_index("sample_id")["fold"].loc[obs.index].isna().to_numpy()
    return obs, plan, test, control, treated


def found(obs: pd.DataFrame, plan: FoldPlan, control: Any, treated: Any) -> list[Finding]:
    def chunks() -> Iterator[tuple[Any, Any, Any]]:
        for start in range(0, len(obs), 61):
            part = slice(start, start + 61)
            yield obs.index[part], control[part].astype(np.float32), treated[part].astype(np.float32)

    return [f for f in check_plan(plan, obs, chunks) if f.code in CODES]


def z(values: Any, fit: Any, ddof: int = 0) -> Any:
    return (values - fit.mean(axis=0)) / fit.std(axis=0, ddof=ddof)


def test_unscaled_values_are_not_accused(world):
    obs, plan, _, control, treated = world
    assert found(obs, plan, control, treated) == []
    assert found(obs, plan, np.zeros_like(control), treated - control) == []


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("which", ["both", "apart"])
def test_z_scores_over_all_rows_are_a_warning(world, which, ddof):
    obs, plan, _, control, treated = world
    both = np.concatenate([control, treated])
    fits = (both, both) if which == "both" else (control, treated)
    (finding,) = found(obs, plan, z(control, fits[0], ddof), z(treated, fits[1], ddof))
    assert (finding.severity, finding.code) == ("warning", "scaling_fitted_on_all_rows")
    assert finding.numbers["genes_scaled"] == N_GENES and finding.numbers["method"] == "z_score"


def test_z_scores_within_each_cell_line_are_seen_too(world):
    obs, plan, _, control, treated = world
    line = (obs["cell_line"] == "B").to_numpy()
    for part in (line, ~line):
        treated[part] = z(treated[part], treated[part])
    (finding,) = found(obs, plan, control, treated)
    assert finding.code == "scaling_fitted_on_all_rows" and finding.numbers["within_cell_lines"]
    assert finding.numbers["values"] == "treated"


def test_z_scores_over_development_rows_are_a_note(world):
    obs, plan, test, control, treated = world
    fit = np.concatenate([control[~test], treated[~test]])
    (finding,) = found(obs, plan, z(control, fit), z(treated, fit))
    assert (finding.severity, finding.code) == ("note", "scaled_on_development_rows")


@pytest.mark.parametrize("method", ["z", "min_max"])
def test_a_test_scaled_by_itself_is_a_warning(world, method):
    """L6: each part with its own statistics."""
    obs, plan, test, control, treated = world
    for part in (test, ~test):
        both = np.concatenate([control[part], treated[part]])
        if method == "z":
            control[part], treated[part] = z(control[part], both), z(treated[part], both)
        else:
            low, width = both.min(axis=0), np.ptp(both, axis=0)
            control[part], treated[part] = (control[part] - low) / width, (treated[part] - low) / width
    (finding,) = found(obs, plan, control, treated)
    assert (finding.severity, finding.code) == ("warning", "test_scaled_by_itself")
    assert finding.numbers["genes_scaled"] >= 0.9 * N_GENES


def test_min_max_over_all_rows_counts_the_genes_that_need_the_test(world):
    obs, plan, test, control, treated = world
    both = np.concatenate([control, treated])
    low, width = both.min(axis=0), np.ptp(both, axis=0)
    control, treated = (control - low) / width, (treated - low) / width
    (finding,) = found(obs, plan, control, treated)
    inside = np.concatenate([control[~test], treated[~test]])
    needs = (inside.min(axis=0) > 1e-6) | (inside.max(axis=0) < 1 - 1e-6)
    assert finding.code == "scaling_fitted_on_all_rows" and finding.numbers["method"] == "min_max"
    assert finding.numbers["genes_with_extreme_in_test_only"] == needs.sum() > 0


def test_differential_values_are_judged_without_their_zero_controls(world):
    obs, plan, _, control, treated = world
    delta = treated - control
    (finding,) = found(obs, plan, np.zeros_like(control), z(delta, delta))
    assert finding.code == "scaling_fitted_on_all_rows" and finding.numbers["values"] == "treated"


def test_sums_by_strips_of_genes_are_those_of_all_genes_at_once() -> None:
    """More genes than a strip holds, rows of two cell lines and both roles, in two pieces: same bits."""
    rng = np.random.default_rng(3)
    n, n_genes = 40, 601
    control, treated = rng.normal(7, 2, (2, n, n_genes)).astype(np.float32)
    development, line = rng.random(n) < 0.7, rng.integers(0, 2, n)
    scan = ScaleScan(development, line, 2)
    shift = treated[:25].mean(axis=0, dtype=np.float64)
    total, squares = np.zeros((2, 2, 2, 2, n_genes))
    for rows in (np.arange(25), np.arange(25, n)):
        scan.add(rows, control[rows], treated[rows])
        for role in (0, 1):
            for k in (0, 1):
                mine = rows[(development[rows] == (role == 0)) & (line[rows] == k)]
                for layer, values in enumerate((treated[mine], control[mine])):
                    total[role, k, layer] += (values - shift).sum(axis=0)
                    squares[role, k, layer] += ((values - shift) ** 2).sum(axis=0)
    np.testing.assert_array_equal(scan.total, total)
    np.testing.assert_array_equal(scan.squares, squares)
    mine = control[(line == 1) & ~development]
    np.testing.assert_array_equal(scan.low[1, 1, 1], mine.min(axis=0))
    np.testing.assert_array_equal(scan.high[1, 1, 1], mine.max(axis=0))
