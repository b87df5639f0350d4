"""Scores of a study's rows: here, or block by block on a cluster with the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pertstack._base.machine.cluster import Cluster
from pertstack._base.machine.memory import parse_bytes
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Metric, parse_metrics
from pertstack.predictions.sources.some_rows import SomeRows
from pertstack.reduce.read_tiles import ordered_blocks
from pertstack.reduce.scoring.made import Combines
from pertstack.reduce.scoring.plate_means import PLATE
from pertstack.reduce.scoring.score import score
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.development.rows import DevelopmentRows


def score_out_of_fold(
    rows: DevelopmentRows, combines: Combines, metrics: Sequence[str], *, on_rows: Callable[[int], Any]
) -> ScoreTable:
    """Scores of everything on all development rows.

    Parameters
    ----------
    rows : to be scored, with their memory, workers and cluster.
    combines : as for ``reduce.score``.
    metrics : names.
    on_rows : called with the number of rows done, for progress.
    """

    def here(some: Sequence[str | Metric]) -> ScoreTable:
        return score(
            rows.source,
            combines,
            rows.folder.references,
            metrics=some,
            memory=parse_bytes(rows.memory),
            workers=rows.workers,
            on_rows=on_rows,
            scratch=rows.folder.scratch,
        )

    if rows.cluster is None:
        return here(metrics)
    asked = Asked(rows.shared(), combines, tuple(metrics))
    return score_on(rows.cluster, asked, ordered_blocks(rows.source), here=here, on_rows=on_rows)


@dataclass(frozen=True)
class Asked:
    """What workers score: which rows, by which combinations, with which metrics. ``made``: names of combinations that
    are made from the rows where they lie, and by what."""

    rows: Any  # has ``memory``, and on a worker ``opened``: ``source`` and ``folder``
    combines: Combines
    metrics: tuple[str, ...]
    made: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def score_on(
    cluster: Cluster,
    asked: Asked,
    blocks: Sequence[Block],
    *,
    here: Callable[[Sequence[str | Metric]], ScoreTable],
    on_rows: Callable[[int], Any],
) -> ScoreTable:
    """Scores block by block; metrics that compare rows of several blocks are computed here.

    Parameters
    ----------
    cluster : where blocks are scored.
    asked : what is scored.
    blocks : in their order.
    here : scores all of it by some metrics in this process.
    on_rows : called with the number of rows done, for progress.
    """
    chosen = parse_metrics(asked.metrics)
    within = tuple(m.name for m in chosen if m.scope == "sample" or m.reference == PLATE)
    found: dict[Block, ScoreTable] = {}
    for block, table in cluster.each(score_piece, replace(asked, metrics=within), blocks):
        found[block] = table
        on_rows(table.n)
    whole = ScoreTable.one_after_the_other([found[block] for block in blocks])
    across = [m for m in chosen if m.name not in within]
    return whole.with_metrics_of(here(across), [m.name for m in chosen]) if across else whole


def score_piece(asked: Asked, block: Block) -> ScoreTable:
    """On a worker: the scores of one block."""
    rows = asked.rows.opened
    alone = SomeRows(rows.source, {block: np.arange(rows.folder.store.n_samples(block))})
    combines = {**asked.combines, **{name: make(rows.source) for name, make in asked.made.items()}}
    memory = parse_bytes(asked.rows.memory)
    return score(alone, combines, rows.folder.references, metrics=asked.metrics, memory=memory)
