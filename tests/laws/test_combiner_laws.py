"""Laws every combiner keeps: order and names of models do not matter, nor does the unit; scored rows are never seen."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.registry import COMBINERS, make_combiner
from references.small_world import as_source, small_world

NAMES = sorted(COMBINERS)


def fitted_on(world, name, **changes):
    source, references = as_source(world, **changes)
    fitted = make_combiner(name).fit(Evidence(reduce_blocks(source, references), source=source, references=references))
    return fitted, np.concatenate([fitted.combine(tile) for tile, _ in iter_tiles(source, references)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_renaming_and_reordering_models_only_reorders_weights(name, seed):
    world = small_world(seed=seed)
    order = [2, 0, 3, 1]
    shuffled = {f"z{m}": world["predictions"][f"m{m}"] for m in order}
    one, before = fitted_on(world, name)
    two, after = fitted_on(world, name, predictions=shuffled)
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)
    if hasattr(one, "coefficients"):
        np.testing.assert_allclose(two.coefficients, one.coefficients[..., order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_unit_leaves_weights_alone(name):
    """All profiles times 4 (exact in binary): unitless weights stay, predictions scale with the data."""
    world = small_world(seed=3)
    louder = {k: 4 * world[k] for k in ("treated", "control")}
    louder["predictions"] = {m: 4 * p for m, p in world["predictions"].items()}
    one, before = fitted_on(world, name)
    two, after = fitted_on(world, name, **louder)
    np.testing.assert_allclose(after, 4 * before, rtol=1e-4, atol=1e-4)
    if hasattr(one, "coefficients"):
        np.testing.assert_allclose(two.coefficients, one.coefficients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_reordering_genes_only_reorders_the_answer(name):
    world = small_world(seed=4)
    order = np.random.default_rng(0).permutation(30)
    moved = {k: world[k][:, order] for k in ("treated", "control")}
    moved["predictions"] = {m: p[:, order] for m, p in world["predictions"].items()}
    _, before = fitted_on(world, name)
    _, after = fitted_on(world, name, **moved)
    np.testing.assert_allclose(after, before[:, order], rtol=1e-4, atol=1e-4)


def test_weights_of_a_fold_do_not_change_when_its_rows_do():
    """Nested weights of fold k, bit for bit, after everything measured and predicted in fold k was replaced."""
    world = small_world(seed=5)
    rng = np.random.default_rng(1)
    source, references = as_source(world)
    before = fit_nested(None, reduce_blocks(source, references), references=references, source=source)
    for fold in range(3):
        rows = world["folds"] == fold
        changed = {k: world[k].copy() for k in ("treated",)}
        changed["treated"][rows] += rng.normal(0, 3, changed["treated"][rows].shape).astype(np.float32)
        changed["predictions"] = {m: p.copy() for m, p in world["predictions"].items()}
        for p in changed["predictions"].values():
            p[rows] = rng.normal(8, 2, p[rows].shape).astype(np.float32)
        other, _ = as_source(world, **changed)
        after = fit_nested(None, reduce_blocks(other, references), references=references, source=other)
        differ = False
        for name in before.names:
            one, two = before.fits[name][fold], after.fits[name][fold]
            assert one.arrays().keys() == two.arrays().keys()
            for key, value in one.arrays().items():
                np.testing.assert_array_equal(value, two.arrays()[key], err_msg=f"{name} {key}")
            rest = [k for k in range(3) if k != fold]
            differ |= any(
                not np.array_equal(v, after.fits[name][k].arrays()[key])
                for k in rest
                for key, v in before.fits[name][k].arrays().items()
            )
        assert differ, "the other folds' weights must feel the change, or this test shows nothing"


def test_leave_cell_line_out_never_sees_the_line():
    world = small_world(seed=6, lines=3)
    source, references = as_source(world)
    nested = fit_nested(["global_ridge", "cell_line_shrunken"], reduce_blocks(source, references), left="cell_line")
    assert sorted(nested.fits["global_ridge"]) == ["line0", "line1", "line2"]
    assert "line1" not in nested.fits["cell_line_shrunken"]["line1"].by_cell_line
    tiles = [tile for tile, _ in iter_tiles(source, references)]
    combine = nested.combines()["global_ridge"]
    for tile in tiles:
        expected = nested.fits["global_ridge"][tile.block.cell_line].combine(tile)
        np.testing.assert_array_equal(combine(tile), expected)
