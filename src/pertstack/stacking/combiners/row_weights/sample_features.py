"""What is known of a sample when it is predicted: how the models agree and how loud they are, cell line, dose, time,
distance to the training perturbations.

Learned from sample moments, which hold the same sums over genes that a tile gives at prediction time; no measured
value of the sample enters. What is made of the features is decided in ``selector.py`` and ``soft_gate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Mask, Reference

NUMBERS = ("log10_dose", "time_h", "training_distance")
_PIECE = 8192  # samples whose matrices are made at once
_STRIP = 256  # genes whose deltas stay in the cache while every pair of models meets
_FAINT = 1e-6  # share of the mean square of all models that is added to each before the logarithm


def agreement(square: Array) -> Array:
    """Features (n, 2 M + 1) from mean products of deltas over genes (n, M, M), NaN for models that are absent.

    Per model the log of its mean square, and its cosine with the mean of the models that are there; then the share of
    the models' mean square that is disagreement, ``1 - |mean|² / mean |x_m|²`` (ambiguity, Krogh and Vedelsby 1995).
    NaN for an absent model; 0 if no model departs from the reference.
    """
    own = np.einsum("nmm->nm", square)
    there: Mask = np.asarray(np.isfinite(own), dtype=bool)
    n_there = np.maximum(there.sum(axis=1), 1)
    known = np.where(np.isfinite(square), square, 0.0)
    loud = np.where(there, own, 0.0).sum(axis=1) / n_there  # (n,)
    with_mean = known.sum(axis=2) / n_there[:, None]  # (n, M)
    mean = with_mean.sum(axis=1) / n_there
    speaks = loud > 0
    safe = np.where(speaks, loud, 1.0)
    size = np.log(np.where(there & speaks[:, None], own, 1.0) + _FAINT * safe[:, None])
    norm = np.sqrt(np.maximum(np.where(there, own, 0.0) * mean[:, None], 0.0))
    cosine = np.divide(with_mean, norm, out=np.zeros_like(norm), where=norm > 1e-12 * safe[:, None])
    apart = np.where(speaks, 1.0 - mean / safe, 0.0)
    size = np.where(speaks[:, None], size, np.nan)
    return np.column_stack([np.where(there, size, np.nan), np.where(there, cosine, np.nan), apart])


@kernel
def add_products(predictions, rows, base, whole, out):  # type: ignore[no-untyped-def]
    """Add the products over genes of ``prediction - base`` of some models to out (n, M, M), both triangles.

    ``base`` is (n, n_genes), or (1, n_genes) for all samples; models that are not ``whole`` (M, n) add nothing.
    """
    n_models, n_genes, shared = rows.shape[0], predictions.shape[2], base.shape[0] == 1
    delta = np.zeros((n_models, _STRIP), dtype=np.float64)
    for i in range(predictions.shape[1]):
        ref = base[0 if shared else i]
        for start in range(0, n_genes, _STRIP):
            size = min(_STRIP, n_genes - start)
            for m in range(n_models):
                if whole[m, i]:
                    p, d = predictions[rows[m], i, start : start + size], delta[m]
                    for g in range(size):
                        d[g] = np.float64(p[g]) - np.float64(ref[start + g])
                else:
                    delta[m, :] = 0.0
            for a in range(n_models):
                for b in range(a, n_models):
                    x, y, s = delta[a], delta[b], 0.0
                    for g in range(size):
                        s += x[g] * y[g]
                    out[i, a, b] += s
        for a in range(n_models):
            for b in range(a):
                out[i, a, b] = out[i, b, a]


def _products_of_tile(tile: Tile, rows: list[int], reference: Reference) -> Array:
    """Mean products over genes of ``prediction - reference``, (n, M, M); NaN for models that lack the row or a gene."""
    base = tile.pooled[None, :] if reference == "pooled" else tile.control
    every_gene: Mask = np.asarray(tile.gene_available[rows].all(axis=1), dtype=bool)
    whole = tile.available[rows] & every_gene[:, None]  # (M, n)
    square = np.zeros((tile.n, len(rows), len(rows)))
    add_products(tile.predictions, np.array(rows, dtype=np.int64), base, whole, square)
    square /= max(tile.predictions.shape[2], 1)
    both = whole.T[:, :, None] & whole.T[:, None, :]
    return np.asarray(np.where(both, square, np.nan))


def products_of_moments(evidence: Evidence, rows: slice) -> tuple[Array, Array]:
    """The same for some samples of the evidence, from their sample moments; and mean products with the truth (n, M)."""
    square, cross, _ = products_with_truth(evidence, rows)
    return square, cross


def products_with_truth(evidence: Evidence, rows: slice) -> tuple[Array, Array, Array]:
    """Mean products over genes of the deltas (n, M, M), of deltas and truth (n, M), and of the truth (n,)."""
    moments, n_models = evidence.reduction.sample.take(rows), evidence.n_models
    transform = np.eye(n_models + 1, n_models + 2)
    if evidence.reference == "pooled":
        transform[:, -1] = 1.0
    absent = ~np.isfinite(moments.mean)
    mean = np.where(absent, 0.0, moments.mean)
    scatter = np.where(absent[:, :, None] | absent[:, None, :], 0.0, moments.scatter)
    level = mean @ transform.T
    square = transform @ scatter @ transform.T / moments.n_genes + level[:, :, None] * level[:, None, :]
    gone = absent[:, : n_models + 1]
    square = np.where(gone[:, :, None] | gone[:, None, :], np.nan, square)
    return square[:, :n_models, :n_models], square[:, :n_models, n_models], square[:, n_models, n_models]


def pieces(n: int) -> list[slice]:
    """Samples in pieces, so that matrices per sample stay small however many there are."""
    return [slice(at, min(at + _PIECE, n)) for at in range(0, n, _PIECE)]


@dataclass(frozen=True)
class SampleFeatures:
    """How raw features become numbers of mean 0 and spread 1 over the evidence; unknown ones are 0, the mean.

    Raw columns: ``agreement`` (2 M + 1), one per cell line of the evidence (a line never seen is unknown in all), then
    log10 dose, hours and distance to the nearest training perturbation if the evidence knows them.
    """

    reference: Reference
    cell_lines: tuple[str, ...]
    numbers: tuple[str, ...]
    centre: Array  # (J,)
    spread: Array  # (J,) inf where a feature does not vary

    @classmethod
    def learn(cls, evidence: Evidence) -> tuple[SampleFeatures, Array]:
        """The scaling, and the features of every sample of the evidence in its order, (n, J)."""
        obs = _obs(evidence)
        numbers = tuple(c for c in NUMBERS if c in obs and pd.to_numeric(obs[c], errors="coerce").notna().any())
        plain = cls(evidence.reference, evidence.cell_lines, numbers, centre=np.zeros(0), spread=np.ones(0))
        agree = [agreement(products_of_moments(evidence, rows)[0]) for rows in pieces(len(obs))]
        raw = plain._raw(np.concatenate(agree), obs)
        known = np.isfinite(raw)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, raw, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, raw - centre, 0.0) ** 2).sum(axis=0) / count)
        spread = np.where(spread > 1e-9 * np.maximum(np.abs(centre), 1.0), spread, np.inf)
        made = cls(evidence.reference, evidence.cell_lines, numbers, centre=centre, spread=spread)
        return made, made._scaled(raw)

    def of_tile(self, tile: Tile, rows: list[int]) -> Array:
        """Features of a tile's samples, (n, J)."""
        obs = tile.obs.assign(cell_line=tile.block.cell_line)
        return self._scaled(self._raw(agreement(_products_of_tile(tile, rows, self.reference)), obs))

    def names(self, models: tuple[str, ...]) -> list[str]:
        """Names of the J features."""
        sizes, cosines = [f"log_size:{m}" for m in models], [f"agrees:{m}" for m in models]
        return [*sizes, *cosines, "disagreement", *(f"cell_line:{c}" for c in self.cell_lines), *self.numbers]

    def _raw(self, agree: Array, obs: pd.DataFrame) -> Array:
        line = obs["cell_line"].astype(str).to_numpy()
        seen = np.isin(line, self.cell_lines)
        lines = [np.where(seen, line == name, np.nan) for name in self.cell_lines]
        missing = np.full(len(obs), np.nan)
        numbers = [
            pd.to_numeric(obs[c], errors="coerce").to_numpy(dtype=np.float64) if c in obs else missing
            for c in self.numbers
        ]
        return np.column_stack([agree, *lines, *numbers]).astype(np.float64)

    def _scaled(self, raw: Array) -> Array:
        return np.asarray(np.where(np.isfinite(raw), (raw - self.centre) / self.spread, 0.0))


def _obs(evidence: Evidence) -> pd.DataFrame:
    """Cell line, and dose, time and distance if a source says them, of every sample in the evidence's order."""
    samples = evidence.reduction.samples
    if evidence.source is None:
        alone: pd.DataFrame = samples[["cell_line"]]
        return alone
    parts: list[Any] = []
    for block in evidence.reduction.blocks:
        obs = evidence.source.obs(block).assign(cell_line=block.cell_line)
        parts.append(obs[[c for c in ("cell_line", *NUMBERS) if c in obs]])
    together: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return together


def softmax(score: Array) -> Array:
    """Rows of positive weights that sum to one."""
    grown = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def mix_rows(tile: Tile, rows: list[int], weights: Array, *, base: Any, there: Any) -> Float32:
    """``base + sum_m w_nm (prediction_m - base)``, (n, n_genes); NaN where no model predicts.

    Parameters
    ----------
    tile : predictions of all models, treated scale.
    rows : positions in the tile of the M models that are mixed.
    weights : (n, M), one set per sample.
    base : (n, n_genes), or broadcast to it: the control that deltas refer to.
    there : (M, n, n_genes), False where a model lacks a row or gene: the weights of the others are renormalised to the
        same sum. None when complete.
    """
    shape = tile.predictions.shape[1:]
    if there is None:
        mixed = np.empty(shape, dtype=np.float32)
        mix_weighed(tile.predictions, np.array(rows, dtype=np.int64), base, np.ascontiguousarray(weights), mixed)
        return mixed
    out, share = np.zeros(shape), np.zeros(shape)
    for m, row in enumerate(rows):
        positive = np.maximum(weights[:, m, None], 1e-12)  # one of no weight still speaks if it is the only one
        out += np.where(there[m], positive * (tile.predictions[row] - base), 0.0)
        share += np.where(there[m], positive, 0.0)
    total = weights.sum(axis=1)[:, None]
    out = np.where(share > 0, out * total / np.where(share > 0, share, 1.0), np.nan)
    return np.asarray(base + out, dtype=np.float32)


@kernel
def mix_weighed(predictions, rows, base, weights, out):  # type: ignore[no-untyped-def]
    """``base + sum_m w_nm (prediction_m - base)`` into out (n, n_genes); weights (n, M), base as in
    ``add_products``.
    """
    n_genes, shared = predictions.shape[2], base.shape[0] == 1
    total = np.empty(n_genes, dtype=np.float64)
    for i in range(predictions.shape[1]):
        ref = base[0 if shared else i]
        for g in range(n_genes):
            total[g] = ref[g]
        for m in range(rows.shape[0]):
            p, w = predictions[rows[m], i], weights[i, m]
            for g in range(n_genes):
                total[g] += w * (np.float64(p[g]) - np.float64(ref[g]))
        for g in range(n_genes):
            out[i, g] = total[g]
