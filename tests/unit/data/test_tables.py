"""Pairs of plain tables: matched by id, in any order, never by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, MissingFileError
from pertstack.data import open_data, validate
from references.data_worlds import small


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Treated with metadata, and a control per sample."""
    data = small()
    treated = pd.DataFrame(data.X, columns=data.var_names)
    treated.insert(0, "sample_id", list(data.obs_names))
    treated.insert(1, "pert_id", list(data.obs["perturbation"]))
    treated.insert(2, "cell_id", list(data.obs["cell_line"]))
    treated.insert(3, "pert_idose", "500 nM")
    control = pd.DataFrame(data.layers["control"], columns=data.var_names)
    control.insert(0, "sample_id", list(data.obs_names))
    return treated, control


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.suffixes else ",")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".csv.gz"])
def test_controls_are_matched_by_sample_id_whatever_their_order(tmp_path, suffix: str) -> None:
    treated, control = tables()
    genes = [f"G{i}" for i in range(7)]
    shuffled = control.iloc[np.random.default_rng(0).permutation(12)][["sample_id", *genes[::-1]]]
    file = open_data(write(treated, tmp_path / f"t{suffix}"), control=write(shuffled, tmp_path / f"c{suffix}"))
    c, t = file.read(slice(None))
    np.testing.assert_allclose(t, treated[genes], rtol=1e-6)
    np.testing.assert_allclose(c, control[genes], rtol=1e-6)
    assert file.gene_names.tolist() == genes
    assert file.obs.index.tolist() == treated["sample_id"].tolist()
    np.testing.assert_allclose(file.obs["log10_dose"], np.log10(0.5))
    assert not [f for f in validate(file) if f.severity == "error"]


def test_shared_controls_are_named_by_control_id(tmp_path) -> None:
    treated, control = tables()
    treated["control_id"] = ["w1", "w2"] * 6
    wells = control.iloc[:2].drop(columns="sample_id").assign(control_id=["w2", "w1"])
    file = open_data(write(treated, tmp_path / "t.parquet"), control=write(wells, tmp_path / "c.parquet"))
    got = file.read_control(slice(None))
    np.testing.assert_allclose(got[0], control.iloc[1, 1:].to_numpy(float), rtol=1e-6)
    np.testing.assert_allclose(got[1], control.iloc[0, 1:].to_numpy(float), rtol=1e-6)
    assert file.obs["control_id"].tolist() == ["w1", "w2"] * 6


def test_ids_may_stand_in_the_index(tmp_path) -> None:
    treated, control = tables()
    treated.set_index("sample_id").rename_axis(None).to_parquet(tmp_path / "t.parquet")
    control.set_index("sample_id").to_csv(tmp_path / "c.csv")
    file = open_data(tmp_path / "t.parquet", control=tmp_path / "c.csv")
    np.testing.assert_allclose(file.read_control(slice(None)), control.iloc[:, 1:].to_numpy(float), rtol=1e-6)


def test_more_rows_than_a_batch(tmp_path) -> None:
    data = small(n=2500, genes=3)
    frame = pd.DataFrame(data.X, columns=data.var_names).assign(
        sample_id=data.obs_names, perturbation="p", cell_line="A"
    )
    write(frame, tmp_path / "t.csv")
    file = open_data(tmp_path / "t.csv", delta=True)
    np.testing.assert_allclose(np.concatenate([c.treated for c in file.chunks(700)]), data.X, rtol=1e-5)
    assert not file.read_control([0, 1]).any()


def test_a_missing_control_is_named_and_so_is_a_repeated_one(tmp_path) -> None:
    treated, control = tables()
    path = write(treated, tmp_path / "t.csv")
    with pytest.raises(InputError, match="--control FILE"):
        open_data(path)
    with pytest.raises(MissingFileError, match=r"nowhere\.csv"):
        open_data(path, control=tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"1 of 12 samples.*'s3'"):
        open_data(path, control=write(control.drop(index=3), tmp_path / "c.csv"))
    with pytest.raises(InputError, match="'s3' occurs more than once"):
        open_data(path, control=write(pd.concat([control, control.iloc[[3]]]), tmp_path / "c.csv"))
    with pytest.raises(InputError, match="neither a column sample_id nor control_id"):
        open_data(path, control=write(control.rename(columns={"sample_id": "well"}), tmp_path / "c.csv"))
    renamed = control.rename(columns={g: f"X{g}" for g in control.columns[1:]})
    with pytest.raises(InputError, match="share no numeric column"):
        open_data(path, control=write(renamed, tmp_path / "c.csv"))


def test_a_table_without_ids_or_with_text_among_numbers_is_refused(tmp_path) -> None:
    treated, control = tables()
    control_path = write(control, tmp_path / "c.csv")
    with pytest.raises(InputError, match="sample ids"):
        open_data(write(treated.drop(columns="sample_id"), tmp_path / "t.csv"), control=control_path)
    long = pd.concat([treated] * 200, ignore_index=True).assign(sample_id=lambda t: [f"s{i}" for i in range(len(t))])
    long["G2"] = long["G2"].astype(object)
    long.loc[2000, "G2"] = "oops"
    with pytest.raises(InputError, match=r"row 2,001 \(first cell .*'oops' in column 'G2'"):
        open_data(write(long, tmp_path / "t.csv"), control=control_path)
    (tmp_path / "e.csv").write_text("sample_id,perturbation,cell_line,G1\n")
    with pytest.raises(InputError, match="no rows"):
        open_data(tmp_path / "e.csv", delta=True)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_data(tmp_path / "bad.parquet", delta=True)


def test_what_was_taken_as_gene_is_said(tmp_path) -> None:
    treated, control = tables()
    treated["well_row"] = 3
    file = open_data(write(treated, tmp_path / "t.csv"), control=write(control, tmp_path / "c.csv"))
    note = next(n for n in file.notes if n.code == "genes_taken")
    assert note.count == 7 and "'well_row'" in note.message


def test_genes_that_only_one_table_has_are_warned_about(tmp_path) -> None:
    treated, control = tables()
    file = open_data(
        write(treated, tmp_path / "t.csv"), control=write(control.rename(columns={"G6": "g6"}), tmp_path / "c.csv")
    )
    note = next(n for n in validate(file) if n.code == "columns_in_one_table")
    assert note.severity == "warning" and note.examples == ("G6", "g6")
    assert file.n_genes == 6
