"""Tables with one row a cell and its genes as columns: the samples that plain pandas makes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data.readers.open import open_data
from references import cell_worlds as worlds


@pytest.fixture(scope="module")
def screen():
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    return obs, x, worlds.pseudobulk_of(x, obs, ["target_gene", "cell_line", "gem_group"])


@pytest.mark.parametrize("form", ["csv", "tsv.gz", "txt", "parquet", "beside"])
def test_wide_tables_of_cells(screen, tmp_path, form):
    obs, x, theirs = screen
    said, values = obs.assign(n_counts=x.sum(axis=1)), pd.DataFrame(x, index=obs.index, columns=worlds.GENES)
    wide, path, metadata = pd.concat([said, values], axis=1), tmp_path / f"cells.{form}", None
    wide["pct_of_my_panel"], wide["stress_score"] = 0.5, 1.0  # behind the genes, under names that no list has
    if form == "parquet":
        wide.to_parquet(path)
    elif form == "beside":
        path, metadata = tmp_path / "matrix.csv", tmp_path / "cells.csv"
        values.to_csv(path)
        said.sample(frac=1, random_state=0).to_csv(metadata, index_label="barcode")
    else:
        wide.to_csv(path, sep="," if form == "csv" else "\t", index_label="barcode")
    file = open_data(path, metadata=metadata)
    assert sorted(file.gene_names) == sorted(worlds.GENES)
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)
    note = next(n for n in file.notes if n.code == "genes_taken")
    assert "n_counts" in note.message or form == "beside"


def test_genes_as_rows_are_refused_with_a_command_that_turns_them(screen, tmp_path):
    obs, x, _ = screen
    pd.DataFrame(x.T, columns=obs.index, index=worlds.GENES).to_csv(tmp_path / "m.csv")
    obs.to_csv(tmp_path / "cells.csv", index_label="barcode")
    with pytest.raises(InputError, match=r"cells are its columns and genes its rows.*to_parquet"):
        open_data(tmp_path / "m.csv", metadata=tmp_path / "cells.csv")


def test_a_table_without_control_rows_still_asks_for_the_controls(screen, tmp_path):
    obs, x, _ = screen
    treated = (obs["target_gene"] != "non-targeting").to_numpy()
    wide = pd.concat([obs, pd.DataFrame(x, index=obs.index, columns=worlds.GENES)], axis=1)[treated]
    wide.to_csv(tmp_path / "cells.csv", index_label="barcode")
    with pytest.raises(InputError, match="the controls are missing"):
        open_data(tmp_path / "cells.csv")
