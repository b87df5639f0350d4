"""Leak probes of every model as one small table: a line a model, a column a probe. Accusations keep their words.

Findings come from ``verdict/``; a code is the name of a probe and an outcome, as in ``too_good_passed``, or an
accusation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pertstack._base.findings import Finding
from pertstack.write.advice import probe_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one probe went for one model: a word or two for the cell, the whole sentence for who points at it."""

    word: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class ProbeTable:
    """Models and probes in the order in which they were met; ``cells[model][probe]`` if a probe was run."""

    probes: tuple[str, ...]
    cells: dict[str, dict[str, Outcome]]
    accused: tuple[Finding, ...]


def probe_table(findings: Sequence[Finding]) -> ProbeTable:
    """The table of all findings that name a model; none is left out, whatever its code."""
    cells: dict[str, dict[str, Outcome]] = {}
    probes: dict[str, None] = {}
    for finding in findings:
        probe, word = probe_of(finding.code)
        probes[probe] = None
        cells.setdefault(finding.where, {})[probe] = Outcome(
            word or finding.severity, finding.severity, finding.message
        )
    return ProbeTable(tuple(probes), cells, tuple(f for f in findings if f.severity != "note"))
