"""Small files that unpack to gigabytes: refused by name, in seconds, before the memory is full."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from pertstack._base.errors import InputError
from pertstack._base.reading import damage, dialects
from pertstack._base.reading.tables import parquet_batches, read_table
from pertstack.data import open_data
from pertstack.data.readers.matrices import StoredRows
from pertstack.design.plan.foreign import read_split
from pertstack.predictions.importers.readers import vcc
from pertstack.predictions.importers.readers.opening import open_file

HEAD = b"sample_id,perturbation,cell_line,G1,G2\n"
ROWS = b"s1,d1,A,1,1\n" * 10**5


@pytest.fixture(autouse=True)
def _less(monkeypatch):
    """A tenth of what is believed of a real file, so that nobody waits."""
    monkeypatch.setattr(dialects, "UNPACKED", 10**7)


def packed(path, block, *, head=HEAD, pack=gzip.compress, times=9):
    """A block of some ten megabytes, many times over."""
    path.write_bytes(pack(head) + pack(block) * times)
    assert path.stat().st_size < 1e5
    return path


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda b: lzma.compress(b, preset=0)])
def test_a_table_that_unpacks_without_end(tmp_path, pack):
    path = packed(tmp_path / "rows.csv.gz", ROWS, pack=pack)
    for door in (
        lambda: open_data(path, delta=True),
        lambda: [list(c) for c in open_file(path).chunks()],
        lambda: read_table(path),
        lambda: read_split(path.rename(tmp_path / "rows.csv"), pd.DataFrame()),
    ):
        with pytest.raises(InputError, match=r"rows.csv.*unpacks to more than 10,000,000"):
            door()


@pytest.mark.parametrize("block", [b"a" * 2 * 10**6, b'"' + b"a\n" * 10**6])
def test_a_line_that_does_not_end(tmp_path, block):
    for name in ("line.csv.gz", "line.gct.gz"):
        with pytest.raises(InputError, match=r"line.*unpacks to more than"):
            open_data(packed(tmp_path / name, block), delta=True)


@pytest.mark.parametrize("block", [b",1" * 10**6, b" " * 2 * 10**6])
def test_a_json_text_that_does_not_end(tmp_path, block):
    with pytest.raises(InputError, match=r"list.json.gz.*unpacks to more than"):
        open_file(packed(tmp_path / "list.json.gz", block, head=b'{"a":[1'))


def test_a_table_packed_as_tables_are_is_read(tmp_path):
    """Some of the same row is believed, and what shrinks less may be of any size."""
    path = packed(tmp_path / "rows.csv.gz", ROWS, times=2)
    assert len(read_table(path)) == 2 * 10**5


def test_an_entry_that_would_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(vcc, "MODEST", 10**6)
    path = tmp_path / "pred.h5ad.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        for _ in range(6):
            stream.write(bytes(10**7))
    with pytest.raises(InputError, match=r"pred.h5ad.zst.*made to fill the disk"):
        open_file(path)


def test_one_text_named_by_a_thousand_rows_of_a_parquet_file(tmp_path):
    path = tmp_path / "long.parquet"
    column = pa.DictionaryArray.from_arrays(np.zeros(2000, np.int32), pa.array(["a" * 30_000_000]))
    table = pa.table({"sample_id": [str(i) for i in range(2000)], "x": column})
    pq.write_table(table, path, compression="zstd", store_schema=False)  # else it is read as the dictionary it is
    assert path.stat().st_size < 100_000
    for door in (lambda: read_table(path), lambda: list(parquet_batches(path)), lambda: open_data(path, delta=True)):
        with pytest.raises(InputError, match=r"long.parquet cannot be read: it asks for more than 1 GB of memory"):
            door()


def test_rows_of_one_value_without_end_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "same.parquet"
    pq.write_table(pa.table({"x": np.ones(10**6)}), path)
    monkeypatch.setattr(damage, "MODEST", 10**6)
    with pytest.raises(InputError, match=r"same.parquet declares 1,000,000 rows"):
        next(parquet_batches(path))


def test_the_header_of_an_array_and_a_list_of_names_are_short(tmp_path):
    path = tmp_path / "theirs.npz"
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 10**6
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("predictions", "sample_ids", "gene_names"):
            archive.writestr(f"{name}.npy", long)
    with pytest.raises(InputError, match=r"theirs.npz.*header is said to have 2,147,483,648 bytes"):
        open_file(path)
    names = np.zeros(3 * 10**7, "<U1")
    np.savez_compressed(path, predictions=np.ones((2, 2)), sample_ids=names, gene_names=np.array(["a", "b"]))
    with pytest.raises(InputError, match=r"sample_ids.npy unpacks to 120,000,128 bytes"):
        open_file(path)


def test_a_chunk_far_larger_than_its_array_is_not_unpacked(tmp_path):
    path = tmp_path / "theirs.zarr"
    zarr.open_group(path, mode="w").create_array("X", shape=(24, 6), chunks=(24, 10**8), dtype="f4")
    with pytest.raises(InputError, match=r"X is an array of 576 bytes and declares chunks of 9,600,000,000"):
        StoredRows(path, "zarr", "X").rows(0, 2)
