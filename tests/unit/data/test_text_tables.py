"""The one table reader: what a table says is the same in every dialect, and names stay as they are written."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack._base.reading.tables import read_table, with_numbers
from pertstack._base.reading.text_tables import text_table
from pertstack.data.side.files import read_features, read_targets
from pertstack.data.simulation.files import read_table as design_reader
from pertstack.predictions.importers.fitted_file import read_fitted_on

NAMES = ["007", "1E5", "12", "µ-opioid; 5,6-DHT", '3"-O-methyl', "NA", "α"]
FRAME = pd.DataFrame({"sample_id": NAMES, "v": [0.5, -1.25, 3.0, 1e-7, 1234.5, 2.0, -0.125]})

DIALECTS = {
    "commas": {},
    "semicolons": {"sep": ";"},
    "tabs": {"sep": "\t"},
    "bars": {"sep": "|"},
    "decimal commas": {"sep": ";", "decimal": ","},
    "tabs and decimal commas": {"sep": "\t", "decimal": ","},
    "UTF-16": {"encoding": "utf-16"},
    "UTF-16 without a mark": {"encoding": "utf-16-le"},
    "UTF-16 of a Mac": {"encoding": "utf-16-be"},
    "UTF-32": {"encoding": "utf-32"},
    "BOM": {"encoding": "utf-8-sig"},
    "Windows line ends": {"lineterminator": "\r\n"},
    "old Mac line ends": {"lineterminator": "\r"},
    "all quoted": {"quoting": 1},
    "quoted decimal commas": {"quoting": 1, "decimal": ","},
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_says_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    FRAME.to_csv(path, index=False, **DIALECTS[name])
    table = text_table(path)
    parts = [p.to_pandas() for p in table.batches(numbers=["v"])]
    read = pd.concat(parts)
    assert read["sample_id"].tolist() == NAMES
    np.testing.assert_array_equal(read["v"].to_numpy(), FRAME["v"].to_numpy(np.float32))


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_a_table_that_is_not_utf8_is_read_as_windows_writes_it(tmp_path: Path, encoding: str) -> None:
    frame = FRAME.iloc[:4]
    frame.to_csv(tmp_path / "t.csv", index=False, encoding=encoding)
    assert read_table(tmp_path / "t.csv")["sample_id"].tolist() == NAMES[:4]
    late = b"id,v\n" + b"a,1\n" * 2_000_000 + "µ,2\n".encode(encoding)  # the first odd byte stands far behind
    (tmp_path / "late.csv").write_bytes(late)
    assert text_table(tmp_path / "late.csv").encoding == "cp1252"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_table_is_known_by_its_bytes_and_damage_is_named(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    packed = pack(FRAME.to_csv(index=False).encode())
    (tmp_path / "t.csv").write_bytes(packed)
    assert read_table(tmp_path / "t.csv")["sample_id"].tolist() == NAMES
    (tmp_path / "cut.csv").write_bytes(packed[: len(packed) - 20])
    with pytest.raises(InputError, match=r"cut\.csv is damaged"):
        read_table(tmp_path / "cut.csv")


def test_blocks_end_where_rows_end_however_the_bytes_fall(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    names = [f'line\nbreak "{i}", µ' if i % 3 == 0 else f"α{i}" for i in range(50)]
    frame = pd.DataFrame({"id": names, "v": np.arange(50) / 4})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for block in (1, 7, 64, 10_000):
        monkeypatch.setattr("pertstack._base.reading.text_tables.BLOCK", block)
        read = pd.concat([p.to_pandas() for p in text_table(tmp_path / "t.csv").batches(numbers=["v"])])
        assert read["id"].tolist() == names and read["v"].tolist() == frame["v"].tolist()


def test_names_stay_text_and_whole_columns_become_numbers() -> None:
    """61 names became 121 where a type was guessed per piece: '7' in one, '007' in another."""
    table = pd.DataFrame(
        {
            "pert_id": ["007", "7", "12"],
            "batch": ["01", "02", "10"],
            "n": ["1", "2", ""],
            "i": ["1", "-2", "3"],
            "flag": ["TRUE", "false", "True"],
            "mixed": ["1", "x", "2"],
        }
    )
    read = with_numbers(table, {"pert_id"})
    assert read["pert_id"].tolist() == ["007", "7", "12"] and read["batch"].tolist() == ["01", "02", "10"]
    assert read["n"].tolist()[:2] == [1.0, 2.0] and np.isnan(read["n"][2])
    assert read["i"].dtype == np.int64 and read["flag"].tolist() == [True, False, True]
    assert read["mixed"].tolist() == ["1", "x", "2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("id,1-Mar,1-Mar\na,1,2\n", "'1-Mar'"),
        ("id,a, a\na,1,2\n", "'a'"),
        ("id,a,b\na,1\nb,1,2\n", "row 1 has 2 cells, but the first line names 3"),
        ("id,a,,b\na,1,x,2\n", "column 3 has values"),
        ("id;a\nx;1,234\ny;856\n", "thousands separators or decimal commas"),
        ("PK\x03\x04rest", "zip archive"),
        ("id,a\n\0\0\0\0\0", "not text"),
    ],
)
def test_what_cannot_be_known_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / "t.csv")


def test_repeated_columns_are_refused_in_parquet_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'a'"):
        read_table(tmp_path / "t.parquet")


def test_what_spreadsheets_and_r_add_is_understood(tmp_path: Path) -> None:
    """Excel's ``sep=;``, empty last columns, and row names without a name, as R writes them."""
    (tmp_path / "excel.csv").write_text("sep=;\nid;v;;\na;1;;\nb;2;;\n")
    assert read_table(tmp_path / "excel.csv").to_dict("list") == {"id": ["a", "b"], "v": ["1", "2"]}
    (tmp_path / "r.txt").write_text("G1\tG2\ns1\t1\t2\ns2\t3\t4\n")
    assert read_table(tmp_path / "r.txt").to_dict("list") == {
        "Unnamed: 0": ["s1", "s2"],
        "G1": ["1", "3"],
        "G2": ["2", "4"],
    }
    (tmp_path / "links.txt").write_text("protein1 protein2  score\na b 10\nc d  20\n")
    assert design_reader(tmp_path / "links.txt")["protein2"].tolist() == ["b", "d"]


@pytest.mark.parametrize(
    ("text", "header", "n_rows"),
    [
        ("# made by a, in 2026\n# v, w, x\n\na,b,c\n1,2,3\n4,5,6\n", ["a", "b", "c"], 2),
        ("# one note\na\tb\tc\n1\t2\t3\n4\t5\t6\n", ["a", "b", "c"], 2),
        ('# a "quote\nG1\tG2\ns1\t1\t2\n', ["Unnamed: 0", "G1", "G2"], 1),
        ("#a,b,c\n1,2,3\n4,5,6\n", ["#a", "b", "c"], 2),
        ("# a note\n#a,b,c\n1,2,3\n4,5,6\n", ["#a", "b", "c"], 2),
    ],
)
def test_notes_above_the_header_are_no_table(tmp_path: Path, text: str, header: list[str], n_rows: int) -> None:
    """The first of them was taken for the header. A line with as many cells as those below is one."""
    (tmp_path / "t.csv").write_text(text)
    found = read_table(tmp_path / "t.csv")
    assert list(found.columns) == header and found.iloc[0, -1] in ("3", "2")
    assert len(found) == n_rows


LISTS = {
    "one per line": "s1\ns2\n007\n",
    "with a BOM": "\ufeffs1\ns2\n007",
    "one line with commas": "s1, s2,007\n",
    "one line with semicolons": "s1;s2;007",
    "with a name above": "sample_id\ns1\ns2\n007\n",
    "a semicolon table": "sample_id;set\ns1;a\ns2;a\n007;b\n",
    "row numbers in front": ",id\n0,s1\n1,s2\n2,007\n",
    "row numbers from one": '"","x"\n"1","s1"\n"2","s2"\n"3","007"\n',
    "JSON": '["s1", "s2", "007"]',
    "obs_names as a table": ",set\ns1,a\ns2,a\n007,b\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_ids_however_it_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("ids.json" if name == "JSON" else "ids.txt")
    path.write_text(LISTS[name], encoding="utf-8")
    assert read_fitted_on(path) == ["s1", "s2", "007"]


def test_a_list_with_blanks_in_its_ids_is_one_column(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("plate 1 A01\nplate 1 A02\n")
    assert read_fitted_on(tmp_path / "ids.txt") == ["plate 1 A01", "plate 1 A02"]


def test_folds_and_ids_and_what_is_no_fold(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("fold;sample_id\n0;007\n1;7\n;s3\n")
    read = read_fitted_on(tmp_path / "f.csv")
    assert read["sample_id"].tolist() == ["007", "7", "s3"] and read["fold"].tolist()[:2] == [0, 1]
    assert read["fold"].isna().tolist() == [False, False, True]
    (tmp_path / "f.csv").write_text("fold;sample_id\nzero;a\n")
    with pytest.raises(InputError, match="'zero'"):
        read_fitted_on(tmp_path / "f.csv")
    (tmp_path / "t.csv").write_text("a;train\nb;train\nc;train\n")
    with pytest.raises(InputError, match="Name that column sample_id"):
        read_fitted_on(tmp_path / "t.csv")


def test_features_and_targets_go_through_the_same_door(tmp_path: Path) -> None:
    text = ";perturbation;w\n0;007;1,5\n1;7;2,5\n"
    (tmp_path / "f.csv").write_text(text, encoding="utf-16")
    read = read_features(tmp_path / "f.csv")
    assert read.index.tolist() == ["007", "7"] and read["w"].tolist() == [1.5, 2.5]
    (tmp_path / "t.csv").write_text("perturbation;gene\n007;EGFR|MARCH1\n007;NAN\n")
    assert read_targets(tmp_path / "t.csv") == {"007": ("EGFR", "MARCH1", "NAN")}
    pd.DataFrame({"perturbation": [7.0, np.nan], "w": [1.0, 2.0]}).dropna().to_parquet(tmp_path / "f.parquet")
    assert read_features(tmp_path / "f.parquet").index.tolist() == ["7"]
