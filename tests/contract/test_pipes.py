"""A pipe where a file is named (``<(zcat x.csv.gz)``, ``/dev/stdin``): refused at once, and nobody waits for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError
from pertstack._base.reading.tables import is_text, read_table
from pertstack.data import open_data
from pertstack.design.plan.foreign import read_split
from pertstack.fit.external.card import load_card
from pertstack.fit.profiles import load_models_toml
from pertstack.predictions.importers.fitted_file import read_fitted_on
from pertstack.predictions.importers.readers.gene_lists import read_gene_list
from pertstack.predictions.importers.readers.named_files import named_files
from pertstack.predictions.importers.readers.opening import open_file
from pertstack.stacking.combiners.gene_weights.gene_groups import read_gmt
from pertstack.study.steps.bundle import verify_bundle

TRUTH = pd.DataFrame({"sample_id": ["s1"], "perturbation": ["d1"]})
DOORS = {
    **{f"init {e}": (f"x.{e}", open_data) for e in ("h5ad", "zarr", "csv", "csv.gz", "tsv", "parquet", "gctx")},
    **{
        f"add {e}": (f"x.{e}", open_file)
        for e in ("h5ad", "zarr", "npz", "csv", "parquet", "feather", "pkl", "json", "vcc")
    },
    "controls": ("x.csv", lambda path: open_data(path.with_name("none.csv"), control=path)),
    "metadata": ("x.csv", lambda path: open_data(path.with_name("none.gctx"), metadata=path)),
    "evaluate truth": ("x.h5ad", lambda path: ps.evaluate(path, {"m": path})),
    "evaluate predictions": ("x.h5ad", lambda path: ps.evaluate(path.with_name("none.h5ad"), {"m": path})),
    "named": ("x.csv", lambda path: named_files([path])),
    "in a folder": ("x.csv", lambda path: open_file(named_files([path.parent])[path.parent.name][0])),
    "table": ("x.csv", read_table),
    "text": ("x.csv", is_text),
    "frame": ("x.parquet", read_table),
    "split toml": ("x.toml", lambda path: read_split(path, TRUTH)),
    "split json": ("x.json", lambda path: read_split(path, TRUTH)),
    "fitted on": ("x.csv", read_fitted_on),
    "genes": ("x.txt", read_gene_list),
    "gene sets": ("x.gmt", read_gmt),
    "card": ("x.toml", load_card),
    "models.toml": ("models.toml", load_models_toml),
    "bundle": ("x.zip", verify_bundle),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_pipe_is_refused_at_once(tmp_path: Path, door: str) -> None:
    """SIGALRM ends the test run where one waits."""
    name, read = DOORS[door]
    os.mkfifo(tmp_path / name)
    signal.alarm(60)
    try:
        with pytest.raises(InputError, match=rf"{name}.* is no plain file but a pipe.*Write it to a file"):
            read(tmp_path / name)
    finally:
        signal.alarm(0)
