"""Taking answers away: the shipped ensemble on new samples, and aligned predictions for other tools.

``predict`` fits the models that carry weight again, on all development rows with their recorded seeds, and combines
them with the weights of the stack step; why it does not load fitted models is explained in
``docs/decisions/0004-predict-refits.md``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import space
from pertstack.data import DataFile
from pertstack.data.cells.choice import IN_WORDS
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.importers.space import space_of
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import FittedCombiner
from pertstack.study.development.learned import stored_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.new_rows.asked import asked_findings
from pertstack.study.new_rows.expected import expected_on
from pertstack.study.new_rows.handed_in import files_of, handed_in, space_in
from pertstack.study.new_rows.known_names import said_of_them
from pertstack.study.new_rows.new_samples import open_new, unknown_findings
from pertstack.study.shipped import fit_named, shipped
from pertstack.study.steps.refit import ROWS, new_embeddings, refit_and_predict, with_distance
from pertstack.write.export import predictions_to_h5ad


def predict_new(
    folder: StudyFolder,
    new: Path,
    out: Path,
    *,
    predictions: Sequence[str],
    workers: int,
    reading: Mapping[str, Any] | None = None,
    use: str | None = None,
    say: Callable[[Finding], None] | None = None,
) -> tuple[int, int]:
    """Predict the samples of a file with what the headline says ships; writes an h5ad and returns its shape.

    Parameters
    ----------
    folder : of the study.
    new : as the study's data, with a control layer (unless the study is differential); treated values are not read.
    out : the .h5ad to write.
    predictions : ``NAME=FILE`` for models that were added to the study rather than fitted in it.
    workers : processes that fit models again.
    reading : how the file differs from the study's own; see ``refit.open_new``.
    use : a combination or base model to predict with instead of what ships.
    say : is given what differs between the new samples and those that were scored, and, as a note, the score to expect
        on them; both are in ``uns`` of the file too.

    Raises
    ------
    InputError, MisalignedError
        Something lies at ``out`` already, other genes, another preprocessing, or a model without predictions for the
        new samples.
    IntegrityError
        The study was stacked again after its verdict, so what would be shipped has not been judged; or the verdict says
        that nothing should be.
    """
    if out.suffix != ".h5ad":
        raise InputError(f"Predictions are written as .h5ad, and {out} says otherwise. Name a file that ends in .h5ad.")
    if out.exists():
        raise InputError(f"{out} exists already. Remove it, or choose another name.")
    with folder.taking_away():
        stored = stored_stack(folder)
        name = use or shipped(folder, stored)
        fitted = fit_named(folder, stored, name, workers=workers)
    file = open_new(folder, new, reading)
    obs = with_distance(folder, file)
    needed = models_with_weight(fitted)
    given = files_of(predictions, needed)
    again = [m for m in needed if m not in given]
    said, expected = asked_findings(folder, obs, str(new))[1], expected_on(folder, obs, name)
    said = [*_of_reading(folder, file, str(new)), *said, *unknown_findings(folder, file, again, str(new))]
    notes = [] if expected is None else [Finding("note", "expected_score", expected.in_words())]
    if say is not None:
        for finding in [*said, *notes]:
            say(finding)
    with tempfile.TemporaryDirectory(prefix="pertstack-predict-") as scratch:
        place = Path(scratch)
        brought = {m: handed_in(folder, m, paths, file, scratch=place) for m, paths in given.items()}
        more = [f for _, told in brought.values() for f in told]
        if say is not None:
            for finding in more:
                say(finding)
        arrays = {name: values for name, (values, _) in brought.items()}
        arrays |= refit_and_predict(folder, again, file, place=place, workers=workers, reading=reading)
        vectors = new_embeddings(folder, again, file, place=place, reading=reading)
        combined = _combine(folder, stored.models, fitted, file=file, arrays=arrays, vectors=vectors, scratch=place)
        facts = {
            "ensemble": name,
            "shipped": use is None,
            "models": list(needed),
            "key": stored.key,
            "plan_digest": folder.plan.digest,
            "warnings": [f.message for f in (*said, *more)],
            "expected": "" if expected is None else expected.in_words(),
        }
        predictions_to_h5ad(
            out,
            list(file.obs.index),
            list(folder.gene_names),
            treated=combined,
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


def _of_reading(folder: StudyFolder, file: DataFile, where: str) -> list[Finding]:
    """What its reader warned of, and what the new samples do not say as the study's do."""
    found = [f for f in file.notes if f.severity != "note"]
    made, asked = space_of(file.notes), space_in(folder)
    if made is not None and asked is not None and made != asked:
        text = (
            f"{where}: samples are each a {IN_WORDS[made]}, and those of the study a {IN_WORDS[asked]}: genes differ "
            f"in level by this alone, and predictions start from it. Give cells whose values are those of the study's."
        )
        found.append(Finding("warning", "made_otherwise", text, file.n_samples, where=where))
    return [*found, *said_of_them(folder.samples, file.obs, where)]


def _combine(
    folder: StudyFolder,
    models: Sequence[str],
    fitted: FittedCombiner,
    file: DataFile,
    arrays: dict[str, Float32],
    vectors: Mapping[str, RowEmbeddings],
    scratch: Path,
) -> Float32:
    """Combine all rows, a few hundred of one cell line at a time; room for many is made in ``scratch``.

    Models without weight are not there, and the combiner does not ask.
    """
    genes = folder.gene_names
    order = file.var.index.get_indexer(pd.Index(genes))
    lines = file.obs["cell_line"].astype(str).to_numpy()
    out: Float32 = space((file.n_samples, len(genes)), np.float32, scratch)
    known = np.array([[m in arrays] * len(genes) for m in models])
    references, answered = folder.references, np.zeros(file.n_samples, dtype=bool)
    obs = with_distance(folder, file)
    for line in sorted(set(lines)):
        mine = np.flatnonzero(lines == line)
        if line not in references.cell_lines and line not in references.controls:
            total = np.zeros(len(genes))
            for rows in _pieces(mine):
                total += file.read_control(rows)[:, order].sum(axis=0, dtype=np.float64)
            references = references.add_controls(line, total / len(mine))
        for rows in _pieces(mine):
            values = np.full((len(models), len(rows), len(genes)), np.nan, np.float32)
            for i, model in enumerate(models):
                if model in arrays:
                    values[i] = arrays[model][rows]
            there = np.asarray(np.isfinite(values).all(axis=2))
            tile = Tile(
                Block(line, None),
                tuple(models),
                genes,
                obs=obs.iloc[rows],
                predictions=values,
                control=np.ascontiguousarray(file.read_control(rows)[:, order]),
                pooled=references.pooled(line).astype(np.float32),
                available=there,
                gene_available=known,
                embed=partial(_embedding, vectors, rows),
            )
            combined = fitted.combine(tile)
            out[rows], answered[rows] = combined, np.isfinite(combined).all(axis=1)
    if not answered.all():
        raise InputError(
            f"The ensemble has no answer for {int((~answered).sum()):,} of {len(out):,} new samples "
            f"({first_few(file.obs.index[~answered])}): no model with weight predicts them."
        )
    return out


def _embedding(vectors: Mapping[str, RowEmbeddings], rows: np.ndarray[Any, Any], model: str) -> RowEmbeddings | None:
    found = vectors.get(model)
    return None if found is None else replace(found, values=found.values[rows])


def _pieces(rows: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """``ROWS`` at a time, so that memory does not grow with the file."""
    return (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))
