"""Ridge: one set of weights for all genes, least squares with a penalty chosen by leaving folds out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, cross_validated_error, penalty_scale, ridge_path
from pertstack.stacking.sums import Array, Sums, one_gene

Toward = Literal["zero", "equal"]
DEFAULT_STRENGTH = 0.1  # if there is a single fold and a single cell line, so that nothing can be left out


def global_ridge(
    sums: Sums, splits: list[tuple[Sums, Sums]], toward: Toward, *, strengths: Array = STRENGTHS
) -> tuple[Array, dict[str, Any], tuple[str, ...]]:
    """Weights (M,), facts and cautions: least squared error over all genes plus ``strength * trace / M * |w - w0|²``.

    No intercept: ``prediction - reference`` zero means no effect.

    Parameters
    ----------
    sums : of all rows to learn from.
    splits : (learn, held) sums, one pair per fold left out, by which the strength is chosen; empty takes
        ``DEFAULT_STRENGTH`` with a caution.
    toward : "zero" (w0 = 0) or "equal" (w0 = 1 / M).
    strengths : (n_strengths,), no unit, > 0, to choose from.
    """
    pooled = one_gene(sums)
    n_models = pooled.n_models
    centre = np.full(n_models, 0.0 if toward == "zero" else 1.0 / n_models)
    scale = penalty_scale(pooled)
    cautions: tuple[str, ...] = ()
    if splits:
        halves = [(one_gene(learn), one_gene(held)) for learn, held in splits]
        error = cross_validated_error(halves, strengths, toward=lambda _: centre, scale=scale)[0]
        strength = float(strengths[int(np.argmin(error))])
    else:
        strength = DEFAULT_STRENGTH
        cautions = (f"Only one fold and one cell line to learn from: penalty strength set to {strength}, not chosen.",)
    path = ridge_path(pooled, np.array([strength]), toward=centre, scale=scale)
    facts = {"strength": strength, "toward": toward, "condition": _plain(float(path.condition[0]))}
    return path.weights[0, 0] - 0.0, facts, cautions


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Ridge(Combiner):
    """Least squares over all genes with a scale-free penalty (Hoerl and Kennard 1970); weights may be negative.

    Rows and genes that lack a model it uses fall back to the gene's best available model.
    """

    name: ClassVar[str] = "global_ridge"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 3
    toward: Toward = "zero"

    def fit(self, evidence: Evidence) -> LinearWeights:
        weights, facts, cautions = global_ridge(evidence.sums, evidence.inner_splits, self.toward)
        return linear(self.name, evidence, weights, facts=facts, cautions=cautions)
