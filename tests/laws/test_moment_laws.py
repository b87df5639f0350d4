"""Laws of the sums: one pass equals two passes however the rows are cut; merging is order-free; names only reorder
the answer.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack.reduce import GeneMoments, References, reduce_blocks
from pertstack.reduce.sums.moments import merge_moments
from references.memory_source import world

FIELDS = ("count", "mean", "scatter", "available")


def rows(seed, n, n_models=2, n_genes=3, level=5.0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(level, 1, (n_models, n, n_genes)),
        rng.normal(level, 1, (n, n_genes)),
        rng.normal(size=(n, n_genes)),
    )


def assert_same(one, two, rtol=1e-9):
    for name in FIELDS:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=rtol, atol=1e-8, err_msg=name)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_one_pass_equals_two_passes_however_the_rows_are_cut(data):
    n = data.draw(st.integers(0, 40))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    delta, y, offset = rows(n, n, level=data.draw(st.sampled_from([0.0, 5.0, 1000.0])))
    pieces = zip(np.split(delta, cuts, axis=1), np.split(y, cuts), np.split(offset, cuts), strict=True)
    merged = reduce(GeneMoments.merge, (GeneMoments.of(*p) for p in pieces), GeneMoments.empty(3, 2))
    assert_same(merged, GeneMoments.of(delta, y, offset))


@given(st.permutations(range(5)), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_merging_is_free_of_order_also_where_models_lack_genes(order, seed, data):
    parts = []
    for i in range(5):
        n = data.draw(st.integers(0, 6))
        lack = np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6))).reshape(3, 2)
        parts.append(GeneMoments.of(*rows(seed + i, n), available=~lack))
    straight = merge_moments(parts, 3, 2)
    assert_same(straight, merge_moments([parts[i] for i in order], 3, 2))
    nested = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3].merge(parts[4])))
    assert_same(straight, nested)


def test_empty_is_neutral_to_the_bit():
    moments = GeneMoments.of(*rows(0, 7))
    for both in (moments.merge(GeneMoments.empty(3, 2)), GeneMoments.empty(3, 2).merge(moments)):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(both, name), getattr(moments, name))


@given(st.integers(1, 70), st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1, 60_000, 10**9]))
@settings(max_examples=25, deadline=None)
def test_the_pass_over_a_source_equals_moments_of_the_rows(n, seed, workers, memory):
    source = world(n=n, n_genes=20, n_models=2, seed=seed)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs, k=5, memory=memory, workers=workers)
    for block in reduction.blocks:
        layer = {x: source.layers[(block, x)].astype(float) for x in ("m0", "m1", "treated", "control")}
        pooled = refs.pooled(block.cell_line).astype(np.float32).astype(float)
        delta = np.stack([layer[m] - layer["control"] for m in ("m0", "m1")])
        whole = GeneMoments.of(delta, layer["treated"] - layer["control"], layer["control"] - pooled)
        assert_same(reduction.gene[block], whole)


@given(st.permutations(range(3)), st.permutations(range(30)))
@settings(max_examples=10, deadline=None)
def test_reordering_models_and_genes_only_reorders_the_moments(models, genes):
    source, turned = world(n=12, n_genes=30), world(n=12, n_genes=30)
    turned.models = tuple(source.models[m] for m in models)
    turned.gene_names = source.gene_names[list(genes)]
    turned.layers = {key: values[:, genes] for key, values in source.layers.items()}
    one = reduce_blocks(source, References.collect(source)).moments()
    two = reduce_blocks(turned, References.collect(turned)).moments()
    columns = [*models, 3, 4]
    np.testing.assert_allclose(two.mean, one.mean[genes][:, columns], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(two.scatter, one.scatter[genes][:, columns][:, :, columns], rtol=1e-10, atol=1e-10)


def test_constant_level_does_not_spoil_the_spread():
    """Float32 values near 1000 with spread 0.01: the spread is known as well as float32 itself knows it."""
    rng = np.random.default_rng(0)
    source = world(n=200, n_genes=4, n_models=1, lines=("A",), folds=(0, 1))
    for block in source.tables:
        shape = source.layers[(block, "m0")].shape
        source.layers[(block, "m0")] = (1000 + rng.normal(0, 0.01, shape)).astype(np.float32)
        source.layers[(block, "control")][:] = 0
    reduced = reduce_blocks(source, References.collect(source), k=2)
    for block in source.tables:
        exact = source.layers[(block, "m0")].astype(float)
        ours = reduced.gene[block].scatter[:, 0, 0]
        np.testing.assert_allclose(ours, exact.var(axis=0) * len(exact), rtol=1e-6)
