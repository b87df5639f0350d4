"""Blocks: the unit in which predictions are read, written and summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from pertstack._base.errors import InputError
from pertstack._base.names import undotted

Role = Literal["development", "test", "support"]
SUPPORT = -1
"""What stands for a fold if rows are support: always fitted on, never scored."""


@dataclass(frozen=True, slots=True)
class Block:
    """One cell line × fold, × held-out test (``fold`` None) or × support (``fold`` SUPPORT: always fitted on, never
    scored). A segment is a later batch of samples."""

    cell_line: str
    fold: int | None
    segment: int = 0

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold < SUPPORT:
            raise InputError(
                f"fold is {self.fold}; folds count from 0. Number the folds 0, 1, 2, ...; the test has fold None."
            )

    @property
    def role(self) -> Role:
        if self.fold == SUPPORT:
            return "support"
        return "test" if self.fold is None else "development"

    @property
    def id(self) -> str:
        """Name on disk, as ``A375.f0.s000`` or ``A375.test.s000``; odd characters of the cell line are percent-encoded.

        >>> Block("HT 29/x.y", 2).id
        'HT%2029%2Fx%2Ey.f2.s000'
        """
        part = f"f{self.fold}" if self.role == "development" else self.role
        return f"{undotted(self.cell_line)}.{part}.s{self.segment:03d}"

    @classmethod
    def from_id(cls, text: str) -> Block:
        line, part, segment = text.split(".")
        place = {"test": None, "support": SUPPORT}.get(part, part)
        return cls(unquote(line), int(place[1:]) if isinstance(place, str) else place, int(segment[1:]))

    @property
    def order(self) -> tuple[bool, int, str, int]:
        """Sort key: support, development, test; by fold, then cell line, then segment."""
        return (self.fold is None, -1 if self.fold is None else self.fold, self.cell_line, self.segment)

    def __lt__(self, other: Block) -> bool:
        return self.order < other.order

    def __str__(self) -> str:
        return self.id
