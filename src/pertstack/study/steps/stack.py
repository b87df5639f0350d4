"""The stack step of a study: one pass, every combiner without each fold, honest scores, one choice.

Reads development rows only. What comes out lies under ``results/``; the held-out test is opened in ``verdict.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.files import read_json, write_atomic, write_json
from pertstack._base.findings import Finding
from pertstack._base.machine.cluster import Cluster
from pertstack._base.machine.memory import parse_bytes
from pertstack._base.machine.progress import progress_bar, remark
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.ledger import LOOK
from pertstack.design.plan.groups import apart, shared_parts
from pertstack.design.plan.known import JOINED, fitted_of, known_levels
from pertstack.predictions.sources.some_rows import SomeRows, spread_rows
from pertstack.reduce.diversity import Diversity
from pertstack.reduce.scoring.score import score
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.choice import BEST_INFORMED
from pertstack.stacking.choose import choose
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.constants import constant_models
from pertstack.stacking.nested import NestedFits
from pertstack.stacking.registry import make_combiner, make_combiners
from pertstack.stacking.saved import save_fitted
from pertstack.stacking.slopes import slopes_of
from pertstack.study.audit.probes import probe_study, write_probes
from pertstack.study.audit.records import require_told
from pertstack.study.development.learned import of_fold
from pertstack.study.development.out_of_fold import score_out_of_fold
from pertstack.study.development.rows import DevelopmentRows, panel_metrics
from pertstack.study.estimate import of_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.members import left_out_models, seen_rows, stackable_models, unverified_models
from pertstack.study.seals import require_records_kept
from pertstack.study.steps.calibrate import calibrate_study
from pertstack.verdict.probes.run import seen_through
from pertstack.write.stack_result import StackResult

PARTS_SHRUNKEN = "parts_shrunken"
ACCEPTED = "accusation_accepted"
GAP_ROWS = 2000
"""Rows on which the final fits are scored beside the out-of-fold ones, for the gap between the two."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Stacked(StackResult):
    """What the stack step of a study found. ``key`` recognises its inputs: predictions, plans, combiners."""

    key: str
    models: tuple[str, ...]
    in_sample: ScoreTable  # of the final fits, on some of the rows they were learned from
    diversity: Diversity
    left_out: dict[str, str]  # model -> why it takes no part, accused ones among them
    unverified: tuple[str, ...]  # models that take part although their training rows are unknown
    constants: tuple[str, ...]  # models that say the same for every perturbation
    rows_seen: dict[str, int]  # model -> predicted rows that take no part, because it was fitted on them
    probes: tuple[Finding, ...]
    judged: bool = False  # the last look at the test was at this stack

    @property
    def headline(self) -> str:
        """The choice in one sentence, and what comes next."""
        look = f" ({'no' if self.judged else 'a'} new look at the test)" if self.looks else ""
        return f"{super().headline} Next: the verdict{look}."


def stack_study(
    folder: StudyFolder,
    combiners: Sequence[str] | None,
    *,
    accept_unverified: bool,
    workers: int,
    memory: str,
    accept_accused: Sequence[str] = (),
    cluster: Cluster | None = None,
) -> Stacked:
    """Learn, score and choose on out-of-fold rows; writes weights, diversity, scores and choice to ``results/``.

    Parameters
    ----------
    folder : of the study.
    combiners : names; None for those of the plan, else the default ones.
    accept_unverified : also models that were added without saying what they were fitted on.
    workers : processes that share the pass.
    memory : of a tile, in words.
    accept_accused : models that take part although a probe accuses them of having seen the rows they predict (severity
        error), which is a line of the ledger; the others are left out.
    cluster : where sums and out-of-fold scores are made; None for here.
    """
    wanted = combiners if combiners is not None else (list(folder.analysis_plan.combiners) or None)
    asked = make_combiners(wanted)
    require_records_kept(folder)
    require_told(folder)
    calibrated = calibrate_study(folder, workers=workers, memory=memory, sealing=True)
    for words in calibrated.cautions:
        remark(f"warning: {words}")
    plan = folder.analysis_plan  # after calibration, which settles one that says auto
    models = stackable_models(folder, accept_unverified=accept_unverified)
    probes = probe_study(folder, DevelopmentRows(folder, models, accept_unverified).source)
    accused = seen_through(
        probes, models, accept_accused, mend=f"`pertstack stack {folder.word} --accept-accused {{model}}`"
    )
    models = tuple(m for m in models if m not in accused)
    rows = DevelopmentRows(folder, models, accept_unverified, workers=workers, memory=memory, cluster=cluster)
    source, reduction = rows.source, rows.reduction
    constants = constant_models(reduction)
    chosen = (*asked, *_beside(folder, asked, constants, only_asked=wanted is not None))
    remark(of_stack(folder, len(models), len(chosen)))
    with progress_bar() as bar:
        task = bar.add_task("fitting combiners", total=len(chosen) * (folder.plan.n_folds + 1))
        nested = rows.nested(chosen, on_done=lambda _: bar.advance(task))
    oof, in_sample = _scores(rows, nested, plan)
    parts = shared_parts(oof.samples, folder.samples["perturbation"].unique())
    choice = choose(
        oof,
        nested,
        primary=plan.choice_metric,
        level=plan.no_harm_level,
        ranges=calibrated.ranges,
        constants=constants,
        seed=plan.seed,
        rule=plan.choice_rule,
        parts=parts,
        no_vote=calibrated.no_vote,
    )
    fitted = {name: nested.combiner(name).get_params() for name in nested.names}
    key = rows.key(fitted)
    stacked = Stacked(
        key=key,
        models=models,
        nested=nested,
        scores=oof,
        in_sample=in_sample,
        choice=choice,
        diversity=Diversity.of(reduction),
        slopes=slopes_of(reduction),
        left_out=left_out_models(folder, accept_unverified=accept_unverified)
        | {m: _why(m, words) for m, words in accused.items()},
        unverified=tuple(m for m in unverified_models(folder) if m in models),
        constants=constants,
        rows_seen=seen_rows(source),
        probes=tuple(probes),
        accused=accused,
        accepted=tuple(sorted(set(accept_accused))),
        unit=folder.plan.group_by,
        parts=parts,
        looks=folder.ledger.looks(),
        judged=_judged(folder, key),
    )
    _note_accepted(folder, stacked)
    write_probes(folder, probes, key)
    _write(folder, stacked, accept_unverified)
    return stacked


def _beside(
    folder: StudyFolder, asked: Sequence[Combiner], constants: tuple[str, ...], *, only_asked: bool
) -> Iterator[Combiner]:
    """What the study calls for beside the combiners that were asked for."""
    if constants and BEST_INFORMED not in {c.name for c in asked}:
        yield make_combiner(BEST_INFORMED)
    if not only_asked and _parts_differ(folder):
        yield make_combiner(PARTS_SHRUNKEN)


def _note_accepted(folder: StudyFolder, stacked: Stacked) -> None:
    """A line of the ledger for every accused model that takes part; one for each stack."""
    for model in stacked.accepted:
        codes = sorted({f.code for f in stacked.probes if f.where == model and f.severity == "error"})
        line: dict[str, Any] = {"model": model, "codes": codes, "key": stacked.key}
        if line not in [e.facts for e in folder.ledger.of_kind(ACCEPTED)]:
            folder.ledger.append(ACCEPTED, **line)


def _judged(folder: StudyFolder, key: str) -> bool:
    """Whether the last look was at this stack under this plan: a verdict gives its board again, or finishes it."""
    looks = folder.ledger.of_kind(LOOK)
    asked = {"key": key, "analysis_plan_digest": folder.analysis_plan.digest}
    return bool(looks) and asked.items() <= looks[-1].facts.items()


def _parts_differ(folder: StudyFolder) -> bool:
    """Whether scored combinations differ in how many of their parts the fits met in other combinations."""
    rows = folder.samples[folder.samples["role"] == "development"]
    fitted = fitted_of(folder.samples)
    levels = known_levels(rows["perturbation"], rows["fold"], fitted, apart=apart(folder.plan.group_by))[JOINED]
    return len(set(levels)) > 1


def _why(model: str, words: str) -> str:
    return (
        f"a probe accuses it: {words} `pertstack withdraw` takes it out for good; `pertstack stack --accept-accused "
        f"{model}` stacks it all the same, and every headline says so"
    )


def _scores(rows: DevelopmentRows, nested: NestedFits, plan: AnalysisPlan) -> tuple[ScoreTable, ScoreTable]:
    """Out-of-fold scores of everything, and those of the final fits on some of the rows they were learned from."""
    source, references = rows.source, rows.folder.references
    n_rows = sum(source.store.n_samples(b) for b in source.blocks())
    some = SomeRows(source, spread_rows(source, GAP_ROWS))
    with progress_bar() as bar:
        task = bar.add_task("scoring out of fold", total=n_rows + sum(map(len, some.rows.values())))
        metrics = panel_metrics(plan, references)
        oof = score_out_of_fold(rows, nested.combines(), metrics, on_rows=lambda n: bar.advance(task, n))
        in_sample = score(
            some,
            nested.final_combines(),
            references,
            metrics=(plan.choice_metric,),
            base_models=False,
            memory=parse_bytes(rows.memory),
            workers=rows.workers,
            on_rows=lambda n: bar.advance(task, n),
        )
    return oof.with_oracle(plan.choice_metric, source.models, scratch=rows.folder.scratch), in_sample


def _write(folder: StudyFolder, stacked: Stacked, accept_unverified: bool) -> None:
    results = folder.results
    nested = stacked.nested
    stacked.scores.save(results / "oof_scores.npz")
    write_json(results / "diversity.json", {"format": 1, **stacked.diversity.to_json()})
    chosen = stacked.choice.chosen
    folds = {of_fold(chosen, k): fit for k, fit in nested.fits[chosen].items()}
    arrays = save_fitted({name: nested.final[name] for name in nested.names} | folds)
    buffer = io.BytesIO()
    arrays["gene_names"] = np.asarray(folder.gene_names, dtype=str)
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(results / "weights.npz", buffer.getvalue())
    write_json(
        results / "weights.json",
        {
            "format": 1,
            "key": stacked.key,
            "chosen": chosen,
            "models": list(stacked.models),
            "accept_unverified": accept_unverified,
            "combiners": {
                name: {"params": nested.combiner(name).get_params(), "weights": weights}
                for name, weights in stacked.weights.items()
            },
        },
    )
    write_json(results / "oof.json", {"format": 1, "key": stacked.key, **oof_summary(stacked)})


def oof_summary(stacked: Stacked) -> dict[str, Any]:
    """The choice and its reasons, the overfitting gap of every combiner, failures, cautions.

    The gap is that of ``gap_rows`` rows, scored both ways; ``in_sample`` is the out-of-fold score of all rows plus it.
    """
    metric = stacked.choice.primary
    gaps: dict[str, dict[str, float]] = {}
    same_rows = stacked.scores.samples["sample_id"].isin(set(stacked.in_sample.samples["sample_id"])).to_numpy()
    for name in stacked.in_sample.names:
        outside = stacked.scores.mean(name, metric).value
        gap = stacked.in_sample.mean(name, metric).value - stacked.scores.mean(name, metric, rows=same_rows).value
        gaps[name] = {"in_sample": outside + gap, "out_of_fold": outside, "gap": gap}
    return {
        "choice": stacked.choice.to_json(),
        "gaps": gaps,
        "gap_rows": stacked.in_sample.n,
        "nesting": stacked.nested.settings["nesting"],
        "left_out": stacked.left_out,
        "accused": list(stacked.accused),
        "accepted": list(stacked.accepted),
        "unverified": list(stacked.unverified),
        "constants": list(stacked.constants),
        "between_named": True,
        "rows_seen": stacked.rows_seen,
        "slopes": stacked.slopes,
        "failures": [str(f) for f in stacked.nested.failures],
        "cautions": {name: list(c) for name, c in stacked.nested.cautions().items()},
    }


def stored_key(folder: StudyFolder) -> str | None:
    """Key of the stack step that is on disk, or None."""
    path = folder.results / "oof.json"
    return str(read_json(path)["key"]) if path.exists() else None
