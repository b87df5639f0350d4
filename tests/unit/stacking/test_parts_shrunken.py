"""Weights by what the fits met of a combination, in a world whose right answer is known (issue 16, E2)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.registry import make_combiner
from pertstack.stacking.saved import load_fitted, save_fitted

GENES = [f"g{i:02d}" for i in range(14)]
LINKED = ["+".join(p) for p in combinations(GENES, 2)]  # genes that many doubles share
LOOSE = [f"h{i:02d}+k{i:02d}" for i in range(60)]  # genes of one double only
NAMES = [*LINKED, *LOOSE]
FOLD = np.arange(len(NAMES)) % 3
LEVEL = np.array(["2 of 2"] * len(LINKED) + ["0 of 2"] * len(LOOSE))


def world(*, right=True, n_genes=25):
    """``reader`` is right for pairs of genes met in other pairs, ``adder`` for pairs of new genes."""
    rng = np.random.default_rng(1)
    control = np.full((len(NAMES), n_genes), 8.0)
    effect = rng.normal(0, 1, control.shape)
    noise = {m: rng.normal(0, 1, control.shape) for m in ("reader", "adder")}
    size = {"reader": np.where(LEVEL == "2 of 2", 0.2, 2.0), "adder": np.where(LEVEL == "2 of 2", 2.0, 0.2)}
    size = size if right else dict.fromkeys(noise, np.full(len(NAMES), 0.8))
    predictions = {m: control + effect + size[m][:, None] * noise[m] for m in noise}
    treated = control + effect + rng.normal(0, 0.3, control.shape)
    source = ArraySource(predictions, treated, control, folds=FOLD, perturbation=NAMES, cell_line=["K562"] * len(NAMES))
    return source, References.collect(source)


def test_weights_follow_what_was_met_and_win():
    source, references = world()
    fitted = make_combiner("parts_shrunken").fit(Evidence(reduce_blocks(source, references), references=references))
    known, new = fitted.by_level["2 of 2"], fitted.by_level["0 of 2"]
    reader, adder = fitted.models.index("reader"), fitted.models.index("adder")
    assert known[reader] > 0.85 and abs(known[adder]) < 0.1 and new[adder] > 0.85 and abs(new[reader]) < 0.1
    assert fitted.facts["rows"] == {"0 of 2": 60, "2 of 2": 91}
    again = load_fitted(save_fitted({"parts_shrunken": fitted}))["parts_shrunken"]
    for tile, _ in iter_tiles(source, references):
        assert again.levels_of(tile) == list(LEVEL[[NAMES.index(p) for p in tile.obs["perturbation"]]])
        rows = [tile.predictions[:, i] - tile.pooled for i in range(tile.n)]
        loop = [tile.pooled + fitted.by_level[x] @ row for x, row in zip(fitted.levels_of(tile), rows, strict=True)]
        np.testing.assert_allclose(again.combine(tile), loop, rtol=1e-5)


@pytest.mark.parametrize("right", [True, False])
def test_the_nested_score_takes_them_only_where_strata_differ(right):
    source, references = world(right=right)
    reduction = reduce_blocks(source, references)
    names = ["global_ridge", "simplex", "parts_shrunken"]
    nested = fit_nested(names, reduction, source=source, references=references, primary="rmse_all@own")
    table = score(source, nested.combines(), references, metrics=["rmse_all@own"])
    choice = choose(table, nested, primary="rmse_all@own")
    if right:
        assert choice.chosen == "parts_shrunken"
        of = {n: table.mean(n, "rmse_all@own").value for n in ("parts_shrunken", "global_ridge")}
        assert of["parts_shrunken"] < 0.5 * of["global_ridge"]
    else:
        assert choice.chosen in ("global_ridge", "simplex", "mean")
        levels = nested.final["parts_shrunken"].by_level
        np.testing.assert_allclose(levels["0 of 2"], levels["2 of 2"], atol=0.1)  # pulled to the common weights


def test_a_level_that_was_never_learned_on_gets_the_common_weights():
    source, references = world()
    fitted = make_combiner("parts_shrunken").fit(Evidence(reduce_blocks(source, references), references=references))
    tile = next(iter_tiles(source, references))[0]
    half = replace(tile.take([0]), obs=tile.obs.iloc[[0]].assign(perturbation="g00+new"))
    assert fitted.levels_of(half) == ["1 of 2"] and "1 of 2" not in fitted.by_level
    mixed = half.pooled + sum(w * (p - half.pooled) for w, p in zip(fitted.common, half.predictions, strict=True))
    np.testing.assert_allclose(fitted.combine(half), mixed, rtol=1e-5)
