"""Making a study: read and validate the data, fix the fold plan, lay the profiles into blocks.

Everything is prepared in a folder beside the target and renamed into place at the end, so that an interrupted or
refused ``init`` leaves nothing behind. The data file is not needed afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, LeakError, StackingError
from pertstack._base.files import whole, write_json
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import scratch_folder
from pertstack._base.reading import tables
from pertstack._base.reading.remote import is_remote, redacted
from pertstack._base.shown import count_of
from pertstack.data import DataFile, build_side, open_data, save_side, validate
from pertstack.data.cells import CellChoice
from pertstack.data.checks.validate import name_findings
from pertstack.data.readers.columns.genes import other_names
from pertstack.data.rows import Float32
from pertstack.data.taken import Taken, taken
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.blocks import Block
from pertstack.design.leaks.check_plan import check_plan
from pertstack.design.plan.apart import apart_findings
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.foreign import read_split
from pertstack.design.plan.foreign_split import ForeignSplit
from pertstack.design.plan.support import propose_support, support_rows
from pertstack.predictions.store.sealed import cipher, seal_chunks
from pertstack.study.choices import DataChoices, PlanChoices, StudyChoices
from pertstack.study.folder import FORMAT, OTHER_NAMES, StudyFolder, write_choices
from pertstack.study.laid_out import lay_out_blocks, rounding_findings
from pertstack.study.new_rows.asked import ASKED, asked_findings, read_asked
from pertstack.study.new_rows.new_samples import open_new
from pertstack.study.seals import seal_init
from pertstack.study.steps.refit import with_distance
from pertstack.study.truth.sealing_key import SealingKey
from pertstack.verdict.setting import FEW_GROUPS

TEST_SHARE = 0.2
LONGEST_NAME = 220  # bytes of a block's name; what is written aside is called a little longer


@dataclass(frozen=True)
class Preview:
    """What ``init`` would take for what, and the plan it would make. Values were looked at in part only."""

    taken: list[Taken]
    findings: list[Finding]
    plan: str


def preview_study(root: Path, data: Path, choices: StudyChoices) -> Preview:
    """What a study of these data would be made of; nothing is written and no value is checked.

    Parameters
    ----------
    root : folder that would be made; must be free.
    data : the file.
    choices : of the study.

    Raises
    ------
    InputError
        As ``create_study``, as far as metadata tell.
    """
    _require_free(Path(root))
    file, split = _placed(_open(data, choices), choices.plan)
    _stop_on_errors(name_findings(file), f"{data} cannot be used as it is", InputError)
    plan = _make_plan(file, choices.plan, split)
    return Preview(taken(file), list(file.notes), plan_in_words(plan))


def plan_in_words(plan: FoldPlan) -> str:
    """The question of a plan, the size of its parts, and what the test's groups mean for the interval of a verdict."""
    facts = plan.describe()
    names = [p["role"] if p["fold"] is None else f"fold {p['fold']}" for p in facts["parts"]]
    parts = "; ".join(
        f"{name}: {count_of(p['samples'], 'sample')} in {count_of(p['groups'], 'group')}"
        for name, p in zip(names, facts["parts"], strict=True)
    )
    whose = " Folds and test come from an explicit table." if facts["rule"] == "table" else ""
    grouped = f"Groups: {facts['n_groups']:,}, by {plan.group_by}; they are held out whole.{whose}"
    known = "\nSupport is always fitted on and never scored." if "support" in names else ""
    tested = sum(p["groups"] for p in facts["parts"] if p["role"] == "test")
    width = (
        f"\nThe verdict's interval comes from the {count_of(tested, 'group')} of the test; four times as many would "
        f"halve its width.{f' With fewer than {FEW_GROUPS} it is a rough guide.' if tested < FEW_GROUPS else ''}"
    )
    return f"Question: {plan.question}\n{grouped}\n{parts}{width if tested else ''}{known}"


def _open(data: Path, choices: StudyChoices) -> DataFile:
    how = choices.data
    return open_data(
        data,
        mapping=how.mapping,
        control_layer=how.control_layer,
        treated_layer=how.treated_layer,
        delta=how.delta,
        control=how.control,
        metadata=how.metadata,
        controls=how.controls,
        control_label=how.control_label or None,
        seed=choices.plan.seed,
        cells=_cells(how),
    )


def _cells(how: DataChoices) -> CellChoice:
    return CellChoice(how.by, how.normalise, how.min_cells, how.cells_as_samples)


def create_study(root: Path, data: Path, choices: StudyChoices) -> StudyFolder:
    """Make a study from a data file; findings that do not stop it are kept in ``plan/findings.json``.

    Parameters
    ----------
    root : folder to make; it appears whole or not at all.
    data : the file.
    choices : of the study.

    Raises
    ------
    InputError
        The target exists, the file cannot be used, or validation found errors (all are listed).
    LeakError
        The fold plan would let development rows see test rows.
    """
    root = Path(root)
    _require_free(root)
    _require_sealable(root, choices.plan)
    file, split = _placed(_open(data, choices), choices.plan)
    _stop_on_errors(findings := validate(file), f"{data} cannot be used as it is", InputError)
    others = other_names(file.var)
    side, side_findings = build_side(file.obs, file.gene_names, uns=file.uns, other=others, **vars(choices.side))
    findings += side_findings
    _stop_on_errors(side_findings, "The side information cannot be used as it is", InputError)
    plan = _make_plan(file, choices.plan, split)
    plan_findings = check_plan(plan, file.obs, lambda: _named_chunks(file), scratch=scratch_folder())
    plan_findings += propose_support(plan, file.obs) + apart_findings(plan, file.obs)
    findings += plan_findings + rounding_findings(choices.data.precision)
    _stop_on_errors(plan_findings, "The fold plan leaks", LeakError)

    _need_short_names(file.obs["cell_line"])
    with whole(root) as staging:
        (staging / "plan").mkdir(parents=True)
        plan.save(staging / "plan")
        obs = file.obs.loc[plan.table["sample_id"]]
        obs.to_parquet(staging / "plan" / "samples.parquet")
        write_json(staging / "plan" / "taken.json", [t.to_json() for t in taken(file)])
        if others:
            write_json(staging / "plan" / OTHER_NAMES, others)
        write_json(staging / "card.json", file.card.to_json())
        save_side(staging / "side", side)
        truth = lay_out_blocks(staging, file, plan, obs=obs, precision=choices.data.precision)
        key = None if choices.plan.seal_test is None else SealingKey.read_or_make(choices.plan.seal_test)
        if key is not None:
            seal_chunks(truth, key.secret)
        AnalysisPlan(grouping=plan.group_by, seed=choices.plan.seed).save(staging / "plan.toml")
        write_choices(staging, {**_facts(data, file, plan, choices), "test_key": None if key is None else key.id})
        laid_out = StudyFolder(staging)
        findings += _asked(laid_out, choices.plan.asked_for)
        write_json(staging / "plan" / "findings.json", [f.to_json() for f in findings])
        laid_out.ledger.begin("study_created", plan_digest=plan.digest, n_samples=len(obs))
        seal_init(laid_out)
    return StudyFolder.open(root)


def _asked(folder: StudyFolder, asked: Path | None) -> list[Finding]:
    """Whether what will be predicted is what is scored; the table of both is kept beside the plan."""
    if asked is None:
        return []
    if asked.suffix.casefold() in {".csv", ".tsv", ".txt", *tables.PARQUET}:
        obs = read_asked(asked, folder.samples)
    else:
        obs = with_distance(folder, open_new(folder, asked))
    rows, findings = asked_findings(folder, obs, str(asked))
    write_json(folder.path("plan", ASKED), {"format": 1, "file": str(asked), "rows": rows})
    return findings


def _require_free(root: Path) -> None:
    if (root / "study.toml").exists():
        raise InputError(
            f"{root} already is a study. Continue it with `pertstack run {quote(str(root))}`, or choose another folder."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder. Choose a new folder for the study.")


def _require_sealable(root: Path, choices: PlanChoices) -> None:
    """A sealed test needs the cipher, a test, and a key that does not lie in the study it is the key of."""
    path = choices.seal_test
    if path is None:
        return
    cipher(bytes(32))
    if choices.test == 0:
        raise InputError("--seal-test with --test 0: no test is held out, so there is nothing to seal. Leave one out.")
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):  # a link to itself is refused below
        raise InputError(
            f"{path} lies in the study {root}, so whoever has the study would have the key. Name a file elsewhere, "
            "that another person can keep."
        )
    if os.path.lexists(path):
        SealingKey.read(path)


def _stop_on_errors(findings: Sequence[Finding], what: str, kind: type[StackingError]) -> None:
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise kind(f"{what}:\n" + "\n".join(f"  - {f.message}" for f in errors))


def _placed(file: DataFile, choices: PlanChoices) -> tuple[DataFile, ForeignSplit | None]:
    """The samples that a split of other software places, and the split; the file as it is if there is none."""
    split = None if choices.plan is None else read_split(choices.plan, file.obs, file.cells)
    if split is None:
        return file, None
    known = set(split.table["sample_id"])
    return file.only([s for s in file.sample_ids if s in known], split.findings), split


def _make_plan(file: DataFile, choices: PlanChoices, split: ForeignSplit | None) -> FoldPlan:
    support = support_rows(file.obs, choices.support) if choices.support else None
    if choices.plan is None:
        return FoldPlan.make(
            file.obs,
            group_by=choices.group or "perturbation",
            n_folds=3 if choices.folds is None else choices.folds,
            test_share=TEST_SHARE if choices.test is None else choices.test,
            seed=choices.seed,
            support=support,
        )
    if choices.test is not None:
        raise InputError(
            f"--test {choices.test} and --plan {choices.plan} contradict each other: the table says which samples are "
            "the test. Leave --test out, or leave --plan out."
        )
    if split is not None:
        group = choices.group or split.group_by
        return FoldPlan.from_table(
            split.table, file.obs, group_by=group, n_folds=choices.folds, seed=choices.seed, support=support
        )
    return FoldPlan.from_file(
        choices.plan, file.obs, group_by=choices.group, n_folds=choices.folds, seed=choices.seed, support=support
    )


def _need_short_names(lines: pd.Series[str]) -> None:
    """Blocks are folders that are named by their cell line, and file systems keep 255 bytes of a name."""
    long = [str(line) for line in lines.unique() if len(Block(str(line), 0).id) > LONGEST_NAME]
    if long:
        raise InputError(
            f"{len(long):,} names of cell lines are too long for the name of a folder, such as {long[0][:60]!r}... "
            f"({len(long[0]):,} characters; letters beyond ASCII, blanks and signs count several). Take another column "
            f"with --map cell_line=COLUMN, or shorten them."
        )


def _named_chunks(file: DataFile) -> Iterator[tuple[np.ndarray, Float32, Float32]]:
    ids = np.asarray(file.obs.index, dtype=object)
    for chunk in file.chunks():
        yield ids[chunk.start : chunk.stop], chunk.control, chunk.treated


def _facts(data: Path, file: DataFile, plan: FoldPlan, choices: StudyChoices) -> dict[str, object]:
    how = choices.data
    return {
        "format": FORMAT,
        "data": redacted(data) if is_remote(data) else str(data),
        "group": plan.group_by,
        "folds": plan.n_folds,
        "test": plan.test_share,
        "support": list(choices.plan.support) or None,
        "seed": choices.plan.seed,
        "control_layer": None if how.delta else how.control_layer,
        "treated_layer": how.treated_layer,
        "controls": how.controls,
        "control_label": list(how.control_label) or None,
        "delta": how.delta,
        "made": file.made or None,
        "cells": _cells(how).to_json() if file.made or how.cells_as_samples else None,
        "precision": None if how.precision == "32" else how.precision,
        "map": dict(how.mapping),
        "n_samples": file.n_samples,
        "n_genes": file.n_genes,
        "has_effect": file.has_effect,
        "plan_digest": plan.digest,
    }
