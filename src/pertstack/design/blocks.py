"""Blocks: the unit in which predictions are read, written and summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from pertstack._base.errors import InputError

Role = Literal["development", "test"]


@dataclass(frozen=True, slots=True)
class Block:
    """One cell line × fold, or one cell line × held-out test (``fold`` None). A segment is a later batch of samples."""

    cell_line: str
    fold: int | None
    segment: int = 0

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold < 0:
            raise InputError(
                f"fold is {self.fold}; folds count from 0. Number the folds 0, 1, 2, ...; the test has fold None."
            )

    @property
    def role(self) -> Role:
        return "test" if self.fold is None else "development"

    @property
    def id(self) -> str:
        """Name on disk, as ``A375.f0.s000`` or ``A375.test.s000``; odd characters of the cell line are percent-encoded.

        >>> Block("HT 29/x.y", 2).id
        'HT%2029%2Fx%2Ey.f2.s000'
        """
        line = quote(self.cell_line, safe="-_").replace(".", "%2E")
        return f"{line}.{'test' if self.fold is None else f'f{self.fold}'}.s{self.segment:03d}"

    @classmethod
    def from_id(cls, text: str) -> Block:
        line, part, segment = text.split(".")
        return cls(unquote(line), None if part == "test" else int(part[1:]), int(segment[1:]))

    @property
    def order(self) -> tuple[bool, int, str, int]:
        """Sort key: development before test, by fold, then cell line, then segment."""
        return (self.fold is None, -1 if self.fold is None else self.fold, self.cell_line, self.segment)

    def __lt__(self, other: Block) -> bool:
        return self.order < other.order

    def __str__(self) -> str:
        return self.id
