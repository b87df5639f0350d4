"""What the audit asks of tables, plans, jobs and sums: that they agree with each other and with what was promised.

Bytes of predictions are handled by the store, the chain of the ledger by the ledger; whether a file is what
its step wrote is asked of the seals (``study/seals.py``). ``study/audit/audit.py`` puts all of it together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import OWN, own_digest_fits
from pertstack._base.errors import InputError, StackingError, first_few
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack._base.fingerprints import change
from pertstack._base.reading.tables import plain_texts
from pertstack.design.analysis_plan import CHANGED, AnalysisPlan, locked_plan
from pertstack.design.blocks import Block
from pertstack.fit.jobs.job import Job
from pertstack.fit.jobs.planned import read_planned
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce.sums.part_files import load_part
from pertstack.study.development.learned import learn_again, stored_stack
from pertstack.study.folder import StudyFolder


def stale_results(folder: StudyFolder) -> list[Finding]:
    """Weights or a board of predictions that are not there any more: no damage, but no answer either."""
    weights, board = folder.results / "weights.json", folder.results / "leaderboard.json"
    found = []
    if weights.exists():
        try:
            stored_stack(folder)
        except InputError as error:
            found.append(Finding("warning", "weights_stale", str(error), where=str(weights)))
    done = folder.results / "verdict.json"
    if weights.exists() and done.exists() and read_json(done)["key"] != read_json(weights)["key"]:
        text = f"{board} speaks of other weights than {weights.name}: the study was stacked again after the verdict."
        found.append(Finding("warning", "results_stale", text, where=str(board)))
    return found


def weights_as_learned(folder: StudyFolder, workers: int = 1, sums: Path | None = None) -> Iterator[Finding]:
    """Every combiner learned again from the predictions, summed anew, against what ``weights.npz`` holds, to one part
    in a million.

    Bits may differ on another machine; weights that were edited together with their seal differ by more.

    Parameters
    ----------
    folder : of the study.
    workers : threads that sum.
    sums : a folder with sums that were just made anew, on a cluster; None to make them here.
    """
    path = folder.results / "weights.npz"
    try:
        stored = stored_stack(folder)
    except InputError:
        return
    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    with nullcontext(sums) if sums else TemporaryDirectory(prefix="pertstack-sums-") as place:
        names = list(stored.combiners)
        again = learn_again(folder, stored, names, workers=workers, memory="1 GB", sums=Path(place))
        fits = {name: fit.arrays() for name, fit in again.items()}
    for name, arrays in fits.items():
        for key, value in arrays.items():
            there = kept.get(f"{name}/{key}")
            if there is None or there.shape != value.shape or not np.allclose(there, value, rtol=1e-6, atol=1e-9):
                text = (
                    f"{path}: {key} of combiner {name!r} is not what it learns from the stored predictions. The file "
                    f"or the sums it was learned from were edited, or pertstack changed since. Delete "
                    f"{folder.path('reduced')} and run `pertstack stack {folder.word}` again."
                )
                yield Finding("error", "weights_not_learned", text, where=str(path))


def samples_as_laid_out(folder: StudyFolder) -> list[Finding]:
    """``plan/samples.parquet`` against the metadata beside the predictions, sample by sample."""
    path = folder.path("plan", "samples.parquet")
    table = plain_texts(pd.read_parquet(path))
    found, wrong = [], dict[str, list[str]]()
    order = [str(s) for s in folder.plan.table["sample_id"]]
    if list(map(str, table.index)) != order:
        moved = [f"row {i}: {a}" for i, (a, b) in enumerate(zip(table.index, order, strict=False)) if str(a) != b]
        text = f"{path} does not list the samples of the fold plan in its order, from {first_few(moved, 1)} on."
        found.append(
            Finding(
                "error",
                "samples_permuted",
                f"{text} Restore it from a copy.",
                count=len(moved),
                examples=tuple(moved[:10]),
                where=str(path),
            )
        )
    for block in folder.store.blocks():
        ours = folder.store.obs(block)
        theirs = table.reindex(ours.index)
        for column in (c for c in table.columns if c in ours):
            for sample in ours.index[~_equal(ours[column], theirs[column])]:
                wrong.setdefault(str(sample), []).append(str(column))
    if wrong:
        examples = [f"{sample} ({', '.join(columns)})" for sample, columns in wrong.items()]
        text = f"{path} differs for {len(wrong):,} samples from the table beside their predictions: "
        text += f"{first_few(examples, 3)}. One of the two was changed; restore it from a copy."
        found.append(
            Finding("error", "samples_edited", text, count=len(wrong), examples=tuple(examples[:10]), where=str(path))
        )
    return found


def _equal(a: pd.Series, b: pd.Series) -> np.ndarray:
    """(n,) whether entries agree; unknown equals unknown, numbers to single precision."""
    if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
        return np.asarray(np.isclose(a.to_numpy(dtype=float), b.to_numpy(dtype=float), rtol=1e-6, equal_nan=True))
    same = (a.astype(object).astype(str).to_numpy() == b.astype(object).astype(str).to_numpy()) | (
        a.isna().to_numpy() & b.isna().to_numpy()
    )
    return np.asarray(same)


def plan_as_locked(folder: StudyFolder) -> Iterator[Finding]:
    """``plan.toml`` against the plan that was locked, or the last change that was admitted as exploratory."""
    path = folder.analysis_plan_file
    try:
        plan = folder.analysis_plan
    except StackingError as error:
        yield Finding("error", "analysis_plan", f"{path}: {error}", where=str(path))
        return
    promised = locked_plan(folder.ledger)
    if promised is None:
        return
    admitted = [AnalysisPlan.from_json(e.facts["plan"]) for e in folder.ledger.of_kind(CHANGED)]
    lines = path.read_text(encoding="utf-8").splitlines()
    for key, (was, now) in (admitted[-1] if admitted else promised).differences(plan).items():
        at = next((i for i, line in enumerate(lines) if line.split("=")[0].strip() == key), None)
        row = "" if at is None else f" line {at + 1}"
        text = f"{path}{row}: {key} is {now!r}, and the plan was locked with {was!r}. Put it back, or change it with "
        text += "`pertstack plan --exploratory`, which marks every later result."
        numbers = {} if at is None else {"rows": [at]}
        labels = () if at is None else (f"line {at + 1}",)
        yield Finding("error", "locked_plan_edited", text, examples=labels, where=str(path), numbers=numbers)


def jobs_as_run(folder: StudyFolder) -> Iterator[Finding]:
    """``planned.json``, and ``job.json``, logs and curves of every job, against their digests and against the records
    of the predictions.
    """
    try:
        read_planned(folder.path("jobs"))
    except StackingError as error:
        yield Finding("error", "planned_jobs_changed", str(error), where=str(folder.path("jobs", "planned.json")))
    fitted = _fitted_jobs(folder)
    for job in sorted(job for job in fitted if not (job / "job.json").is_file()):
        text = f"{job / 'job.json'} is gone, and the store holds predictions of this job. Restore it from a copy."
        yield Finding("error", "job_record_missing", text, where=str(job / "job.json"))
    for job in sorted(p for p in folder.path("jobs").glob("*/*") if p.is_dir()):
        path = job / "job.json"
        if not path.is_file():
            if job not in fitted:
                text = f"{path} is missing: the job is running, or was killed before it predicted anything."
                yield Finding("note", "job_unfinished", text, where=str(path))
            continue
        try:
            value = read_json(path)
            whole = isinstance(value, dict) and (OWN not in value or own_digest_fits(value))
        except StackingError as error:
            yield Finding("error", "job_record_changed", str(error), where=str(path))
            continue
        if whole and (belongs := _job_of(value["job"]).folder) != f"{job.parent.name}/{job.name}":
            text = f"{path} is the record of {belongs}: it was moved or copied here. Restore it from a copy."
            yield Finding("error", "job_record_moved", text, examples=(belongs,), where=str(path))
            continue
        if not whole or not isinstance(value.get("files", {}), dict):
            differing = _against_records(folder, value)
            named = f" It differs from the records of its predictions in {first_few(differing)}." if differing else ""
            text = f"{path} is not what the job wrote: it was edited or damaged.{named} Restore it from a copy."
            yield Finding("error", "job_record_changed", text, examples=tuple(differing[:10]), where=str(path))
        elif differing := _against_records(folder, value):
            text = f"{path} is not of the fit behind the predictions in the store: {first_few(differing)} differ. It "
            text += "is an older version or another job's. Restore it from a copy."
            yield Finding("error", "job_record_stale", text, examples=tuple(differing[:10]), where=str(path))
        for name, facts in value.get("files", {}).items() if whole else ():
            differs = change(job / name, facts)
            if differs is not None:
                text = f"{job / name} {'' if 'gone' in differs.said else 'changed: it '}{differs.said}. It is the log "
                text += "of a fit; restore it from a copy."
                numbers = {"rows": list(differs.rows[:10])} if differs.rows else {}
                where = str(job / name)
                yield Finding(
                    "error",
                    "job_log_changed",
                    text,
                    count=1,
                    examples=differs.labels[:10],
                    where=where,
                    numbers=numbers,
                )


def _record(store: PredictionStore, block: Block, model: str) -> Record | None:
    """A commit record; None if there is none, or if it is damaged, which the audit of the store tells."""
    try:
        return store.find(block, model)
    except (StackingError, KeyError, TypeError, ValueError):
        return None


def _job_of(facts: dict[str, Any]) -> Job:
    return Job(**facts)


def _fitted_jobs(folder: StudyFolder) -> set[Path]:
    """Folders of the jobs whose predictions are in the store, nested fits included."""
    store = folder.store
    records = (_record(store, b, m) for b in store.blocks() for m in store.layers(b))
    made = (r.meta["job"] for r in records if r is not None and r.meta.get("kind") == "cross_fit")
    return {folder.path("jobs", _job_of(facts).folder) for facts in made}


_OF_A_FIT = ("job", "seed", "n_fit", "fit_ids_digest", "params", "versions")
"""What makes a fit the same one: a job that goes on after an interruption fits again, in another time."""


def _against_records(folder: StudyFolder, value: Any) -> list[str]:
    """Facts of a ``job.json`` that the commit records of its predictions contradict; a job without any says nothing."""
    if not isinstance(value, dict) or not isinstance(value.get("record"), dict) or not isinstance(value["job"], dict):
        return []
    job, record = value["job"], value["record"]
    found: list[str] = []
    for block in folder.store.blocks():
        if job.get("also") is not None or block.fold != job.get("fold"):
            continue
        if job.get("cell_line") not in (None, block.cell_line):
            continue
        there = _record(folder.store, block, str(job.get("model")))
        if there is None or there.meta.get("kind") != "cross_fit":
            continue
        found += [name for name in _OF_A_FIT if there.meta.get(name) != record.get(name) and name not in found]
    return found


def sums_as_reduced(folder: StudyFolder) -> Iterator[Finding]:
    """The parts of the one pass, array by array: a cache, but weights are learned from it."""
    for part in sorted(p for p in folder.path("reduced").glob("*") if p.is_dir() and not p.name.startswith(".")):
        if not (part / "part.json").is_file():
            text = f"{part} has no part.json: it belongs to no pass. Delete it; the next pass makes it anew."
            yield Finding("warning", "reduced_unfinished", text, where=str(part / "part.json"))
            continue
        try:
            load_part(part)
        except StackingError as error:
            named = re.match(rf"{re.escape(str(part))}/[a-z_]+\.npy", str(error))
            where = named.group() if named else str(part / "part.json")
            yield Finding("error", "reduced_damaged", str(error), where=where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{part / 'part.json'} cannot be used ({error}). Delete {part}; the next pass makes it anew."
            yield Finding("error", "reduced_damaged", text, where=str(part / "part.json"))
