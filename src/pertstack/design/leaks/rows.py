"""Leak checks that read the rows once: identical profiles, shared controls.

``RowScan`` keeps two digests and one short sketch per row, and sums and extremes per gene: a few hundred bytes a row,
however many genes there are. Near-duplicates are made of the sketches by ``design/leaks/near.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xxhash

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import space
from pertstack.design.leaks.control_groups import across, control_finding
from pertstack.design.leaks.scaling import ScaleScan, scaling_findings

SKETCH = 128
LEAST_OF_LINE = 10
"""Cell lines with fewer rows are centred by the mean of all rows."""


_PIECE = 4096


def pieces(n: int) -> Iterator[slice]:
    """A few rows at a time: what is computed of them stays small, however many there are."""
    return (slice(a, min(a + _PIECE, n)) for a in range(0, n, _PIECE))


@dataclass
class RowScan:
    """What is kept of the rows. Row numbers are those of the frame."""

    seen: Array  # (n,) bool
    treated_digest: Array  # (n,) 32 hex digits as bytes
    control_digest: Array  # (n,)
    sketch: Array  # (n, SKETCH) float32: random projections of treated - shift
    row_mean: Array  # (n,) float64 mean over genes of treated - shift
    line: Array  # (n,) int: centring class
    development: Array  # (n,) bool
    n_lines: int
    shift: Array | None = None  # (G,) mean of the first chunk: only for precision
    signs: Array | None = None  # (G, SKETCH) float32
    line_sum: Array = field(default_factory=lambda: np.zeros((0, 0)))  # (n_lines, G) sums of treated - shift
    scale: ScaleScan | None = None
    control_is_zero: bool = True
    _turned: bool = False  # sketches were made unit vectors

    @classmethod
    def empty(cls, frame: pd.DataFrame, scratch: Path | None = None) -> RowScan:
        """Nothing seen yet; many sketches lie in a nameless file in ``scratch``."""
        n = len(frame)
        lines = frame["cell_line"].astype(str) if "cell_line" in frame else pd.Series("", index=frame.index)
        counts = lines.value_counts()
        large = sorted(counts.index[counts >= LEAST_OF_LINE])
        line = lines.map({name: i for i, name in enumerate(large)}).fillna(len(large)).astype(int).to_numpy()
        return cls(
            np.zeros(n, dtype=bool),
            np.zeros(n, dtype="S32"),
            np.zeros(n, dtype="S32"),
            sketch=space((n, SKETCH), np.float32, scratch),
            row_mean=np.zeros(n),
            line=line,
            development=(frame["place"] >= 0).to_numpy(),
            n_lines=len(large) + 1,
        )

    def add(self, at: Array, control: Array, treated: Array) -> None:
        """Take some rows in; each row comes once.

        Parameters
        ----------
        at : (n_rows,) row numbers of the frame.
        control, treated : (n_rows, n_genes).
        """
        treated = np.ascontiguousarray(treated, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0
        control = np.ascontiguousarray(control, dtype=np.float32) + np.float32(0)
        if self.shift is None:
            n_genes = treated.shape[1]
            self.shift = treated.mean(axis=0, dtype=np.float64).astype(np.float32)
            draw = np.random.default_rng(20_210_417).integers(0, 2, size=(n_genes, SKETCH), dtype=np.int8)
            self.signs = (2 * draw - 1).astype(np.float32)
            self.line_sum = np.zeros((self.n_lines, n_genes))
            self.scale = ScaleScan(self.development, self.line, self.n_lines)
        assert self.signs is not None and self.scale is not None and not self._turned
        self.treated_digest[at] = [xxhash.xxh3_128_hexdigest(row.data) for row in treated]
        self.control_digest[at] = [xxhash.xxh3_128_hexdigest(row.data) for row in control]
        self.control_is_zero &= not control.any()
        self.scale.add(at, control, treated)
        moved = treated - self.shift
        self.sketch[at] = moved @ self.signs
        self.row_mean[at] = moved.mean(axis=1, dtype=np.float64)
        for line in np.unique(self.line[at]):
            self.line_sum[line] += moved[self.line[at] == line].sum(axis=0, dtype=np.float64)
        self.seen[at] = True

    def centres(self) -> Array:
        """(n_lines, G) what each class is centred by, less ``shift``: its line's mean; the last by that of all rows."""
        count = np.bincount(self.line, minlength=self.n_lines)
        means: Array = self.line_sum / np.maximum(count, 1)[:, None]
        means[-1] = self.line_sum.sum(axis=0) / max(1, len(self.line))
        return means

    def directions(self) -> Array:
        """(n, SKETCH) unit vectors: sketches of the profiles centred per gene and per row; 0 if nothing is left.
        They take the place of the sketches: no row can be added any more."""
        assert self.signs is not None
        if not self._turned:
            centres, total = self.centres(), self.signs.sum(axis=0)
            of_line, mean_of_line = (centres @ self.signs).astype(np.float32), centres.mean(axis=1)
            for some in pieces(len(self.sketch)):
                rows, line = self.sketch[some], self.line[some]
                rows -= of_line[line]
                rows -= np.outer(self.row_mean[some] - mean_of_line[line], total).astype(np.float32)
                length = np.linalg.norm(rows, axis=1, keepdims=True)
                np.divide(rows, length, out=rows, where=length > 0)
                rows[~(length > 0).ravel()] = 0
            self._turned = True
        return self.sketch


def row_findings(scan: RowScan, frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """Identical treated rows, shared control rows, scaling.

    Parameters
    ----------
    scan : of all rows.
    frame : one row per sample, in the scan's order.
    group_by : what is held out whole.
    """
    scaled = [] if scan.scale is None else scaling_findings(scan.scale)
    return [*_identical(scan, frame), *_control_rows(scan, frame), *scaled]


def _identical(scan: RowScan, frame: pd.DataFrame) -> list[Finding]:
    _, which, n = np.unique(scan.treated_digest, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(n[which] > 1)
    repeated = pd.Series(scan.treated_digest[rows].astype(str), index=frame.index[rows])
    if repeated.empty:
        return []
    roles, folds = across(repeated, frame.loc[repeated.index, "place"])
    crossing = sorted({*roles, *folds})
    found: list[Finding] = []
    if crossing:
        members = repeated[repeated.isin(crossing)]
        pairs = [members.index[members == d][:2] for d in crossing[:10]]
        examples = tuple(" = ".join(map(str, pair)) for pair in pairs)
        found.append(
            Finding(
                "error",
                "identical_rows_across",
                f"{len(crossing):,} treated profiles occur more than once on both sides of the plan ({len(members):,} "
                f"samples, {len(roles):,} profiles in development and test): {'; '.join(examples)}. Who saw one has "
                "seen the other. Remove the copies, or group so that they stay together.",
                count=len(crossing),
                examples=examples,
                numbers={"profiles": len(crossing), "samples": len(members), "in_test": len(roles)},
            )
        )
    inside = repeated[~repeated.isin(crossing)]
    if len(inside):
        found.append(
            Finding(
                "note",
                "identical_rows_inside",
                f"{inside.nunique():,} treated profiles occur more than once within one fold or within the test "
                f"({len(inside):,} samples). They count as several samples in every mean.",
                count=int(inside.nunique()),
                examples=tuple(map(str, inside.index[:10])),
                numbers={"samples": len(inside)},
            )
        )
    return found


def _control_rows(scan: RowScan, frame: pd.DataFrame) -> list[Finding]:
    if scan.control_is_zero:
        return [
            Finding(
                "note", "no_controls", "All control values are 0 (differential data): shared controls cannot be seen."
            )
        ]
    if "control_id" in frame and frame["control_id"].notna().all():
        return []  # already reported by name
    names, which = np.unique(scan.control_digest, return_inverse=True)
    digest = pd.Series(names.astype(str).astype(object)[which], index=frame.index)
    roles, _ = across(digest, frame["place"])
    return [control_finding(roles, digest, frame["place"], how="equal values")] if roles else []
