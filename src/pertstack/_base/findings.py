"""What a check found: shared by data validation, leak checks, audit and the verdict's checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


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
            value["count"],
            tuple(value["examples"]),
            value["where"],
            dict(value["numbers"]),
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


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The gravest severity among findings, or None when there are none."""
    order: tuple[Severity, ...] = ("error", "warning", "note")
    present = {f.severity for f in findings}
    return next((s for s in order if s in present), None)
