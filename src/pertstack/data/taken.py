"""What was taken for what when a file was read: one line for each part of the data, with the option that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.file import DataFile
from pertstack.data.readers.columns.aliases import ALIASES

WORDS = {"cell_line": "cell line", "plate": "batch or plate", "log10_dose": "dose", "time_h": "time"}
"""Canonical columns in the words of people."""
SHOWN = ("perturbation", "cell_line", "plate", "log10_dose", "time_h", "replicate", "smiles")


@dataclass(frozen=True)
class Taken:
    """One line: what, where it was found, what is in it, and what to write to change that."""

    what: str
    source: str
    shows: str
    mend: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def taken(file: DataFile) -> list[Taken]:
    """Every part of a data file that was recognised rather than told, and what was not used."""
    notes = {n.code: n for n in file.notes}
    sources: dict[str, str] = notes["columns_taken"].numbers.get("sources", {}) if "columns_taken" in notes else {}
    parted = notes.get("labels_parted")
    lines = [
        Taken("samples", file.made or f"{file.n_samples:,} rows of {_name(file)}", "", _how_samples(file)),
        *(_column(file.obs, c, sources, parted) for c in SHOWN if c in file.obs or c in ("perturbation", "cell_line")),
        _control(file, notes),
        _genes(file, notes),
    ]
    used = {*_KNOWN, *sources.values()}
    others = [c for c in map(str, file.obs.columns) if c not in used]
    if others:
        lines.append(Taken("kept as it is", first_few(others, 12), "", "--map NAME=COLUMN"))
    return lines


LONGEST = 24
"""Characters of a value that the table shows."""
_KNOWN = {*ALIASES, "log10_dose", "time_h", "n_cells"}


def _name(file: DataFile) -> str:
    return file.path.rsplit("/", 1)[-1]


def _how_samples(file: DataFile) -> str:
    return "--by, --min-cells, --normalise, --cells-as-samples" if file.made else ""


def _column(obs: pd.DataFrame, name: str, sources: Mapping[str, str], parted: Finding | None) -> Taken:
    key = {"log10_dose": "dose", "time_h": "time"}.get(name, name)
    key = name if key == "dose" and "dose" not in sources and name in sources else key
    source = sources.get(key, key)
    where = f"one value for all: {source.removeprefix('const:')}" if source.startswith("const:") else f"column {source}"
    if parted is not None and key in ("perturbation", "dose"):
        where = f"labels of {sources.get('perturbation', 'perturbation')}"
    values = obs[name].dropna()
    distinct = sorted(set(values)) if name != "smiles" else list(dict.fromkeys(values))
    unit = "uM" if "dose_unit" not in obs or obs["dose_unit"].notna().any() else "(no unit)"
    texts = [_in_words(name, v, unit) for v in distinct]
    short = [t if len(t) <= LONGEST else f"{t[: LONGEST - 3]}..." for t in texts]
    return Taken(WORDS.get(name, name), where, f"{len(distinct):,}: {first_few(short, 3)}", f"--map {key}=COLUMN")


def _in_words(name: str, value: Any, unit: str) -> str:
    if name == "log10_dose":
        return f"{10**value:.3g} {unit}"
    return f"{value:g} h" if name == "time_h" else str(value)


def _control(file: DataFile, notes: Mapping[str, Finding]) -> Taken:
    if file.delta:
        return Taken("control", "none: values are differences", "", "leave --delta out")
    names = notes.get("control_names")
    if names is None:
        return Taken("control", file.control_reference, "", "--control-layer LAYER")
    return Taken("control", file.control_reference, str(names.numbers["shows"]), "--control-label NAME, --controls")


def _genes(file: DataFile, notes: Mapping[str, Finding]) -> Taken:
    column = notes["genes_by_column"].numbers["column"] if "genes_by_column" in notes else None
    where = "the index of the gene table" if column is None else f"column {column} of the gene table"
    if "versions_cut" in notes:
        where += ", versions cut"
    names: list[Any] = list(file.gene_names[:3])
    return Taken("genes", where, f"{file.n_genes:,}: {first_few(names, 3)}", "--map gene=COLUMN or gene=index")
