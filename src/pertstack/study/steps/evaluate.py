"""Predictions of a test set that somebody already has, judged in one step: no folds, no fitting, no study on disk.

The readers and the matching are those of ``add``, the metrics, the judge and the page those of a study. What the models
were fitted on cannot be known here; every answer says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack._base.machine.memory import parse_bytes
from pertstack._base.reading.remote import name_of
from pertstack._base.version import __version__
from pertstack.data.cells import CellChoice
from pertstack.data.choices import Normalise
from pertstack.data.near_names import alike_finding, near_names
from pertstack.data.rows import Float32
from pertstack.design.metric_names import parse_metric
from pertstack.design.plan.groups import shared_parts
from pertstack.predictions.importers.checks.scale import Scale
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.diversity import Diversity
from pertstack.reduce.metrics.asked import asked_metric
from pertstack.reduce.others import MeanOfOtherPerturbations
from pertstack.reduce.read_tiles import samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.calibration import AUTO_ORDER, Calibration, first_that_passes
from pertstack.reduce.scoring.controls import calibrate_source
from pertstack.reduce.scoring.panels import panel
from pertstack.reduce.scoring.score import score
from pertstack.reduce.scoring.score_table import ScoreTable, refuse_undefined
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.reduce.tile import Combine, Tile
from pertstack.stacking.constants import constant_models
from pertstack.stacking.slopes import slopes_of
from pertstack.study.new_rows.evaluation_rows import Matched, matched_values
from pertstack.study.new_rows.in_memory import on_disk
from pertstack.verdict.boards.rows import Kind
from pertstack.verdict.judge import judge
from pertstack.verdict.probes.rows import sample_rows
from pertstack.verdict.probes.run import accused, probe_model
from pertstack.verdict.replicates import ReplicatePredictor
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting

if TYPE_CHECKING:
    pass
from pertstack.study.new_rows.evaluation import Evaluation

AUTO = "auto"
PARTS = 5
"""Perturbations are parted, so that a constant for the calibration can be made of the other parts."""
FLOOR, MEAN = "mean_of_others", "mean"
_ALIKE = "name a column with the right names with --map perturbation=COLUMN."
OWN = frozenset({FLOOR, MEAN, "no_change", "oracle", "replicate"})
"""Rows of the board that are no models."""


def evaluate(
    truth: Any,
    predictions: Any,
    *,
    primary: str = AUTO,
    scale: Scale = "treated",
    mapping: Mapping[str, str] | None = None,
    control_layer: str = "control",
    control_label: str | Sequence[str] | None = None,
    treated_layer: str | None = None,
    by: Sequence[str] = (),
    normalise: Normalise | None = None,
    min_cells: int = 10,
    cells_as_samples: bool = False,
    delta: bool = False,
    layer: str | None = None,
    genes: str | Path | None = None,
    transform: str | None = None,
    control: str | Path | None = None,
    metadata: str | Path | None = None,
    seed: int = 0,
    workers: int = 1,
    memory: str = "1 GB",
) -> Evaluation:
    """Judge predictions of a test set.

    Parameters
    ----------
    truth : file or AnnData
        Measured profiles with their controls, in any form that ``Study.create`` takes.
    predictions : {name: file, files, AnnData or DataFrame}, a list of files, or one
        Names are taken from files if none are given. Rows are matched by sample id, or by what was done:
        perturbation and cell line, and dose, time and plate if both sides know them. Several rows of one pair are
        averaged; a prediction of a pair serves all its samples.
    primary : metric that decides; ``auto`` takes the first that can tell a replicate from a constant.
    scale : ``treated`` (what is measured) or ``delta`` (treated - control) of the predicted values.
    mapping : canonical column -> column of the files (``{"cell_line": "cell_id"}``), for truth and predictions.
    control_layer, control_label, treated_layer, delta : where the truth is, and its controls; see ``Study.create``.
    by, normalise, min_cells, cells_as_samples : if the rows of the truth are cells; see ``Study.create``.
    genes : a list of gene names for prediction files whose columns have none; else one beside the file is taken.
    transform : a named map of the predicted values to the scale of the truth: log1p_cp10k, log2, ln_to_log2, ...
    control, metadata : a table of the controls of a truth in a table; a table of what is said of its rows; see
        ``Study.create``.
    seed, workers, memory : seed of everything that draws, processes, and what tiles of profiles may take.
    layer : of the prediction files; default ``layers["prediction"]`` if there is one, else X.

    Raises
    ------
    InputError, MisalignedError, IntegrityError
        A file cannot be read, matched or believed; nothing is scored.

    Example
    -------
    >>> found = evaluate("truth.h5ad", {"gears": "gears.h5ad", "state": "state.h5ad"})  # doctest: +SKIP
    >>> found.leaderboard, found.report("evaluation.html")  # doctest: +SKIP
    """
    with TemporaryDirectory(prefix="pertstack-") as scratch:
        where, files = on_disk(truth, predictions, Path(scratch))
        found = matched_values(
            where,
            files,
            scale=scale,
            mapping=mapping,
            control_layer=control_layer,
            control_label=control_label,
            treated_layer=treated_layer,
            cells=CellChoice(tuple(by), normalise, min_cells, cells_as_samples),
            delta=delta,
            layer=layer,
            genes=genes,
            transform=transform,
            control=control,
            metadata=metadata,
        )
    samples = found.samples
    _refuse_own(found.values)
    if samples["perturbation"].nunique() < 2:
        raise InputError(
            f"The predictions and the truth share a single perturbation ({samples['perturbation'].iloc[0]}): there are "
            f"no others to hold it against, and no interval. Give the truth of at least two perturbations."
        )
    alike = alike_finding(near_names(samples["perturbation"].unique()), "the truth", _ALIKE)
    found = replace(found, findings=(*found.findings, *alike))
    source = ArraySource(
        found.values,
        found.treated,
        None if delta else found.control,
        folds=_parts(samples["perturbation"]),
        sample_ids=samples.index,
        perturbation=samples["perturbation"],
        cell_line=samples["cell_line"],
        gene_names=found.genes,
        obs=samples,
    )
    facts = {
        "truth": name_of(where) if where.parent != Path(scratch) else "in memory",
        "control": found.control_reference,
    }
    return _judged(source, found, facts, primary=primary, seed=seed, workers=workers, memory=parse_bytes(memory))


def _refuse_own(names: Iterable[str]) -> None:
    """A model must not be called like a row that the board has beside the models."""
    for name in names:
        if name in OWN:
            raise InputError(
                f"{name!r} is the name of a row that every evaluation has beside the models. Give the model another "
                f"one: my_{name}=FILE, or {{'my_{name}': ...}}."
            )


def _judged(
    source: ArraySource,
    matched: Matched,
    facts: Mapping[str, Any],
    *,
    primary: str,
    seed: int,
    workers: int,
    memory: int,
) -> Evaluation:
    """Score, calibrate, probe and rank the models of a source."""
    references = References.collect(source)
    wanted = [] if primary == AUTO else [parse_metric(primary).name]
    rows = samples_of(source)
    if "plate" in matched.samples:
        rows["plate"] = matched.samples["plate"].reindex(rows["sample_id"]).to_numpy()
    for metric in wanted:
        asked_metric(metric, rows, source.gene_names, references=references)
    options: dict[str, Any] = {"memory": memory, "workers": workers}
    asked = tuple(dict.fromkeys([*AUTO_ORDER, *wanted, *panel(references)]))
    calibration = calibrate_source(source, references, asked, **options)
    decides = wanted[0] if wanted else (first_that_passes(AUTO_ORDER, calibration) or AUTO_ORDER[0])
    fits = asked_metric(decides, rows, source.gene_names, references=references, named=bool(wanted))
    combines: dict[str, Combine] = {FLOOR: MeanOfOtherPerturbations(source)}
    if len(source.models) > 1:
        combines[MEAN] = _mean
    if (replicates := ReplicatePredictor(source)).exists:
        combines["replicate"] = replicates
    scored = tuple(dict.fromkeys([*panel(references), parse_metric(decides).name, *asked]))
    table = score(source, combines, references, metrics=scored, **options)
    refuse_undefined(table, decides, "Name another with --primary, such as pearson_all@pooled.")
    if len(source.models) > 1:
        table = table.with_oracle(decides, source.models)
    some = sample_rows(source, np.random.default_rng([seed, 5]))
    probes = tuple(f for m in source.models for f in probe_model(source, some, m, seed=seed, claims_folds=False))
    reduction = reduce_blocks(source, references, k=min(80, len(source.gene_names)))
    diversity = Diversity.of(reduction) if len(source.models) > 1 else None
    setting = _setting(
        source,
        table,
        decides,
        calibration=calibration,
        said=matched.findings,
        probes=probes,
        fits=fits,
        constants=constant_models(reduction),
    )
    verdict = judge(table, None, setting, resampling=GroupResampling(seed, parts=shared_parts(table.samples)))
    known = {**facts, **_counts(table, source)}
    slopes = slopes_of(reduction)
    return Evaluation(verdict, table, calibration, matched.findings, probes, diversity, slopes, matched.shown(), known)


def _setting(
    source: ArraySource,
    table: ScoreTable,
    primary: str,
    calibration: Mapping[str, Calibration],
    said: Sequence[Finding],
    probes: Sequence[Finding],
    fits: Sequence[Finding],
    constants: tuple[str, ...],
) -> Setting:
    from pertstack.study.steps.calibrate import doubt

    kinds: dict[str, Kind] = dict.fromkeys(source.models, "base")
    kinds |= {FLOOR: "reference", MEAN: "reference", "no_change": "reference", "oracle": "ceiling"}
    kinds |= {"replicate": "ceiling"}
    cautions: dict[str, list[str]] = {}
    for f in (*said, *probes):
        if f.severity != "note" and f.where in source.models:
            cautions.setdefault(f.where, []).append(f.message)
    found = calibration.get(parse_metric(primary).name)
    doubts = [] if found is None or found.passes else [doubt(found).replace("development rows", "samples")]
    suspects = {m: tuple(w) for m, w in accused(probes).items() if m in source.models}
    return Setting(
        {n: kinds[n] for n in table.names},
        parse_metric(primary).name,
        None,
        "perturbation",
        versions={"pertstack": __version__, "numpy": np.__version__, "pandas": pd.__version__},
        cautions=cautions,
        no_drug=(FLOOR, "no_change"),
        accused=suspects,
        accused_gravely=frozenset(f.where for f in probes if f.severity == "error"),
        constants=constants,
        metric_doubt=" ".join([*doubts, *(f.message.replace("development rows", "samples") for f in fits)]),
        evaluated=True,
    )


def _mean(tile: Tile) -> Float32:
    """Plain mean of the models."""
    return np.asarray(tile.predictions.mean(axis=0), dtype=np.float32)


def _parts(perturbation: Any) -> np.ndarray[Any, Any]:
    """A part for every row; whole perturbations stay together."""
    names, codes = np.unique(np.asarray(perturbation, dtype=str), return_inverse=True)
    return np.asarray(codes % max(1, min(PARTS, len(names))))


def _counts(table: ScoreTable, source: ArraySource) -> dict[str, int]:
    rows = table.samples
    return {
        "samples scored": len(rows),
        "genes scored": len(source.gene_names),
        "perturbations": int(rows["perturbation"].nunique()),
        "cell lines": int(rows["cell_line"].nunique()),
    }
