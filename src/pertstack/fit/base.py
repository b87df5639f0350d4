"""The contract every base model keeps: fit on ``FitRows``, predict ``PredictRows`` in the input scale.

A model never receives a held-out treated value; one that wants early stopping splits its own fit rows by group
(``inner_split``). How jobs are run is handled by ``fit/jobs/cross_fit.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.data.side.side import FeatureKind


@dataclass(frozen=True)
class Needs:
    """What a base model needs and claims; checked before a job starts and by the contract tests."""

    features: tuple[FeatureKind, ...] = ()  # any ONE of these kinds must be present; () = none needed
    targets: bool = False  # drug targets or perturbed genes
    graph: bool = False  # gene graph
    cells: bool = False  # single cells, if the study was made of them
    extra: str | None = None  # pip extra, e.g. "models" for torch
    uses_control: bool = True  # predictions change when the control changes
    uses_perturbation: bool = True
    uses_cell_line: bool = False
    unseen_perturbation: bool = True  # gives a defined answer for one never fitted on
    unseen_cell_line: bool = True
    deterministic: bool = True
    predicts: Literal["treated", "delta"] = "treated"  # natural scale inside; the return value is always treated


@runtime_checkable
class BaseModel(Protocol):
    """A model that predicts treated profiles. Constructed with keyword hyper-parameters; has state after ``fit``.

    A model may also have ``embed(rows: PredictRows) -> (n_samples, d) float32 or None``: one finite vector per row,
    made without the treated profile, row by row independent of the batch, and without changing what is predicted
    afterwards. It is asked for the rows the model predicts and for the study's anchor rows, some of which it was fitted
    on. None says that these rows cannot be embedded; embeddings without anchors are kept but never stacked.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> BaseModel:
        """Learn from fit rows; returns self. All randomness comes from ``rng``.

        Parameters
        ----------
        rows : profiles, controls and metadata to learn from.
        rng : the only source of randomness.
        """
        ...

    def predict(self, rows: PredictRows) -> Float32:
        """Treated profiles (n_samples, n_genes) in the input scale, finite, row by row independent of the batch.

        Parameters
        ----------
        rows : controls and metadata; there is no treated profile.
        """
        ...

    def params(self) -> dict[str, Any]:
        """Hyper-parameters as plain JSON; part of what a job is recognised by."""
        ...
