"""What a check found: shared by validation of data, leak checks, probes, audit and the checks of a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "note", "passed", "not applicable"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Gravest first. A check that looked and found nothing *passed*; one that could not look is *not applicable*."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check found. ``code`` is stable and short, for scripts; ``message`` is for people.

    Errors stop the work; warnings are carried to the report; notes are for completeness.
    """

    severity: Severity
    code: str  # e.g. "group_across_folds"
    message: str  # what, which values, why it matters, the mend
    count: int = 1
    examples: tuple[str, ...] = ()  # the first ten offenders
    where: str = ""  # file, block, gene or model
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """The finding that ``to_json`` wrote."""
        return cls(
            value["severity"],
            value["code"],
            value["message"],
            count=value["count"],
            examples=tuple(value["examples"]),
            where=value["where"],
            numbers=dict(value["numbers"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite, which JSON does not have, are null."""
        numbers = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in self.numbers.items()}
        return {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "count": self.count,
            "examples": list(self.examples),
            "where": self.where,
            "numbers": numbers,
        }


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity; those of one severity stay in their order."""
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The gravest severity among findings, or None when there are none."""
    return next((f.severity for f in gravest_first(findings)), None)
