"""Does the fold plan keep apart what it promises to keep apart? Plan against data, before anything is fitted.

``check_plan`` puts together what the metadata say (``metadata.py``, ``structures.py``), what the rows say
(``rows.py``, ``scaling.py``, ``near.py``) and whether folds are large enough. Errors stop a study,
warnings go to the report, notes complete the picture. Whether a *model* saw what it should not is handled by
``verdict/probes/of_noise.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding, gravest_first
from pertstack.data.labels import one_spelling
from pertstack.design.blocks import SUPPORT
from pertstack.design.leaks.metadata import metadata_findings
from pertstack.design.leaks.near import near_duplicates
from pertstack.design.leaks.rows import RowScan, row_findings
from pertstack.design.leaks.structures import structure_findings
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.groups import check_sample_ids, question
from pertstack.design.plan.rows import places_of

NamedRows = tuple[Iterable[str], Array, Array]
Chunks = Iterable[NamedRows] | Callable[[], Iterable[NamedRows]]


def check_plan(
    plan: FoldPlan,
    obs: pd.DataFrame,
    chunks: Chunks | None = None,
    *,
    near: float = 0.999,
    memory: int = 256 * 10**6,
    scratch: Path | None = None,
) -> list[Finding]:
    """What in the data crosses the borders of the plan; gravest first.

    Parameters
    ----------
    plan : FoldPlan
    obs : DataFrame
        Metadata, index = sample ids; ``perturbation`` and ``cell_line``, and ``smiles``, ``plate``, ``control_id``,
        ``log10_dose``, ``time_h`` if they are known.
    chunks : iterable of (sample ids, control, treated), or a function that gives one
        Rows (n, n_genes) in any cut and order. With a function the rows are read a second time if near-duplicates
        are suspected, and their correlation is exact; with an iterable it is estimated from sketches and called so.
        None leaves out every check of rows, and a note says so.
    near : float
        Correlation of centred treated profiles above which two rows count as near-duplicates.
    memory : int
        Bytes that the second reading may hold.
    scratch : Path or None
        Folder for 512 bytes a row if there are many rows; None keeps them in memory.

    Raises
    ------
    InputError
        Rows or metadata do not name the samples of the plan.
    """
    frame = placed(plan, obs)
    findings = metadata_findings(frame, plan.group_by, plan.n_folds) + structure_findings(frame, plan.group_by)
    if chunks is None:
        findings.append(
            Finding(
                "note",
                "rows_not_checked",
                "Identical rows, shared controls and scaling were not checked: no rows given.",
            )
        )
    else:
        findings += _row_checks(frame, plan.group_by, chunks, near=near, memory=memory, scratch=scratch)
    asked = [_with_question(f, plan.group_by) for f in findings]
    return gravest_first(asked)


def _with_question(finding: Finding, group_by: str) -> Finding:
    """A finding on what crosses the plan says which question the plan asks: that decides whether it matters."""
    if not any(part in finding.code for part in ("_across", "cell_line_", "_changed")):
        return finding
    asks = question(group_by)
    said = f"{finding.message} (Grouped by {group_by}, this plan asks about {asks}.)"
    return replace(finding, message=said, numbers={**finding.numbers, "question": asks})


def placed(plan: FoldPlan, obs: pd.DataFrame) -> pd.DataFrame:
    """Metadata in plan order with the plan's ``group`` and ``place``: fold number, -1 for the test, ``n_folds`` for
    support."""
    check_sample_ids(obs)
    ids = pd.Index(plan.table["sample_id"])
    lost = ids[~ids.isin(obs.index)]
    if len(lost):
        raise InputError(
            f"{len(lost):,} samples of the plan have no metadata: {first_few(lost)}. A fold plan only grows; bring "
            "them back."
        )
    frame: pd.DataFrame = obs.reindex(ids)
    if "perturbation" in frame:
        names = frame["perturbation"].astype(object)
        frame["perturbation"] = names.replace(one_spelling(names.dropna().unique()))
    frame["group"] = plan.table["group"].to_numpy()
    # support is fitted on like a fold that is never held out, so it counts as one more fold: what is in it and in a
    # fold or the test crosses the plan
    places = [-1 if p is None else plan.n_folds if p == SUPPORT else p for p in places_of(plan.table)]
    frame["place"] = np.array(places, dtype=np.int64)
    return frame


def _row_checks(
    frame: pd.DataFrame, group_by: str, chunks: Chunks, *, near: float, memory: int, scratch: Path | None
) -> list[Finding]:
    """Checks that read the rows."""

    def again() -> Iterator[tuple[Array, Array, Array]]:
        for ids, control, treated in chunks() if callable(chunks) else chunks:
            names = pd.Index([str(s) for s in ids])
            at = frame.index.get_indexer(names)
            if (at < 0).any():
                raise InputError(
                    f"{int((at < 0).sum()):,} rows belong to samples that are not in the plan: "
                    f"{first_few(names[at < 0])}. Extend the plan with them first."
                )
            yield np.asarray(at, dtype=np.int64), np.asarray(control), np.asarray(treated)

    scan = RowScan.empty(frame, scratch)
    for at, control, treated in again():
        scan.add(at, control, treated)
    if not scan.seen.all():
        lost = frame.index[~scan.seen]
        raise InputError(f"{len(lost):,} samples of the plan have no rows: {first_few(lost)}.")
    findings = row_findings(scan, frame, group_by)
    return findings + near_duplicates(scan, frame, near, again=again if callable(chunks) else None, memory=memory)
