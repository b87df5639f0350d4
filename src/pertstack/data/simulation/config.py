"""The choices that make a simulated world, checked in one place. What they do is in ``data/simulation/world.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pertstack._base.errors import InputError
from pertstack.data.choices import Pairing
from pertstack.data.simulation.molecules import most_molecules


@dataclass(frozen=True)
class SimulationConfig:
    """A LINCS-like study with known truth. The defaults give the picture described in ``docs/simulation.md``.

    Sizes come first, then how controls are paired, then the strengths of what moves a gene. Values are log2
    expression; a standard deviation (``*_sd``) is per gene. Shares of the perturbation's own effect (variance):
    ``observable_share`` follows from the parts of its molecule, ``network_share`` spreads from its target genes, the
    rest nothing observable explains.
    """

    samples: int = 3000
    genes: int = 400
    cell_lines: int = 6
    perturbations: int = 200
    replicates: int = 3  # profiles of the same perturbation, cell line, dose and time, on sister plates
    seed: int = 0
    pairing: Pairing = "random"  # which vehicle well is the control of a sample
    controls_per_plate: int = 6
    wells_per_plate: int = 60
    programmes: int = 20
    programme_share: float = 0.2  # share of genes a programme touches
    landmark_share: float = 0.3  # the other genes' noise is partly inferred from landmarks
    observable_share: float = 0.7
    network_share: float = 0.1
    effect_sd: float = 0.4  # a perturbation's own effect, at full dose
    common_sd: float = 0.2  # what every perturbation does (stress, vehicle)
    strength_spread: float = 0.5  # log-normal spread of strengths between perturbations
    cell_modifier: float = 0.5  # relative change of a programme's response between cell lines
    basal_sd: float = 2.0  # between genes
    line_sd: float = 1.0  # between cell lines
    plate_sd: float = 0.15
    well_sd: float = 0.35
    unbalance: float = 1.0  # 0 = equal shares of cell lines and perturbations; 1 = as uneven as LINCS
    design: str | None = None  # parquet with cell_line and smiles (one row per condition), instead of made-up molecules
    basal: str | None = None  # h5ad with untreated profiles of cell lines, instead of made-up ones

    def __post_init__(self) -> None:
        for name, least in (("samples", 4), ("genes", 10), ("cell_lines", 1), ("perturbations", 2), ("replicates", 1)):
            if int(getattr(self, name)) < least:
                raise InputError(f"{name} = {getattr(self, name)} is too small to simulate: give at least {least}.")
        if self.pairing not in get_args(Pairing):
            raise InputError(f"pairing {self.pairing!r} is not known. Use one of {', '.join(get_args(Pairing))}.")
        if self.design is None and self.perturbations > most_molecules():
            raise InputError(
                f"At most {most_molecules():,} different molecules can be made up; {self.perturbations:,} were asked "
                f"for."
            )
        if self.design is None and self.samples < self.perturbations:
            raise InputError(
                f"{self.samples:,} samples cannot show {self.perturbations:,} perturbations even once. Ask for more "
                f"samples or fewer perturbations."
            )
        if not 0 <= self.observable_share + self.network_share <= 1:
            raise InputError(
                "observable_share + network_share must lie between 0 and 1: they are shares of one variance."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as written into ``uns['simulation']``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
