"""What a base model is handed: rows to fit on (with treated values) and rows to predict (without).

Two types, so that a held-out treated value cannot be passed by mistake: ``PredictRows`` has no place for it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from pertstack.data.side.side import SideInformation

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Names = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class PredictRows:
    """Samples whose treated profile is to be predicted.

    ``obs`` has one row per sample, indexed by sample id, with at least ``perturbation`` and ``cell_line``; and, NaN
    where unknown, ``smiles``, ``log10_dose`` (log10 of the dose in micromolar), ``time_h`` (hours), ``plate``,
    ``control_id``.
    """

    gene_names: Names  # (n_genes,)
    control: Float32  # (n_samples, n_genes)
    obs: pd.DataFrame  # n_samples rows, index = sample ids
    side: SideInformation

    def __post_init__(self) -> None:
        shape = (len(self.obs), len(self.gene_names))
        assert self.control.shape == shape, (self.control.shape, shape)

    @property
    def n_samples(self) -> int:
        return len(self.obs)

    @property
    def n_genes(self) -> int:
        return len(self.gene_names)

    @property
    def sample_ids(self) -> Names:
        return np.asarray(self.obs.index, dtype=object)

    @property
    def perturbation(self) -> Names:
        return np.asarray(self.obs["perturbation"], dtype=object)

    @property
    def cell_line(self) -> Names:
        return np.asarray(self.obs["cell_line"], dtype=object)


@dataclass(frozen=True)
class FitRows(PredictRows):
    """Samples a model may learn from: as ``PredictRows``, and their treated profiles."""

    treated: Float32  # (n_samples, n_genes)
    group: Names  # (n_samples,) group of the fold plan, for inner splits

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.treated.shape == self.control.shape, (self.treated.shape, self.control.shape)

    @property
    def delta(self) -> Float32:
        """treated - control, (n_samples, n_genes)."""
        return self.treated - self.control

    def take(self, rows: Any) -> FitRows:
        """The chosen rows (integer positions or mask), for an inner split."""
        return FitRows(
            self.gene_names,
            self.control[rows],
            self.obs.iloc[rows],
            side=self.side,
            treated=self.treated[rows],
            group=self.group[rows],
        )

    def without_treated(self) -> PredictRows:
        """The same samples as a model sees them at prediction time."""
        return PredictRows(**{f.name: getattr(self, f.name) for f in fields(PredictRows)})
