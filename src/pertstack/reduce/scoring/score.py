"""Scoring: one streamed pass over a source, every name against every metric, one value per sample.

Each row of a cross-fitted combiner is combined by what was learned without the row's own fold. The same function scores
out-of-fold rows and the held-out test; which rows exist is decided by the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, first_few
from pertstack._base.machine.scratch import space
from pertstack.data.rows import Float32
from pertstack.design.metric_names import DEFAULT_PANEL, Metric, Reference, parse_metrics
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics.effect_level import effect_level_values
from pertstack.reduce.metrics.rows import TruthRows
from pertstack.reduce.read_tiles import equal_cuts, ordered_blocks, read_cuts, rows_at_once, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.made import Combines, Made, OfFold
from pertstack.reduce.scoring.mixtures import no_change, single
from pertstack.reduce.scoring.plate_means import PLATE, plate_cuts
from pertstack.reduce.scoring.same import first_of_same
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.reduce.scoring.set_values import set_level_values
from pertstack.reduce.scoring.two_sided import scored_within_plates, two_sided_values
from pertstack.reduce.tile import Combine, Tile

Mask = np.ndarray[Any, np.dtype[np.bool_]]
NO_CHANGE = "no_change"
_BEYOND_SAMPLES = {"set": set_level_values, "effect": effect_level_values, "sides": two_sided_values}
"""Metrics that need more than one sample at a time read the rows again, but for plates that a tile holds whole."""


def score(
    source: BlockSource,
    combines: Combines,
    references: References,
    *,
    metrics: Sequence[str | Metric] = DEFAULT_PANEL,
    base_models: bool = True,
    landmarks: Mask | None = None,
    memory: int = 10**9,
    workers: int = 1,
    on_rows: Callable[[int], None] | None = None,
    scratch: Path | None = None,
) -> ScoreTable:
    """Score base models, combiners and 'no change' on every row of a source.

    Parameters
    ----------
    source : where rows come from, with their truth.
    combines : name -> Combine, or name -> {fold: Combine}
        With one Combine per fold, each row meets the one of its own fold (learned without it); test rows have fold
        None.
    references : means per cell line over development rows: what deltas refer to.
    metrics : names as ``r2_top20@pooled``
        Set-level metrics (``pds_l1`` ...) give each sample the value of its perturbation within its cell line.
    base_models : bool
        Also score every base model of the source, and ``no_change`` (the control itself).
    landmarks : bool, shape (n_genes,)
        Genes measured rather than inferred, for ``_landmark`` metrics; default those the references know.
    memory : bytes that tiles may take.
    workers : threads of the loops; results do not depend on it.
    on_rows : called with the number of rows done after each tile, for progress.
    scratch : folder for the values if they are many (they are mapped then); None keeps them in memory.

    Returns
    -------
    ScoreTable
        Rows a base model did not predict or must not be scored on (it has seen them) are NaN with ``predicted``
        False; so is any row whose combined prediction holds a NaN.

    Raises
    ------
    InputError
        A landmark metric without landmarks, or a metric against the matched control if no sample has one.
    """
    chosen = parse_metrics(metrics)
    landmarks = references.landmarks if landmarks is None else landmarks
    _check_matched(chosen, references)
    _check_landmarks(chosen, landmarks, len(source.gene_names))
    asked = _named(source, combines, base_models)
    samples = samples_of(source)
    n = len(samples)
    values = space((len(asked), len(chosen), n), np.float32, scratch)
    values.fill(np.nan)
    predicted = np.zeros((len(asked), n), dtype=bool)
    first = first_of_same(source, references, asked)
    scored, row_of = np.unique(first, return_inverse=True)
    named = {name: combine for at, (name, combine) in enumerate(asked.items()) if at in scored}
    into = _Into(values, predicted, np.zeros(n), row_of)
    with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        left = _tile_by_tile(
            source,
            Made(named, len(source.models) if base_models else 0),
            references,
            chosen,
            landmarks=landmarks,
            memory=memory,
            pool=pool,
            on_rows=on_rows,
            into=into,
        )
        pick = {name: OfFold(name, combine) for name, combine in named.items()}
        for scope, values_of in _BEYOND_SAMPLES.items():
            if whole := [j for j in left if chosen[j].scope == scope]:
                found = values_of(source, pick, references, [chosen[j] for j in whole], memory=memory, pool=pool)
                for at, row in enumerate(row_of):
                    values[at, whole] = found[row]
    samples = samples.assign(effect_rms=into.effect)
    return ScoreTable(samples, tuple(asked), tuple(m.name for m in chosen), values_by_name=values, predicted=predicted)


@dataclass(frozen=True)
class _Into:
    """Where what is found goes: values (names, n_metrics, n), predicted (names, n), effect (n,).

    Each name takes row ``row_of`` of what is found: names that are the same are scored once.
    """

    values: Float32
    predicted: Mask
    effect: Any
    row_of: Any

    def put(self, metrics: Sequence[int], rows: Any, found: Any) -> None:
        """Found values (names scored, n_metrics, n) into those of all metrics and rows."""
        for i, j in enumerate(metrics):
            self.values[:, j, rows] = found[self.row_of, i]


def _tile_by_tile(
    source: BlockSource,
    made: Made,
    references: References,
    metrics: Sequence[Metric],
    *,
    landmarks: Mask | None,
    memory: int,
    pool: ThreadPoolExecutor | None,
    on_rows: Callable[[int], None] | None,
    into: _Into,
) -> list[int]:
    """Score what needs one tile at a time; the metrics that are left. A function of its own, so that the last tile and
    all that was made of it are gone when whole perturbations are held."""
    per_sample = [j for j, m in enumerate(metrics) if m.scope == "sample"]
    within = [j for j, m in enumerate(metrics) if m.reference == PLATE]
    most = rows_at_once(source, memory, 4 + made.n)
    plates = plate_cuts(source, most) if within else None
    cuts = equal_cuts(source, most) if plates is None else plates
    blocks = ordered_blocks(source)
    first_row = dict(zip(blocks, np.cumsum([0, *(len(source.obs(b)) for b in blocks[:-1])]), strict=True))
    for (block, part), (tile, treated) in zip(cuts, read_cuts(source, references, cuts), strict=True):
        rows = first_row[block] + part
        profiles = _profiles(tile, references, metrics)
        truth = TruthRows(treated, profiles, [metrics[j] for j in per_sample], landmarks=landmarks, pool=pool)
        into.effect[rows] = np.sqrt(np.mean((treated.astype(np.float64) - tile.pooled) ** 2, axis=1))
        found, finite = made.score(tile, truth)
        into.predicted[:, rows] = finite[into.row_of]
        into.put(per_sample, rows, found)
        if plates is not None:
            some = [metrics[j] for j in within]
            into.put(within, rows, scored_within_plates(made, tile, treated, some, pool=pool))
        if on_rows is not None:
            on_rows(tile.n)
    return [j for j in range(len(metrics)) if plates is None or j not in within]


def _named(source: BlockSource, combines: Combines, base_models: bool) -> dict[str, Combine | Mapping[Any, Combine]]:
    """Base models, then combiners, then no change; no name twice."""
    models = tuple(source.models) if base_models else ()
    reserved = {*models, NO_CHANGE} if base_models else set()
    twice = sorted(reserved & set(combines))
    if twice:
        raise InputError(
            f"{first_few(twice)} are names of base models or of the 'no_change' row as well as of combinations, so "
            "the table could not tell them apart. Rename the combinations, or score with base_models=False."
        )
    last = {NO_CHANGE: no_change} if base_models else {}
    return {**{m: single(m) for m in models}, **combines, **last}


def _profiles(tile: Tile, references: References, metrics: Sequence[Metric]) -> dict[Reference, Float32]:
    """The profiles to subtract, only those some metric uses."""
    used = {m.reference for m in metrics if m.scope == "sample"}
    profiles: dict[Reference, Float32] = {"own": tile.control, "pooled": tile.pooled[None]}
    if "centroid" in used:
        profiles["centroid"] = references.centroid(tile.block.cell_line, tile.block.fold).astype(np.float32)[None]
    if "matched" in used:
        matched = references.plates.profiles(tile.obs, tile.block.cell_line, tile.control)
        profiles["matched"] = matched.astype(np.float32)
    return profiles


def _check_matched(metrics: Sequence[Metric], references: References) -> None:
    wanted = [m.name for m in metrics if m.reference == "matched"]
    if wanted and references.plates.reason:
        raise InputError(
            f"{first_few(wanted)} cannot be computed: {references.plates.reason}. Name the plate in the data (column "
            "'plate', or --map plate=COLUMN), or ask for another reference, such as @pooled."
        )


def _check_landmarks(metrics: Sequence[Metric], landmarks: Mask | None, n_genes: int) -> None:
    wanted = [m.base for m in metrics if m.landmark]
    if wanted and landmarks is None:
        raise InputError(
            f"{first_few(wanted)} need to know which genes are landmarks. Mark them in var of the data (column "
            "'is_landmark'), or leave these metrics out."
        )
    if landmarks is not None and (landmarks.shape != (n_genes,) or (wanted and landmarks.sum() < 2)):
        raise InputError(
            f"landmarks has shape {landmarks.shape} and {int(landmarks.sum())} True; give {n_genes} booleans, two True."
        )
