"""A sample of rows shows what the whole source says of them, and reads no other row."""

from __future__ import annotations

import numpy as np

from pertstack.predictions.sources.some_rows import SomeRows, read_at, some_groups, spread_rows
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.nested import fit_nested
from references.small_world import as_source, small_world


class Counted:
    """A source that notes which rows are read."""

    def __init__(self, source):
        self.source, self.spans = source, []

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, block, layer, start, stop, out=None):
        self.spans.append((block, layer, start, stop))
        return self.source.read(block, layer, start=start, stop=stop, out=out)


def test_rows_are_spread_over_blocks_and_all_are_taken_when_there_are_few():
    source, _ = as_source(small_world(n=300))
    every = spread_rows(source, 300)
    assert all(rows.tolist() == list(range(len(source.obs(b)))) for b, rows in every.items())
    some = spread_rows(source, 60)
    for block, rows in some.items():
        n = len(source.obs(block))
        assert len(rows) == int(np.ceil(n / 5)) and (np.diff(rows) > 0).all() and rows[-1] < n
        assert np.diff(rows).max() <= 6
    assert 60 <= sum(map(len, some.values())) <= 60 + len(some)


def test_only_rows_that_are_asked_for_are_read():
    source, _ = as_source(small_world(n=200, lines=1))
    counted, block = Counted(source), source.blocks()[0]
    rows = np.array([1, 2, 3, 8, 20, 21])
    np.testing.assert_array_equal(
        read_at(counted, block, "m1", rows=rows), source.read(block, "m1", start=0, stop=len(source.obs(block)))[rows]
    )
    assert [(a, b) for _, _, a, b in counted.spans] == [(1, 4), (8, 9), (20, 22)]
    assert read_at(counted, block, "m1", rows=rows[:0]).shape == (0, 30)


def test_rows_of_a_sample_score_as_they_do_among_all():
    source, references = as_source(small_world(n=240))
    nested = fit_nested(["simplex", "gene_ridge", "selector"], reduce_blocks(source, references), source=source)
    whole = score(source, nested.final_combines(), references)
    some = SomeRows(source, spread_rows(source, 50))
    part = score(some, nested.final_combines(), references)
    at = np.flatnonzero(whole.samples["sample_id"].isin(set(part.samples["sample_id"])))
    assert 50 <= len(at) < 60
    np.testing.assert_array_equal(part.values_by_name, whole.values_by_name[:, :, at])


def test_groups_are_taken_whole_and_all_rows_when_there_are_few():
    source, _ = as_source(small_world(n=300, n_groups=30))
    assert some_groups(source, 300, seed=1) is source
    some = some_groups(source, 100, seed=1)
    found = [g for b in some.blocks() for g in some.obs(b)["group"]]
    every = [g for b in source.blocks() for g in source.obs(b)["group"]]
    assert 85 < len(found) <= 100 and len(set(found)) == len(found) // 10
    assert all(found.count(g) == every.count(g) for g in set(found))
    again, other = some_groups(source, 100, seed=1), some_groups(source, 100, seed=2)
    assert [g for b in again.blocks() for g in again.obs(b)["group"]] == found
    assert {g for b in other.blocks() for g in other.obs(b)["group"]} != set(found)
    alone = some_groups(source, 1, seed=1)
    assert len({g for b in alone.blocks() for g in alone.obs(b)["group"]}) == 1
