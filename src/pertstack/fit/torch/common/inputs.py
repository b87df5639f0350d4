"""From rows to tensors: features, doses, cell lines and targets, with every encoder fitted on fit rows only.

A missing structure is refused or masked by policy, never replaced by another molecule; an unknown cell line has a row
of its own. Profiles stay in the arrays they came in and are standardised batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack.data.rows import FitRows, Float32, Names, PredictRows
from pertstack.data.side.side import FeatureKind, PerturbationFeatures, SideInformation
from pertstack.fit.torch.common.batches import Index, Table
from pertstack.fit.torch.common.framework import torch
from pertstack.fit.torch.common.scaling import GeneScaler
from pertstack.fit.torch.common.settings import Settings

_AUTO: tuple[FeatureKind, ...] = ("user", "structure", "genes")


@dataclass(frozen=True)
class Encoder:
    """Everything learned from fit rows about how to turn rows into numbers."""

    model: str
    gene_names: Names
    scaler: GeneScaler
    kind: FeatureKind | None  # features in use; None = this model uses none
    columns: tuple[str, ...]
    kept: Index  # feature columns that vary among the fitted perturbations
    center: Float32  # (F,) 0 for 0/1 features
    spread: Float32  # (F,)
    lines: tuple[str, ...]  # sorted; line i has code i + 1
    dose_mean: float
    dose_sd: float
    wants_targets: bool
    policy: str

    @classmethod
    def fit(
        cls, rows: FitRows, settings: Settings, *, model: str, features: bool | str, targets: bool = False
    ) -> Encoder:
        """Learn scales, levels and features from fit rows.

        Parameters
        ----------
        rows : fitted on.
        settings : choice of features, policy for missing ones.
        model : for messages.
        features : True (needed), False (unused) or "optional" (used when there are any).
        targets : whether batches hold the drugs' target genes.

        Raises
        ------
        InputError
            Features are needed, and the study has none that do.
        """
        table = _choose_features(rows.side, settings.features, model, needed=features is True) if features else None
        kept, center, spread = _feature_scale(table, rows.perturbation)
        dose = _doses(rows)
        seen = dose[np.isfinite(dose)]
        sd = float(seen.std()) if len(seen) else 0.0
        return cls(
            model,
            rows.gene_names,
            GeneScaler.fit(rows.control, rows.treated),
            kind=None if table is None else table.kind,
            columns=() if table is None else table.columns,
            kept=kept,
            center=center,
            spread=spread,
            lines=tuple(sorted({str(line) for line in rows.cell_line})),
            dose_mean=float(seen.mean()) if len(seen) else 0.0,
            dose_sd=sd if sd > 1e-6 else 1.0,
            wants_targets=targets,
            policy="mask" if features == "optional" else settings.on_missing_structure,
        )

    @property
    def n_features(self) -> int:
        return len(self.kept)

    def encode(self, rows: PredictRows, treated: Float32 | None = None) -> Table:
        """Rows as a table.

        Raises
        ------
        MisalignedError
            Other genes, or the same in another order.
        InputError
            Missing structures or targets under the policy "raise"; other features than the model was fitted on.
        """
        if not np.array_equal(np.asarray(rows.gene_names, dtype=str), np.asarray(self.gene_names, dtype=str)):
            raise MisalignedError(
                f"{self.model} was fitted on {len(self.gene_names):,} genes beginning {first_few(self.gene_names, 3)}; "
                f"these rows have {rows.n_genes:,} beginning {first_few(rows.gene_names, 3)}. Columns would be mixed "
                f"up: bring them to the genes of the study, in its order."
            )
        names, drug = np.unique(np.asarray(rows.perturbation, dtype=str), return_inverse=True)
        features, known = self._features(rows.side, names)
        dose = _doses(rows)
        there = np.isfinite(dose)
        scaled = np.where(there, (np.where(there, dose, 0.0) - self.dose_mean) / self.dose_sd, 0.0)
        code = {line: i + 1 for i, line in enumerate(self.lines)}
        cell = np.array([code.get(str(line), 0) for line in rows.cell_line], dtype=np.int64)
        targets = self._targets(rows.side, names) if self.wants_targets else None
        if targets is not None:
            known = np.array([len(t) > 0 for t in targets])
        return Table(
            rows.control,
            self.scaler,
            drug.astype(np.int64),
            features=torch.from_numpy(features),
            known=torch.from_numpy(known.astype(np.float32)[:, None]),
            dose=torch.from_numpy(np.stack([scaled, ~there], axis=1).astype(np.float32)),
            cell=torch.from_numpy(cell),
            targets=targets,
            treated=treated,
        )

    def _features(self, side: SideInformation, names: Names) -> tuple[Float32, np.ndarray[Any, np.dtype[np.bool_]]]:
        if self.kind is None:
            return np.zeros((len(names), 0), dtype=np.float32), np.zeros(len(names), dtype=bool)
        table = side.features.get(self.kind)
        if table is None or table.columns != self.columns:
            raise InputError(
                f"{self.model} was fitted on {len(self.columns):,} {self.kind!r} features, which these rows do not have"
                f"{'' if table is None else f' (they have {len(table.columns):,})'}. Provide the same side information."
            )
        values, known = table.rows(names)
        if self.policy == "raise" and not known.all():
            raise _missing_features(self.model, self.kind, names[~known], len(names))
        scaled = (values[:, self.kept] - self.center) / self.spread
        return np.where(known[:, None], scaled, np.float32(0)).astype(np.float32), known

    def knows(self, rows: PredictRows) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(n,) whether the features (or targets) this model tells perturbations by are known; all, if it uses none."""
        names, drug = np.unique(np.asarray(rows.perturbation, dtype=str), return_inverse=True)
        if self.wants_targets:
            return np.array([len(t) > 0 for t in self._targets(rows.side, names)], dtype=bool)[drug]
        if self.kind is None:
            return np.ones(rows.n_samples, dtype=bool)
        known: np.ndarray[Any, np.dtype[np.bool_]] = self._features(rows.side, names)[1][drug]
        return known

    def _targets(self, side: SideInformation, names: Names) -> tuple[Index, ...]:
        """Positions of target genes per perturbation: drug targets, else the perturbed genes."""
        place = {str(g): i for i, g in enumerate(self.gene_names)}
        found = [np.zeros(0, dtype=np.int64)] * len(names)
        for kind in ("genes", "targets"):  # targets, where known, win
            table = side.features.get(kind)
            if table is None:
                continue
            where = np.array([place.get(str(c), -1) for c in table.columns], dtype=np.int64)
            values, known = table.rows(names)
            for i in np.flatnonzero(known):
                hit = where[np.flatnonzero(values[i] > 0)]
                if (hit >= 0).any():
                    found[i] = np.unique(hit[hit >= 0])
        none = [n for n, t in zip(names, found, strict=True) if not len(t)]
        if none and self.policy == "raise":
            raise InputError(
                f"{len(none):,} of {len(names):,} perturbations have no target among the {len(self.gene_names):,} "
                f"genes of the study ({first_few(none, 5)}), and {self.model} sees a drug only through its targets. "
                f"Add their targets, leave them out of the study, or set for {self.model} "
                f"on_missing_structure = 'mask' (predicted as 'targets unknown') or 'drop' (the same, and not fitted "
                f"on)."
            )
        return tuple(found)


def _choose_features(
    side: SideInformation, wish: FeatureKind | Literal["auto"], model: str, *, needed: bool
) -> PerturbationFeatures | None:
    """The features a model uses: the wished kind, or with "auto" the user's own, else structures, else perturbed
    genes."""
    kinds = _AUTO if wish == "auto" else (wish,)
    for kind in kinds:
        if kind in side.features:
            return side.features[kind]
    if needed or wish != "auto":
        have = ", ".join(repr(k) for k in side.features) or "none"
        raise InputError(
            f"{model} needs features of kind {' or '.join(repr(k) for k in kinds)}; this study has {have}. A "
            f"perturbation without features cannot be told from another. Give structures (SMILES), perturbed genes or "
            "a feature table."
        )
    return None


def _missing_features(model: str, kind: str, names: Names, n: int) -> InputError:
    """Perturbations without features, under the policy "raise"."""
    return InputError(
        f"{len(names):,} of {n:,} perturbations have no {kind} features ({first_few(names, 5)}). {model} would treat "
        f"them all alike. Add them, leave these perturbations out of the study, or set for {model} "
        f"on_missing_structure = 'mask' (predicted as 'structure unknown') or 'drop' (the same, and not fitted on)."
    )


def _feature_scale(table: PerturbationFeatures | None, perturbation: Names) -> tuple[Index, Float32, Float32]:
    """Columns that vary among fitted perturbations, with centre and spread; 0/1 columns are left as they are.

    A column that never varies while fitting has a weight that was never trained, so it can only add noise later.
    """
    empty = np.zeros(0, dtype=np.float32)
    if table is None:
        return np.zeros(0, dtype=np.int64), empty, empty
    values, known = table.rows(np.unique(np.asarray(perturbation, dtype=str)))
    values = values[known]
    if not len(values):
        return np.zeros(0, dtype=np.int64), empty, empty
    kept = np.flatnonzero(values.max(axis=0) > values.min(axis=0)).astype(np.int64)
    values = values[:, kept]
    binary = np.isin(values, (0.0, 1.0)).all(axis=0)
    center = np.where(binary, 0.0, values.mean(axis=0, dtype=np.float64)).astype(np.float32)
    spread = np.where(binary, 1.0, values.std(axis=0, dtype=np.float64)).astype(np.float32)
    return kept, center, spread


def _doses(rows: PredictRows) -> np.ndarray[Any, np.dtype[np.float64]]:
    """log10 dose per row, NaN where unknown."""
    if "log10_dose" not in rows.obs:
        return np.full(rows.n_samples, np.nan)
    return np.asarray(rows.obs["log10_dose"], dtype=np.float64)


def _not_finite(values: Float32, rows_at_once: int = 4096) -> Index:
    """Positions of rows with a NaN or an infinite value."""
    starts = range(0, len(values), rows_at_once)
    return np.concatenate(
        [np.zeros(0, np.int64)]
        + [a + np.flatnonzero(~np.isfinite(values[a : a + rows_at_once]).all(axis=1)) for a in starts]
    )


def refuse_not_finite(rows: PredictRows, model: str) -> None:
    bad = _not_finite(rows.control)
    if isinstance(rows, FitRows):
        bad = np.union1d(bad, _not_finite(rows.treated))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {rows.n_samples:,} rows hold NaN or infinite values "
            f"({first_few(rows.sample_ids[bad], 5)}); {model} cannot learn from or predict them. Leave them out or "
            "mend them."
        )
