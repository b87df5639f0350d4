"""Side information: what is known of a perturbation besides its name, keyed by perturbation.

Kinds of features: ``structure`` (Morgan fingerprint of the SMILES), ``user`` (a matrix given), ``genes``
(multi-hot of the perturbed genes), ``targets`` (multi-hot of a drug's target genes). What is missing is marked
missing, never replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pertstack._base.digests import digest_array, digest_json, digest_names

FeatureKind = Literal["structure", "user", "genes", "targets"]
FEATURE_KINDS: tuple[FeatureKind, ...] = ("user", "structure", "genes", "targets")


@dataclass(frozen=True)
class PerturbationFeatures:
    """One kind of features: a row per perturbation, with a mask of those that are known."""

    kind: FeatureKind
    perturbations: tuple[str, ...]  # (n_perturbations,) sorted
    columns: tuple[str, ...]  # (n_features,)
    matrix: np.ndarray[Any, np.dtype[np.float32]]  # (n_perturbations, n_features); 0 if unknown
    known: np.ndarray[Any, np.dtype[np.bool_]]  # (n_perturbations,)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.perturbations)}

    @property
    def digest(self) -> str:
        return digest_json(
            [
                self.kind,
                digest_names(self.perturbations),
                digest_names(self.columns),
                digest_array(self.matrix),
                digest_array(self.known),
            ]
        )

    def rows(
        self, perturbations: Iterable[str]
    ) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Features (n, n_features) and mask (n,) of known ones, for perturbations in any order, repeats allowed.

        A perturbation that is not in the table gets mask False and zeros; the mask is the information, the zeros are
        not.
        """
        at, known = self._at(perturbations)
        values = np.where(known[:, None], self.matrix[at], np.float32(0))
        return values.astype(np.float32, copy=False), known

    def has(self, perturbations: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mask (n,) of perturbations whose features are known, without the features."""
        return self._at(perturbations)[1]

    def _at(
        self, perturbations: Iterable[str]
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]]:
        at = np.array([self._position.get(p, -1) for p in perturbations], dtype=np.int64)
        return at, (at >= 0) & self.known[at]


@dataclass(frozen=True)
class GeneGraph:
    """Undirected gene-gene edges over the study's genes (for example protein-protein interactions)."""

    gene_names: tuple[str, ...]
    edges: np.ndarray[Any, np.dtype[np.int64]]  # (n_edges, 2), positions in gene_names, each pair once


@dataclass(frozen=True)
class SideInformation:
    """All that is known besides the profiles. Empty kinds are absent, and a model that needs one says so."""

    features: Mapping[FeatureKind, PerturbationFeatures] = field(default_factory=dict)
    graph: GeneGraph | None = None

    def best(self) -> PerturbationFeatures | None:
        """The features a general model uses: user's own, else structures, else perturbed genes, else targets."""
        return next((self.features[k] for k in FEATURE_KINDS if k in self.features), None)
