"""Combinations from the effects of their parts, against what one computes by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.data.side.side import PerturbationFeatures, SideInformation
from pertstack.fit.baselines.parts import LargerChange, MeanOfParts, Parts, ScaledSum
from references.fit_world import make_rows

NAMES = ("a", "b", "c", "a+b", "a+c", "b+c")
GENES = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


def world(scale):
    """Six conditions, four rows each; a double is its parts' sum times a scale per gene. Noise-free."""
    rows = make_rows(n_perturbations=6, replicates=4, cell_lines=("A",))
    drug = np.array([NAMES[int(p[1:])] for p in rows.perturbation], dtype=object)
    rng = np.random.default_rng(0)
    single = {g: rng.normal(0, 1, rows.control.shape[1]) for g in "abc"}
    effect = {n: single[n] if len(n) == 1 else scale * (single[n[0]] + single[n[2]]) for n in NAMES}
    treated = rows.control + np.float32([effect[p] for p in drug])
    side = SideInformation(
        {"genes": PerturbationFeatures("genes", NAMES, ("a", "b", "c"), GENES, np.ones(6, dtype=bool))}
    )
    obs = rows.obs.assign(perturbation=drug)
    return replace(rows, treated=treated, side=side, obs=obs, group=drug), drug, single


def answers(model: Parts, rows, fit, asked):
    model.fit(rows.take(fit), rng=np.random.default_rng(0))
    held = rows.take(asked)
    return model.predict(held.without_treated()) - held.control


def test_parts_go_together_as_their_names_say():
    rows, drug, single = world(1.0)
    fit, asked = drug != "b+c", drug == "b+c"
    b, c = single["b"], single["c"]
    np.testing.assert_allclose(answers(MeanOfParts(), rows, fit, asked)[0], (b + c) / 2, atol=1e-4)
    larger = [x if abs(x) >= abs(y) else y for x, y in zip(b, c, strict=True)]
    np.testing.assert_allclose(answers(LargerChange(), rows, fit, asked)[0], larger, atol=1e-4)
    alone = drug == "a"
    np.testing.assert_allclose(answers(LargerChange(), rows, ~alone, drug == "b")[0], b, atol=1e-4)


def test_the_scale_of_a_sum_is_learned_gene_by_gene_and_pulled_to_a_common_one():
    n_genes = world(1.0)[0].control.shape[1]
    scale = np.linspace(0.3, 1.2, n_genes)
    rows, drug, single = world(scale)
    fit, asked = drug != "b+c", drug == "b+c"
    total = single["b"] + single["c"]
    np.testing.assert_allclose(answers(ScaledSum(pull=0.0), rows, fit, asked)[0], scale * total, atol=1e-3)
    x = np.stack([single["a"] + single["b"], single["a"] + single["c"]])
    common = (scale * x * x).sum() / (x * x).sum()
    np.testing.assert_allclose(answers(ScaledSum(pull=1e9), rows, fit, asked)[0], common * total, atol=1e-3)
    xx = 4 * (x * x).sum(axis=0)  # four rows a condition
    half = (scale * xx + xx.mean() * common) / (xx + xx.mean())
    np.testing.assert_allclose(answers(ScaledSum(pull=1.0), rows, fit, asked)[0], half * total, atol=1e-3)
    singles = np.isin(drug, ["a", "b", "c"])
    np.testing.assert_allclose(answers(ScaledSum(), rows, singles, asked)[0], total, atol=1e-4)  # no double: scale 1


def test_a_pull_below_zero_is_refused():
    with pytest.raises(InputError, match="pull is -1"):
        ScaledSum(pull=-1)
