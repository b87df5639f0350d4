"""The verdict step of a study: the held-out test is opened through ``HeldOutTruth`` and judged.

The look is in the ledger before the first truth is read. The same predictions and the same plan give the board that is
there already, without another look; a look that was interrupted is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_json
from pertstack._base.errors import InputError
from pertstack._base.files import read_json, write_json
from pertstack._base.machine.cluster import Cluster
from pertstack._base.machine.memory import parse_bytes, tile_memory
from pertstack._base.machine.progress import progress_bar, remark
from pertstack.design.analysis_plan import is_exploratory
from pertstack.design.metric_names import Metric
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce.read_tiles import ordered_blocks
from pertstack.reduce.scoring.score import score
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.combiner import FittedCombiner
from pertstack.study.audit.probes import TEST_PROBES, probe_test, write_probes
from pertstack.study.check_facts import check_facts
from pertstack.study.development.learned import Stored, development_rows, final_fits, fold_fits, stored_stack
from pertstack.study.development.out_of_fold import Asked, score_on
from pertstack.study.development.rows import panel_metrics
from pertstack.study.estimate import of_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.judged import derive, setting_of
from pertstack.study.members import require_every_block
from pertstack.study.sealed_results import refuse_lost
from pertstack.study.truth.held_out import HeldOutTruth, require_sealed_verdict, unfinished_look
from pertstack.study.truth.looks import publish_look
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.checks.checks import run_checks, write_checks
from pertstack.verdict.coverage import check_coverage
from pertstack.verdict.judge import Verdict
from pertstack.verdict.replicates import ReplicatePredictor


def judge_study(
    folder: StudyFolder,
    *,
    exploratory: bool,
    workers: int,
    memory: str,
    key: Path | None = None,
    cluster: Cluster | None = None,
) -> Leaderboard:
    """Open the held-out test, or give the board of the look already made with the same predictions and plan.

    Parameters
    ----------
    folder : of the study.
    exploratory : look although the plan was changed, or its looks are used up; marked for good.
    workers : processes that share the pass.
    memory : of a tile, in words.
    key : the file with the key, if the test is sealed.
    cluster : where rows are scored; None for here.

    Raises
    ------
    InputError
        Nothing is stacked yet, or it is out of date; or the key is missing or another one.
    PlanLockedError
        The plan differs from the locked one, or all planned looks are used up.
    """
    folder = folder.with_one_plan()
    stored = stored_stack(folder)
    plan = folder.analysis_plan
    done = folder.results / "verdict.json"
    if unfinished_look(folder) is None and done.exists() and read_json(done)["key"] == stored.key:
        require_sealed_verdict(folder)
        return Leaderboard.from_json(folder.results / "leaderboard.json")
    if unfinished_look(folder) is None and not exploratory:
        refuse_lost(folder, stored.key)
    if not (folder.plan.table["role"] == "test").any():
        raise InputError(
            f"{folder.root} holds out no test (it was made with --test 0), so there is nothing to judge, and no look "
            f"was recorded. Its out-of-fold scores: pertstack stack {folder.word}. For a verdict make the study again "
            f"with --test 0.2."
        )
    require_every_block(folder, "test")
    tile_memory(memory, len(folder.gene_names), len(stored.models))  # refused before the look, not after it
    door = HeldOutTruth(folder, key)
    door.require_key()
    remark(of_stack(folder, len(stored.models), len(stored.combiners), verdict=True))
    fits = final_fits(folder, stored, workers=workers, memory=memory)
    nested = fold_fits(folder, stored, workers=workers, memory=memory)
    look, truth = door.look(_intent(folder, stored), exploratory=exploratory)
    source = _test_source(folder, truth, stored.models, accept_unverified=stored.accept_unverified)
    elsewhere = None
    if cluster is not None:
        file = None if key is None else key.resolve()
        shared = SharedTest(folder.root.resolve(), stored.models, stored.accept_unverified, memory, look.number, file)
        elsewhere = cluster, shared
    test = _score_test(folder, stored, fits, source, workers=workers, memory=memory, elsewhere=elsewhere)
    oof = ScoreTable.load(folder.results / "oof_scores.npz", folder.scratch)
    if plan.looks_rule == "plain":
        write_json(
            folder.results / "coverage.json",
            _coverage(folder, stored, nested, final=fits[stored.chosen], test=source, memory=memory),
        )
        test.save(folder.results / "test_scores.npz")
        write_probes(folder, probe_test(folder, source, oof, test=test), stored.key, name=TEST_PROBES)
    else:
        publish_look(folder, look.entry, stored.chosen, single=_best_single(folder), oof=oof, test=test)
    marked = look.exploratory or is_exploratory(folder.ledger)  # also by what was done while the look was interrupted
    setting = setting_of(folder, stored, look.number, exploratory=marked)
    verdict = derive(setting, plan, oof, test=test, ledger=folder.ledger)
    write_json(folder.results / "setting.json", setting.to_json())
    _write(folder, stored, verdict)
    return verdict.leaderboard


def _intent(folder: StudyFolder, stored: Stored) -> dict[str, Any]:
    """What a look is about to judge: by its digest an interrupted look is known again. ``predictions``: of the test, of
    which the key of the stack step knows nothing."""
    store = folder.store
    asked = [(b, m) for b in store.blocks("test") for m in stored.models]
    predicted = [[b.id, m, None if (r := store.find(b, m)) is None else r.digest] for b, m in asked]
    return {
        "predictions": digest_json(predicted),
        "key": stored.key,
        "plan_digest": folder.plan.digest,
        "analysis_plan_digest": folder.analysis_plan.digest,
        "models": list(stored.models),
        "chosen": stored.chosen,
        "weights": digest_json(stored.combiners),
    }


def _best_single(folder: StudyFolder) -> str:
    """The best base model as chosen out of fold."""
    return str(read_json(folder.results / "oof.json")["choice"]["best_single"])


def _score_test(
    folder: StudyFolder,
    stored: Stored,
    fits: dict[str, FittedCombiner],
    source: StoreSource,
    *,
    workers: int,
    memory: str,
    elsewhere: tuple[Cluster, SharedTest] | None,
) -> ScoreTable:
    plan = folder.analysis_plan
    combines: dict[str, Any] = {name: fit for name, fit in fits.items() if name != "no_change"}
    made = {"replicate": ReplicatePredictor} if ReplicatePredictor(source).exists else {}
    metrics = panel_metrics(plan, folder.references, full=True)
    n_rows = sum(folder.store.n_samples(b) for b in source.blocks())
    with progress_bar() as bar:
        task = bar.add_task("scoring the held-out test", total=n_rows)

        def done(n: int) -> None:
            bar.advance(task, n)

        def here(some: Sequence[str | Metric]) -> ScoreTable:
            return score(
                source,
                {**combines, **{name: make(source) for name, make in made.items()}},
                folder.references,
                metrics=some,
                memory=parse_bytes(memory),
                workers=workers,
                on_rows=done,
                scratch=folder.scratch,
            )

        if elsewhere is None:
            table = here(metrics)
        else:
            cluster, shared = elsewhere
            asked = Asked(shared, combines, tuple(metrics), made)
            table = score_on(cluster, asked, ordered_blocks(source), here=here, on_rows=done)
    return table.with_oracle(plan.choice_metric, stored.models, scratch=folder.scratch)


@dataclass(frozen=True)
class SharedTest:
    """Test rows of a look that is under way, as they are named to a worker: it opens them from the study's folder, once
    for all pieces."""

    root: Path
    models: tuple[str, ...]
    accept_unverified: bool
    memory: str
    look: int
    key: Path | None

    @cached_property
    def opened(self) -> TestRows:
        folder = StudyFolder.open(self.root)
        truth = HeldOutTruth(folder, self.key).again(self.look)
        return TestRows(folder, _test_source(folder, truth, self.models, accept_unverified=self.accept_unverified))


@dataclass(frozen=True)
class TestRows:
    """Test rows and the study they are of."""

    __test__ = False  # no test of pytest's

    folder: StudyFolder
    source: StoreSource


def _test_source(
    folder: StudyFolder, truth: PredictionStore, models: Sequence[str], *, accept_unverified: bool
) -> StoreSource:
    """Test rows with their truth: only this module makes one."""
    return StoreSource(
        folder.store,
        truth,
        "test",
        models,
        groups=folder.plan.groups,
        accept_unverified=accept_unverified,
        distance=folder.training_distance,
    )


def _coverage(
    folder: StudyFolder,
    stored: Stored,
    nested: dict[int, FittedCombiner],
    final: FittedCombiner,
    test: StoreSource,
    *,
    memory: str,
) -> dict[str, Any]:
    """How often 90 % prediction intervals of the shipped combination hold the truth of the test, by cell line."""
    return check_coverage(
        development_rows(folder, stored, memory=memory).source,
        nested,
        test,
        final=final,
        references=folder.references,
        seed=folder.analysis_plan.seed,
        memory=parse_bytes(memory),
        scratch=folder.scratch,
    )


def _write(folder: StudyFolder, stored: Stored, verdict: Verdict) -> None:
    results = folder.results
    verdict.leaderboard.to_csv(results / "leaderboard.csv")
    verdict.leaderboard.to_json(results / "leaderboard.json")
    write_checks(results / "checks.json", run_checks(check_facts(folder, stored.combiners, verdict)))
    board = verdict.leaderboard
    facts = {"key": stored.key, "looks": board.test_looks, "exploratory": board.exploratory}
    write_json(results / "verdict.json", {**verdict.to_json(), **facts, "ledger_head": folder.ledger.head})
