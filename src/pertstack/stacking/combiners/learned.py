"""Shared finish of linear combiners: weights and what they rest on become ``LinearWeights``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Reference


def linear(
    name: str,
    evidence: Evidence,
    weights: Array,
    *,
    intercept: Array | float = 0.0,
    reference: Reference | None = None,
    by_cell_line: Mapping[str, tuple[Array, Array]] | None = None,
    facts: Mapping[str, Any] | None = None,
    cautions: tuple[str, ...] = (),
    learned: bool = True,
) -> LinearWeights:
    """``LinearWeights`` over the evidence's models and genes.

    Parameters
    ----------
    name : of the combiner.
    evidence : what was learned from; gives models, genes, ranking, and its cautions.
    weights : (M,) or (n_genes, M), on ``prediction - reference``.
    intercept : one number or (n_genes,), delta units.
    reference : "pooled" or "own" control; None for that of the evidence.
    by_cell_line : cell line -> (weights, intercept) if they differ from the common ones.
    facts : what the fit found, as plain JSON.
    cautions : said beside those of the evidence.
    learned : False for weights that rest on no sums, so that cautions about the sums do not concern them.
    """
    return LinearWeights(
        name=name,
        reference=reference or evidence.reference,
        models=evidence.models,
        gene_names=evidence.gene_names,
        coefficients=np.asarray(weights, dtype=np.float64),
        intercept=np.asarray(intercept, dtype=np.float64),
        ranking=evidence.ranking,
        by_cell_line=dict(by_cell_line or {}),
        cautions=(*(evidence.cautions if learned else ()), *cautions),
        facts=dict(facts or {}),
    )
