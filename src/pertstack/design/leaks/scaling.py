"""Was the scaling fitted with the test in view? Seen from the values alone.

Scaled data give themselves away: over exactly the rows that a scaling was fitted on, every gene spans 0 to 1, or has
mean 0 and standard deviation 1, to the last digits. ``ScaleScan`` keeps sums and extremes per gene for the sets of rows
on which people fit scalings; ``scaling_findings`` says which set it was. A perfect fit on a set that holds the test is
a leak; on the test alone it means that the test was put on its own scale.

Sets: all rows, development, test; treated and control values together or apart; over all cell lines, or within each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding

Part = Literal["all rows", "development rows", "test rows"]
CLOSE = 1e-6
"""An end of a min-max scaling is met to this."""
LEAST_ROWS = 20
"""Sets with fewer rows say nothing: a mean of few values may be near 0 by chance."""
_STRIP = 256  # genes
_LAYERS = ("treated", "control", "treated and control values")


@dataclass
class ScaleScan:
    """Sums and extremes per gene. Axis 0: role (development, test); 1: cell line; 2: treated, control; 3: gene."""

    development: Array  # (n,) bool
    line: Array  # (n,) int
    n_lines: int
    control_is_zero: bool = True
    shift: Array | None = None  # (G,) for precision
    count: Array = field(default_factory=lambda: np.zeros(0))
    total: Array = field(default_factory=lambda: np.zeros(0))
    squares: Array = field(default_factory=lambda: np.zeros(0))
    low: Array = field(default_factory=lambda: np.zeros(0))
    high: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, at: Array, control: Array, treated: Array) -> None:
        """Take some rows in; each row comes once.

        Parameters
        ----------
        at : (n_rows,) row numbers of the frame.
        control, treated : (n_rows, n_genes) float32.
        """
        if self.shift is None:
            shape = (2, self.n_lines, 2, treated.shape[1])
            self.shift = treated.mean(axis=0, dtype=np.float64)
            self.count = np.zeros(shape[:3])
            self.total, self.squares = np.zeros(shape), np.zeros(shape)
            self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.control_is_zero &= not control.any()
        for role, inside in enumerate((self.development[at], ~self.development[at])):
            for line in np.unique(self.line[at][inside]):
                rows = inside & (self.line[at] == line)
                for layer, values in enumerate((treated[rows], control[rows])):
                    place = (role, line, layer)
                    self.count[place] += len(values)
                    for genes in _strips(values.shape[1]):  # what is computed of a strip stays in the cache
                        some = values[:, genes]
                        moved = some - self.shift[genes]  # float64
                        self.total[place][genes] += moved.sum(axis=0)
                        self.squares[place][genes] += np.square(moved, out=moved).sum(axis=0)
                        self.low[place][genes] = np.minimum(self.low[place][genes], some.min(axis=0))
                        self.high[place][genes] = np.maximum(self.high[place][genes], some.max(axis=0))

    def standard(self, roles: slice, layers: slice, by_line: bool) -> Array:
        """(n_genes,) whether a gene has mean 0 and standard deviation 1 over a set of rows.

        Parameters
        ----------
        roles : slice of (development, test).
        layers : slice of (treated, control).
        by_line : in each cell line that has enough rows, instead of over all of them.
        """
        assert self.shift is not None
        parts = [a[roles, :, layers] for a in (self.count, self.total, self.squares)]
        count, total, squares = (p.sum(axis=(0, 2)) for p in parts)  # (n_lines,), (n_lines, G), (n_lines, G)
        if not by_line:
            count, total, squares = (a.sum(axis=0, keepdims=True) for a in (count, total, squares))
        enough = count >= LEAST_ROWS
        if not enough.any():
            return np.zeros(len(self.shift), dtype=bool)
        n = count[enough, None]
        mean = total[enough] / n
        spread = np.sqrt(np.maximum(squares[enough] / n - mean**2, 0.0))
        close = np.minimum(1e-3, 0.05 / np.sqrt(n))  # a chance mean is off by 1 / sqrt(n), twenty times as much
        centred = np.abs(mean + self.shift) <= close
        unit = (np.abs(spread - 1) <= close) | (np.abs(spread * np.sqrt(n / (n - 1)) - 1) <= close)
        genes: Array = (centred & unit).all(axis=0)
        return genes

    def spanning(self, roles: slice, layers: slice) -> Array:
        """(G,) genes that run from exactly 0 to exactly 1 over a set of rows."""
        low, high = self.low[roles, :, layers].min(axis=(0, 1, 2)), self.high[roles, :, layers].max(axis=(0, 1, 2))
        genes: Array = (np.abs(low) <= CLOSE) & (np.abs(high - 1) <= CLOSE)
        return genes


def _strips(n_genes: int) -> Iterator[slice]:
    return (slice(a, min(a + _STRIP, n_genes)) for a in range(0, n_genes, _STRIP))


_PARTS: dict[Part, slice] = {"all rows": slice(0, 2), "development rows": slice(0, 1), "test rows": slice(1, 2)}


def scaling_findings(scan: ScaleScan) -> list[Finding]:
    """What the values say of their scaling; nothing when they are not scaled, or when there is no test."""
    if scan.shift is None or scan.development.all():
        return []
    layers = [slice(0, 1)] if scan.control_is_zero else [slice(0, 2), slice(0, 1), slice(1, 2)]
    return [*_min_max(scan, layers[0]), *_z_scores(scan, layers)]


def _min_max(scan: ScaleScan, layers: slice) -> list[Finding]:
    """Min-max scaling per gene over all rows, seen from ends that only test rows reach; or of the test by itself."""
    whole, inside, test = (scan.spanning(part, layers) for part in _PARTS.values())
    n_genes = int(whole.size)
    if (inside & test).mean() >= 0.5:
        return [_test_by_itself("min-max scaled", int((inside & test).sum()), n_genes)]
    if whole.mean() < 0.5:
        return []
    n, n_scaled = int((whole & ~inside).sum()), int(whole.sum())
    numbers = {
        "method": "min_max",
        "genes_scaled": n_scaled,
        "genes_with_extreme_in_test_only": n,
        "genes": n_genes,
    }
    if n == 0:
        message = f"{n_scaled:,} genes span exactly 0 to 1, and development rows alone reach both ends of every one."
        return [Finding("note", "scaled_min_max", message, numbers=numbers)]
    return [
        Finding(
            "warning",
            "scaling_fitted_on_all_rows",
            f"{n_scaled:,} of {n_genes:,} genes span exactly 0 to 1 over all rows, and in {n:,} of them an end is "
            "reached by test rows only: the scaling was fitted with the test in view. It is a mild leak and a scale "
            "that new data will not have. Scale with development rows.",
            n,
            numbers=numbers,
        )
    ]


def _z_scores(scan: ScaleScan, layers: list[slice]) -> list[Finding]:
    """Mean 0 and standard deviation 1 per gene over exactly a set of rows."""
    n_genes = int(scan.shift.size) if scan.shift is not None else 0
    for by_line in (True, False) if scan.n_lines > 1 else (False,):
        for layer in layers:
            met = {part: scan.standard(roles, layer, by_line) for part, roles in _PARTS.items()}
            share = {part: float(genes.mean()) for part, genes in met.items()}
            what = f"{_name(layer)}{', within each cell line' if by_line else ''}"
            numbers = {"method": "z_score", "genes": n_genes, "values": _name(layer), "within_cell_lines": by_line}
            both = met["development rows"] & met["test rows"]
            if both.mean() >= 0.5:
                return [_test_by_itself(f"z-scored ({what})", int(both.sum()), n_genes)]
            if share["all rows"] >= 0.5:
                n = int(met["all rows"].sum())
                text = (
                    f"{n:,} of {n_genes:,} genes have mean 0 and standard deviation 1 over exactly all rows ({what}), "
                )
                text += "and not over development rows alone: the scaling was fitted with the test in view. It is a "
                text += "mild leak and a scale that new data will not have. Scale with development rows."
                facts = {**numbers, "genes_scaled": n}
                return [Finding("warning", "scaling_fitted_on_all_rows", text, n, numbers=facts)]
            if share["development rows"] >= 0.5:
                n = int(met["development rows"].sum())
                text = f"{n:,} genes have mean 0 and standard deviation 1 over exactly the development rows ({what})."
                return [Finding("note", "scaled_on_development_rows", text, numbers={**numbers, "genes_scaled": n})]
    return []


def _name(layers: slice) -> str:
    return _LAYERS[2] if layers == slice(0, 2) else _LAYERS[layers.start]


def _test_by_itself(how: str, n: int, n_genes: int) -> Finding:
    text = f"{n:,} of {n_genes:,} genes are {how} over the test rows by themselves and over the development rows by "
    text += "themselves. The test was put on its own scale, with its own truth: differences between development and "
    text += "test are gone, and new data cannot be treated so. Scale both with development rows."
    numbers = {"genes_scaled": n, "genes": n_genes, "method": how.split(" ")[0].replace("-", "_")}
    return Finding("warning", "test_scaled_by_itself", text, n, numbers=numbers)
