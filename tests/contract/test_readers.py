"""One contract for all readers of matrices: equal values under equal names, or a refusal whose mend works.

Every input below is something that people's programs write. ``READ`` must come out as it went in, whatever the chunks;
``REFUSED`` must be refused with the word that matters, and after the mend that the message names it must be read.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import scipy.sparse as sp
import zarr

from pertstack._base.errors import IntegrityError, StackingError
from pertstack._base.reading.tables import parquet_batches, read_table
from pertstack.data import open_data
from pertstack.predictions.importers.readers.opening import open_file

N, G = 7, 5
IDS = ["s3", "007", "1E5", "α/β", "µ 10", "12", "x" * 200]
GENES = ["G1", "HLA-A/B", "1-Mar", "nan", "β"]
VALUES = np.round(np.random.default_rng(0).normal(0, 2, (N, G)) * 16).astype(np.float32) / 16  # exact in float16
FRAME = pd.DataFrame(VALUES, index=IDS, columns=GENES)
ad.settings.allow_write_nullable_strings = True

pytestmark = pytest.mark.filterwarnings("ignore")


def data(x: object = VALUES, **more: object) -> ad.AnnData:
    return ad.AnnData(x, obs=pd.DataFrame(index=IDS), var=pd.DataFrame(index=GENES), **more)


def with_obs(**columns: object) -> ad.AnnData:
    a = data()
    for name, values in columns.items():
        a.obs[name] = values
    return a


def with_raw() -> ad.AnnData:
    a = data()
    a.raw = data(VALUES + 100)
    return a


def as_prediction_layer() -> ad.AnnData:
    a = data(VALUES + 100)
    a.layers["prediction"] = VALUES
    return a


def view() -> ad.AnnData:
    big = ad.AnnData(
        np.vstack([VALUES[::-1], VALUES + 9]),
        obs=pd.DataFrame(index=[*IDS[::-1], *"abcdefg"]),
        var=pd.DataFrame(index=GENES),
    )
    return big[IDS]


def nullable_names() -> ad.AnnData:
    a = data()
    a.obs.index = pd.Index(IDS, dtype="string")
    return a


ANNDATA: dict[str, Callable[[], ad.AnnData]] = {
    "dense": data,
    "float64": lambda: data(VALUES.astype("f8")),
    "float16": lambda: data(VALUES.astype("f2")),
    "integers": lambda: data((VALUES * 16).astype("i4")),
    "unsigned": lambda: data(np.abs(VALUES * 16).astype("u1")),
    "big-endian": lambda: data(VALUES.astype(">f4")),
    "column order": lambda: data(np.asfortranarray(VALUES)),
    "CSR": lambda: data(sp.csr_matrix(VALUES)),
    "CSC": lambda: data(sp.csc_matrix(VALUES)),
    "CSR of float64": lambda: data(sp.csr_matrix(VALUES.astype("f8"))),
    "raw beside X": with_raw,
    "layer prediction": as_prediction_layer,
    "a view": view,
    "names as nullable strings": nullable_names,
    "categories with gaps": lambda: with_obs(moa=pd.Categorical(["a", None, "b", "a", None, "b", "a"])),
    "nullable numbers": lambda: with_obs(n=pd.array([1, None, 3, 4, 5, 6, 7], dtype="Int64")),
    "nullable booleans": lambda: with_obs(b=pd.array([True, None, False, True, None, True, True], dtype="boolean")),
    "nullable strings": lambda: with_obs(t=pd.array([*"abcdef", None], dtype="string")),
}


def h5ad(tmp: Path, a: ad.AnnData, **options: object) -> Path:
    a.write_h5ad(tmp / "p.h5ad", **options)
    return tmp / "p.h5ad"


def as_zarr(tmp: Path, a: ad.AnnData, version: int = 2, name: str = "p.zarr") -> Path:
    before = ad.settings.zarr_write_format
    ad.settings.zarr_write_format = version
    try:
        a.write_zarr(tmp / name)
    finally:
        ad.settings.zarr_write_format = before
    return tmp / name


def consolidated_before(tmp: Path, version: int) -> Path:
    """X was written again, with another type, after the metadata of all arrays were summed up in one file."""
    path = as_zarr(tmp, data((VALUES * 0).astype("i4")), version)
    zarr.consolidate_metadata(str(path), zarr_format=version)
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    facts = dict(root["X"].attrs)
    root.create_array("X", data=VALUES.astype("f4"), overwrite=True).attrs.update(facts)
    return path


def backed(tmp: Path) -> Path:
    h5ad(tmp, data())
    a = ad.read_h5ad(tmp / "p.h5ad", backed="r+")
    a.obs["later"] = 1
    a.write()
    a.file.close()
    return tmp / "p.h5ad"


def old_h5ad(tmp: Path) -> Path:
    """obs and var as records, as anndata wrote them before 0.7."""
    with h5py.File(tmp / "p.h5ad", "w") as file:
        file["X"] = VALUES
        for name, index in (("obs", IDS), ("var", GENES)):
            records = np.empty(len(index), dtype=[("index", "S400"), ("n", "i4")])
            records["index"], records["n"] = [i.encode() for i in index], 1
            file[name] = records
    return tmp / "p.h5ad"


def csv(tmp: Path, name: str = "p.csv", frame: pd.DataFrame = FRAME, encoding: str = "utf-8", **how: object) -> Path:
    frame.to_csv(tmp / name, encoding=encoding, **how)
    return tmp / name


def text(tmp: Path, content: str, name: str = "p.csv") -> Path:
    (tmp / name).write_text(content, encoding="utf-8")
    return tmp / name


def parquet(tmp: Path, frame: pd.DataFrame = FRAME, **how: object) -> Path:
    frame.to_parquet(tmp / "p.parquet", **how)
    return tmp / "p.parquet"


def npz(tmp: Path, values: object = VALUES, ids: object = None, genes: object = None, save: object = np.savez) -> Path:
    names = [np.array(given if given is not None else made) for given, made in ((ids, IDS), (genes, GENES))]
    save(tmp / "p.npz", predictions=values, sample_ids=names[0], gene_names=names[1])
    return tmp / "p.npz"


def dictionary_ids(tmp: Path) -> Path:
    table = pa.table({"id": pa.array(IDS).dictionary_encode(), **{g: VALUES[:, i] for i, g in enumerate(GENES)}})
    pa.parquet.write_table(table, tmp / "p.parquet")
    return tmp / "p.parquet"


def feather(tmp: Path) -> Path:
    pa.feather.write_feather(FRAME.rename_axis("id").reset_index(), str(tmp / "p.feather"))
    return tmp / "p.feather"


def row_numbers(tmp: Path) -> Path:
    return csv(tmp, frame=FRAME.rename_axis("id").reset_index())


def without_first_name(tmp: Path) -> Path:
    lines = FRAME.to_csv(sep="\t").splitlines()
    return text(tmp, "\n".join([lines[0].lstrip("\t"), *lines[1:]]), "p.txt")


READ: dict[str, Callable[[Path], Path]] = {
    **{f"h5ad: {n}": (lambda tmp, make=make: h5ad(tmp, make())) for n, make in ANNDATA.items()},
    **{
        f"zarr: {n}": (lambda tmp, make=make: as_zarr(tmp, make()))
        for n, make in ANNDATA.items()
        if n not in ("big-endian",)
    },
    "h5ad: compressed": lambda tmp: h5ad(tmp, data(), compression="gzip"),
    "h5ad: backed": backed,
    "h5ad: records of anndata 0.6": old_h5ad,
    "zarr: format 3": lambda tmp: as_zarr(tmp, data(), 3),
    "zarr: format 3, CSR": lambda tmp: as_zarr(tmp, data(sp.csr_matrix(VALUES)), 3),
    "zarr: consolidated before X was written": lambda tmp: consolidated_before(tmp, 2),
    "zarr: format 3, consolidated before X was written": lambda tmp: consolidated_before(tmp, 3),
    "zarr: a folder without suffix": lambda tmp: as_zarr(tmp, data(), 2, "predictions"),
    "zarr: format 3 without suffix": lambda tmp: as_zarr(tmp, data(), 3, "predictions"),
    "csv: plain": csv,
    "csv: semicolons": lambda tmp: csv(tmp, sep=";"),
    "csv: decimal commas": lambda tmp: csv(tmp, sep=";", decimal=","),
    "csv: quoted decimal commas": lambda tmp: csv(tmp, decimal=",", quoting=1),
    "csv: tabs": lambda tmp: csv(tmp, sep="\t"),
    "tsv": lambda tmp: csv(tmp, "p.TSV", sep="\t"),
    "csv: UTF-16": lambda tmp: csv(tmp, encoding="utf-16"),
    "csv: BOM": lambda tmp: csv(tmp, encoding="utf-8-sig"),
    "csv: Windows line ends": lambda tmp: csv(tmp, lineterminator="\r\n"),
    "csv: old Mac line ends": lambda tmp: csv(tmp, lineterminator="\r"),
    "csv: gzip": lambda tmp: csv(tmp, "p.csv.gz"),
    "csv: xz": lambda tmp: csv(tmp, "p.csv.xz"),
    "csv: exponents": lambda tmp: csv(tmp, float_format="%.6e"),
    "csv: row numbers in front": row_numbers,
    "txt: R's first line without a first name": without_first_name,
    "parquet: index": parquet,
    "parquet: named index": lambda tmp: parquet(tmp, FRAME.rename_axis("cell")),
    "parquet: first column": lambda tmp: parquet(tmp, FRAME.rename_axis("id").reset_index(), index=False),
    "parquet: float64": lambda tmp: parquet(tmp, FRAME.astype("f8")),
    "parquet: float16": lambda tmp: parquet(tmp, FRAME.astype("f2")),
    "parquet: integers": lambda tmp: parquet(tmp, (FRAME * 16).astype("i2")),
    "parquet: dictionary ids": dictionary_ids,
    "parquet: small row groups": lambda tmp: parquet(tmp, row_group_size=2),
    "feather": feather,
    "npz": npz,
    "npz: objects": lambda tmp: npz(tmp, ids=np.array(IDS, object), genes=np.array(GENES, object)),
    "npz: bytes": lambda tmp: npz(tmp, ids=np.array([i.encode() for i in IDS])),
    "npz: compressed": lambda tmp: npz(tmp, save=np.savez_compressed),
    "npz: float64": lambda tmp: npz(tmp, VALUES.astype("f8")),
    "npz: float16": lambda tmp: npz(tmp, VALUES.astype("f2")),
    "npz: big-endian": lambda tmp: npz(tmp, VALUES.astype(">f4")),
    "npz: integers": lambda tmp: npz(tmp, (VALUES * 16).astype("i8")),
    "npz: column order": lambda tmp: npz(tmp, np.asfortranarray(VALUES)),
}
SCALED = ("integers", "unsigned")  # written 16 times as large, to be whole


def check(path: Path, name: str = "") -> None:
    """Names and values as they were written, for several sizes of chunks."""
    wanted = VALUES * 16 if name.endswith(SCALED) else VALUES
    wanted = np.abs(wanted) if name.endswith("unsigned") else wanted
    for rows in (1, 3, 100):
        file = open_file(path)
        assert file.sample_ids == IDS and file.gene_names == GENES
        np.testing.assert_array_equal(np.concatenate([c.values for c in file.chunks(rows)]), wanted)


@pytest.mark.parametrize("name", READ)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    check(READ[name](tmp_path), name)


def commands(message: str) -> list[str]:
    return re.findall(r"`([^`]+)`", message)


def run(message: str, tmp: Path) -> Path:
    """Do what a message says in backticks, as a user would; the path it then names."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(shlex.split(commands(message)[0]), check=True, env=env, cwd=tmp, timeout=60)
    found = re.search(r"provide (\S+?)\.?$", message)
    assert found is not None
    return Path(found[1])


def packed_h5ad(tmp: Path) -> Path:
    raw = h5ad(tmp, data()).read_bytes()
    (tmp / "p.h5ad").unlink()
    (tmp / "p.h5ad.gz").write_bytes(gzip.compress(raw))
    return tmp / "p.h5ad.gz"


def packed_zarr(tmp: Path, inside: bool = False) -> Path:
    as_zarr(tmp, data())
    where = {"root_dir": tmp, "base_dir": "p.zarr"} if inside else {"root_dir": tmp / "p.zarr"}
    shutil.make_archive(str(tmp / "p.zarr"), "zip", **where)
    shutil.rmtree(tmp / "p.zarr")
    return tmp / "p.zarr.zip"


def repeated(tmp: Path, kind: str, axis: int) -> Path:
    ids, genes = list(IDS), list(GENES)
    (ids if axis == 0 else genes)[1] = (ids if axis == 0 else genes)[0]
    frame = pd.DataFrame(VALUES, index=ids, columns=genes)
    if kind == "csv":
        return csv(tmp, frame=frame)
    if kind == "npz":
        return npz(tmp, ids=ids, genes=genes)
    a = ad.AnnData(VALUES, obs=pd.DataFrame(index=ids), var=pd.DataFrame(index=genes))
    return h5ad(tmp, a) if kind == "h5ad" else as_zarr(tmp, a)


Mend = Callable[[str, Path], Path]
REFUSED: dict[str, tuple[Callable[[Path], Path], str, Mend]] = {
    "h5ad.gz": (packed_h5ad, "gunzip", run),
    "zarr.zip": (packed_zarr, "zipfile", run),
    "zarr.zip with its folder inside": (lambda tmp: packed_zarr(tmp, inside=True), "zipfile", run),
    "h5ad cut short": (lambda tmp: _cut(h5ad(tmp, data())), "cannot be read as AnnData", lambda m, t: h5ad(t, data())),
    "npz cut short": (lambda tmp: _cut(npz(tmp)), r"cannot be read as \.npz", lambda m, t: npz(t)),
    "parquet cut short": (lambda tmp: _cut(parquet(tmp)), "cannot be read as parquet", lambda m, t: parquet(t)),
    "csv.gz cut short": (lambda tmp: _cut(csv(tmp, "p.csv.gz")), "damaged", lambda m, t: csv(t, "p.csv.gz")),
    "npz of bfloat16": (
        lambda tmp: npz(tmp, VALUES.astype("f2").view("V2")),
        "numbers.*are expected",
        lambda m, t: npz(t, VALUES),
    ),
    "npz without ids": (lambda tmp: _without_ids(tmp), "lacks 'sample_ids'", lambda m, t: npz(t)),
    "npz with other objects": (
        lambda tmp: npz(tmp, ids=_objects([{i} for i in IDS])),
        "other Python objects",
        lambda m, t: npz(t, ids=np.asarray(list(IDS), dtype=str)),
    ),
    "npz with one id too few": (lambda tmp: npz(tmp, ids=IDS[:-1]), "6 sample ids", lambda m, t: npz(t)),
    "csv with a word": (
        lambda tmp: text(tmp, FRAME.to_csv() + "z,1,2,oops,4,5\n"),
        r"row 8 .*'oops' in column '1-Mar'",
        lambda m, t: csv(t),
    ),
    "csv with a short row": (
        lambda tmp: text(tmp, FRAME.to_csv() + "z,1,2\n"),
        "row 8 has 3 cells",
        lambda m, t: csv(t),
    ),
    "csv with thousands": (
        lambda tmp: text(tmp, "id;a;b\nx;1,234;5\ny;856;6\n"),
        "thousands",
        lambda m, t: csv(t, sep=";", decimal="."),
    ),
    "csv that is a workbook": (
        lambda tmp: _bytes(tmp / "p.csv", b"PK\x03\x04....."),
        "zip archive",
        lambda m, t: csv(t),
    ),
    "parquet with a column of words": (
        lambda tmp: parquet(tmp, FRAME.assign(remark="A")),
        "without numbers: 'remark'",
        lambda m, t: parquet(t, FRAME),
    ),
    "parquet without ids": (
        lambda tmp: parquet(tmp, FRAME.reset_index(drop=True)),
        "no sample ids",
        lambda m, t: parquet(t, FRAME),
    ),
    **{
        f"{kind}, two {'samples' if axis == 0 else 'genes'} of one name": (
            lambda tmp, kind=kind, axis=axis: repeated(tmp, kind, axis),
            "occur more than once",
            lambda m, t, kind=kind: {"csv": csv, "npz": npz}.get(kind, lambda t: h5ad(t, data()))(t),
        )
        for kind in ("h5ad", "zarr", "csv", "npz")
        for axis in (0, 1)
    },
}


def _objects(values: list[object]) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def _bytes(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def _without_ids(tmp: Path) -> Path:
    np.savez(tmp / "p.npz", predictions=VALUES)
    return tmp / "p.npz"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_can_be_mended_as_the_message_says(tmp_path: Path, name: str) -> None:
    make, words, mend = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(StackingError, match=words) as caught:
        list(open_file(path).chunks())
    assert path.name in str(caught.value) and (caught.value.exit_code == 2 or isinstance(caught.value, IntegrityError))
    (tmp_path / "again").mkdir()
    check(mend(str(caught.value), tmp_path / "again"))


def test_a_locked_file_is_named_and_the_variable_helps(tmp_path: Path) -> None:
    path = h5ad(tmp_path, data())
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StackingError, match="locked by another program") as caught:
            open_file(path)
        setting = commands(str(caught.value))[0].split()[0]
        code = f"import h5py; h5py.File({str(path)!r}).close()"
        name, value = setting.split("=")
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, name: value}, timeout=60)


DATA: dict[str, Callable[[Path, ad.AnnData], Path]] = {
    "h5ad": lambda tmp, a: h5ad(tmp, a),
    "zarr 2": lambda tmp, a: as_zarr(tmp, a, 2),
    "zarr 3": lambda tmp, a: as_zarr(tmp, a, 3),
    "a zarr folder without suffix": lambda tmp, a: as_zarr(tmp, a, 2, "f"),
    "CSR": lambda tmp, a: h5ad(tmp, _sparse(a)),
}


def _sparse(a: ad.AnnData) -> ad.AnnData:
    a.X, a.layers["control"] = sp.csr_matrix(a.X), sp.csr_matrix(a.layers["control"])
    return a


def measured() -> ad.AnnData:
    a = with_obs(perturbation=["p1", "p2"] * 3 + ["p3"], cell_line="A375")
    a.layers["control"] = VALUES[::-1].copy()
    return a


@pytest.mark.parametrize("name", DATA)
def test_data_come_through_the_same_door_equal(tmp_path: Path, name: str) -> None:
    file = open_data(DATA[name](tmp_path, measured()))
    control, treated = file.read(slice(None))
    assert list(file.obs.index) == IDS and file.gene_names.tolist() == GENES
    np.testing.assert_array_equal(treated, VALUES)
    np.testing.assert_array_equal(control, VALUES[::-1])


TABLES = {
    "commas": {},
    "semicolons and decimal commas": {"sep": ";", "decimal": ","},
    "UTF-16": {"encoding": "utf-16"},
    "tabs": {"sep": "\t"},
    "parquet": None,
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_data_come_through_equal(tmp_path: Path, name: str) -> None:
    how, ending = TABLES[name], "parquet" if TABLES[name] is None else "csv"
    a = measured()
    for part, values in (("t", a.X), ("c", a.layers["control"])):
        frame = pd.DataFrame(values, index=IDS, columns=GENES).rename_axis("sample_id").reset_index()
        if part == "t":
            frame = frame.assign(perturbation=list(a.obs["perturbation"]), cell_line="A375")
        path = tmp_path / f"{part}.{ending}"
        frame.to_parquet(path) if how is None else frame.to_csv(path, index=False, **how)
    file = open_data(tmp_path / f"t.{ending}", control=tmp_path / f"c.{ending}")
    control, treated = file.read(slice(None))
    assert list(file.obs.index) == IDS and file.gene_names.tolist() == GENES
    np.testing.assert_array_equal(treated, VALUES)
    np.testing.assert_array_equal(control, VALUES[::-1])


def test_odd_names_and_lists_of_metadata_are_kept_and_told(tmp_path: Path) -> None:
    frame = (
        FRAME.rename_axis("sample_id")
        .reset_index()
        .assign(perturbation=["p1"] * N, cell_line="A375", **{"G1/S": ["x"] * N, "_index": ["y"] * N})
    )
    frame["targets"] = [["EGFR", "ERBB2"]] * N
    frame.to_parquet(tmp_path / "t.parquet")
    file = open_data(tmp_path / "t.parquet", delta=True)
    assert file.obs["G1_S"].tolist() == ["x"] * N and file.obs["index"].tolist() == ["y"] * N
    assert file.obs["targets"].tolist() == ["EGFR;ERBB2"] * N
    assert {"columns_renamed", "lists_joined"} <= {n.code for n in file.notes}


FUZZED = (
    "npz",
    "npz: objects",
    "csv: plain",
    "csv: gzip",
    "csv: UTF-16",
    "parquet: index",
    "feather",
    "h5ad: dense",
    "h5ad: CSR",
)


@pytest.mark.parametrize("name", FUZZED)
def test_broken_bytes_are_refused_in_words_or_read(tmp_path: Path, name: str) -> None:
    """Twenty mutations: cut, overwritten, taken out, put in. No exception of a library gets through."""
    path = READ[name](tmp_path)
    raw, rng = path.read_bytes(), np.random.default_rng(0)
    for k in range(20):
        at, n = int(rng.integers(1, len(raw))), int(rng.integers(1, 64))
        junk = rng.bytes(n)
        head, tail = raw[:at], raw[at + n :]
        path.write_bytes([head, head + junk + tail, head + tail, head + junk + raw[at:]][k % 4])
        try:
            list(open_file(path).chunks())
        except StackingError as refusal:
            assert path.name in str(refusal)


def test_there_are_as_many_as_promised() -> None:
    assert len(READ) + len(REFUSED) >= 60


def one_row_a_sample(path: Path, marked: float) -> None:
    table = FRAME.rename_axis("sample_id").reset_index().assign(perturbation="d", cell_line="A")
    table.loc[3, "β"] = marked
    pyarrow.parquet.write_table(pa.Table.from_pandas(table), path, **CHECKSUMS)


def one_row_a_cell(path: Path, marked: float) -> None:
    lists = {"genes": [["a", "b"]] * 40, "expressions": [[1.0, 2.0]] * 39 + [[1.0, marked]]}
    what = {"perturbation": ["d", "control"] * 20, "cell_line": ["A"] * 40}
    pyarrow.parquet.write_table(pa.table({**what, **lists}), path, **CHECKSUMS)


CHECKSUMS: dict[str, object] = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}


@pytest.mark.parametrize(
    ("write", "door"),
    [
        (one_row_a_sample, read_table),
        (one_row_a_sample, lambda p: list(parquet_batches(p))),
        (one_row_a_sample, lambda p: open_data(p, delta=True)),
        (one_row_a_sample, lambda p: list(open_file(p).chunks())),
        (one_row_a_cell, open_data),
        (one_row_a_cell, open_file),
    ],
)
def test_a_changed_page_of_parquet_is_refused_where_it_has_a_checksum(tmp_path, write, door) -> None:
    """The checksums that Spark and parquet-mr write were not looked at, and the changed value was taken."""
    path, marked = tmp_path / "p.parquet", 1234.0
    write(path, marked)
    door(path)
    whole = path.read_bytes()
    (before, after), *_ = [
        pair
        for kind in ("f8", "f4")
        if (pair := [np.array([v], dtype=kind).tobytes() for v in (marked, 999.0)])[0] in whole
    ]
    path.write_bytes(whole.replace(before, after))
    with pytest.raises(StackingError, match=r"p.parquet.*(CRC|checksum)"):
        door(path)
