"""Taking answers away: the shipped ensemble on new samples, and aligned predictions for other tools.

``predict`` fits the models that carry weight again, on all development rows with their recorded seeds, and combines
them with the weights of the stack step; why it does not load fitted models is told in
``docs/decisions/0004-predict-refits.md``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.data import DataFile
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.folder import StudyFolder
from pertstack.judging import final_fits, stored_stack
from pertstack.predictions.align import match
from pertstack.predictions.importers import open_file
from pertstack.reduce.tile import Tile
from pertstack.refit import open_new, refit_and_predict
from pertstack.stack.combiner import FittedCombiner
from pertstack.write.export import predictions_to_h5ad


def predict_new(
    folder: StudyFolder, new: Path, out: Path, *, predictions: Sequence[str], workers: int
) -> tuple[int, int]:
    """Predict the samples of a file with the shipped ensemble; writes an h5ad and returns its shape.

    Parameters
    ----------
    new : as the study's data, with a control layer (unless the study is differential); treated values are not read.
    predictions : ``NAME=FILE`` for models that were added to the study rather than fitted in it.

    Raises
    ------
    InputError, MisalignedError
        Other genes, another preprocessing, or a model without predictions for the new samples.
    """
    stored = stored_stack(folder)
    fitted = final_fits(folder, stored, workers=workers, memory="1 GB")[stored.chosen]
    file = open_new(folder, new)
    needed = models_with_weight(fitted)
    given = _given(predictions, needed)
    with tempfile.TemporaryDirectory(prefix="pertstack-predict-") as scratch:
        place = Path(scratch)
        arrays = {
            name: read_aligned(path, list(file.obs.index), list(folder.gene_names)) for name, path in given.items()
        }
        arrays |= refit_and_predict(folder, [m for m in needed if m not in given], file, place, workers)
        combined = _combine(folder, stored.models, fitted, file, arrays)
    facts = {"ensemble": stored.chosen, "models": list(needed), "key": stored.key, "plan_digest": folder.plan.digest}
    predictions_to_h5ad(
        out,
        list(file.obs.index),
        list(folder.gene_names),
        combined,
        obs=file.obs,
        uns={"pertstack": facts, "pertstack_card": json.dumps(folder.card.to_json())},
    )
    return combined.shape[0], combined.shape[1]


def models_with_weight(fitted: FittedCombiner) -> tuple[str, ...]:
    """Models a combiner cannot do without: those of non-zero weight for linear ones, all for others."""
    found = fitted.weights()
    mean, spread = found.get("mean"), found.get("spread")
    if not isinstance(mean, list) or not isinstance(spread, list) or found.get("cell_lines"):
        return fitted.models
    kept = tuple(m for m, w, s in zip(fitted.models, mean, spread, strict=True) if w != 0 or s != 0)
    return kept or fitted.models


def _given(pairs: Sequence[str], needed: Sequence[str]) -> dict[str, Path]:
    given: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or name not in needed:
            raise InputError(
                f"--predictions {pair!r} is not NAME=FILE for one of the models in use ({first_few(needed)})."
            )
        given[name] = Path(path)
    return given


def read_aligned(path: Path, sample_ids: Sequence[str], gene_names: Sequence[str]) -> Float32:
    """Predictions of a file for exactly these samples and genes, in this order.

    Raises
    ------
    MisalignedError
        Names are missing or foreign; the first of them are shown.
    """
    file = open_file(path)
    rows = match("sample", file.sample_ids, list(map(str, sample_ids)), where=str(path))
    columns = match("gene", file.gene_names, list(map(str, gene_names)), where=str(path))
    values = np.concatenate([chunk.values for chunk in file.chunks()])
    values = values if rows is None else values[rows]
    return np.asarray(values if columns is None else values[:, columns], dtype=np.float32)


def _combine(
    folder: StudyFolder, models: Sequence[str], fitted: FittedCombiner, file: DataFile, arrays: dict[str, Float32]
) -> Float32:
    """Combine all rows, one cell line at a time; models without weight are not there, and the combiner does not ask."""
    order = file.var.index.get_indexer(pd.Index(folder.gene_names))
    lines = file.obs["cell_line"].astype(str).to_numpy()
    out = np.empty((file.n_samples, len(folder.gene_names)), np.float32)
    genes = np.array([[m in arrays] * len(folder.gene_names) for m in models])
    references = folder.references
    for line in sorted(set(lines)):
        rows = np.flatnonzero(lines == line)
        control = np.ascontiguousarray(file.read_control(rows)[:, order])
        if line not in references.cell_lines and line not in references.controls:
            references = references.add_controls(line, control.mean(axis=0, dtype=np.float64))
        values = np.full((len(models), len(rows), control.shape[1]), np.nan, np.float32)
        for i, model in enumerate(models):
            if model in arrays:
                values[i] = arrays[model][rows]
        there = np.asarray(np.isfinite(values).all(axis=2))
        tile = Tile(
            Block(line, None), tuple(models), folder.gene_names, file.obs.iloc[rows], values, control,
            references.pooled(line).astype(np.float32), there, genes,
        )  # fmt: skip
        out[rows] = fitted.combine(tile)
    lacking = np.asarray(~np.isfinite(out).all(axis=1))
    if lacking.any():
        raise InputError(
            f"The ensemble has no answer for {int(lacking.sum()):,} of {len(out):,} new samples "
            f"({first_few(file.obs.index[lacking])}): no model with weight predicts them."
        )
    return out
