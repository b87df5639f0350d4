"""Predictions of new samples by models that were made elsewhere, read as ``add`` read those of the study.

Scale and transform are those that each model was added with; rows are matched by id or by what was done, genes by any
of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, IntegrityError, MisalignedError, first_few
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import space
from pertstack.data import DataFile
from pertstack.data.choices import Normalise
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import named_transform
from pertstack.predictions.importers.checks.scale import PLAINLY, levels
from pertstack.predictions.importers.onto import Given, given, laid_out
from pertstack.predictions.importers.readers.opening import as_paths
from pertstack.predictions.importers.space import space_of
from pertstack.study.folder import StudyFolder

KEY = ("perturbation", "cell_line", "log10_dose", "time_h", "plate")
AT_ONCE = 512


def files_of(pairs: Sequence[str], needed: Sequence[str]) -> dict[str, list[str]]:
    """Files by model, of ``NAME=FILE``; a name that is given several times has several.

    Raises
    ------
    InputError
        A pair is none, or names no model in use.
    """
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or name not in needed:
            raise InputError(
                f"--predictions {pair!r} is not NAME=FILE for one of the models in use ({first_few(needed)})."
            )
        found.setdefault(name, []).append(path)
    return found


def handed_in(
    folder: StudyFolder, model: str, files: Sequence[str], new: DataFile, *, scratch: Path | None
) -> tuple[Float32, list[Finding]]:
    """Predictions of a model for the new samples, (n_samples, n_genes) in the treated scale, and what was found.

    Parameters
    ----------
    folder : of the study.
    model : that was added to it, or fitted in it.
    files : its predictions of the new samples.
    new : the new samples.
    scratch : folder in which room is made for many; None for memory.

    Raises
    ------
    MisalignedError
        Samples or genes are missing, or names cannot be matched.
    IntegrityError
        Values are not on the scale that the model was added with.
    """
    genes = list(map(str, folder.gene_names))
    scale, transform = as_added(folder, model)
    found = given(
        model,
        as_paths(files),
        new.obs[[c for c in KEY if c in new.obs]],
        own=genes,
        other=folder.other_gene_names,
        space=space_in(folder),
        transform=None if transform is None else named_transform(transform, scale),
        differences=scale == "delta",
    )
    _refuse_missing("genes", model, [g for g in genes if g not in found.genes], len(genes))
    values: Float32 = space((new.n_samples, len(genes)), np.float32, scratch)
    there = laid_out(found, new.obs, genes, out=values)
    _refuse_missing("new samples", model, new.obs.index[~there].tolist(), len(there))
    _to_treated(values, found, new, genes, scale=scale, differences=bool(folder.choices["delta"]))
    return values, [f for f in found.findings if f.severity != "note"]


def as_added(folder: StudyFolder, model: str) -> tuple[Any, str | None]:
    """Scale and transform that a model's predictions came with, the last time; those of fitted ones are treated."""
    records = folder.store.records(model)
    facts = max(records, key=lambda r: str(r.time)).meta if records else {}
    return facts.get("scale", "treated"), facts.get("transform")


def space_in(folder: StudyFolder) -> Normalise | None:
    """How the samples of the study were made of cells, if they were."""
    path = folder.path("plan", "findings.json")
    return space_of(Finding.from_json(f) for f in read_json(path)) if path.exists() else None


def _refuse_missing(what: str, model: str, lacking: Sequence[str], n: int) -> None:
    if lacking:
        raise MisalignedError(
            f"{model}: the files lack {len(lacking):,} of {n:,} {what}: {first_few(lacking)}. Every combination with "
            f"this model needs them all: predict them too, or take what does without it (--use NAME)."
        )


def _to_treated(
    values: Float32, found: Given, new: DataFile, genes: Sequence[str], *, scale: str, differences: bool
) -> None:
    """Add the controls to differences, in place; values that are plainly of the other scale are refused."""
    order = new.var.index.get_indexer(pd.Index(list(genes)))
    squares, means = np.zeros(2), np.zeros((2, len(genes)))
    for first in range(0, len(values), AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, len(values)))
        control = np.asarray(new.read_control(rows), dtype=np.float64)[:, order]
        squares += [np.sum(values[rows] ** 2.0), np.sum((values[rows] - control) ** 2)]  # as delta, as treated
        means += [values[rows].sum(axis=0, dtype=np.float64), control.sum(axis=0)]
        if scale == "delta":
            values[rows] += control
    if differences:
        return
    other = "treated" if scale == "delta" else "delta"
    said, read = (squares if scale == "delta" else squares[::-1]) ** 0.5
    where = f"{first_few([f.path for f in found.files])}: {found.model} was added to the study with --scale {scale}"
    if said > PLAINLY * read:
        raise IntegrityError(
            f"{where}, and these values are {_IN_WORDS[other]}: read as {_IN_WORDS[scale]}, they lie "
            f"{said / max(read, 1e-12):.1f} times as far from no change. Write them as those that were added."
        )
    slope, r = levels(*means)
    if scale == "treated" and r > 0.9 and not 1 / PLAINLY <= slope <= PLAINLY:
        raise IntegrityError(
            f"{where}, and means of genes follow those of the new controls (correlation {r:.2f}) on another scale: one "
            f"unit predicted is {slope:.3g} there. Write them as those that were added."
        )


_IN_WORDS = {"delta": "differences from the control", "treated": "treated values"}
