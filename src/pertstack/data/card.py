"""The preprocessing card: on what scale values are, against which controls, over which genes.

It travels with data, predictions and shipped ensembles; ``compare`` says in words what differs, and the caller decides
what is refused (pitfall 11). It is filled in by ``data/checks/validate.py``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pertstack._base.errors import InputError
from pertstack._base.files import read_json, write_json

Scale = Literal["treated", "delta"]
Transform = Literal["log", "counts", "linear", "min-max", "differences", "unknown"]
CardPairing = Literal["own", "matched", "pooled", "random", "none", "unknown"]


@dataclass(frozen=True)
class Card:
    """What must agree before values from two places may be put side by side.

    ``pairing`` says how controls were given to samples, judged from the data: *own* (no control is shared, and each
    tells more about its sample than other controls of the cell line do), *matched* (one control per plate), *pooled*
    (one per cell line, or per cell line and time), *random* (controls shared within a cell line across plates),
    *none* (differential values), else *unknown*.
    """

    n_samples: int
    n_genes: int
    gene_digest: str  # of the names in order
    gene_set_digest: str  # of the sorted names
    scale: Scale
    transform: Transform  # judged from the values
    value_min: float
    value_max: float
    value_mean: float
    value_sd: float  # over all samples and genes
    control_reference: str  # which layer or wells
    pairing: CardPairing
    n_controls: int  # distinct control profiles
    pairing_excess: float | None = (
        None  # correlation of a control with its own sample above that with others; None: not judged
    )
    made: str = ""  # how samples were made of cells; empty if they were not
    format: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Card:
        """Inverse of ``to_json``; unknown fields of later versions are refused rather than ignored."""
        names = {f.name for f in fields(cls)}
        if value.get("format") != 1 or not names >= set(value):
            raise InputError(
                f"This preprocessing card has format {value.get('format')!r} and fields {sorted(set(value) - names)} "
                f"that this version of pertstack does not know. Use the version that wrote it."
            )
        return cls(**value)

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Card:
        return cls.from_json(read_json(path))

    def compare(self, other: Card, *, same_controls: bool = True) -> list[str]:
        """What makes ``other`` incomparable with this card, one sentence each; empty when they agree.

        Genes, scale, transform, value range and (unless ``same_controls`` is False) the way controls were paired are
        compared; sample counts are not.
        """
        found = []
        if self.gene_set_digest != other.gene_set_digest:
            found.append(
                f"genes differ: {self.n_genes:,} here, {other.n_genes:,} there, and the names are not the same."
            )
        elif self.gene_digest != other.gene_digest:
            found.append("genes are the same but in another order; match them by name.")
        if self.scale != other.scale:
            found.append(f"scale differs: {self.scale} here, {other.scale} there.")
        if self.transform != other.transform:
            found.append(f"transform differs: {self.transform} here, {other.transform} there.")
        width = max(self.value_max - self.value_min, 1e-12)
        if other.value_min < self.value_min - 0.25 * width or other.value_max > self.value_max + 0.25 * width:
            found.append(
                f"values run from {other.value_min:.3g} to {other.value_max:.3g} there, far outside "
                f"{self.value_min:.3g} to {self.value_max:.3g} here."
            )
        ratio = other.value_sd / max(self.value_sd, 1e-12)
        if not 0.5 <= ratio <= 2:
            found.append(f"spread differs: standard deviation {self.value_sd:.3g} here, {other.value_sd:.3g} there.")
        if same_controls and self.pairing != other.pairing:
            found.append(f"controls were paired differently: {self.pairing} here, {other.pairing} there.")
        return found
