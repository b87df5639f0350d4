"""A small known world for the tests of ``fit/``: latent programmes, effects driven by features, several cell lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from pertstack.data.rows import FitRows, PredictRows
from pertstack.data.side.side import GeneGraph, PerturbationFeatures, SideInformation


def make_rows(
    *,
    n_perturbations: int = 24,
    replicates: int = 4,
    n_genes: int = 30,
    cell_lines: tuple[str, ...] = ("A", "B"),
    kinds: tuple[str, ...] = ("structure",),
    seed: int = 0,
    noise: float = 0.15,
    control_noise: float = 0.5,
    zero_control: bool = False,
    unknown: tuple[str, ...] = (),
) -> FitRows:
    """Rows of perturbations d00, d01, ... x replicates; effects are linear in the bits, genes or targets behind it."""
    rng = np.random.default_rng(seed)
    names = [f"d{i:02d}" for i in range(n_perturbations)]
    genes = np.array([f"g{i:03d}" for i in range(n_genes)], dtype=object)
    bits = (rng.random((n_perturbations, 16)) < 0.35).astype(np.float32)
    bits[:, 0] = 1
    side = make_side(names, bits, genes, kinds, unknown, np.random.default_rng([seed, 1]))
    driver = side.features[kinds[0]].matrix if kinds and kinds[0] in ("genes", "targets") else bits
    programmes = rng.normal(size=(driver.shape[1], n_genes)) * 0.7
    if kinds[:1] == ("targets",):  # local: strong on the target, weaker on its neighbours in the graph
        ring = np.eye(n_genes)
        programmes = 1.0 * np.roll(ring, 1, axis=1) + 1.0 * np.roll(ring, -1, axis=1) - 3.0 * ring
    effect = (driver - driver.mean(axis=0)) @ programmes + rng.normal(size=n_genes) * 0.3
    who = np.repeat(np.arange(n_perturbations), replicates)
    line = np.tile(np.arange(replicates) % len(cell_lines), n_perturbations)
    basal = 6 + rng.normal(size=(len(cell_lines), n_genes))
    n = len(who)
    control = basal[line] + control_noise * rng.normal(size=(n, n_genes))
    if zero_control:
        control = np.zeros((n, n_genes))
    dose = rng.choice([-1.0, 0.0, 1.0], size=n)
    treated = control + (1 + 0.2 * dose[:, None]) * effect[who] + noise * rng.normal(size=(n, n_genes))
    obs = pd.DataFrame(
        {
            "perturbation": np.array(names, dtype=object)[who],
            "cell_line": np.array(cell_lines, dtype=object)[line],
            "log10_dose": dose,
            "time_h": 24.0,
        },
        index=pd.Index([f"s{i:04d}" for i in range(n)], name="sample_id"),
    )
    return FitRows(
        genes, control.astype(np.float32), obs, side, treated.astype(np.float32), np.asarray(obs["perturbation"])
    )


def make_side(names, bits, genes, kinds, unknown, rng) -> SideInformation:
    """Features of the wanted kinds (targets, genes: three of twelve measured genes each), and a ring as gene graph."""
    known = np.array([n not in unknown for n in names])
    features = {}
    for kind in kinds:
        matrix, columns = bits, tuple(f"bit{i}" for i in range(bits.shape[1]))
        if kind in ("genes", "targets"):
            matrix, columns = np.zeros((len(names), len(genes)), dtype=np.float32), tuple(genes)
            for row in matrix:
                row[rng.choice(min(len(genes), 12), size=min(3, len(genes)), replace=False)] = 1
        features[kind] = PerturbationFeatures(
            kind, tuple(names), columns, np.where(known[:, None], matrix, 0).astype(np.float32), known
        )
    n = len(genes)
    graph = GeneGraph(tuple(genes), np.array([(i, (i + 1) % n) for i in range(n)], dtype=np.int64))
    return SideInformation(features, graph)


def split_by_perturbation(rows: FitRows, n_held_out: int = 6) -> tuple[FitRows, FitRows]:
    """Fit rows and rows of the last perturbations."""
    names = sorted(set(rows.perturbation))[-n_held_out:]
    held = np.isin(rows.perturbation.astype(str), names)
    return rows.take(~held), rows.take(held)


def with_control(rows: PredictRows, control: np.ndarray) -> PredictRows:
    return replace(rows, control=control.astype(np.float32))


def with_obs(rows: PredictRows, **columns: object) -> PredictRows:
    return replace(rows, obs=rows.obs.assign(**columns))
