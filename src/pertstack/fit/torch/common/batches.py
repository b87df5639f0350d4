"""Batches of a network: rows as tensors, cut out of a table of encoded rows and standardised on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack.data.rows import Float32
from pertstack.fit.torch.common.framework import Tensor, torch
from pertstack.fit.torch.common.scaling import GeneScaler

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Batch:
    """Some rows as tensors, profiles standardised. ``x2`` is there while fitting and nowhere else."""

    row: Tensor  # (B,) position in the table
    x1: Tensor  # (B, G)
    features: Tensor  # (B, F); zeros where not known
    known: Tensor  # (B, 1) 1 where the features are known
    dose: Tensor  # (B, 2) standardised log10 dose (0 where missing) and the missing bit
    cell: Tensor  # (B,) cell line, 0 = a line never fitted on
    targets: Tensor | None = None  # (B, G) 1 where the gene is a target
    x2: Tensor | None = None  # (B, G)
    genes: Tensor | None = None  # genes of this step; None = all
    extra: Tensor | None = None  # (B, d) what a model adds to its rows itself

    @property
    def drug(self) -> Tensor:
        """Features and their mask bit, (B, F + 1)."""
        return torch.cat([self.features, self.known], dim=1)

    @property
    def treatment(self) -> Tensor:
        """Features, mask bit, dose and its missing bit, (B, F + 3)."""
        return torch.cat([self.features, self.known, self.dose], dim=1)

    @property
    def truth(self) -> Tensor:
        """x2 on the genes of this step."""
        assert self.x2 is not None, "a batch for prediction holds no treated values"
        return self.x2 if self.genes is None else self.x2[:, self.genes]


@dataclass(frozen=True)
class Table:
    """Encoded rows: what batches are cut from. One feature row per perturbation, gathered per batch."""

    control: Float32  # (n, G) input scale
    scaler: GeneScaler
    drug: Index  # (n,) row of ``features``
    features: Tensor  # (P, F)
    known: Tensor  # (P, 1)
    dose: Tensor  # (n, 2)
    cell: Tensor  # (n,)
    targets: tuple[Index, ...] | None  # per perturbation: positions of its target genes
    treated: Float32 | None = None  # (n, G) input scale, fit only
    extra: Tensor | None = None  # (n, d)

    @property
    def n(self) -> int:
        return len(self.control)

    def batch(self, rows: Index, device: torch.device, genes: Tensor | None = None) -> Batch:
        """Some rows on a device.

        Parameters
        ----------
        rows : (B,) positions.
        device : to which tensors go.
        genes : positions of the genes to learn from; None for all.
        """
        drug = self.drug[rows]
        targets = None
        if self.targets is not None:
            targets = torch.zeros(len(rows), self.control.shape[1])
            for i, p in enumerate(drug):
                targets[i, torch.from_numpy(self.targets[p])] = 1.0
            targets = targets.to(device)
        x2 = None if self.treated is None else self._profiles(self.treated, rows, device)
        return Batch(
            torch.from_numpy(rows).to(device),
            self._profiles(self.control, rows, device),
            self.features[drug].to(device),
            known=self.known[drug].to(device),
            dose=self.dose[rows].to(device),
            cell=self.cell[rows].to(device),
            targets=targets,
            x2=x2,
            genes=None if genes is None else genes.to(device),
            extra=None if self.extra is None else self.extra[rows].to(device),
        )

    def _profiles(self, matrix: Float32, rows: Index, device: torch.device) -> Tensor:
        return torch.from_numpy(self.scaler.apply(matrix[rows])).to(device)
