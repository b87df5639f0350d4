"""Real designs and real untreated profiles as the ground of a simulated study.

From a design table come who is measured where and real structures, whose fingerprints drive the response; from a basal
file come genes and the profiles of untreated cell lines. Only the effects and the noise are made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.tables import read_table
from pertstack.data.side.structures import morgan_features
from pertstack.data.simulation.config import SimulationConfig
from pertstack.data.simulation.layout import DOSE_SHARES, DOSES, TIME_SHARES, TIMES

Float32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Design:
    """Conditions (perturbation and cell line as positions, dose, time) and what their positions mean."""

    conditions: pd.DataFrame
    line_names: tuple[str, ...]
    perturbation_names: tuple[str, ...]
    smiles: tuple[str, ...]
    features: Float32  # (n_perturbations, 2048) fingerprints


def read_design(config: SimulationConfig, rng: np.random.Generator) -> Design:
    """The most measured cell lines of a design table, and perturbations drawn in proportion to how often they occur
    there.

    The table has columns ``cell_line`` and ``smiles``, one row per condition. Needs rdkit.

    Raises
    ------
    InputError
        A column is missing, or the table is too small for what was asked.
    NeedsExtraError
        rdkit is not installed.
    """
    assert config.design is not None
    table = read_table(Path(config.design))
    lacking = {"cell_line", "smiles"} - set(table.columns)
    if lacking:
        raise InputError(
            f"{config.design} lacks the columns {first_few(sorted(lacking))}; it has {first_few(table.columns)}."
        )
    table = table[["cell_line", "smiles"]].replace("", None).dropna().astype(str)
    lines = tuple(
        table["cell_line"].value_counts(sort=True).sort_index().sort_values(ascending=False, kind="stable").index
    )
    lines = lines[: config.cell_lines]
    table = table[table["cell_line"].isin(lines)]
    counts = table["smiles"].value_counts().sort_index()
    wanted = -(-config.samples // config.replicates)
    if len(counts) < config.perturbations or len(lines) < config.cell_lines or len(table) < wanted:
        raise InputError(
            f"{config.design} has {len(lines)} cell lines, {len(counts):,} structures and {len(table):,} conditions "
            f"in them, but "
            f"{config.cell_lines}, {config.perturbations:,} and {wanted:,} were asked for. Ask for less, or for more "
            f"replicates."
        )
    chosen = np.sort(
        rng.choice(len(counts), size=config.perturbations, replace=False, p=(counts / counts.sum()).to_numpy())
    )
    smiles = [str(s) for s in counts.index[chosen]]
    fingerprints, unreadable = morgan_features({s: s for s in smiles})
    smiles = [s for s in smiles if s not in set(unreadable)]
    rows = table[table["smiles"].isin(smiles)].reset_index(drop=True)
    rows = rows.loc[np.sort(rng.permutation(len(rows))[:wanted])].reset_index(drop=True)
    at = {s: i for i, s in enumerate(smiles)}
    conditions = pd.DataFrame(
        {
            "perturbation": rows["smiles"].map(at).to_numpy(np.int64),
            "cell_line": rows["cell_line"].map({c: i for i, c in enumerate(lines)}).to_numpy(np.int64),
            "dose": rng.choice(DOSES, size=len(rows), p=DOSE_SHARES),
            "time_h": rng.choice(TIMES, size=len(rows), p=TIME_SHARES),
        }
    ).drop_duplicates(ignore_index=True)
    width = max(3, len(str(len(smiles))))
    names = tuple(f"cpd{i + 1:0{width}d}" for i in range(len(smiles)))
    return Design(conditions, lines, names, smiles=tuple(smiles), features=fingerprints.rows(smiles)[0])


def read_basal(
    config: SimulationConfig, line_names: tuple[str, ...], rng: np.random.Generator
) -> tuple[tuple[str, ...], Float32, tuple[str, ...]]:
    """Gene names, untreated profiles (n_lines, n_genes) and line names from ``config.basal``, an h5ad whose rows are
    untreated profiles.

    Cell lines are matched by name; made-up line names (or lines the file does not have) take profiles of other lines of
    the file, in a drawn order, and made-up names become the names of those.

    Parameters
    ----------
    config : path of the file and how many genes are drawn from it.
    line_names : of the design.
    rng : draws genes and lines.

    Raises
    ------
    InputError
        The file has fewer profiles or genes than are asked for.
    """
    from pertstack.data.readers.anndata.tables import open_anndata_file, read_frame

    assert config.basal is not None
    path = Path(config.basal)
    _, root = open_anndata_file(path)
    obs, var = read_frame(root, "obs", path), read_frame(root, "var", path)
    names = [str(n) for n in obs.get("cell_line", obs.index)]
    values = np.asarray(root["X"][()], dtype=np.float32)
    if len(names) < len(line_names) or values.shape[1] < config.genes:
        raise InputError(
            f"{path} has {len(names)} untreated profiles of {values.shape[1]:,} genes; {len(line_names)} cell lines "
            f"and {config.genes:,} genes were asked for."
        )
    genes = np.sort(rng.choice(values.shape[1], size=config.genes, replace=False))
    free = [int(i) for i in rng.permutation(len(names)) if names[i] not in set(line_names)]
    rows, called = [], []
    for line in line_names:
        known = line in names
        rows.append(names.index(line) if known else free.pop(0))
        called.append(line if known or config.design is not None else names[rows[-1]])
    return tuple(str(g) for g in var.index[genes]), values[rows][:, genes], tuple(called)
