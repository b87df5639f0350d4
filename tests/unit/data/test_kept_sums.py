"""Cells by columns, and a pass that was killed: the same bits as one pass by rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pertstack._base.errors import InputError
from pertstack.data.cells import GroupSums, Rows, held, kept, reading, recognise
from pertstack.data.cells.entries import BadCell, add_totals
from pertstack.data.readers.open import open_data
from references import cell_worlds as worlds

NAMES = ("values", "n_cells", "n_half", "depth")


def parts_of(matrix):
    return Rows(matrix.indptr.astype(np.int64), matrix.indices, matrix.data)


def assert_same_bits(ours, theirs):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.highest, ours.deepest) == (theirs.highest, theirs.deepest)


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.parametrize(("space", "whole"), [("counts", True), ("log1p", True), ("log1p", False)])
def test_columns_sum_to_the_bits_of_rows(space, whole, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    x = rng.poisson(0.8, (40, 9)).astype(np.float32)
    x = x if whole else np.log1p(x * np.float32(0.7))
    group, half = rng.integers(-1, 4, 40), rng.random(40) < 0.5
    rows, by_columns = (GroupSums.empty(4, 9, space) for _ in range(2))
    rows.add(parts_of(sparse.csr_matrix(x)), group, half, log=whole)
    totals, whole_file = np.zeros(40), sparse.csc_matrix(x)
    if whole:
        add_totals(parts_of(whole_file), totals)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, 9), max_size=3))), 9]
    for first, last in pairwise(cuts):
        part = parts_of(whole_file[:, first:last])
        by_columns.add_columns(part, group, half, first=first, totals=totals, whole=whole)
    by_columns.count_cells(group, half, totals)
    assert_same_bits(by_columns, rows)


def test_entries_of_a_column_in_any_order_and_in_parts():
    x = Rows(np.array([0, 3, 4]), np.array([2, 0, 2], dtype=np.int32), np.array([1, 5, 2], dtype=np.float32))
    x = Rows(x.indptr, np.append(x.indices, np.int32(1)), np.append(x.data, np.float32(4)))
    totals, group, half = np.zeros(3), np.zeros(3, dtype=np.int64), np.array([True, False, False])
    add_totals(x, totals)
    sums = GroupSums.empty(1, 2, "counts")
    sums.add_columns(x, group, half, first=0, totals=totals, whole=True)
    sums.count_cells(group, half, totals)
    plain = GroupSums.empty(1, 2, "counts")
    plain.add(Rows.of_dense(np.array([[5, 0], [0, 4], [3, 0]], dtype=np.float32)), group, half)
    np.testing.assert_array_equal(sums.values, plain.values)


def test_a_bad_cell_behind_unsorted_ones_is_named():
    """The position is that among all rows, not among those that were put in order."""
    indptr, indices = np.array([0, 1, 3, 4]), np.array([0, 1, 0, 0], dtype=np.int32)
    rows = Rows(indptr, indices, np.array([1, 2, 3, np.nan], dtype=np.float32))
    with pytest.raises(BadCell) as bad:
        GroupSums.empty(1, 2, "counts").add(rows, np.zeros(3, dtype=np.int64), np.zeros(3, dtype=bool))
    assert bad.value.row == 2


class Killed(BaseException):
    pass


@pytest.fixture
def often(monkeypatch, tmp_path):
    """Sums are kept after every block, blocks are small, and the cache is here."""
    monkeypatch.setenv("PERTSTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(kept, "SHARE", np.inf)
    monkeypatch.setattr(reading, "ENTRIES", 600)
    monkeypatch.setattr(held, "HELD", 1)
    return tmp_path


def screen(folder, form, *, log=False):
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", None)
    return worlds.write(folder / "cells.h5ad", obs, worlds.lognormal(x) if log else x, form=form)


def adding(monkeypatch, stop=None):
    """Counts the blocks that are added; kills the run at one of them."""
    seen = []
    for of, name in ((held.HeldCells, "add"), (GroupSums, "add_columns")):
        original = getattr(of, name)

        def counted(self, *args, original=original, **options):
            seen.append(1)
            if stop is not None and len(seen) == stop:
                raise Killed
            return original(self, *args, **options)

        monkeypatch.setattr(of, name, counted)
    return seen


def sums_of(path):
    return open_data(path).treated.source.sums


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_killed_pass_is_gone_on_with(often, monkeypatch, form, log):
    path = screen(often, form, log=log)
    whole = sums_of(path)
    with monkeypatch.context() as patch:
        blocks = adding(patch)
        sums_of(path)
        n = len(blocks)
    with monkeypatch.context() as patch:
        adding(patch, stop=n - 1)
        with pytest.raises(Killed):
            sums_of(path)
    assert len(list((often / "cache" / "cells").iterdir())) == 1
    with monkeypatch.context() as patch:
        blocks = adding(patch)
        assert_same_bits(sums_of(path), whole)
        assert len(blocks) == 2 < n
    assert not list((often / "cache" / "cells").iterdir())


@pytest.mark.parametrize("harm", ["cut", "flipped", "another file"])
def test_what_was_kept_of_another_file_or_is_damaged_is_not_used(often, monkeypatch, harm):
    path = screen(often, "csr")
    whole = sums_of(path)
    with monkeypatch.context() as patch:
        adding(patch, stop=4)
        with pytest.raises(Killed):
            sums_of(path)
    left = next((often / "cache" / "cells").iterdir())
    content = bytearray(left.read_bytes())
    if harm == "another file":
        screen(often, "csr")  # the same cells, written again
    else:
        content[len(content) // 2] ^= 1
        left.write_bytes(content[:-40] if harm == "cut" else content)
    with monkeypatch.context() as patch:
        blocks = adding(patch)
        assert_same_bits(sums_of(path), whole)
        assert len(blocks) > 4


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_cells_set_aside_are_left_out_of_the_sums_of_the_file(tmp_path, monkeypatch, form):
    """Untreated cells beside vehicle ones are no controls and no samples; the others are summed where they lie."""
    names = ("compound", "cell_line", "plate")
    obs = worlds.design(["imatinib", "dasatinib", "untreated"], n=24, control="DMSO", names=names)
    x = worlds.counts_of(obs, "compound", "cell_line")
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x, form=form))
    expected = worlds.pseudobulk_of(x, obs, list(names))
    ours = pd.DataFrame(file.read(slice(None))[1], file.sample_ids)
    assert len(ours) == 4 and "controls_aside" in [n.code for n in file.notes]
    np.testing.assert_allclose(ours, expected.loc[ours.index], rtol=0, atol=1e-6)
    monkeypatch.setattr(recognise, "LOOKED_AT", 16)
    used = np.flatnonzero(obs["compound"] != "untreated")  # rows that the first look does not meet, by rows or columns
    seen = {*used[np.linspace(0, len(used) - 1, 16).astype(int)], *np.linspace(0, len(obs) - 1, 64).astype(int)}
    bad = next(i for i in used[50:] if obs["compound"].iloc[i] == "dasatinib" and i not in seen)
    x[bad] += 0.5
    wrong = open_data(worlds.write(tmp_path / "wrong.h5ad", obs, x, form=form))
    with pytest.raises(InputError, match=rf"cell '{obs.index[bad]}' has the value \d*\.5"):
        wrong.read(slice(None))
