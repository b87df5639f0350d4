"""A fitted combiner applied to samples in arrays: new predictions and controls in, combined treated profiles out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few, unknown_name
from pertstack.data.rows import Float32
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.embedding import ArrayEmbedding
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.references import References
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.combiners.row_weights.sample_features import NUMBERS

ONE_LINE = "all"  # what ``ArraySource`` calls the cell line of samples that name none


def sample_table(features: Mapping[str, Any] | None, shape: Sequence[int], **more: Any) -> pd.DataFrame | None:
    """What is known of samples besides their predictions, as metadata; None when nothing is.

    ``shape`` is that of their profiles.

    Raises
    ------
    UnknownNameError
        A name that no combiner reads; the known ones are ``NUMBERS`` of ``sample_features``.
    MisalignedError
        Not one entry per row.
    """
    columns = {**(features or {}), **{k: v for k, v in more.items() if v is not None}}
    for name, values in columns.items():
        if name not in (*NUMBERS, *more):
            raise unknown_name("feature of a sample", name, NUMBERS)
        if np.shape(values) != tuple(shape[:1]):
            raise MisalignedError(
                f"{name!r} has shape {np.shape(values)} for profiles of shape {tuple(shape)}. Give one entry per row, "
                f"in the same order; NaN where it is not known."
            )
    return pd.DataFrame({k: np.asarray(v) for k, v in columns.items()}) if columns else None


def combine_arrays(
    fitted: FittedCombiner,
    predictions: dict[str, Any],
    control: Any,
    *,
    references: References,
    cell_line: Any,
    embeddings: Mapping[str, ArrayEmbedding] | None = None,
    features: Mapping[str, Any] | None = None,
) -> Float32:
    """Combined prediction of samples in arrays, (n, n_genes) float32, rows in the order given.

    Parameters
    ----------
    fitted : a final fit; its ``models`` are read from ``predictions``.
    predictions : model -> (n, n_genes), treated scale; NaN where a model has no answer.
    control : (n, n_genes), same unit; zeros for differential values.
    references : of the development rows. A cell line without such rows takes the mean of the controls given here as its
        pooled control.
    cell_line : (n,) names; None if the weights were learned without names.
    embeddings : model -> vectors and anchors of the same fits, for combiners that read embeddings.
    features : name -> (n,) sample features as in ``stack``; what is absent counts as unknown.

    Raises
    ------
    InputError
        No cell lines are named although the weights were learned with names.
    MisalignedError
        Not the genes the weights were learned for.
    """
    n, n_genes = np.shape(control)
    if n_genes != len(references.gene_names):
        raise MisalignedError(
            f"The control has {n_genes:,} genes; the weights were learned for {len(references.gene_names):,} "
            f"({first_few(references.gene_names, 3)}) and say nothing of a gene they never saw. Provide the same genes "
            f"in the same order; a gene that some model does not predict may be NaN there."
        )
    if cell_line is None and references.cell_lines != (ONE_LINE,):
        raise InputError(
            f"The weights were learned on cell lines ({first_few(references.cell_lines, 3)}), whose mean control they "
            f"refer to. Name the cell line of every new sample with cell_line=."
        )
    source = ArraySource(
        predictions,
        np.zeros((n, n_genes), dtype=np.float32),
        control,
        folds=[None] * n,
        perturbation=["new"] * n,
        cell_line=cell_line,
        gene_names=references.gene_names,
        role="test",
        embeddings=embeddings,
        obs=sample_table(features, (n, n_genes)),
    )
    references = references.with_controls_of(source)
    out = np.empty((n, n_genes), dtype=np.float32)
    done: dict[Any, int] = {}
    for tile, _ in iter_tiles(source, references):
        start = done.get(tile.block, 0)
        out[source.rows_of(tile.block)[start : start + tile.n]] = fitted.combine(tile)
        done[tile.block] = start + tile.n
    return out
