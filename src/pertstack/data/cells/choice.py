"""What a user may say about cells, and what their values are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pertstack._base.errors import InputError, unknown_name
from pertstack.data.choices import Normalise

Kind = Literal["counts", "log1p_counts", "log2_counts", "log", "linear", "fractions", "mixed", "other"]
"""What the values of cells are: whole numbers, log1p or log2 of whole numbers, other logarithms, expression on a linear
scale, counts that are not whole, some of one and some of another, or none of these."""
IN_WORDS: dict[str, str] = {
    "cp10k": "log1p of summed counts per 10,000",
    "5e4": "log1p of summed counts per 50,000",
    "mean_log1p": "mean of log1p values",
    "sum": "sum of counts",
}


@dataclass(frozen=True)
class CellChoice:
    """How cells become samples. ``normalise`` None is decided by the values: cp10k for counts, mean_log1p for logs."""

    by: tuple[str, ...] = ()  # columns that split samples further: guide, dose, donor, ...
    normalise: Normalise | None = None
    min_cells: int = 10
    as_samples: bool = False  # every row is a sample, whatever it looks like

    def __post_init__(self) -> None:
        if self.normalise is not None and self.normalise not in get_args(Normalise):
            raise unknown_name("--normalise", self.normalise, get_args(Normalise))
        if self.min_cells < 1:
            raise InputError(f"--min-cells is {self.min_cells}; a sample has at least one cell.")
        if self.as_samples and self.asked:
            raise InputError("--cells-as-samples makes every row a sample; --by and --normalise are for summed cells.")

    @property
    def asked(self) -> bool:
        """Whether the user spoke of cells, so that they are summed whatever the rows look like."""
        return bool(self.by) or self.normalise is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values for study.toml; empty if nothing was said."""
        facts: dict[str, Any] = {"by": list(self.by), "min_cells": self.min_cells, "as_samples": self.as_samples}
        return facts | ({} if self.normalise is None else {"normalise": self.normalise})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CellChoice:
        return cls(tuple(value["by"]), value.get("normalise"), value["min_cells"], value["as_samples"])
