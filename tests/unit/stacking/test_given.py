"""What people hand to ``stack``: other kinds of tables are read as arrays, and what would mislead is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import pertstack as ps
from pertstack._base.errors import InputError, MisalignedError, UnknownNameError
from references.small_world import small_world


@pytest.fixture(scope="module")
def world():
    return small_world(n=120, n_groups=24)


def stacked(world, **changed):
    given = {k: changed.get(k, world[k]) for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    more = {k: v for k, v in changed.items() if k not in given and k != "predictions"}
    return ps.stack(changed.get("predictions", world["predictions"]), **given, combiners=["mean", "simplex"], **more)


@pytest.fixture(scope="module")
def plain(world):
    return stacked(world)


def tensor(values):
    return pytest.importorskip("torch").tensor(values, requires_grad=True)


@pytest.mark.parametrize("made", [lambda v: np.asarray(v).tolist(), sp.csr_matrix, ad.AnnData, tensor])
def test_lists_sparse_matrices_anndata_and_tensors_are_arrays(world, plain, made):
    """Each ended in an error of NumPy."""
    models = {m: made(np.asarray(p, dtype=np.float32)) for m, p in world["predictions"].items()}
    truth = {k: made(np.asarray(world[k], dtype=np.float32)) for k in ("treated", "control")}
    fit = stacked(world, predictions=models, **truth)
    assert fit.leaderboard.equals(plain.leaderboard)
    line = world["cell_line"][:5]
    new = {m: made(np.asarray(p[:5], dtype=np.float32)) for m, p in world["predictions"].items()}
    control = made(np.asarray(world["control"][:5], dtype=np.float32))
    plainly = plain.predict(
        {m: p[:5] for m, p in world["predictions"].items()}, control=world["control"][:5], cell_line=line
    )
    np.testing.assert_allclose(np.asarray(fit.predict(new, control=control, cell_line=line)), plainly, atol=1e-6)


def with_one(values, value):
    changed = np.array(values, dtype=np.float64)
    changed[0] = value
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {"predictions": list(w["predictions"].values())}, "need names"),
        (lambda w: {"predictions": {}}, "No predictions"),
        (lambda w: {"predictions": {"mean": w["control"]}}, "'mean' is the name of a combiner"),
        (
            lambda w: {"predictions": {"a": with_one(w["control"], np.inf), **w["predictions"]}},
            "'a' has NaN or infinite",
        ),
        (lambda w: {"folds": [f"train{f}" for f in w["folds"]]}, "'train0' is not a fold"),
        (lambda w: {"folds": [f + 0.5 for f in w["folds"]]}, "'0.5' is not a fold"),
        (lambda w: {"folds": np.arange(len(w["folds"])) % 5}, r"perturbations have rows in several folds.*group="),
        (lambda w: {"group": w["cell_line"]}, r"groups have rows in several folds.*group="),
        (lambda w: {"treated": w["treated"][:, 0]}, "'treated' has shape"),
        (lambda w: {"treated": [[1.0, 2.0], [3.0]]}, "treated: its rows"),
    ],
)
def test_what_would_mislead_is_refused_in_words(world, change, said):
    with pytest.raises((InputError, MisalignedError), match=said):
        stacked(world, **change(world))


@pytest.mark.parametrize("trusted", [True, False])
def test_single_rows_are_held_out_only_where_each_is_called_a_group(world, trusted):
    n = len(world["folds"])
    rowwise = np.arange(n) % 5
    with pytest.raises(InputError, match="several folds"):
        stacked(world, folds=rowwise, trust_partial=trusted)
    fit = stacked(world, folds=rowwise, group=range(n), trust_partial=trusted)
    assert fit.scores.samples["group"].nunique() == n


def test_rows_without_a_fold_take_no_part_and_that_is_said(world):
    folds = [None if i < 10 else f for i, f in enumerate(world["folds"])]
    with pytest.warns(UserWarning, match="10 of 120 rows have no fold"):
        fit = stacked(world, folds=folds)
    rest = slice(10, None)
    less = {k: world[k][rest] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    alone = stacked(world, predictions={m: p[rest] for m, p in world["predictions"].items()}, **less)
    np.testing.assert_array_equal(fit.leaderboard.select_dtypes("number"), alone.leaderboard.select_dtypes("number"))


def test_new_samples_have_controls_where_the_stack_was_learned_with_them_and_only_there(world, plain):
    """Levels were taken for differences without a word."""
    new = {m: p[:5] for m, p in world["predictions"].items()}
    line, control = world["cell_line"][:5], world["control"][:5]
    with pytest.raises(InputError, match="learned with controls"):
        plain.predict(new, cell_line=line)
    differences = {m: p - world["control"] for m, p in world["predictions"].items()}
    fit = stacked(world, predictions=differences, treated=world["treated"] - world["control"], control=None)
    new = {m: p[:5] for m, p in differences.items()}
    assert fit.predict(new, cell_line=line).shape == control.shape
    with pytest.raises(InputError, match="differential"):
        fit.predict(new, control=control, cell_line=line)


def test_zeros_are_no_control(world, plain):
    """They passed for controls, and differences for levels."""
    line, zeros = world["cell_line"][:5], np.zeros_like(world["control"][:5])
    new = {m: p[:5] for m, p in world["predictions"].items()}
    with pytest.raises(InputError, match="zero throughout"):
        plain.predict(new, control=zeros, cell_line=line)
    differences = {m: p - world["control"] for m, p in world["predictions"].items()}
    fit = stacked(world, predictions=differences, treated=world["treated"] - world["control"], control=None)
    new = {m: p[:5] for m, p in differences.items()}
    expected = fit.predict(new, cell_line=line)
    np.testing.assert_array_equal(fit.predict(new, control=zeros, cell_line=line), expected)


def test_warnings_point_at_the_line_that_called(world):
    folds = [None if i < 10 else f for i, f in enumerate(world["folds"])]
    given = {k: world[k] for k in ("treated", "control", "perturbation", "cell_line")}
    with pytest.warns(UserWarning, match="have no fold") as told:
        ps.stack(world["predictions"], **given, folds=folds, combiners="mean")
    assert {w.filename for w in told if "have no fold" in str(w.message)} == {__file__}


def test_unknown_combiners_are_refused_before_anything_is_read(world):
    """Probes and sums came first, which takes minutes where studies are large."""
    with pytest.raises(UnknownNameError, match="'simplx'"):
        ps.stack(
            world["predictions"],
            treated=np.full_like(world["treated"], np.nan),
            folds=world["folds"],
            perturbation=world["perturbation"],
            combiners=["simplx"],
        )


def test_one_name_is_a_list_of_one(world):
    one = ps.stack(
        world["predictions"], **{k: world[k] for k in ("treated", "folds", "perturbation")}, combiners="mean"
    )
    assert "mean" in one.nested.names and "m" not in one.nested.names
