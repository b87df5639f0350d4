"""Metrics within the plate where a tile holds whole plates: one reading, and the bits of two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pertstack._base.machine.memory import rows_per_tile
from pertstack.reduce import References, score
from pertstack.reduce.scoring import score as scoring
from pertstack.reduce.scoring.plate_means import plate_cuts
from pertstack.stacking.combiners.linear_weights import LinearWeights
from references.memory_source import MemorySource, world

METRICS = ["pearson_all@plate", "r2_top20@plate", "pearson_all@own"]
N, PLATE = 120, 24


def plated(order: np.ndarray | None = None) -> MemorySource:
    """Plates of 24 rows one after the other, the last rows without a plate; ``order``: those of a file out of order."""
    found = world(n=N, n_genes=40, n_drugs=30, seed=4)
    for block, table in found.tables.items():
        plate = np.array([f"P{i // PLATE}" for i in range(N)], dtype=object)
        plate[-10:] = None
        found.tables[block] = table.assign(plate=plate if order is None else plate[order])
    return found


def combines_of(found: MemorySource) -> dict:
    rng, genes, m = np.random.default_rng(2), len(found.gene_names), len(found.models)
    names, ranking = tuple(map(str, found.gene_names)), np.tile(np.arange(len(found.models)), (genes, 1))
    shift = rng.normal(size=genes)
    fits = {
        f"{reference}{len(shape)}": LinearWeights(
            "w", reference, found.models, names, rng.normal(0.4, 0.3, shape), shift, ranking
        )
        for reference in ("own", "pooled")
        for shape in ((m,), (genes, m))
    }
    return {**fits, "median": lambda tile: np.median(tile.predictions, axis=0)}


def memory_for(rows: int, found: MemorySource, n_combines: int) -> int:
    """A budget whose tiles hold so many rows."""
    layers = len(found.models) + 2 + 4 + n_combines + 1  # and no_change
    memory = 2 * rows * layers * 4 * len(found.gene_names)
    assert rows_per_tile(len(found.gene_names), layers, memory // 2) == rows
    return memory


def test_one_reading_gives_the_bits_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plated()
    references, combines = References.collect(found), combines_of(found)
    memory = memory_for(2 * PLATE, found, len(combines))
    found.reads.clear()
    once = score(found, combines, references, metrics=METRICS, memory=memory)
    block = found.blocks()[0]
    assert found.reads[(block, "m0")] == N + 1  # and the row that shows which names are the same
    monkeypatch.setattr(scoring, "plate_cuts", lambda *_: None)
    twice = score(found, combines, references, metrics=METRICS)
    assert found.reads[(block, "m0")] > 3 * N
    assert np.isfinite(once.values_by_name[:, 0]).mean() > 0.8
    assert np.isnan(once.values_by_name[:, 0, N - 10 : N]).all()
    assert once.values_by_name.tobytes() == twice.values_by_name.tobytes()


def test_tiles_hold_whole_plates() -> None:
    found = plated()
    cuts = plate_cuts(found, 2 * PLATE + 1)
    assert cuts is not None
    for block in found.blocks():
        tiles = [rows for b, rows in cuts if b == block]
        assert np.concatenate(tiles).tolist() == list(range(N)) and max(map(len, tiles)) <= 2 * PLATE + 1
        plates = [set(found.tables[block]["plate"].iloc[rows].dropna()) for rows in tiles]
        assert sum(map(len, plates)) == len(set.union(*plates)) == 5


def test_a_plate_that_is_cut_in_two_pieces_is_read_together() -> None:
    order = np.concatenate([np.arange(0, 12), np.arange(24, 48), np.arange(12, 24), np.arange(48, N)])
    found = plated(order)
    cuts = plate_cuts(found, PLATE)
    assert cuts is not None and [len(rows) for _, rows in cuts[:2]] == [PLATE, PLATE]
    references = References.collect(found)
    memory = memory_for(PLATE, found, 0)
    table = score(found, {}, references, metrics=METRICS, memory=memory)
    whole = score(found, {}, references, metrics=METRICS)
    np.testing.assert_array_equal(table.values_by_name, whole.values_by_name)


@pytest.mark.parametrize("why", ["a larger plate", "rows far apart", "a model lacks rows"])
def test_rows_are_read_twice(why: str) -> None:
    found = plated(np.arange(N) if why != "rows far apart" else np.random.default_rng(0).permutation(N))
    if why == "a model lacks rows":
        found = replace(found, unsound={(found.blocks()[0], "m1"): np.arange(N) == 3})
    assert plate_cuts(found, PLATE - 1 if why == "a larger plate" else 2 * PLATE) is None
    table = score(found, {}, References.collect(found), metrics=METRICS, memory=memory_for(PLATE - 1, found, 0))
    assert np.isfinite(table.values("m0", METRICS[0])).mean() > 0.8
