"""Selector: for every sample the one base model that is expected to do best, from what is known at prediction time.

The oracle, which looks at the truth, is its ceiling and is on the board beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need, availability
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.top_gene import single_r2
from pertstack.stacking.sums import Array

STRENGTHS = (float("inf"), 10.0, 1.0, 0.1)


def goodness_slopes(features: Array, goodness: Array, strength: float) -> tuple[Array, Array]:
    """Intercepts (M,) and slopes (J, M) of ridge from features to each model's goodness beyond the sample's mean.

    Minimises ``|Y - 1 a' - F B|² + strength * n |B|²`` with Y = goodness less its mean over models: how hard a sample
    is for all does not matter for which model to take. Infinite strength gives B = 0, the best model on average.

    Parameters
    ----------
    features : array, shape (n, J), unitless.
    goodness : array, shape (n, M), R2.
    strength : >= 0, no unit.
    """
    n = len(features)
    beyond = goodness - goodness.mean(axis=1, keepdims=True)
    slopes = np.zeros((features.shape[1], goodness.shape[1]))
    if not n:
        return np.zeros(goodness.shape[1]), slopes
    if not np.isfinite(strength):
        return np.asarray(beyond.mean(axis=0)), slopes
    middle = features.mean(axis=0)
    centred = features - middle
    gram = centred.T @ centred + strength * n * np.eye(features.shape[1])
    slopes = np.linalg.solve(gram, centred.T @ beyond)
    return np.asarray(beyond.mean(axis=0) - middle @ slopes), slopes


def choose_strength(features: Array, goodness: Array, fold: Any) -> tuple[float, Array]:
    """Strength by what is realised on folds left out, and the gain over the best model on average, per strength.

    The best is taken if its paired gain exceeds one standard error over samples (Breiman et al. 1984), else the
    infinite one: no slopes.

    Parameters
    ----------
    features : (n, J) of samples, known at prediction time.
    goodness : (n, M), the metric of every model with errors sign-turned: larger is better.
    fold : (n,) by which rows are left out.
    """
    realised = np.zeros((len(STRENGTHS), len(features)))
    for left in np.unique(fold):
        held = fold == left
        for i, strength in enumerate(STRENGTHS):
            level, slopes = goodness_slopes(features[~held], goodness[~held], strength)
            taken = np.argmax(level + features[held] @ slopes, axis=1)
            realised[i, held] = goodness[held, taken]
    gain = realised - realised[0]
    best = int(np.argmax(gain.mean(axis=1)))
    enough = gain[best].mean() > gain[best].std() / np.sqrt(max(len(features), 1))
    return (STRENGTHS[best] if enough else STRENGTHS[0]), gain.mean(axis=1)


@dataclass(frozen=True)
class SelectedModel(FittedCombiner):
    """Scores every model from the sample's features and answers with the highest; the next one if it is missing."""

    name: str
    models: tuple[str, ...]
    features: SampleFeatures
    level: Array  # (M,)
    slopes: Array  # (J, M)
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def combine(self, tile: Tile) -> Float32:
        """Prediction of the selected model, (n, n_genes)."""
        rows = self.rows_of(tile)
        score = self.level + self.features.of_tile(tile, rows) @ self.slopes  # (n, M)
        there = availability(tile, rows)
        order = np.argsort(-score, axis=1, kind="stable")
        at = np.arange(tile.n)
        if there is None:
            return np.asarray(tile.predictions[np.asarray(rows)[order[:, 0]], at])
        out = np.full(tile.predictions.shape[1:], np.nan, dtype=np.float32)
        empty = np.ones(out.shape, dtype=bool)
        for place in range(order.shape[1]):
            model = order[:, place]
            take = empty & there[model, at]
            out = np.where(take, tile.predictions[np.asarray(rows)[model], at], out)
            empty &= ~take
        return out

    def weights(self) -> dict[str, Any]:
        """How much each feature counts for each model; the whole table is in ``arrays``."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.features.reference,
            "level": self.level.tolist(),
            "features": self.features.names(self.models),
            "facts": self.facts,
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """``level`` (M,) and ``slopes`` (J, M)."""
        return {"level": self.level, "slopes": self.slopes}


@dataclass(frozen=True)
class Selector(Combiner):
    """The base model with the highest R2 Top-k predicted by ridge from the sample's features (methods F17).

    Features: size of each model's prediction, its agreement with the others, disagreement in all, cell line, dose,
    time, distance to the training perturbations. Learned from out-of-fold rows that every model predicts. A model that
    lacks the row or some gene counts as unknown in the features, and if the selected model is missing the next best
    expected one answers.
    """

    name: ClassVar[str] = "selector"
    family: ClassVar[Family] = "sample"
    needs: ClassVar[frozenset[Need]] = frozenset({"sample_moments", "slices"})
    complexity: ClassVar[int] = 6
    needs_nested: ClassVar[bool] = False
    strength: float | None = None  # None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> SelectedModel:
        k = min(parse_metric(evidence.primary).top or 20, len(evidence.gene_names))
        features, table = SampleFeatures.learn(evidence)
        goodness = single_r2(evidence.reduction.slices[evidence.reference], evidence.reference, k).T  # (n, M)
        whole = np.isfinite(goodness).all(axis=1)
        cautions: tuple[str, ...] = ()
        strength, gains = self.strength, None
        if strength is None and len(evidence.folds) > 1 and whole.any():
            fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)[whole]
            strength, gain = choose_strength(table[whole], goodness[whole], fold)
            gains = gain.tolist()
        elif strength is None:
            strength = float("inf")
            cautions = ("Nothing to choose by: the model that is best on average is taken for every sample.",)
        if whole.any():
            level, slopes = goodness_slopes(table[whole], goodness[whole], strength)
        else:
            level, slopes = _by_single(evidence), np.zeros((table.shape[1], evidence.n_models))
        facts = {
            "strength": strength if np.isfinite(strength) else None,
            "samples": int(whole.sum()),
            "gain_on_left_out_folds": gains,
        }
        return SelectedModel(
            self.name, evidence.models, features, level, slopes, (*evidence.cautions, *cautions), facts
        )


def _by_single(evidence: Evidence) -> Array:
    """Finite scores that put the models in the order of their single goodness."""
    rank = np.empty(evidence.n_models)
    rank[np.argsort(evidence.singles.goodness, kind="stable")] = np.arange(evidence.n_models)
    return rank
