"""Two more probes of a study: errors on fit rows, and the stack step on exchanged truths.

``fit_row_probe`` holds out-of-fold errors against errors on rows the model was fitted on. For fits made here those are
kept by the jobs; for added models they are the rows it predicts and says it saw. ``permuted_study`` cuts the link
between prediction and truth and runs the stack step again: what still gains is scored on rows it learned from. It
refits cheap combiners only, on a sample of rows and genes, and is asked by ``audit --deep``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.fit.jobs.fit_rows import FILE
from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.nested_source import WithoutFold, has_nested
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.nested import fit_nested
from pertstack.study.folder import StudyFolder
from pertstack.verdict.probes.of_folds import exchange, oof_against_fit, permuted_truth
from pertstack.verdict.probes.of_noise import not_applicable
from pertstack.verdict.probes.rows import Sampled, read_rows, sample_rows

LEAST_ROWS = 20
PERMUTED = ("simplex", "global_ridge", "gene_ridge")
"""Combiners on moments alone: a stiff one, a signed one, and one with weights per gene, the first to show a leak."""
PERMUTATIONS = 12
METRIC = "rmse_all@own"


def fit_row_probe(folder: StudyFolder, source: StoreSource, model: str, *, seed: int) -> Finding:
    """Is the error on out-of-fold rows as small as on rows the model was fitted on?

    A fit made here from a model of this package never had the rows of its fold, so nothing it does is an accusation:
    the finding is then a note with the share lost. Models that were added, and models that somebody registered, may
    have read more than they were handed.

    Parameters
    ----------
    folder : of the study, with what fits kept of their errors.
    source : development rows.
    model : name.
    seed : of the resamples.
    """
    rng = np.random.default_rng([seed, 6])
    kept = _kept_errors(folder, model)
    errors = _paired(folder, source, model, kept) if kept else _unpaired(folder, source, model)
    if errors is None or len(errors.groups) < LEAST_ROWS:
        return not_applicable("oof_against_fit", "its error on rows it was fitted on is not known", model)
    found = oof_against_fit(errors.oof, errors.fit, errors.base, groups=errors.groups, rng=rng, model=model)
    if found.severity == "note" or not (kept and _of_this_package(source, model)):
        return found
    words = f"{model} was fitted here and never had the rows of its fold, so it generalises (or learns) that little."
    return replace(found, severity="note", message=f"{found.message.split('. ')[0].rstrip('.')}. {words}")


@dataclass(frozen=True)
class _Errors:
    """Mean squared errors (n,) by sample, NaN where unknown, and the groups of the samples."""

    oof: Array
    fit: Array
    base: Array
    groups: Array


def _kept_errors(folder: StudyFolder, model: str) -> dict[str, float]:
    """Sample -> mean error over the fits of single folds that saw it; empty for models that were not fitted here."""
    name = quote(model, safe="-_").replace(".", "%2E")
    found: dict[str, list[float]] = {}
    for path in sorted(folder.path("jobs", name).glob(f"*/{FILE}")):
        for sample, error in read_json(path)["mean_squared_error"].items():
            found.setdefault(sample, []).append(float(error))
    return {sample: float(np.mean(errors)) for sample, errors in found.items()}


def _paired(folder: StudyFolder, source: StoreSource, model: str, kept: Mapping[str, float]) -> _Errors | None:
    """The same samples out of fold: their own fold's fit did not see them, the others' did."""
    ids, errors, base, groups = _errors_of(folder, source, model, lambda names, _: np.isin(names, list(kept)))
    fit = np.array([kept[s] for s in ids])
    return _Errors(errors, fit, base, groups) if len(ids) else None


def _unpaired(folder: StudyFolder, source: StoreSource, model: str) -> _Errors | None:
    """Rows that an added model says it saw, against those it did not; each in units of its own baseline."""

    def saw(names: Array, block: Any) -> Array:
        record = source.store.find(block, model)
        fitted = None if record is None or record.fitted_on is None else replace(record.fitted_on, near=frozenset())
        mask = None if fitted is None else fitted.saw(block, list(names))
        return np.zeros(len(names), dtype=bool) if mask is None else mask

    rng = np.random.default_rng(0)
    seen = _errors_of(folder, source, model, lambda n, b: _some(saw(n, b), rng), predicted_only=True)
    clean = _errors_of(folder, source, model, lambda n, b: _some(source.sound(b, model), rng))
    if min(len(seen[0]), len(clean[0])) < LEAST_ROWS:
        return None
    gap = np.full
    units = [float(np.mean(part[2])) for part in (clean, seen)]
    return _Errors(
        np.concatenate([clean[1] / units[0], gap(len(seen[0]), np.nan)]),
        np.concatenate([gap(len(clean[0]), np.nan), seen[1] / units[1]]),
        np.concatenate([clean[2] / units[0], seen[2] / units[1]]),
        np.concatenate([clean[3], seen[3]]),
    )


def _some(mask: Array, rng: np.random.Generator) -> Array:
    """At most 64 of the rows of a mask."""
    at = np.flatnonzero(mask)
    kept = np.zeros(len(mask), dtype=bool)
    kept[rng.permutation(at)[:64]] = True
    return kept


def _errors_of(
    folder: StudyFolder, source: StoreSource, model: str, wanted: Any, *, predicted_only: bool = False
) -> tuple[Array, Array, Array, Array]:
    """Ids, errors of the model, errors of the cell line's mean treated profile, groups; of the rows asked for."""
    blocks = source.blocks()
    tables = [source.obs(b) for b in blocks]
    parts = []
    for block, table in zip(blocks, tables, strict=True):
        there = source.store.find(block, model) is not None
        usable = np.full(len(table), there) if predicted_only else source.sound(block, model)
        parts.append(np.asarray(wanted(table.index.to_numpy(dtype=object), block)) & usable)
    genes = np.arange(len(source.gene_names))
    predicted, treated = (read_rows(source, blocks, parts, layer=layer, genes=genes) for layer in (model, "treated"))
    ids = np.concatenate([t.index.to_numpy(dtype=object)[p] for t, p in zip(tables, parts, strict=True)])
    groups = np.concatenate([t["group"].to_numpy().astype(str)[p] for t, p in zip(tables, parts, strict=True)])
    count = [int(p.sum()) for p in parts]
    known = np.isfinite(predicted).all(axis=0)
    if not len(ids) or not known.any():
        return ids[:0], np.zeros(0), np.zeros(0), groups[:0]
    mean = np.repeat(np.stack([folder.references.centroid(b.cell_line, b.fold) for b in blocks]), count, axis=0)
    errors = ((predicted[:, known].astype(np.float64) - treated[:, known]) ** 2).mean(axis=1)
    base = ((mean[:, known] - treated[:, known]) ** 2).mean(axis=1)
    return ids, errors, base, groups


def _of_this_package(source: StoreSource, model: str) -> bool:
    """Whether the class that was fitted is one of ours: it then reads nothing but the rows it is handed."""
    jobs = [r.meta.get("job", {}) for b in source.blocks() if (r := source.store.find(b, model)) is not None]
    return bool(jobs) and all(str(job.get("target", "")).startswith("pertstack.") for job in jobs)


# -- exchanged truths --------------------------------------------------------------------------------------------------


def permuted_study(folder: StudyFolder, models: Sequence[str], *, accept_unverified: bool) -> list[Finding]:
    """The stack step of ``PERMUTED`` on truths exchanged within cell line and fold, ``PERMUTATIONS`` times.

    Whoever is scored on rows it learned from errs less on the exchanged truth it learned than on another exchange of
    the same rows. Models and weights that know no more than means of folds or cell lines do not.

    Parameters
    ----------
    folder : of the study.
    models : that are stacked.
    accept_unverified : as in the stack step.
    """
    seed = folder.analysis_plan.seed
    source = StoreSource(
        folder.store, None, "development", models, groups=folder.plan.groups, accept_unverified=accept_unverified
    )
    world = _World.of(folder, source, seed)
    if len(np.unique(world.folds)) < 2 or len(world.folds) < LEAST_ROWS:
        return [not_applicable("permuted_truth", "too few rows or folds", name) for name in PERMUTED]
    gains: dict[bytes, dict[str, float]] = {}

    def gain_of(name: str) -> Any:
        def gain(order: Array) -> float:
            key = order.tobytes()
            if key not in gains:
                gains[key] = world.gains(order, seed)
            return gains[key].get(name, float("nan"))

        return gain

    found = []
    for name in PERMUTED:
        rng = np.random.default_rng([seed, 7])  # the same orders for all, so that each is computed once
        found.append(permuted_truth(gain_of(name), world.strata, rng=rng, permutations=PERMUTATIONS, name=name))
    return found


@dataclass(frozen=True)
class _World:
    """Sampled rows of a study in memory: out-of-fold predictions, and level-one predictions for each scored fold."""

    sampled: Sampled
    predictions: dict[str, Array]
    level_one: dict[int, dict[str, Array]]  # fold -> model -> (n, n_genes), NaN in the rows of that fold

    @property
    def folds(self) -> Array:
        folds: Array = self.sampled.samples["fold"].to_numpy(dtype=np.int64)
        return folds

    @property
    def lines(self) -> Array:
        lines: Array = self.sampled.samples["cell_line"].to_numpy().astype(str)
        return lines

    @property
    def strata(self) -> Array:
        """(n,) cell line and fold: truths are exchanged within these."""
        joined: Array = np.char.add(np.char.add(self.lines, "|"), self.folds.astype(str))
        return joined

    @classmethod
    def of(cls, folder: StudyFolder, source: StoreSource, seed: int) -> _World:
        sampled = sample_rows(source, np.random.default_rng([seed, 5]))
        inside = {b: source.obs(b).index.isin(sampled.samples.index) for b in source.blocks()}

        def layers(of: BlockSource, models: Sequence[str]) -> dict[str, Array]:
            out = {}
            for model in models:
                parts = []
                for block, mask in inside.items():
                    if block in of.blocks():
                        values = read_rows(of, [block], [mask], layer=model, genes=sampled.genes)
                        values[~of.sound(block, model)[mask]] = np.nan
                    else:
                        values = np.full((int(mask.sum()), len(sampled.genes)), np.nan, dtype=np.float32)
                    parts.append(values)
                out[model] = np.concatenate(parts)
            return out

        nested = all(has_nested(folder.store, m) for m in source.models)
        folds = sorted({b.fold for b in source.blocks() if b.fold is not None})
        without = {
            k: layers(WithoutFold(folder.store, source.models, k, folder.plan.groups), source.models)
            for k in (folds if nested and len(folds) > 2 else [])
        }
        return cls(sampled, layers(source, source.models), without)

    def gains(self, order: Array, seed: int) -> dict[str, float]:
        """How much less each combiner errs, as a share, on the exchanged truth than on the same exchanged once more.

        It learns from the first; the rows of a fold change places within the fold only, so that for weights learned
        without the fold the two are alike, whatever they learned: the expectation is 0 exactly.
        """
        treated = self.sampled.treated[order]
        again = treated[exchange(self.strata, np.random.default_rng([seed, 8]))]
        everywhere = np.ones(len(order), dtype=bool)
        source, other = (self._source(self.predictions, truth, everywhere) for truth in (treated, again))
        references = References.collect(source)
        level = {}
        for k, predictions in self.level_one.items():
            part = self._source(predictions, treated, self.folds != k)
            level[k] = (reduce_blocks(part, references, k=20), part)
        nested = fit_nested(
            list(PERMUTED),
            reduce_blocks(source, references, k=20),
            source=source,
            references=references,
            seed=seed,
            level_one=level or None,
        )
        own, new = (
            score(truth, nested.combines(), references, metrics=[METRIC], base_models=False)
            for truth in (source, other)
        )
        return {n: 1.0 - own.mean(n, METRIC).value / new.mean(n, METRIC).value for n in PERMUTED if n in own.names}

    def _source(self, predictions: Mapping[str, Array], treated: Array, rows: Array) -> ArraySource:
        samples = self.sampled.samples[rows]
        return ArraySource(
            {m: p[rows] for m, p in predictions.items()},
            treated[rows],
            self.sampled.control[rows],
            folds=samples["fold"].to_numpy(),
            perturbation=samples["perturbation"].to_numpy().astype(str),
            cell_line=samples["cell_line"].to_numpy().astype(str),
            group=samples["group"].to_numpy().astype(str),
            sample_ids=list(samples.index),
        )
