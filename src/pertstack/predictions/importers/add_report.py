"""What came in with one addition, what did not, and what must be said of rows the model was fitted on.

Put together from committed records; nothing is checked or refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.design.blocks import Block
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore


@dataclass(frozen=True, repr=False)
class AddReport:
    """What came in and what did not."""

    name: str
    committed: tuple[Record, ...]
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)  # block id -> samples recorded as missing
    missing_genes: tuple[str, ...] = ()
    not_covered: tuple[Block, ...] = ()  # blocks without any row in the files: they stay 'missing'
    findings: tuple[Finding, ...] = ()

    @property
    def n_samples(self) -> int:
        """Samples predicted."""
        return sum(r.grid.n - len(r.missing_samples) for r in self.committed)

    def __str__(self) -> str:
        gone = sum(len(names) for names in self.missing.values())
        said = [f"{self.name}: {self.n_samples:,} samples in {len(self.committed)} blocks added"]
        said += [f"{gone:,} samples recorded as not predicted"] * bool(gone)
        said += [f"{len(self.missing_genes):,} genes recorded as not predicted"] * bool(self.missing_genes)
        said += [f"{len(self.not_covered)} blocks without predictions"] * bool(self.not_covered)
        return "; ".join(said)

    __repr__ = __str__


def report_on(
    store: PredictionStore,
    name: str,
    records: tuple[Record, ...],
    *,
    gone: Mapping[Block, tuple[str, ...]],
    missing_genes: list[str],
    findings: list[Finding],
) -> AddReport:
    """What came in, what did not, and what is to be said of it.

    Parameters
    ----------
    store : as it is after the addition.
    name : of the model.
    records : of the blocks that were written.
    gone : block -> samples that are recorded as not predicted.
    missing_genes : recorded as not predicted.
    findings : of the checks before.
    """
    written = {r.block for r in records}
    uncovered = tuple(b for b in store.blocks() if b not in written and store.status(b, name) != "committed")
    said = [*findings, *_in_sample(records, store), *([_uncovered(name, uncovered)] if uncovered else [])]
    lost = {b.id: tuple(s) for b, s in sorted(gone.items()) if s}
    return AddReport(
        name, records, lost, missing_genes=tuple(missing_genes), not_covered=uncovered, findings=tuple(said)
    )


def _in_sample(records: tuple[Record, ...], store: PredictionStore) -> list[Finding]:
    """Rows the model was fitted on are kept, but never stacked; say how many."""
    seen, examples, unknown, near = 0, [], False, 0
    for record in records:
        assert record.fitted_on is not None
        ids = store.sample_ids(record.block)
        saw = record.fitted_on.saw(record.block, ids)
        if saw is None:
            unknown = True
            continue
        listed = np.fromiter((s not in record.fitted_on.near for s in ids), dtype=bool, count=len(ids))
        near += int((saw & ~listed).sum())
        saw = saw & listed
        seen += int(saw.sum())
        examples += [ids[i] for i in np.flatnonzero(saw)[:10]]
    found = []
    if seen:
        text = (
            f"{records[0].model}: {seen:,} rows were predicted by a model that was fitted on them. They are kept, but "
            f"never stacked or scored."
        )
        found.append(
            Finding(
                "warning", "in_sample_rows", text, count=seen, examples=tuple(examples[:10]), where=records[0].model
            )
        )
    if near:
        text = (
            f"{records[0].model}: {near:,} rows were predicted by a model that was fitted on others of their group, or "
            f"on what shares a part with them if the study keeps parts apart. This study asks how a model predicts "
            f"groups that it never saw, so these rows are kept, but never stacked or scored."
        )
        found.append(Finding("warning", "group_was_fitted_on", text, count=near, where=records[0].model))
    if unknown:
        text = (
            f"{records[0].model}: its training samples are unknown. It is kept as unverified and takes "
            f"part only if that is accepted explicitly."
        )
        found.append(Finding("warning", "unverified", text, where=records[0].model))
    return found


def _uncovered(name: str, blocks: tuple[Block, ...]) -> Finding:
    text = (
        f"{name}: no predictions yet for {len(blocks)} blocks: {first_few(b.id for b in blocks)}. Add them under the "
        f"same name, or the model takes part only where it is there."
    )
    return Finding(
        "warning", "blocks_not_covered", text, count=len(blocks), examples=tuple(b.id for b in blocks[:10]), where=name
    )
