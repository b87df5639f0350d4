"""DataFrames and Series go by their names, in any order; plain arrays beside them only where there is one order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import MisalignedError
from pertstack._base.labelled import align
from pertstack.stacking.given import one_name_each
from references.small_world import small_world

PER_ROW = ("folds", "perturbation", "cell_line")


@pytest.fixture(scope="module")
def world():
    return small_world(n=120, n_groups=24)


@pytest.fixture(scope="module")
def named(world):
    """The same world as pandas objects, each in an order of its own."""
    n, n_genes = np.shape(world["treated"])
    ids, genes = [f"s{i:03d}" for i in range(n)], [f"G{g}" for g in range(n_genes)]

    def frame(values, seed):
        whole = pd.DataFrame(values, index=ids, columns=genes)
        return whole.sample(frac=1, random_state=seed).sample(frac=1, axis=1, random_state=seed)

    models = {m: frame(p, 3 + i) for i, (m, p) in enumerate(world["predictions"].items())}
    rest = {k: frame(world[k], seed) for seed, k in enumerate(("treated", "control"))}
    rows = {k: pd.Series(list(world[k]), index=ids).sample(frac=1, random_state=9 + i) for i, k in enumerate(PER_ROW)}
    return models, {**rest, **rows}, ids, genes


def test_pandas_objects_in_any_order_give_the_numbers_of_arrays_in_one(world, named):
    models, rest, ids, genes = named
    plain = ps.stack(
        world["predictions"], **{k: world[k] for k in ("treated", "control", *PER_ROW)}, combiners=["mean", "simplex"]
    )
    fit = ps.stack(models, **rest, combiners=["mean", "simplex"])
    np.testing.assert_allclose(fit.weights["simplex"]["mean"], plain.weights["simplex"]["mean"], atol=1e-5)
    for metric in ("r2_top20@pooled", "rmse_all"):
        if metric in plain.leaderboard:
            np.testing.assert_allclose(
                fit.leaderboard[metric].sort_index(), plain.leaderboard[metric].sort_index(), atol=1e-5
            )
    new = fit.predict(models, control=rest["control"], cell_line=rest["cell_line"], combiner="simplex")
    expected = plain.predict(
        world["predictions"], control=world["control"], cell_line=world["cell_line"], combiner="simplex"
    )
    assert list(new.index) == list(rest["control"].index)
    np.testing.assert_allclose(new.loc[ids, genes], expected, atol=1e-4)


@pytest.mark.parametrize("moved", ["predictions", "folds", "control"])
def test_one_that_is_in_another_order_beside_plain_arrays_is_refused(world, moved):
    n = len(world["folds"])
    ids = [f"s{i}" for i in range(n)]
    arguments = {k: world[k] for k in ("treated", "control", *PER_ROW)}
    models = dict(world["predictions"])
    arguments["perturbation"] = pd.Series(list(world["perturbation"]), index=ids)
    if moved == "predictions":
        models["m1"] = pd.DataFrame(models["m1"], index=ids).sample(frac=1, random_state=1)
    else:
        make = pd.DataFrame if moved == "control" else pd.Series
        arguments[moved] = make(np.asarray(world[moved]), index=ids).sample(frac=1, random_state=1)
    name = "predictions['m1']" if moved == "predictions" else moved
    with pytest.raises(MisalignedError, match="in another order than") as refused:
        ps.stack(models, **arguments, combiners=["mean"])
    assert name in str(refused.value)


def test_names_that_differ_or_repeat_are_refused_and_shown():
    a = pd.Series([1, 2], index=["x", "y"])
    with pytest.raises(
        MisalignedError, match=r"b and a do not have the same row names: 1 are missing \('y'\), 1 .*'z'"
    ):
        align({"a": a, "b": pd.Series([1, 2], index=["x", "z"])})
    with pytest.raises(MisalignedError, match="occur more than once: 'x'"):
        align({"a": pd.Series([1, 2], index=["x", "x"])})
    frame = pd.DataFrame(np.eye(2), index=["x", "y"], columns=["g", "h"])
    with pytest.raises(MisalignedError, match="column names"):
        align({"a": frame, "b": frame.rename(columns={"h": "k"})})
    with pytest.raises(MisalignedError, match="columns in another order than a"):
        align({"a": frame, "b": frame[["h", "g"]], "c": np.eye(2)})


def test_what_only_counts_from_nought_has_no_names():
    found = align({"a": pd.Series([3, 4]), "b": np.array([1, 2]), "c": pd.Series([5, 6], index=["x", "y"]), "d": None})
    assert found.values["a"].tolist() == [3, 4] and found.values["d"] is None and list(found.rows) == ["x", "y"]
    shuffled = pd.Series([3, 4], index=[1, 0])
    with pytest.raises(MisalignedError, match="do not have the same row names"):
        align({"a": shuffled, "b": pd.Series([5, 6], index=["x", "y"])})


def test_genes_by_name_are_brought_to_the_gene_names_given():
    frame = pd.DataFrame([[1.0, 2.0]], index=["x"], columns=["h", "g"])
    assert align({"a": frame}, columns=["g", "h"]).values["a"].tolist() == [[2.0, 1.0]]


def test_combinations_in_any_order_are_one_group(world):
    arguments = {k: world[k] for k in ("treated", "control", *PER_ROW)}
    drugs = [f"D{d}" for d in world["perturbation"]]
    mixed = [f"{d}+X" if i < 60 else f"X+{d}" for i, d in enumerate(drugs)]
    with pytest.warns(UserWarning, match="are the same perturbation"):
        ps.stack(world["predictions"], **{**arguments, "perturbation": mixed}, combiners=["mean"])
    assert len(set(one_name_each(mixed, grouped=True))) == len(set(drugs)) < len(set(mixed))
