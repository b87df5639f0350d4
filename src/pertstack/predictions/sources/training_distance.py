"""How far a sample's perturbation is from what its model was trained on: known when it is predicted, no truth involved.

An out-of-fold row is compared with the development perturbations outside its fold (and outside a second fold in nested
fits), a test row or a new sample with all of them. What is made of the number is decided in ``stack/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_json
from pertstack.data.side.side import PerturbationFeatures
from pertstack.design.plan.known import fitted_of

Floats = np.ndarray[Any, np.dtype[np.float64]]
COLUMN = "training_distance"
_PIECE = 512  # perturbations compared at once


@dataclass(frozen=True, eq=False)
class TrainingDistance:
    """Distance to the nearest training perturbation, ``1 - similarity`` in [0, 1].

    Tanimoto on fingerprints and other features that are never negative, cosine otherwise (as ``perturbation_knn``). 0
    for a perturbation that was itself trained on, NaN where its features are unknown. Each is compared once for
    each set of folds left out, however many blocks and sources ask.
    """

    features: PerturbationFeatures
    by_fold: Mapping[int, tuple[str, ...]]  # development perturbations of each fold; those of support under SUPPORT
    _found: dict[frozenset[int | None], dict[str, float]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_samples(cls, features: PerturbationFeatures, samples: pd.DataFrame) -> TrainingDistance:
        """From a table with ``perturbation``, ``role`` and ``fold`` of every sample."""
        return cls(features, fitted_of(samples))

    @property
    def digest(self) -> str:
        return digest_json([self.features.digest, {str(k): list(v) for k, v in sorted(self.by_fold.items())}])

    def with_features(self, features: PerturbationFeatures) -> TrainingDistance:
        """The same training perturbations, with features of more perturbations."""
        return replace(self, features=features)

    def of(self, perturbations: Iterable[object], *, outside: Iterable[int | None] = ()) -> Floats:
        """Distance of each perturbation (n,) to the development perturbations of the folds not named in ``outside``."""
        asked = np.asarray([str(p) for p in perturbations], dtype=object)
        names, index = np.unique(asked.astype(str), return_inverse=True)
        shut = frozenset(outside)
        found = self._found.setdefault(shut, {})
        new = [str(n) for n in names if str(n) not in found]
        if new:
            found.update(zip(new, self._nearest(np.array(new), shut).tolist(), strict=True))
        return np.array([found[str(n)] for n in names], dtype=np.float64)[index]

    def _nearest(self, names: np.ndarray[Any, np.dtype[np.str_]], shut: frozenset[int | None]) -> Floats:
        """Distance of perturbations that were not asked for before, (len(names),)."""
        from pertstack.fit.baselines.perturbation_knn import similarity  # brings every model

        trained = sorted({p for fold, ps in self.by_fold.items() if fold not in shut for p in ps})
        values, known = self.features.rows(trained)
        there = values[known].astype(np.float64)
        nearest = np.full(len(names), np.nan)
        for at in range(0, len(names), _PIECE):
            mine, clear = self.features.rows(str(n) for n in names[at : at + _PIECE])
            if len(there):
                alike = similarity(mine.astype(np.float64), there).max(axis=1)
                nearest[at : at + _PIECE] = np.where(clear, 1.0 - alike, np.nan)
        return np.asarray(np.where(np.isin(names, trained), 0.0, nearest))
