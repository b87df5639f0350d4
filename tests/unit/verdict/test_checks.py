"""Every check says warning or note where it should, passed where it should, and not applicable when it cannot run."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.findings import SEVERITIES
from pertstack.verdict.checks.checks import CHECKS, run_checks, write_checks
from pertstack.verdict.checks.facts import Facts
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling

SETTING = Setting(kinds=KINDS, chosen="direct_pooled", test_looks=1)


def verdict(n=60, chosen="direct_pooled", oof=None, lines=("A375", "HT29", "MCF7"), by_name=None, **shift):
    test = world(n, lines, by_name=by_name or shifts(**shift))
    return judge(test, oof, dataclasses.replace(SETTING, chosen=chosen), resampling=PlainResampling(20))


@cache
def usual():
    return verdict()


def status(code, verdict=usual, **facts):
    """``verdict`` is one, or makes one when its turn comes."""
    found = {c.code: c for c in run_checks(Facts(verdict() if callable(verdict) else verdict, **facts))}
    return found[code]


def square(value, names=("mlp", "ridge", "knn")):
    return pd.DataFrame(np.full((len(names),) * 2, value) + np.eye(len(names)) * (1 - value), names, names)


def test_without_facts_nothing_passes_that_could_not_run():
    found = {c.code: c.severity for c in run_checks(Facts(usual()))}
    for code in (
        "redundancy",
        "correlated_errors",
        "unstable_weights",
        "calibration",
        "unseen_cell_line",
        "interval_coverage",
        "overfitting_gap",
        "below_mean",
    ):
        assert found[code] == "not applicable", code


def moved(**by_name):
    return {k: v | by_name.get(k, {}) for k, v in shifts().items()}


@pytest.mark.parametrize(
    ("code", "expected", "facts"),
    [
        ("dominant_model", "note", {"weights": {"direct_pooled": {"mlp": 0.9, "ridge": -0.1}}}),
        ("dominant_model", "passed", {"verdict": lambda: verdict(by_name=moved(ridge={"pooled": -0.005}))}),
        ("redundancy", "note", {"prediction_correlation": square(0.97)}),
        ("redundancy", "passed", {"prediction_correlation": square(0.8)}),
        ("correlated_errors", "note", {"error_correlation": square(0.93)}),
        ("correlated_errors", "passed", {"error_correlation": square(0.5)}),
        ("overfitting_gap", "warning", {"verdict": lambda: verdict(oof=world(by_name=shifts(pooled=0.08)))}),
        ("overfitting_gap", "passed", {"verdict": lambda: verdict(oof=world())}),
        ("overfitting_gap", "note", {"verdict": lambda: verdict(oof=world()), "in_sample": {"direct_pooled": 0.43}}),
        (
            "overfitting_gap",
            "warning",
            {"verdict": lambda: verdict(oof=world(), pooled=0.0), "in_sample": {"direct_pooled": 0.43}},
        ),
        ("overfitting_gap", "passed", {"verdict": lambda: verdict(oof=world()), "in_sample": {"direct_pooled": 0.37}}),
        (
            "below_mean",
            "warning",
            {
                "mean_name": "mlp",
                "verdict": lambda: verdict(by_name=moved(direct_pooled={"pooled": -0.05}, simplex={"pooled": -0.05})),
            },
        ),
        ("below_mean", "passed", {"mean_name": "plain_mean"}),
        ("too_good", "warning", {"verdict": lambda: verdict(pooled=0.10)}),
        ("too_good", "passed", {}),
        ("unstable_weights", "warning", {"weights": {"direct_pooled": {"mlp": 80.0, "ridge": -79.0}}}),
        ("unstable_weights", "warning", {"condition": {"direct_pooled": 1e12}}),
        ("unstable_weights", "note", {"weights": {"a": {"mlp": 80.0, "ridge": -79.0}}}),
        ("unstable_weights", "passed", {"weights": {"a": {"mlp": 0.8}}, "condition": {"a": 1e4}}),
        ("calibration", "warning", {"slopes": {"mlp": 1.0, "ridge": 0.2}}),
        ("calibration", "passed", {"slopes": {"mlp": 0.9}}),
        (
            "unseen_cell_line",
            "warning",
            {"fit_cell_lines": frozenset({"A375"}), "judged_cell_lines": frozenset({"A375", "PC3"})},
        ),
        (
            "unseen_cell_line",
            "passed",
            {"fit_cell_lines": frozenset({"A375"}), "judged_cell_lines": frozenset({"A375"})},
        ),
        ("hardly_above_mean", "note", {"mean_name": "simplex", "verdict": lambda: verdict(pooled=0.009)}),
        ("hardly_above_mean", "passed", {"mean_name": "plain_mean"}),
        ("coupled_gain", "warning", {"verdict": lambda: verdict(chosen="direct_own")}),
        ("coupled_gain", "note", {"verdict": lambda: verdict(own=0.016, pooled=0.0005, centroid=0.0, rmse=0.0)}),
        ("coupled_gain", "passed", {}),
        ("one_cell_line", "passed", {}),
        ("one_cell_line", "not applicable", {"verdict": lambda: verdict(lines=("A375",))}),
        ("few_groups", "note", {"verdict": lambda: verdict(12)}),
        ("few_groups", "passed", {}),
        (
            "coupled_gain",
            "not applicable",
            {"verdict": lambda: verdict(own=-0.02, pooled=-0.02, centroid=0.0, rmse=0.0)},
        ),
        ("shipped_loses", "warning", {"verdict": lambda: verdict(pooled=-0.03)}),
        ("shipped_loses", "warning", {"verdict": lambda: verdict(rmse=0.05)}),
        ("shipped_loses", "note", {"verdict": lambda: verdict(own=0.0, pooled=-0.001, centroid=0.0, rmse=0.0)}),
        ("shipped_loses", "passed", {}),
        ("interval_coverage", "warning", {"coverage": 0.82}),
        ("interval_coverage", "passed", {"coverage": 0.91}),
    ],
)
def test_status(code, expected, facts):
    found = status(code, **facts)
    assert found.severity == expected, found.message
    assert found.message.endswith(".")
    assert found.severity == "not applicable" or found.numbers


def test_a_gain_on_one_cell_line_only_is_a_warning():
    table = world(by_name=shifts(pooled=0.0))
    at = table.names.index("direct_pooled")
    table.values_by_name[at, 1] += np.where(table.samples["cell_line"] == "HT29", 0.15, -0.01).astype(np.float32)
    found = status("one_cell_line", verdict=judge(table, None, SETTING, resampling=PlainResampling(20)))
    assert found.severity == "warning" and found.numbers["left_out"] == "HT29"


@pytest.mark.parametrize("chosen", ["mlp", "best_single", None])
def test_where_a_single_model_ships_nothing_is_said_of_weights_or_gains(chosen):
    """The best single model holds all of its own weight and gains nothing on itself: neither is a finding."""
    table = world(by_name={**shifts(), "best_single": {}})
    kinds = {**KINDS, "best_single": "reference"}
    alone = judge(
        table,
        world(by_name={**shifts(), "best_single": {}}),
        dataclasses.replace(SETTING, chosen=chosen, kinds=kinds),
        resampling=PlainResampling(20),
    )
    facts = {"weights": {"best_single": {"mlp": 1.0}}, "in_sample": {"best_single": 0.5}}
    found = {c.code: c for c in run_checks(Facts(alone, **facts))}
    assert found["dominant_model"].numbers["weight_share"] is None
    for code in ("overfitting_gap", "too_good", "coupled_gain", "one_cell_line", "shipped_loses"):
        assert found[code].severity == "not applicable", (code, found[code].message)


def test_numbers_are_stable_and_every_check_has_its_section_in_the_docs():
    page = (Path(__file__).parents[3] / "docs" / "checks.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\d+)\. (\w+):", page, flags=re.M)
    assert sections == [(str(i), code) for i, (code, _, _) in enumerate(CHECKS, start=1)]
    assert [c for c, _, _ in CHECKS][:3] == ["dominant_model", "redundancy", "correlated_errors"]


def test_file_is_strict_json_with_counts(tmp_path):
    write_checks(tmp_path / "checks.json", run_checks(Facts(usual(), slopes={"mlp": np.float32(0.1)})))
    value = json.loads((tmp_path / "checks.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (
        value["format"] == 2
        and sum(value["counts"].values()) == len(CHECKS)
        and set(value["counts"]) == set(SEVERITIES)
    )
    assert value["checks"][7]["severity"] == "warning"


def test_a_model_that_a_probe_accuses_is_an_issue_with_its_words():
    assert status("suspicious_models").severity == "not applicable"
    assert status("suspicious_models", accused={}).severity == "passed"
    found = status("suspicious_models", accused={"mlp": ["mlp knows the noise."], "knn": ["knn too."]})
    assert found.severity == "warning" and found.number == 16
    assert "knn, mlp" in found.message and found.numbers["accused"]["mlp"] == ["mlp knows the noise."]
