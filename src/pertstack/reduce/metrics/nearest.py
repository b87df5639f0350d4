"""How many true profiles lie nearer to a prediction than its own truth does, by L1, L2 and cosine distance.

Distances are found roughly at first: L1 in float32, a few predictions against every truth while these lie in the cache,
the others from one matrix product. Where a rough distance is too near to that of the own truth to tell them apart, both
are summed again gene by gene in float64. So counts are those of exact sums over all pairs, at a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32

_STRIP = 256  # genes summed in float32 before they are added up in float64
_TOGETHER = 4  # predictions that meet a truth while it is in registers
_ROUND32, _ROUND64 = 2.0**-24, 2.0**-52
Indices = np.ndarray[Any, np.dtype[np.int64]]


class Truths:
    """True profiles (n, n_genes), to count which of them lie nearest.

    Parameters
    ----------
    truth : finite profiles.
    distances : "l1", "l2", "cosine", in the order of the answers.
    """

    def __init__(self, truth: Float64, distances: Sequence[str]) -> None:
        self.truth, self.distances = np.ascontiguousarray(truth), tuple(distances)
        self.square, self.total = (truth * truth).sum(axis=1), np.abs(truth).sum(axis=1)
        with np.errstate(over="ignore"):
            self.rough = self.truth.astype(np.float32) if "l1" in distances else None

    def nearer(self, prediction: Float64, own: Indices) -> tuple[Indices, Indices]:
        """Per distance and prediction, how many truths are strictly nearer than its own, and how many just as near, its
        own included; (n_distances, m) each.

        Parameters
        ----------
        prediction : (m, n_genes), finite.
        own : (m,) which truth is that of each.
        """
        m, lines = len(prediction), np.arange(len(prediction))
        closer, equal = np.zeros((2, len(self.distances), m), dtype=np.int64)
        sizes = (prediction * prediction).sum(axis=1), np.abs(prediction).sum(axis=1)
        product = None if set(self.distances) == {"l1"} else prediction @ self.truth.T
        for at, name in enumerate(self.distances):
            found, slack = self._roughly(name, prediction, sizes, product)
            mine = found[lines, own][:, None]
            slack = slack + slack[lines, own][:, None]
            with np.errstate(invalid="ignore"):  # infinite beyond float32: then unsure
                unsure = ~(np.abs(found - mine) > slack) & (slack != 0)
            unsure[lines, own] = False
            closer[at] = ((found < mine) & ~unsure).sum(axis=1)
            same = (found == mine) & ~unsure
            same[lines, own] = True
            equal[at] = same.sum(axis=1)
            rows, others = np.nonzero(unsure)
            if len(rows):
                that, this = (self._exactly(name, prediction, rows, j) for j in (others, own[rows]))
                closer[at] += np.bincount(rows[that < this], minlength=m)
                equal[at] += np.bincount(rows[that == this], minlength=m)
        return closer, equal

    def _roughly(self, name: str, prediction: Float64, sizes: Any, product: Any) -> tuple[Float64, Float64]:
        """Distances (m, n) and how far each may be from the exact one."""
        n_genes = prediction.shape[1]
        square, total = sizes
        if name == "l1":
            found = self._l1(prediction)
            cast = total[:, None] + self.total
            return found, _ROUND32 * (cast + (_STRIP + 8) * found) + n_genes * float(np.finfo(np.float32).tiny)
        if name == "l2":
            both = square[:, None] + self.square
            return both - 2 * product, (n_genes + 8) * _ROUND64 * both
        scale = np.sqrt(square)[:, None] * np.sqrt(self.square)
        cosine = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
        return 1.0 - cosine, np.where(scale > 0, (n_genes + 8) * _ROUND64, 0.0)

    def _l1(self, prediction: Float64) -> Float64:
        assert self.rough is not None
        m = len(prediction)
        padded = np.zeros((-(-m // _TOGETHER) * _TOGETHER, prediction.shape[1]), dtype=np.float32)
        with np.errstate(over="ignore"):
            padded[:m] = prediction
        out = np.zeros((len(padded), len(self.rough)))
        l1_roughly(self.rough, padded, out)
        answer: Float64 = out[:m]
        return answer

    def _exactly(self, name: str, prediction: Float64, rows: Indices, others: Indices) -> Float64:
        """Distances (k,) of some pairs."""
        sums = np.zeros((len(rows), 3))
        pair_sums(self.truth, np.ascontiguousarray(prediction), rows, others, sums)
        if name != "cosine":
            answer: Float64 = sums[:, 0 if name == "l1" else 1]
            return answer
        scale = np.sqrt((prediction[rows] ** 2).sum(axis=1) * self.square[others])
        return np.asarray(1.0 - np.divide(sums[:, 2], scale, out=np.zeros(len(rows)), where=scale > 0))


@kernel
def l1_roughly(truth: Float32, prediction: Float32, out: Float64) -> None:
    """L1 distances of predictions (m, n_genes), m a multiple of four, to truths (n, n_genes), added to out (m, n)."""
    n, n_genes = truth.shape
    for low in range(0, n_genes, _STRIP):
        high = min(n_genes, low + _STRIP)
        size = high - low
        for i in range(0, prediction.shape[0], _TOGETHER):
            p0, p1 = prediction[i, low:high], prediction[i + 1, low:high]
            p2, p3 = prediction[i + 2, low:high], prediction[i + 3, low:high]
            for j in range(n):
                t = truth[j, low:high]
                s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for g in range(size):
                    x = t[g]
                    s0 += abs(x - p0[g])
                    s1 += abs(x - p1[g])
                    s2 += abs(x - p2[g])
                    s3 += abs(x - p3[g])
                out[i, j] += s0
                out[i + 1, j] += s1
                out[i + 2, j] += s2
                out[i + 3, j] += s3


@kernel
def pair_sums(truth: Float64, prediction: Float64, rows: Indices, others: Indices, out: Float64) -> None:
    """Sums of |t - p|, (t - p)^2 and t p of some pairs, into out (k, 3)."""
    for at in range(rows.shape[0]):
        p, t = prediction[rows[at]], truth[others[at]]
        l1, l2, dot = 0.0, 0.0, 0.0
        for g in range(t.shape[0]):
            d = t[g] - p[g]
            l1 += abs(d)
            l2 += d * d
            dot += t[g] * p[g]
        out[at, 0], out[at, 1], out[at, 2] = l1, l2, dot
