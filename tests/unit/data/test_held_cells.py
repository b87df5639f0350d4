"""Cells held back and summed group by group: the numbers of plain loops, the bits of cells added one by one."""

from __future__ import annotations

from itertools import pairwise

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pertstack._base.errors import InputError
from pertstack.data.cells import GroupSums, Rows, held, reading
from pertstack.data.cells.entries import BadCell
from pertstack.data.cells.held import HeldCells
from pertstack.data.readers.matrices import StoredRows


def parts_of(matrix):
    return Rows(matrix.indptr.astype(np.int64), matrix.indices, matrix.data)


def poured(x, group, half, *, space, log, cuts, order=None):
    """The sums of cells that came in several parts; genes of a cell in any order, if asked."""
    sums = GroupSums.empty(4, x.shape[1], space)
    cells = HeldCells(sums, log=log)
    for start, stop in pairwise(cuts):
        rows = parts_of(sparse.csr_matrix(x[start:stop]))
        if order is not None:
            for i, j in pairwise(rows.indptr):
                mixed = order.permutation(j - i)
                rows.indices[i:j], rows.data[i:j] = rows.indices[i:j][mixed], rows.data[i:j][mixed]
        if not cells.is_room(rows):
            cells.pour()
        cells.add(rows, group[start:stop], half[start:stop])
    cells.pour()
    return sums


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", ["counts", "logs of counts", "logs"])
def test_held_cells_have_the_sums_of_plain_loops(kind, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n, n_genes = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 40))
    x = rng.poisson(data.draw(st.sampled_from([0.1, 1.0, 6.0])), (n, n_genes)).astype(np.float64)
    big = data.draw(st.sampled_from([3, 5000, 2**19 - 1, 2**22]))  # the last ones fill the table, and do not pack
    x[rng.random(x.shape) < 0.02] = min(big, 5000) if kind == "logs" else big
    x = np.log1p(x * 0.7) if kind == "logs" else x
    x = x.astype(data.draw(st.sampled_from([np.float32, np.float64])))
    group, half = rng.integers(-1, 4, n), rng.random(n) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=3))), n]
    how = {"space": "counts" if kind == "counts" else "log1p", "log": kind == "logs of counts"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "HELD", data.draw(st.sampled_from([6, 300, 10**5])))
        patch.setattr(held, "APART", 0)
        n_threads = data.draw(st.integers(1, 5))
        patch.setattr(held, "processors", lambda: n_threads)
        shuffled = rng if data.draw(st.booleans()) else None
        ours = poured(x, group, half, **how, cuts=cuts, order=shuffled)
    plain = GroupSums.empty(4, n_genes, how["space"])
    plain.add(parts_of(sparse.csr_matrix(x)), group, half, log=how["log"])
    for name in ("values", "n_cells", "n_half", "depth"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name), err_msg=name)
    assert ours.deepest == plain.deepest
    np.testing.assert_allclose(ours.highest, plain.highest, rtol=1e-12)
    if kind == "counts":
        whole, depth = x.astype(np.int64), x.astype(np.int64).sum(axis=1, keepdims=True)
        for g in range(4):
            mine = group == g
            expected = [whole[mine], whole[mine] ** 2, whole[mine] * depth[mine], whole[mine & half]]
            np.testing.assert_array_equal(ours.values[g], np.stack([v.sum(axis=0) for v in expected], axis=-1))


def test_a_table_that_is_full_goes_to_the_sums_and_is_filled_again():
    """Two cells with 2^19 - 1 counts of a gene leave no room for a third one's square; nothing runs over."""
    most = 2**19 - 1
    x, half = np.full((40, 3), most, dtype=np.float64), np.arange(40) % 2 == 0
    sums = poured(x, np.zeros(40, dtype=np.int64), half, space="counts", log=False, cuts=[0, 40])
    assert sums.values[0, 0].tolist() == [40 * most, 40 * most**2, 40 * most * 3 * most, 20 * most]


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf, 0.5])
def test_the_first_cell_that_cannot_be_summed_is_named(bad):
    x = np.ones((9, 3))
    x[4, 1], x[7, 0] = bad, -2.0
    cells = HeldCells(GroupSums.empty(1, 3, "counts"))
    with pytest.raises(BadCell) as found:
        cells.add(Rows.of_dense(x), np.zeros(9, dtype=np.int64), np.zeros(9, dtype=bool))
    assert found.value.row == 4


FORMS = {
    "one piece": {},
    "chunks": {"chunks": (7,)},
    "packed": {"chunks": (64,), "compression": "gzip"},
    "other end first": {"dtype": ">f4"},
    "narrow": {"dtype": "f8"},
}


@pytest.mark.parametrize("form", FORMS)
def test_stored_cells_are_read_however_they_lie(tmp_path, monkeypatch, form):
    """Arrays in one piece are read past the HDF5 library; all others through it. The next block is read meanwhile."""
    monkeypatch.setattr(reading, "ENTRIES", 40)
    x = sparse.random_array((50, 12), density=0.4, random_state=np.random.default_rng(3), format="csr")
    path = stored(tmp_path / "cells.h5ad", x, **FORMS[form])
    source = StoredRows(path, "hdf5", "X")
    straight = reading._place(source.sparse().group["data"]) is not None
    assert straight == (form in ("one piece", "narrow"))
    seen = []
    for block in reading.blocks(source):
        part = sparse.csr_array(
            (block.rows.data, block.rows.indices, block.rows.indptr), shape=(block.stop - block.start, 12)
        )
        seen.append(part.toarray().astype(np.float32))
    assert len(seen) > 5
    np.testing.assert_array_equal(np.concatenate(seen), x.toarray().astype(np.float32))


def test_a_file_with_something_before_its_content_is_read(tmp_path):
    x = sparse.random_array((50, 12), density=0.4, random_state=np.random.default_rng(3), format="csr")
    path = stored(tmp_path / "cells.h5ad", x, userblock=512)
    block = next(iter(reading.blocks(StoredRows(path, "hdf5", "X"))))
    np.testing.assert_array_equal(block.rows.data, x.data.astype(np.float32))


def test_a_file_cut_while_it_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ENTRIES", 40)
    x = sparse.random_array((5000, 12), density=0.4, random_state=np.random.default_rng(3), format="csr")
    path = stored(tmp_path / "cells.h5ad", x)
    blocks = reading.blocks(StoredRows(path, "hdf5", "X"))
    next(blocks)
    with path.open("r+b") as file:
        file.truncate(6000)
    with pytest.raises(InputError, match="cut short"):
        list(blocks)


def stored(path, x, *, userblock=0, dtype="f4", **options):
    """An h5ad file of some cells, its arrays stored in a certain way."""
    obs = pd.DataFrame(index=[f"c{i}" for i in range(x.shape[0])])
    anndata.AnnData(obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(x.shape[1])])).write_h5ad(path)
    if userblock:
        plain = path.with_suffix(".plain")
        path.rename(plain)
        with h5py.File(plain) as old, h5py.File(path, "w", userblock_size=userblock) as new:
            for name in old:
                old.copy(name, new)
            new.attrs.update(dict(old.attrs))
    with h5py.File(path, "r+") as file:
        file.pop("X", None)
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(x.shape)})
        group.create_dataset("data", data=x.data.astype("f4"), dtype=dtype, **options)
        group.create_dataset("indices", data=x.indices.astype("i4"), **options)
        group.create_dataset("indptr", data=x.indptr.astype("i8"))
    return path
