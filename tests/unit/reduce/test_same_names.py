"""Names that predict the same bits are scored once, and mean profiles of mixtures are made of those of the models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pertstack.reduce import References, score
from pertstack.reduce.scoring import line_means
from pertstack.reduce.scoring import score as scoring
from pertstack.stacking.combiners.linear_weights import LinearWeights
from references.memory_source import world

SETS = ["pds_l1@pooled", "pds_cosine@own", "centroid_accuracy@centroid"]
METRICS = ["r2_top20@pooled", "pearson_all@own", "mse_exp2@pooled", *SETS]
GENES, MODELS = 30, 3


@pytest.fixture(scope="module")
def found():
    source = world(n=24, n_genes=GENES, n_models=MODELS, n_drugs=7, test=True, seed=4)
    references = References.collect(source)
    return replace(source, order=[b for b in source.tables if b.role == "test"]), references, source


def linear(source, weights, reference="pooled", shift=0.0):
    ranking = np.tile(np.arange(MODELS), (GENES, 1))
    names = tuple(source.gene_names)
    return LinearWeights("w", reference, source.models, names, np.array(weights), np.array(shift), ranking)


def mixtures(source):
    per_gene = np.random.default_rng(1).normal(0.3, 0.3, (GENES, MODELS))
    return {
        "first": linear(source, [1.0, 0.0, 0.0]),
        "first_own": linear(source, np.tile([1.0, 0.0, 0.0], (GENES, 1)), "own"),
        "mixed": linear(source, [0.5, 0.2, 0.1], "own"),
        "pooled": linear(source, [0.5, 0.2, 0.1]),
        "again": linear(source, [0.5, 0.2, 0.1]),
        "shifted": linear(source, [0.5, 0.2, 0.1], shift=0.3),
        "by_gene": linear(source, per_gene, shift=np.linspace(-1, 1, GENES)),
    }


def test_equal_mixtures_are_scored_once_with_the_same_bits(found, monkeypatch) -> None:
    source, references, _ = found
    made = []
    plain = scoring.Made
    monkeypatch.setattr(scoring, "Made", lambda named, n: made.append(list(named)) or plain(named, n))
    once = score(source, mixtures(source), references, metrics=METRICS)
    assert made.pop() == ["m0", "m1", "m2", "mixed", "pooled", "shifted", "by_gene", "no_change"]
    monkeypatch.setattr(scoring, "first_of_same", lambda source, references, named: np.arange(len(named)))
    each = score(source, mixtures(source), references, metrics=METRICS)
    assert len(made.pop()) == 11 and once.names == each.names
    np.testing.assert_array_equal(once.values_by_name, each.values_by_name)
    np.testing.assert_array_equal(once.predicted, each.predicted)
    np.testing.assert_array_equal(once.values("first", METRICS[0]), once.values("m0", METRICS[0]))


def test_names_that_differ_in_one_fold_are_scored_apart(found) -> None:
    _, references, whole = found
    source = replace(whole, order=[b for b in whole.tables if b.role == "development"])
    one, two = linear(source, [0.6, 0.4, 0.0]), linear(source, [0.4, 0.6, 0.0])
    named = {"a": {0: one, 1: one}, "b": {0: one, 1: two}, "c": {0: one, 1: one}}
    assert scoring.first_of_same(source, references, named).tolist() == [0, 1, 0]
    table = score(source, named, references, metrics=METRICS)
    folds = table.samples["fold"].to_numpy()
    a, b, c = (table.values(n, "r2_top20@pooled") for n in "abc")
    np.testing.assert_array_equal(a, c)
    assert (a[folds == 0] == b[folds == 0]).all() and (a[folds == 1] != b[folds == 1]).any()


def test_where_a_model_lacks_rows_every_name_is_scored(found) -> None:
    """The rule of what stands in for a missing row is each combination's own: here the order of the models."""
    source, references, _ = found
    gap = np.arange(24) < 5
    lacking = replace(source, unsound={(source.order[0], "m0"): gap})
    weights = np.array([0.6, 0.3, -0.2])
    worse = replace(linear(source, weights), ranking=np.tile([2, 1, 0], (GENES, 1)))
    table = score(lacking, {"a": linear(source, weights), "b": worse}, references, metrics=["r2_top20@pooled"])
    a, b = (table.values(n, "r2_top20@pooled")[:24] for n in "ab")
    assert (a[gap] != b[gap]).all()
    np.testing.assert_array_equal(a[~gap], b[~gap])


@pytest.mark.parametrize("memory", [10**9, 200_000, 20_000])
def test_mean_profiles_of_mixtures_are_those_of_their_rows(found, memory: int) -> None:
    source, references, _ = found
    fits = mixtures(source)
    row_by_row = score(source, {n: f.combine for n, f in fits.items()}, references, metrics=SETS)
    together = score(source, fits, references, metrics=SETS, memory=memory)
    assert np.isfinite(row_by_row.values_by_name).any()
    np.testing.assert_array_equal(together.values_by_name, row_by_row.values_by_name)


def test_mixtures_are_not_made_row_by_row(found, monkeypatch) -> None:
    source, references, _ = found
    fits = mixtures(source)
    where = {d: i for i, d in enumerate(sorted(set(source.tables[source.order[0]]["perturbation"])))}

    def means(mixing):
        return line_means.LineMeans(
            source,
            references,
            source.order[:1],
            where=where,
            combines=fits,
            mixing=mixing,
            used=["own", "pooled"],
            memory=10**9,
        )

    rows = means({})
    mixing = line_means.mixtures_of_line(source, references, source.order[:1], fits)
    assert list(mixing) == list(fits)
    monkeypatch.setattr(LinearWeights, "combine", lambda self, tile: pytest.fail("made row by row"))
    fast = means(mixing)
    for name in fits:
        for reference in ("own", "pooled"):
            np.testing.assert_allclose(fast.of(name, reference), rows.of(name, reference), atol=2e-6)
    np.testing.assert_array_equal(fast.predicted, rows.predicted)


def test_no_read_holds_more_mean_profiles_than_there_is_room_for() -> None:
    names, used = [f"n{i}" for i in range(30)], ["matched", "pooled"]
    for room in (1, 8, 14, 22, 50, 80, 200):
        mixing = dict.fromkeys(names[:18])
        got = line_means.turns(used, names, mixing, n_models=5, room=room)  # type: ignore[arg-type]
        assert sorted((r, n) for some, group in got for r in some for n in group) == sorted(
            (r, n) for r in used for n in names
        )
        for some, group in got:
            mixed = any(name in mixing for name in group)
            kept = (1 + 7 * mixed + sum(name not in mixing for name in group)) * len(some)
            assert kept + 5 <= room or kept <= 2  # at least a truth and a name
