"""Weights per cell line, pulled towards those of all lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.ridge import global_ridge
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, pick, ridge_path
from pertstack.stacking.sums import Array, Sums, merge_sums, one_gene, stack_sums

DEFAULT_PULL = 1.0


@dataclass(frozen=True)
class CellLineShrunken(Combiner):
    """One set of weights per cell line, all genes together, pulled to the weights of all lines (Lindley and Smith
    1972).

    The strength is one for all lines and chosen by leaving folds out. A cell line never seen gets the common weights;
    missing models fall back to the gene's best available one.
    """

    name: ClassVar[str] = "cell_line_shrunken"
    family: ClassVar[Family] = "condition"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 5
    needs_nested: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> LinearWeights:
        centre, weights, facts, cautions = shrunken(evidence.line_fold_sums, evidence)
        by_line = {line: (w, np.zeros(())) for line, w in weights.items()}
        return linear(self.name, evidence, centre, by_cell_line=by_line, facts=facts, cautions=cautions)


def shrunken(
    parts: Mapping[tuple[str, int], Sums], evidence: Evidence
) -> tuple[Array, dict[str, Array], dict[str, Any], tuple[str, ...]]:
    """Weights of all rows (M,), of every stratum pulled to them, facts and cautions, from sums by stratum and fold.

    The strength of the pull is one for all strata: that of the smallest error on folds left out, the strongest among
    equals.
    """
    strata = tuple(sorted({one for one, _ in parts}))
    cautions: tuple[str, ...] = ()
    if len(evidence.folds) > 1 and len(strata) > 1:
        error = np.zeros(len(STRENGTHS))
        for fold in evidence.folds:
            error += _left_out_error(parts, strata, fold)
        strength = float(STRENGTHS[len(STRENGTHS) - 1 - int(np.argmin(error[::-1]))])
    else:
        strength = DEFAULT_PULL
        cautions = (f"Too few folds or strata to choose: strength of the pull set to {DEFAULT_PULL}.",)
    centre = global_ridge(evidence.sums, [], "equal")[0]
    if not strata:
        return centre, {}, {"strength": strength}, cautions
    each = [one_gene(merge_sums([s for (one, _), s in parts.items() if one == stratum])) for stratum in strata]
    weights, _ = pick(ridge_path(stack_sums(each), np.array([strength]), toward=centre), 0)
    return centre, {stratum: weights[i] for i, stratum in enumerate(strata)}, {"strength": strength}, cautions


def _left_out_error(parts: Mapping[tuple[str, int], Sums], lines: Sequence[str], fold: int) -> Array:
    """Squared error on one fold of all strata, weights learned on the others, (n_strengths,)."""
    learn = {line: [s for (one, k), s in parts.items() if one == line and k != fold] for line in lines}
    both = [line for line in lines if learn[line] and (line, fold) in parts]
    if not both:
        return np.zeros(len(STRENGTHS))
    everything = merge_sums([s for (_, k), s in parts.items() if k != fold])
    centre = global_ridge(everything, [], "equal")[0]
    train = stack_sums([one_gene(merge_sums(learn[line])) for line in both])
    held = stack_sums([one_gene(parts[line, fold]) for line in both])
    path = ridge_path(train, STRENGTHS, toward=centre)
    flat = np.zeros_like(path.intercept)
    return np.asarray(held.squared_error(path.weights, flat).sum(axis=0))
