"""Who is measured where: conditions, replicates, plates and vehicle wells of a simulated study.

Conditions (perturbation, cell line, dose, time) are uneven as in LINCS: few cell lines and perturbations have most of
them. Replicates lie on sister plates with the same layout (X1, X2, ...). Profiles are handled by
``data/simulation/world.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack.data.simulation.config import SimulationConfig

DOSES = (10.0, 3.33, 1.11, 0.37)  # micromolar
DOSE_SHARES = (0.55, 0.2, 0.15, 0.1)
TIMES = (24.0, 6.0)
TIME_SHARES = (0.6, 0.4)

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Layout:
    """One row per sample, in the order of cell lines and plates."""

    perturbation: Ints
    cell_line: Ints
    dose: np.ndarray[Any, np.dtype[np.float64]]  # micromolar
    time_h: np.ndarray[Any, np.dtype[np.float64]]
    replicate: Ints
    plate: Ints  # position in plate_names
    plate_names: tuple[str, ...]
    plate_cell_line: Ints  # (n_plates,)
    control_well: Ints  # (n_samples,) vehicle well plate * controls_per_plate + i; for matched pairing the plate

    @property
    def n_samples(self) -> int:
        return len(self.perturbation)


def _uneven_shares(n: int, unbalance: float, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Positive shares that sum to 1; equal at ``unbalance`` 0, gamma-distributed as in LINCS at 1."""
    if unbalance <= 0:
        return np.full(n, 1 / n)
    weights = rng.gamma(1 / unbalance, size=n) + 0.1 / n
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def make_layout(config: SimulationConfig, rng: np.random.Generator, line_names: tuple[str, ...]) -> Layout:
    """Draw a design of exactly ``config.samples`` samples in which every perturbation occurs.

    Parameters
    ----------
    config : sizes, replicates, imbalance.
    rng : draws conditions, then plates.
    line_names : by which plates are named.
    """
    conditions = _conditions(config, rng, len(line_names))
    return lay_out(conditions, config, rng, line_names=line_names)


def _conditions(config: SimulationConfig, rng: np.random.Generator, n_lines: int) -> pd.DataFrame:
    wanted = -(-config.samples // config.replicates)
    line_share = _uneven_shares(n_lines, config.unbalance / 2, rng)
    pert_share = _uneven_shares(config.perturbations, config.unbalance / 2, rng)

    def draw(perturbation: Ints) -> pd.DataFrame:
        n = len(perturbation)
        return pd.DataFrame(
            {
                "perturbation": perturbation,
                "cell_line": rng.choice(n_lines, size=n, p=line_share),
                "dose": rng.choice(DOSES, size=n, p=DOSE_SHARES),
                "time_h": rng.choice(TIMES, size=n, p=TIME_SHARES),
            }
        )

    table = draw(rng.permutation(config.perturbations)[:wanted])
    for _ in range(200):
        if len(table) >= wanted:
            break
        more = draw(rng.choice(config.perturbations, size=wanted - len(table), p=pert_share))
        table = pd.concat([table, more], ignore_index=True).drop_duplicates(ignore_index=True)
    return table


def lay_out(
    conditions: pd.DataFrame, config: SimulationConfig, rng: np.random.Generator, *, line_names: tuple[str, ...]
) -> Layout:
    """Replicates and plates for given conditions.

    Parameters
    ----------
    conditions : columns perturbation and cell_line (positions), dose, time_h; one row each.
    config : samples, wells per plate, pairing.
    rng : draws the order of conditions and the control wells.
    line_names : by which plates are named.
    """
    table = conditions.iloc[rng.permutation(len(conditions))].reset_index(drop=True)
    n_per_condition = _replicates_per_condition(len(table), config)
    order = table.groupby(["cell_line", "time_h"], sort=True).cumcount().to_numpy()
    table["map"] = order // config.wells_per_plate
    rows = table.loc[np.repeat(np.arange(len(table)), n_per_condition)].reset_index(drop=True)
    rows["replicate"] = np.concatenate([np.arange(1, n + 1) for n in n_per_condition]) if len(rows) else 0
    rows = rows.sort_values(["cell_line", "time_h", "map", "replicate"], kind="stable", ignore_index=True)
    keys = list(zip(rows["cell_line"], rows["time_h"], rows["map"], rows["replicate"], strict=True))
    plates = sorted(set(keys))
    at = {key: i for i, key in enumerate(plates)}
    plate = np.array([at[key] for key in keys], dtype=np.int64)
    plate_line = np.array([key[0] for key in plates], dtype=np.int64)
    names = tuple(f"{line_names[c]}_{t:g}H_P{m + 1:03d}_X{r}" for c, t, m, r in plates)
    return Layout(
        perturbation=rows["perturbation"].to_numpy(np.int64),
        cell_line=rows["cell_line"].to_numpy(np.int64),
        dose=rows["dose"].to_numpy(np.float64),
        time_h=rows["time_h"].to_numpy(np.float64),
        replicate=rows["replicate"].to_numpy(np.int64),
        plate=plate,
        plate_names=names,
        plate_cell_line=plate_line,
        control_well=_pair(plate, plate_line, config, rng),
    )


def _replicates_per_condition(n_conditions: int, config: SimulationConfig) -> Ints:
    """Replicates of each condition, summing to ``config.samples``; the first ones get one more if need be."""
    base, rest = divmod(config.samples, n_conditions)
    return np.array([base + (i < rest) for i in range(n_conditions)], dtype=np.int64)


def _pair(plate: Ints, plate_line: Ints, config: SimulationConfig, rng: np.random.Generator) -> Ints:
    """The vehicle well of every sample; for own and matched pairing its plate (wells are private, or averaged)."""
    if config.pairing != "random":
        return plate
    chosen = np.empty(len(plate), dtype=np.int64)
    for line in np.unique(plate_line):
        plates = np.flatnonzero(plate_line == line)
        members = np.flatnonzero(plate_line[plate] == line)
        wells = (plates[:, None] * config.controls_per_plate + np.arange(config.controls_per_plate)).ravel()
        chosen[members] = rng.choice(wells, size=len(members))
    return chosen
