"""The truth of a simulated study: what each perturbation does to each gene in each cell line, and the noise on top.

A sample is basal(cell line) + effect(perturbation, cell line, dose, time) + plate + well noise; its control is
basal(cell line) + plate + well noise of a vehicle well. So truth and any prediction share the noise of the control, as
in real data. Rows are made from keyed random streams, so any part of a study can be made without the rest. The model
is written out in ``docs/simulation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from pertstack._base.arrays import Float64
from pertstack.data.simulation.config import SimulationConfig
from pertstack.data.simulation.layout import Layout

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
BLOCK = 256  # rows that share one random stream
GRID = 2.0**12  # profiles are rounded to this many steps per log2 unit
N_NOISE = 12  # directions in which plates differ


@dataclass(frozen=True)
class Truth:
    """Everything that is drawn once: P programmes, G genes, C cell lines, D perturbations."""

    loadings: Float32  # (P, G) programme -> genes, unit variance per gene on average
    basal: Float32  # (C, G) true untreated profile
    response: Float32  # (C, P) gain of each programme in each cell line
    observable: Float32  # (D, P) activity that follows from the molecule's parts
    hidden: Float32  # (D, P) activity that nothing observable explains
    hidden_by_line: Float32  # (C, D, P) the part of it that differs between cell lines
    network: Float32  # (n_targets, G) what inhibiting a target gene does
    targets: tuple[tuple[int, ...], ...]  # (D,) target genes of each perturbation
    target_genes: Ints  # (n_targets,) genes that can be targets
    edges: Ints  # (n_edges, 2) gene graph
    strength: Float32  # (D,)
    log10_ec50: Float32  # (D,) micromolar
    common: Float32  # (G,) what every perturbation does
    plate_loadings: Float32  # (N_NOISE, G)
    landmark: np.ndarray[Any, np.dtype[np.bool_]]  # (G,)
    inference: sp.csr_matrix  # (n_landmarks, n_inferred) how inferred genes copy landmark noise


def make_truth(config: SimulationConfig, features: Float32, basal: Float32, *, rng: np.random.Generator) -> Truth:
    """Draw a world: what each perturbation does to each gene in each cell line.

    Parameters
    ----------
    config : sizes and spreads.
    features : (n_perturbations, n_features), the observable part of each perturbation.
    basal : (n_lines, n_genes), untreated profiles.
    rng : draws the world; the order of draws is part of the format.
    """
    n_genes, n_lines, n_perts, p = config.genes, len(basal), len(features), config.programmes
    loadings = _loadings(p, n_genes, config.programme_share, rng)
    edges = _graph(loadings, rng)
    target_genes = np.sort(rng.choice(n_genes, size=min(n_genes, 300), replace=False)).astype(np.int64)
    network = _propagate(edges, target_genes, n_genes)
    targets = _targets(features, len(target_genes), rng)
    landmark = np.zeros(n_genes, dtype=bool)
    landmark[rng.permutation(n_genes)[: max(2, round(config.landmark_share * n_genes))]] = True
    shape = (n_perts, p)
    return Truth(
        loadings=loadings,
        basal=basal,
        response=_responses(basal, p, config.cell_modifier, rng),
        observable=_observable(features, p, rng),
        hidden=_normal(rng, shape),
        hidden_by_line=_normal(rng, (n_lines, *shape)),
        network=network,
        targets=tuple(tuple(int(target_genes[t]) for t in ts) for ts in targets),
        target_genes=target_genes,
        edges=edges,
        strength=np.exp(config.strength_spread * rng.normal(size=n_perts)).astype(np.float32),
        log10_ec50=rng.normal(-0.3, 0.5, size=n_perts).astype(np.float32),
        common=(config.common_sd * _loadings(3, n_genes, 0.4, rng).sum(0) / np.sqrt(3)).astype(np.float32),
        plate_loadings=_normal(rng, (N_NOISE, n_genes)) / np.float32(np.sqrt(N_NOISE)),
        landmark=landmark,
        inference=_inference(int(landmark.sum()), int((~landmark).sum()), rng),
    )


def _effects(truth: Truth, config: SimulationConfig, layout: Layout, rows: Ints) -> Float32:
    """Noise-free effect (n, G) of samples: treated minus true basal."""
    p, c = layout.perturbation[rows], layout.cell_line[rows]
    loadings, network = truth.loadings.astype(np.float64), truth.network.astype(np.float64)
    own = 1 - config.observable_share - config.network_share
    hidden = np.sqrt(0.6) * truth.hidden[p] + np.sqrt(0.4) * truth.hidden_by_line[c, p]
    activity = np.sqrt(config.observable_share) * truth.observable[p].astype(np.float64) + np.sqrt(own) * hidden
    out = (activity * truth.response[c]) @ loadings / np.sqrt(len(loadings))
    where = {int(g): i for i, g in enumerate(truth.target_genes)}
    hit = sp.lil_matrix((len(rows), len(truth.target_genes)), dtype=np.float32)
    for i, q in enumerate(p):
        for gene in truth.targets[q]:
            hit[i, where[gene]] = 1.0
    out += np.sqrt(config.network_share) * (hit.tocsr() @ network)
    dose = 10.0 ** (1.0 * (np.log10(layout.dose[rows]) - truth.log10_ec50[p]))
    saturation = dose / (1 + dose)
    duration = np.where(layout.time_h[rows] < 12, 0.7, 1.0)
    out *= (config.effect_sd * truth.strength[p] * saturation * duration)[:, None]
    out += truth.common * (0.5 + 0.5 * saturation)[:, None]
    return on_grid(out)


def on_grid(values: np.ndarray[Any, Any]) -> Float32:
    """Values rounded to ``GRID`` steps per unit, exact in float32: the same on every processor."""
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) * GRID) / GRID, dtype=np.float32)


def _noise(truth: Truth, config: SimulationConfig, plate: Ints, rng: np.random.Generator) -> Float64:
    """Plate and well noise (n, G) of wells: the well part comes from ``rng``, the plate part from the plate."""
    drawn = rng.standard_normal((len(plate), len(truth.common)), dtype=np.float32)
    out = config.well_sd * drawn.astype(np.float64)
    out *= np.exp(
        0.25 * rng.standard_normal((len(plate), 1), dtype=np.float32).astype(np.float64)
    )  # some wells are worse than others
    copied = out[:, truth.landmark] @ truth.inference.astype(np.float64)
    out[:, ~truth.landmark] = 0.75 * copied + np.sqrt(1 - 0.75**2) * out[:, ~truth.landmark]
    plates, inverse = np.unique(plate, return_inverse=True)
    scores = np.stack([np.random.default_rng([config.seed, 2, int(q)]).normal(size=N_NOISE) for q in plates])
    shared: Float64 = out + config.plate_sd * (scores @ truth.plate_loadings.astype(np.float64))[inverse]
    return shared


def sample_rows(
    truth: Truth, config: SimulationConfig, layout: Layout, *, block: int
) -> tuple[Float32, Float32, Float32]:
    """(control, treated, effect) of one block of samples, each (n, n_genes) float32.

    Parameters
    ----------
    truth, config, layout : of one world.
    block : which ``BLOCK`` samples, from 0; each block has its own stream, so that blocks may be made in any order.
    """
    rows = np.arange(block * BLOCK, min((block + 1) * BLOCK, layout.n_samples), dtype=np.int64)
    rng = np.random.default_rng([config.seed, 3, block])
    basal = truth.basal[layout.cell_line[rows]].astype(np.float64)
    effect = _effects(truth, config, layout, rows)
    treated = on_grid(basal + effect + _noise(truth, config, layout.plate[rows], rng))
    if config.pairing == "own":
        return on_grid(basal + _noise(truth, config, layout.plate[rows], rng)), treated, effect
    wells, inverse = np.unique(layout.control_well[rows], return_inverse=True)
    vehicle = np.stack([_vehicle(truth, config, layout, int(well)) for well in wells])
    return vehicle[inverse], treated, effect


def _vehicle(truth: Truth, config: SimulationConfig, layout: Layout, well: int) -> Float32:
    """One vehicle well, or for matched pairing the mean vehicle of a plate."""
    n = config.controls_per_plate
    plate, wells = (well // n, [well]) if config.pairing == "random" else (well, list(range(well * n, (well + 1) * n)))
    where = np.array([plate], dtype=np.int64)
    rows = [_noise(truth, config, where, np.random.default_rng([config.seed, 4, w]))[0] for w in wells]
    return on_grid(truth.basal[layout.plate_cell_line[plate]].astype(np.float64) + np.mean(rows, axis=0))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return rng.standard_normal(shape, dtype=np.float32)


def _loadings(p: int, n_genes: int, share: float, rng: np.random.Generator) -> Float32:
    """Sparse, heavy-tailed programme loadings (p, G) with mean square 1."""
    touched = rng.random((p, n_genes)) < share
    values = touched * rng.standard_t(5, size=(p, n_genes))
    return np.asarray(values / np.sqrt(np.mean(values**2) + 1e-12), dtype=np.float32)


def _responses(basal: Float32, p: int, modifier: float, rng: np.random.Generator) -> Float32:
    """Gain (C, P) of each programme in each cell line, read off its untreated profile so that controls inform."""
    exact = basal.astype(np.float64)
    centred = exact - exact.mean(0)
    scores = centred @ rng.normal(size=(basal.shape[1], p)) / (np.sqrt((centred**2).sum(1, keepdims=True)) + 1e-6)
    return np.asarray(1 + modifier * np.clip(scores, -1.8, 1.8), dtype=np.float32)


def _observable(features: Float32, p: int, rng: np.random.Generator) -> Float32:
    """Activities (D, P) from features: a linear part and one of pairs of features; each programme has variance 1."""
    exact = features.astype(np.float64)
    centred = exact - exact.mean(0)
    linear = centred @ rng.normal(size=(features.shape[1], p))
    left, right = (np.tanh(centred @ rng.normal(size=(features.shape[1], 2 * p))) for _ in range(2))
    pairs = (left * right) @ rng.normal(size=(2 * p, p))
    both = np.sqrt(0.75) * _unit(linear) + np.sqrt(0.25) * _unit(pairs)
    return _unit(both).astype(np.float32)


def _unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    centred = values - values.mean(0)
    return np.asarray(centred / (centred.std(0) + 1e-9))


def _graph(loadings: Float32, rng: np.random.Generator) -> Ints:
    """Undirected edges (n, 2) between genes, mostly within programmes; every gene has one."""
    n_genes = loadings.shape[1]
    pairs = []
    for row in loadings:
        members = np.flatnonzero(row)
        if len(members) > 1:
            pairs.append(rng.choice(members, size=(2 * len(members), 2)))
    pairs.append(np.column_stack([np.arange(n_genes), rng.integers(0, n_genes, n_genes)]))
    edges = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0).astype(np.int64)


def _propagate(edges: Ints, target_genes: Ints, n_genes: int, keep: float = 0.6) -> Float32:
    """Effect (n_targets, G) of inhibiting each target: restart walk over the graph, the target itself goes down."""
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = sp.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n_genes, n_genes))
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    walk = sp.diags(1 / np.sqrt(degree)) @ adjacency @ sp.diags(1 / np.sqrt(degree))
    start = np.zeros((len(target_genes), n_genes))
    start[np.arange(len(target_genes)), target_genes] = -1
    state = start
    for _ in range(4):
        state = start + keep * np.asarray((walk @ state.T).T)
    return np.asarray(state / np.sqrt(np.mean(state**2, axis=1, keepdims=True)), dtype=np.float32)


def _targets(features: Float32, n_targets: int, rng: np.random.Generator) -> list[Ints]:
    """One to three targets per perturbation; perturbations with alike features tend to share the first."""
    affinity = features @ rng.normal(size=(features.shape[1], n_targets)) + rng.normal(size=(len(features), n_targets))
    ranked = np.argsort(-affinity, axis=1, kind="stable")
    counts = rng.integers(1, 4, size=len(features))
    return [np.asarray(ranked[i, : min(n, n_targets)], dtype=np.int64) for i, n in enumerate(counts)]


def _inference(n_landmarks: int, n_inferred: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Weights (n_landmarks, n_inferred): an inferred gene copies the noise of a few landmarks, keeping its variance."""
    k = min(5, n_landmarks)
    rows = np.empty((n_inferred, k), dtype=np.int64)
    for i in range(n_inferred):
        rows[i] = rng.choice(n_landmarks, size=k, replace=False)
    weights = rng.normal(size=(n_inferred, k))
    weights /= np.sqrt((weights**2).sum(1, keepdims=True))
    cols = np.repeat(np.arange(n_inferred), k)
    return sp.csr_matrix((weights.ravel().astype(np.float32), (rows.ravel(), cols)), shape=(n_landmarks, n_inferred))
