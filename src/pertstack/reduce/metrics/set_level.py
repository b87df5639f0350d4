"""Set-level metrics: does a prediction resemble its own perturbation's truth more than that of the others?

Profiles are means over the rows of a perturbation within a cell line (prediction and truth minus the reference).
Each sample gets the value of its perturbation, so that these numbers can be resampled by group like any other.

References: perturbation discrimination score of the Virtual Cell Challenge (Roohani et al. 2025), in its mid-rank
form; centroid accuracy of Systema (Vinas Torne et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import keyed_hash64
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics.names import Metric
from pertstack.reduce.read_tiles import iter_tiles, samples_of
from pertstack.reduce.references import Float64, Reference, References
from pertstack.reduce.tile import Combine, Tile

MOST_PERTURBATIONS = 400
_DISTANCE = {"pds_l1": "l1", "pds_cosine": "cosine", "centroid_accuracy": "l2"}


def discrimination(truth: Any, prediction: Any, distance: str = "l1") -> Float64:
    """Mid-rank discrimination of each profile among all, (n,).

    For profile i: 1 - (closer + (equal - 1) / 2) / (n - 1), where ``closer`` counts true profiles strictly nearer to
    prediction i than its own truth, and ``equal`` those just as near, itself included. 1 is perfect, 0.5 is chance.

    Parameters
    ----------
    truth, prediction : arrays, shape (n, n_genes)
        Row i of both is the same perturbation. A prediction with NaN answers NaN; n = 1 answers NaN.
    distance : "l1", "l2" or "cosine"
        A zero vector has cosine distance 1 to everything.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    n = len(t)
    answer: Float64 = np.full(n, np.nan)
    if n < 2:
        return answer
    if distance == "cosine":
        t, p = _unit(t), _unit(p)
    for i in np.flatnonzero(np.isfinite(p).all(axis=1)):
        if distance == "l1":
            d = np.abs(t - p[i]).sum(axis=1)
        elif distance == "l2":
            d = ((t - p[i]) ** 2).sum(axis=1)
        else:
            d = 1.0 - (t * p[i]).sum(axis=1)
        closer, equal = int((d < d[i]).sum()), int((d == d[i]).sum())
        answer[i] = 1.0 - (closer + (equal - 1) / 2) / (n - 1)
    return answer


def _unit(v: Float64) -> Float64:
    size = np.sqrt((v * v).sum(axis=1, keepdims=True))
    unit: Float64 = np.divide(v, size, out=np.where(np.isnan(size), np.nan, np.zeros(v.shape)), where=size > 0)
    return unit


def set_level_values(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    metrics: Sequence[Metric],
    *,
    memory: int = 10**9,
    most: int = MOST_PERTURBATIONS,
) -> Float64:
    """Values (n_names, n_metrics, n_samples) of set-level metrics, one streamed pass.

    At most ``most`` perturbations per cell line take part, chosen by a hash of their names (the same in every run);
    samples of the others are NaN, as are rows a name did not predict and cell lines with a single perturbation.
    """
    samples = samples_of(source)
    place = _chosen(samples, most)
    lines = sorted(place)
    used: list[Reference] = sorted({m.reference for m in metrics})
    n_genes = len(source.gene_names)
    shape = (len(combines) + 1, len(used), n_genes)
    sums = {line: np.zeros((len(place[line]), *shape)) for line in lines}
    counts = {line: np.zeros((len(place[line]), len(combines) + 1)) for line in lines}
    predicted = np.zeros((len(combines), len(samples)), dtype=bool)
    at = 0
    for tile, treated in iter_tiles(source, references, memory // 2):
        line = tile.block.cell_line
        where = np.array([place[line].get(p, -1) for p in tile.obs["perturbation"]])
        layers = [treated, *(np.asarray(c(tile), dtype=np.float32) for c in combines.values())]
        for a, layer in enumerate(layers):
            good = np.isfinite(layer).all(axis=1)
            if a:
                predicted[a - 1, at : at + tile.n] = good
            good &= where >= 0
            np.add.at(counts[line][:, a], where[good], 1)
            for r, reference in enumerate(used):
                np.add.at(sums[line][:, a, r], where[good], (layer - _profile(tile, references, reference))[good])
        at += tile.n
    values = np.full((len(combines), len(metrics), len(samples)), np.nan)
    for line in lines:
        with np.errstate(invalid="ignore"):
            means = sums[line] / counts[line][:, :, None, None]
        rows = np.flatnonzero((samples["cell_line"] == line).to_numpy())
        where = np.array([place[line].get(p, -1) for p in samples["perturbation"].to_numpy()[rows]])
        for i in range(len(combines)):
            for j, metric in enumerate(metrics):
                r = used.index(metric.reference)
                got = discrimination(means[:, 0, r], means[:, i + 1, r], _DISTANCE[metric.kind])
                ok = (where >= 0) & predicted[i, rows]
                values[i, j, rows[ok]] = got[where[ok]]
    return values


def _profile(tile: Tile, references: References, reference: Reference) -> Any:
    if reference == "own":
        return tile.control.astype(np.float64)
    return tile.pooled if reference == "pooled" else references.centroid(tile.block.cell_line)


def _chosen(samples: pd.DataFrame, most: int) -> dict[str, dict[str, int]]:
    """Per cell line the perturbations that take part, with their places."""
    place = {}
    for line, part in samples.groupby("cell_line", sort=True):
        names = sorted(set(part["perturbation"]))
        if len(names) > most:
            names = sorted(sorted(names, key=lambda p: (keyed_hash64(str(p), b"set-level"), p))[:most])
        place[str(line)] = {p: i for i, p in enumerate(names)}
    return place
