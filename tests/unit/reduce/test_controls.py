"""The condition measured again and the mean of the others: which rows they are made of, and what calibration says."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack.design.blocks import Block
from pertstack.reduce import References, iter_tiles
from pertstack.reduce.scoring.controls import (
    MeasuredAgain,
    TruthHalf,
    calibrate_source,
    condition_codes,
    mean_of_others,
    second_half,
)
from references.memory_source import world

METRICS = ("r2_top20@pooled", "pearson_all@centroid", "rmse_all@own", "pds_l1@pooled", "pearson_exp2@others")


def test_halves_of_a_condition_share_no_row():
    codes = np.array([0, 1, 0, 2, 0, 1, 0, 3, 0])
    assert second_half(codes).tolist() == [False, False, False, False, True, True, True, False, True]


def test_controls_are_made_of_other_rows():
    source = world(n=30, n_drugs=8, seed=2)
    half, references = TruthHalf.of(source), References.collect(source)
    again, others = MeasuredAgain(source), mean_of_others(references)
    block = Block("A375", 1)
    treated, drug = source.layers[(block, "treated")], source.tables[block]["perturbation"].to_numpy()
    codes = condition_codes(source.tables[block])[0]
    for tile, truth in iter_tiles(half, references, blocks=[block], memory=30_000):
        got, mean = again(tile), others(tile)
        for i, sample in enumerate(tile.obs.index):
            row = list(source.tables[block].index).index(sample)
            same = np.flatnonzero((codes == codes[row]) & second_half(codes))
            assert row not in same
            expected = treated[same].mean(axis=0) if len(same) else np.full(50, np.nan)
            np.testing.assert_allclose(got[i], expected, rtol=1e-5)
            np.testing.assert_array_equal(truth[i], treated[row])
        np.testing.assert_allclose(mean[0], source.layers[(Block("A375", 0), "treated")].mean(axis=0), rtol=1e-5)
    assert len(set(drug)) < len(drug)


def test_a_line_in_one_fold_alone_borrows_the_change_of_the_others():
    source = world(n=20)
    for block in [b for b in source.tables if b == Block("A375", 1)]:
        del source.tables[block]
    references = References.collect(source)
    found = references.centroid("A375", 0)
    other = source.layers[(Block("MCF7", 1), "treated")].mean(axis=0) - references.pooled("MCF7")
    np.testing.assert_allclose(found, references.pooled("A375") + other, rtol=1e-5)


@pytest.fixture(scope="module")
def told():
    """Many perturbations with two samples each: strong effects, and none at all."""
    found = {}
    for name, strength in (("strong", 1.0), ("none", 0.0)):
        source = world(n=80, n_genes=60, n_drugs=1000, seed=6)
        rng = np.random.default_rng(3)
        for block, table in source.tables.items():
            drugs = [f"d{block.cell_line}{block.fold}{i // 2}" for i in range(80)]
            table["perturbation"], table["group"] = drugs, drugs
            base = source.layers[(Block(block.cell_line, 0), "control")].mean(axis=0)
            effect = strength * rng.normal(0, 1, (40, 60)).repeat(2, axis=0)
            source.layers[(block, "treated")] = (base + effect + rng.normal(0, 0.5, (80, 60))).astype(np.float32)
        found[name] = calibrate_source(source, References.collect(source), METRICS)
    return found


def test_strong_effects_pass_and_no_effect_does_not(told):
    for metric in METRICS:
        strong, none = told["strong"][f"{metric}"], told["none"][f"{metric}"]
        assert strong.n == 160 and strong.n_groups == 160
        assert strong.passes and strong.bds > 0.9 and strong.drf > 0.3, metric
        assert not none.passes, metric
    assert told["none"]["pearson_all@centroid"].negative == 0.0  # the centroid does not hold the scored fold
    assert told["none"]["rmse_all@own"].bds < 0.2  # noise measured again is worse than the mean


def test_without_replicates_the_range_is_known_and_nothing_else():
    source = world(n=20, n_drugs=1000)
    for block, table in source.tables.items():
        table["perturbation"] = [f"{block.id}{i}" for i in range(20)]
    found = calibrate_source(source, References.collect(source), METRICS[:3])["rmse_all@own"]
    assert not found.known and not found.passes and found.range > 0
