"""What linear models and networks know of a row besides its control: features, dose, time, cell line. Fitted on fit
rows only.

Unknown values are never replaced by a plausible one: after centring they stand at the average, where they say nothing.
(A column that marks them would be worse: with one or two such perturbations it learns their effect and hands it to the
next unknown one.) Which model wants which part is the model's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.data.rows import FitRows, Names, PredictRows
from pertstack.data.side.side import FEATURE_KINDS, FeatureKind, PerturbationFeatures, SideInformation

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Index = np.ndarray[Any, np.dtype[np.int64]]
MissingPolicy = Literal["mask", "drop", "raise"]
_PIECE = 1024  # rows whose features are looked at together
COVARIATES = ("log10_dose", "time_h")


def features_of(side: SideInformation, kinds: tuple[FeatureKind, ...], model: str) -> PerturbationFeatures:
    """The first kind of features present, in the order user, structure, genes, targets.

    Parameters
    ----------
    side : of the study.
    kinds : that the model can use.
    model : for the message.

    Raises
    ------
    InputError
        None of them is present.
    """
    for kind in FEATURE_KINDS:
        if kind in kinds and kind in side.features:
            return side.features[kind]
    raise InputError(
        f"{model} needs perturbation features of kind {' or '.join(kinds)}, and the study has "
        f"{', '.join(side.features) or 'none'}. Give smiles, perturbed genes or a feature table, or leave {model} out."
    )


def check_policy(policy: str) -> None:
    """Refuse a misspelt policy for missing features."""
    if policy not in ("mask", "drop", "raise"):
        raise InputError(f"on_missing is {policy!r}; the choices are 'mask', 'drop' and 'raise'.")


def refuse_missing(features: PerturbationFeatures, rows: PredictRows, policy: MissingPolicy, *, model: str) -> Mask:
    """Mask (n_samples,) of rows whose perturbation has known features.

    Parameters
    ----------
    features : of the model.
    rows : to predict.
    policy : "raise" refuses rows without features; the others let them pass.
    model : for the message.

    Raises
    ------
    InputError
        Features are missing and the policy is "raise".
    """
    known = features.has(rows.perturbation)
    if policy == "raise" and not known.all():
        unknown = sorted(set(rows.perturbation[~known]))
        raise InputError(
            f"{model} was asked to refuse missing {features.kind} features (on_missing='raise'), and they are missing "
            f"for {first_few(unknown)}. Supply them, or choose on_missing='mask' (average answer) or 'drop' (not "
            f"fitted on)."
        )
    return known


@dataclass(frozen=True)
class RowEncoder:
    """Turns rows into columns: features (centred), dose, time, cell line one-hot.

    Each part is scaled so that its rows have mean square norm 1 over the fit rows: a fingerprint of 2,048 bits and one
    dose then weigh alike under one penalty. A covariate or cell line that does not vary among the fit rows gives no
    column.
    """

    kind: FeatureKind | None
    feature_mean: Floats  # (n_features,)
    feature_scale: float
    covariates: tuple[tuple[str, float, float], ...]  # name, mean, scale
    cell_lines: tuple[str, ...]  # sorted; empty when there is only one

    @classmethod
    def fit(cls, rows: FitRows, features: PerturbationFeatures | None) -> RowEncoder:
        mean, scale = np.zeros(0), 1.0
        if features is not None:
            known = features.has(rows.perturbation)
            if not known.any():
                raise InputError(
                    f"{features.kind} features are missing for every fit row: there is nothing to learn from."
                )
            mean, scale = _centre_and_scale(features, rows.perturbation[known])
        covariates = []
        for name in COVARIATES:
            column = _column(rows.obs, name)
            present = column[np.isfinite(column)]
            if len(present) and np.ptp(present) > 0:
                covariates.append((name, float(present.mean()), float(present.std())))
        lines = tuple(sorted(set(rows.cell_line)))
        kind = features.kind if features is not None else None
        return cls(kind, mean, scale, covariates=tuple(covariates), cell_lines=lines if len(lines) > 1 else ())

    def encode_distinct(self, rows: PredictRows) -> tuple[Floats, Index]:
        """Columns (c, n_columns) of the distinct conditions, and the condition (n_samples,) of every row.

        Replicates share perturbation, cell line, dose and time, hence their columns: a tenth of the rows is often
        enough.
        """
        first, index = self.conditions(rows)
        return self.encode_table(rows.obs.iloc[first], rows.side), index

    def conditions(self, rows: PredictRows) -> tuple[Index, Index]:
        """The first row (c,) of each distinct condition, and the condition (n_samples,) of every row."""
        keys = [rows.perturbation.astype(str), rows.cell_line.astype(str)]
        keys += [_column(rows.obs, name).astype(str) for name, _, _ in self.covariates]
        text = np.array(["\x1f".join(row) for row in zip(*keys, strict=True)], dtype=object).astype(str)
        _, first, index = np.unique(text, return_index=True, return_inverse=True)
        return first, index

    @property
    def n_columns(self) -> int:
        return (0 if self.kind is None else len(self.feature_mean)) + len(self.covariates) + len(self.cell_lines)

    def encode(self, rows: PredictRows) -> Floats:
        """Columns (n_samples, n_columns) of rows; a cell line never fitted has zeros in every cell line column."""
        return self.encode_table(rows.obs, rows.side)

    def encode_table(self, obs: pd.DataFrame, side: SideInformation) -> Floats:
        """As ``encode``, of rows of which nothing but the metadata is there."""
        parts: list[Floats] = []
        if self.kind is not None:
            values, known = side.features[self.kind].rows(np.asarray(obs["perturbation"], dtype=object))
            parts.append(np.where(known[:, None], values - self.feature_mean, 0.0) / self.feature_scale)
        for name, mean, scale in self.covariates:
            column = _column(obs, name)
            finite = np.isfinite(column)
            parts.append((np.where(finite, column - mean, 0.0) / scale)[:, None])
        if self.cell_lines:
            lines = np.asarray(obs["cell_line"], dtype=object)
            parts.append((lines[:, None] == np.array(self.cell_lines, dtype=object)).astype(np.float64))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(obs), 0))


def _column(obs: pd.DataFrame, name: str) -> Floats:
    if name not in obs:
        return np.full(len(obs), np.nan)
    return np.asarray(obs[name], dtype=np.float64)


def _centre_and_scale(features: PerturbationFeatures, names: Names) -> tuple[Floats, float]:
    """Mean (n_features,) and root mean square distance from it over rows of known perturbations, some rows at once."""
    pieces = [names[a : a + _PIECE] for a in range(0, len(names), _PIECE)]
    total = np.zeros(len(features.columns))
    for some in pieces:
        total = np.concatenate([total[None], features.rows(some)[0]]).sum(axis=0)
    mean = total / len(names)
    return mean, _scale(np.concatenate([((features.rows(some)[0] - mean) ** 2).sum(axis=1) for some in pieces]))


def _scale(square_norms: Floats) -> float:
    mean = float(square_norms.mean())
    return float(np.sqrt(mean)) if mean > 0 else 1.0
