"""The matched reference: mean control of a sample's plate without the sample's own control.

The own control carries its noise into truth and prediction alike; the pooled one leaves what is particular to a plate
in both. A mean over the *other* controls of the plate takes the plate away and shares no well with the sample. What
else may be subtracted is handled by ``references.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xxhash

from pertstack._base.arrays import Float64
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource

Group = tuple[str, str]  # cell line, plate or control group
LEAST_OTHERS = 4
"""Fewer other controls than this are no mean: their own noise would be shared by truth and prediction."""
GROUPINGS = ("plate", "control_id")
MOST_BYTES = 512 * 10**6
"""Sums of more plates than fit in this are not collected: they would be held in every later step."""


@dataclass(frozen=True)
class PlateControls:
    """Distinct controls of one plate in one cell line: their sum, and which they are (digests of float32 rows)."""

    total: Float64  # (n_genes,)
    members: frozenset[str]


@dataclass(frozen=True)
class MatchedControls:
    """Controls by cell line and plate; ``by`` says what a plate was told by, None if nothing tells it.

    Equal control rows count once, so that a well used for fifty samples weighs as much as one used for two.
    """

    by: str | None = None
    plates: Mapping[Group, PlateControls] = field(default_factory=dict)
    too_many: str = ""  # why nothing was collected although rows say on which plate they were

    @property
    def reason(self) -> str:
        """Why no development row can have a matched control; empty if some can."""
        if self.too_many:
            return self.too_many
        if self.by is None:
            return "no row says on which plate (plate) or in which control group (control_id) it was measured"
        most = max((len(p.members) for p in self.plates.values()), default=0)
        if most <= LEAST_OTHERS:
            return (
                f"no {self.by.replace('_id', ' group')} has more than {most} distinct control"
                f"{'' if most == 1 else 's'}, and {LEAST_OTHERS} besides the sample's own are needed"
            )
        return ""

    def profiles(self, obs: pd.DataFrame, cell_line: str, control: Float32) -> Float64:
        """Mean of the other controls of each row's plate, (n, n_genes); NaN rows if it is not known, or is of fewer
        than ``LEAST_OTHERS``.

        Parameters
        ----------
        obs : (n rows), with the plate.
        cell_line : of these rows.
        control : (n, n_genes), their own controls, which are left out of their means.
        """
        answer = np.full(control.shape, np.nan)
        if self.by is None:
            return answer
        for i, group in enumerate(_groups(obs, cell_line, self.by)):
            plate = self.plates.get(group) if group is not None else None
            if plate is None:
                continue
            mine = _digest(control[i]) in plate.members
            n = len(plate.members) - mine
            if n >= LEAST_OTHERS:
                answer[i] = (plate.total - control[i] * np.float64(mine)) / n
        return answer

    def to_arrays(self) -> dict[str, Any]:
        """Plain arrays for one npz file; ``from_arrays`` reads them back."""
        groups = sorted(self.plates)
        members = [(i, d) for i, g in enumerate(groups) for d in sorted(self.plates[g].members)]
        return {
            "matched_by": np.str_(self.by or ""),
            **({"matched_too_many": np.str_(self.too_many)} if self.too_many else {}),
            "matched_lines": np.asarray([g[0] for g in groups], dtype=str),
            "matched_plates": np.asarray([g[1] for g in groups], dtype=str),
            "matched_total": np.stack([self.plates[g].total for g in groups]) if groups else np.zeros((0, 0)),
            "matched_of": np.asarray([i for i, _ in members], dtype=np.int64),
            "matched_members": np.asarray([d for _, d in members], dtype=str),
        }

    @classmethod
    def from_arrays(cls, z: Mapping[str, Any]) -> MatchedControls:
        """What ``to_arrays`` gave. Files written before there was a matched reference know no plate."""
        if "matched_by" not in z or not str(z["matched_by"]):
            return cls(too_many=str(z["matched_too_many"]) if "matched_too_many" in z else "")
        lines, plates, total = z["matched_lines"].tolist(), z["matched_plates"].tolist(), z["matched_total"]
        members: list[set[str]] = [set() for _ in lines]
        for i, digest in zip(z["matched_of"].tolist(), z["matched_members"].tolist(), strict=True):
            members[i].add(digest)
        groups = zip(lines, plates, strict=True)
        known = {g: PlateControls(total[i], frozenset(members[i])) for i, g in enumerate(groups)}
        return cls(str(z["matched_by"]), known)


class PlateGather:
    """Distinct controls of plates while rows pass by; those of ``known`` stay as they are. Memory: a profile each."""

    def __init__(self, known: MatchedControls) -> None:
        self.known = known
        self.totals: dict[Group, Float64] = {}
        self.members: dict[Group, set[str]] = {}

    def wants(self, obs: pd.DataFrame, cell_line: str) -> bool:
        """Whether some row is on a plate that is not known yet."""
        by = self.known.by
        return by is not None and any(g is not None and g not in self.known.plates for g in _groups(obs, cell_line, by))

    def add(self, obs: pd.DataFrame, cell_line: str, control: Float32) -> None:
        """Take the controls of some rows in; a control that several rows share counts once.

        Parameters
        ----------
        obs : (n rows), with the plate.
        cell_line : of these rows.
        control : (n, n_genes).
        """
        if self.known.by is None:
            return
        for row, group in zip(control, _groups(obs, cell_line, self.known.by), strict=True):
            if group is None or group in self.known.plates:
                continue
            digest = _digest(row)
            if digest not in self.members.setdefault(group, set()):
                self.members[group].add(digest)
                self.totals[group] = self.totals.get(group, np.zeros(len(row))) + row.astype(np.float64)

    def finish(self) -> MatchedControls:
        """Plates known before and plates met."""
        new = {g: PlateControls(self.totals[g], frozenset(self.members[g])) for g in self.totals}
        return replace(self.known, plates={**self.known.plates, **new})


def grouping_of(source: BlockSource, blocks: Iterable[Block]) -> MatchedControls:
    """No plate yet, and how plates are recognised: ``plate`` if any row has one, else ``control_id``, else nothing.

    Nothing too if sums of all plates would need more than ``MOST_BYTES``, as with a control group for every sample.
    """
    tables = [(block.cell_line, source.obs(block)) for block in blocks]
    by = next((c for c in GROUPINGS if any(c in t and t[c].notna().any() for _, t in tables)), None)
    if by is None:
        return MatchedControls()
    n = len({(line, str(name)) for line, t in tables if by in t for name in t[by].dropna().unique()})
    if n * len(source.gene_names) * 8 <= MOST_BYTES:
        return MatchedControls(by)
    return MatchedControls(
        too_many=f"{n:,} groups of controls (by {by}) x {len(source.gene_names):,} genes are more than is held in "
        f"memory ({MOST_BYTES / 1e6:.0f} MB)"
    )


def _groups(obs: pd.DataFrame, cell_line: str, by: str) -> list[Group | None]:
    """Cell line and plate of each row, None if it is not known."""
    if by not in obs:
        return [None] * len(obs)
    return [None if pd.isna(x) else (cell_line, str(x)) for x in obs[by]]


_MOST_MARKS = 4096
_digests: dict[bytes, str] = {}


def _digest(row: Float32) -> str:
    """Digest of a control. Samples of a plate share theirs, so a row that was met is told by its quick mark."""
    raw = np.ascontiguousarray(row, dtype=np.float32).tobytes()
    mark = xxhash.xxh3_128_digest(raw)
    known = _digests.get(mark)
    if known is None:
        if len(_digests) >= _MOST_MARKS:
            _digests.clear()
        known = _digests[mark] = hashlib.blake2b(raw, digest_size=12).hexdigest()
    return known
