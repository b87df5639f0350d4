"""The same rows through the store on disk, arrays in memory and the tests' own source give the same bits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce import References, reduce_blocks, score
from references.memory_source import world

ABSENT = Block("MCF7", 1)


def partial_world():
    """m1 never predicted one block; m2 misses three rows of another."""
    source = world(n=20, n_genes=60)
    source.unsound[(ABSENT, "m1")] = np.ones(20, dtype=bool)
    source.lacking[(ABSENT, "m1")] = np.ones(60, dtype=bool)
    source.unsound[(Block("A375", 0), "m2")] = np.arange(20) < 3
    return source


def stored(source, folder):
    store = PredictionStore.create(folder, source.gene_names, plan_digest="p")
    for block in sorted(source.tables):
        obs = source.tables[block]
        store.add_block(block, obs)
        for layer in ("treated", "control", *source.models):
            gone = list(obs.index[source.unsound.get((block, layer), np.zeros(20, dtype=bool))])
            if len(gone) == 20:
                store.mark_absent(block, layer, "it failed")
                continue
            fitted = FittedOn.fold_of_plan("p", block.fold) if layer in source.models else None
            values = source.layers[(block, layer)].copy()
            values[obs.index.isin(gone)] = np.nan
            store.commit(
                block,
                layer,
                values,
                sample_ids=list(obs.index),
                gene_names=source.gene_names,
                fitted_on=fitted,
                meta={},
                missing_samples=gone,
            )
    return StoreSource(store, models=source.models)


def in_memory(source):
    """Rows of all blocks in plan order, NaN where a model is missing."""
    blocks = sorted(source.tables)
    layers = {}
    for layer in ("treated", "control", *source.models):
        parts = []
        for block in blocks:
            values = source.layers[(block, layer)].copy()
            if layer in source.models:
                values[~source.sound(block, layer)] = np.nan
            parts.append(values)
        layers[layer] = np.concatenate(parts)
    obs = pd.concat([source.tables[b] for b in blocks])
    folds = np.repeat([b.fold for b in blocks], 20)
    return ArraySource(
        {m: layers[m] for m in source.models},
        layers["treated"],
        layers["control"],
        folds,
        obs["perturbation"].to_numpy(),
        obs["cell_line"].to_numpy(),
        sample_ids=obs.index,
        gene_names=source.gene_names,
    )


def test_store_arrays_and_double_agree_to_the_bit(tmp_path):
    source = partial_world()
    refs = References.collect(source)
    want = reduce_blocks(source, refs, k=10)
    assert want.gene[ABSENT].count.max() == 0 and want.complete.sum() == 57
    for other in (stored(source, tmp_path / "store"), in_memory(source)):
        assert References.collect(other).digest == refs.digest
        got = reduce_blocks(other, refs, k=10, workers=2)
        assert list(got.samples["sample_id"]) == list(want.samples["sample_id"])
        for block in want.blocks:
            assert got.gene[block].scatter.tobytes() == want.gene[block].scatter.tobytes()
            np.testing.assert_array_equal(got.gene[block].available, want.gene[block].available)
        np.testing.assert_array_equal(got.sample.triangle, want.sample.triangle)
        np.testing.assert_array_equal(got.slices["pooled"].delta, want.slices["pooled"].delta)
        assert [f.code for f in got.findings] == ["rows_left_out", "rows_left_out"]
        scored = [score(s, {}, refs, metrics=["r2_top20@pooled", "rmse_all"]) for s in (source, other)]
        np.testing.assert_array_equal(scored[0].values_by_name, scored[1].values_by_name)


def test_a_store_is_reduced_from_its_cache_without_reading(tmp_path):
    source = stored(partial_world(), tmp_path / "store")
    refs = References.collect(source)
    first = reduce_blocks(source, refs, cache=tmp_path / "cache")
    source.read = None  # reading would now fail
    again = reduce_blocks(source, refs, cache=tmp_path / "cache")
    assert again.moments().scatter.tobytes() == first.moments().scatter.tobytes()
