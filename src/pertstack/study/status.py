"""How far a study is: steps done, models by block. Whether files are what they were is asked by ``audit.py``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pertstack._base.files import read_json
from pertstack.fit.jobs.planned import read_planned
from pertstack.fit.registry import available, get_row
from pertstack.predictions.sources.nested_source import has_nested
from pertstack.study.folder import StudyFolder
from pertstack.study.sealed_results import unsealed_results

MARKS = {"committed": "●", "partial": "◐", "absent": "○", "missing": "·"}
LEGEND = {"committed": "there", "partial": "in part", "absent": "none, for a reason", "missing": "not yet"}


@dataclass(frozen=True)
class JobCount:
    """Jobs that were asked for here: how many, how many are done or failed, and the models that wait for some."""

    planned: int = 0
    done: int = 0
    failed: int = 0
    waiting: tuple[str, ...] = ()
    scope: str = "pooled"


@dataclass(frozen=True, repr=False)
class Status:
    """What is there. ``matrix`` maps model -> block id -> committed | partial | absent | missing."""

    root: Path
    facts: dict[str, Any]
    blocks: tuple[str, ...]
    matrix: dict[str, dict[str, str]]
    reasons: dict[str, str]  # "model block" -> why absent
    steps: dict[str, bool]
    next_step: str
    stale: dict[str, str] = field(default_factory=dict)  # step -> why what it wrote no longer holds
    nested: dict[str, bool] = field(default_factory=dict)  # model -> has it nested predictions
    jobs: JobCount = field(default_factory=JobCount)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: facts of the study, steps done, counts and states per model."""
        return {
            "format": 1,
            "study": str(self.root),
            **self.facts,
            "n_blocks": len(self.blocks),
            "steps": self.steps,
            "stale": self.stale,
            "nested": self.nested,
            "jobs": {"planned": self.jobs.planned, "done": self.jobs.done, "failed": self.jobs.failed},
            "next": self.next_step,
            "models": {
                name: {state: sum(s == state for s in states.values()) for state in MARKS} | {"blocks": states}
                for name, states in self.matrix.items()
            },
            "absent": self.reasons,
        }

    def __repr__(self) -> str:
        console = Console(width=100, file=StringIO(), record=True)
        console.print(self.to_rich())
        return console.export_text().rstrip()

    def to_rich(self) -> Group:
        """Facts, steps, and a model x block matrix for the terminal."""
        lines = [
            f"{key.replace('_', ' ')}: {value:,}"
            if isinstance(value, int) and not isinstance(value, bool)
            else f"{key.replace('_', ' ')}: {value}"
            for key, value in self.facts.items()
        ]
        marks = {name: "!" if name in self.stale else "✓" if done else "–" for name, done in self.steps.items()}
        steps = "  ".join(f"{mark} {name}{' (stale)' if mark == '!' else ''}" for name, mark in marks.items())
        if self.jobs.waiting:
            steps += f"\nfit: {self.jobs.done:,} of {self.jobs.planned:,} jobs done, {self.jobs.failed:,} failed"
        steps += "".join(f"\n! {name} is stale: {why}" for name, why in self.stale.items())
        table = Table(title="Models by block", title_justify="left")
        table.add_column("model")
        if len(self.blocks) <= 6:
            for block in self.blocks:
                table.add_column(block.removesuffix(".s000"), justify="center")
            for name, states in self.matrix.items():
                table.add_row(name, *(MARKS[states[b]] for b in self.blocks))
        else:
            parts = list(dict.fromkeys(b.split(".")[1] for b in self.blocks))
            for part in parts:
                table.add_column(part, justify="right")
            for name, states in self.matrix.items():
                table.add_row(name, *(_counted(states, part) for part in parts))
        legend = "  ".join(f"{mark} {LEGEND[state]}" for state, mark in MARKS.items())
        without = [name for name, there in self.nested.items() if not there]
        if without:
            legend += f"\nwithout nested predictions: {', '.join(without)}"
        models = (table, Text(legend)) if self.matrix else ()
        return Group(Text("\n".join(lines)), Text(steps), *models, Text(f"Next: {self.next_step}"))


def _counted(states: dict[str, str], part: str) -> str:
    """States of a model in the blocks of one fold (or the test), one mark and count each: ``● 3`` or ``● 2 · 1``."""
    counts = Counter(state for block, state in states.items() if block.split(".")[1] == part)
    return " ".join(f"{mark} {counts[state]}" for state, mark in MARKS.items() if counts[state])


def study_status(folder: StudyFolder) -> Status:
    """Look at a study: nothing is read but records."""
    store = folder.store
    blocks = store.blocks()
    matrix: dict[str, dict[str, str]] = {}
    reasons: dict[str, str] = {}
    for model in store.models():
        matrix[model] = {}
        for block in blocks:
            state: str = store.status(block, model)
            if state == "committed":
                record = store.record(block, model)
                if record.missing_samples or record.missing_genes:
                    state = "partial"
            elif state == "absent":
                reasons[f"{model} {block.id}"] = str(store.absent_reason(block, model))
            matrix[model][block.id] = state
    steps = {
        "init": True,
        "fit": bool(matrix) and not count_jobs(folder).waiting,
        "stack": (folder.results / "weights.json").exists(),
        "verdict": (folder.results / "leaderboard.json").exists(),
        "report": folder.report.exists(),
    }
    choices, plan = folder.choices, folder.plan
    facts = {
        "samples": choices["n_samples"],
        "genes": choices["n_genes"],
        "cell_lines": len({b.cell_line for b in blocks}),
        "groups": int(plan.table["group"].nunique()),
        "grouped_by": plan.group_by,
        "folds": plan.n_folds,
        "test_samples": int((plan.table["role"] == "test").sum()),
        "test_looks": folder.ledger.looks(),
        "plan_digest": plan.digest[:12],
    }
    stale, nested = stale_steps(folder), {model: has_nested(store, model) for model in matrix}
    jobs = count_jobs(folder)
    blocks_of = tuple(b.id for b in blocks)
    following = _next(folder, steps, stale, jobs)
    return Status(
        folder.root,
        facts,
        blocks_of,
        matrix=matrix,
        reasons=reasons,
        steps=steps,
        next_step=following,
        stale=stale,
        nested=nested,
        jobs=jobs,
    )


def stale_steps(folder: StudyFolder) -> dict[str, str]:
    """Steps whose results no longer belong to what is there, with the reason: a later ``stack`` un-judges a verdict."""
    weights, verdict = folder.results / "weights.json", folder.results / "verdict.json"
    found: dict[str, str] = {}
    if verdict.exists() and weights.exists() and read_json(verdict)["key"] != read_json(weights)["key"]:
        found["verdict"] = "it judged another stack; `pertstack verdict` would be a new look at the test"
    elif wrong := unsealed_results(folder):
        found["verdict"] = f"{', '.join(wrong)} changed since, or are gone, or the look was interrupted; "
        found["verdict"] += f"`pertstack audit {folder.word}` says which"
    last = {step: i for i, step in enumerate(e.facts["step"] for e in folder.ledger.of_kind("sealed"))}
    if folder.report.exists() and last.get("report", -1) < max(last.get("stack", -1), last.get("verdict", -1)):
        found["report"] = "it was written before the last stack or verdict"
    return found


def count_jobs(folder: StudyFolder) -> JobCount:
    """The fits this study was asked for (``jobs/planned.json``) against those with an answer."""
    asked, gone = read_planned(folder.path("jobs")), folder.withdrawn()
    planned = {job: model for job, model in asked.jobs.items() if model.removesuffix(".by_cell_line") not in gone}
    states = {}
    for job in planned:
        record = folder.path("jobs", job, "job.json")
        states[job] = read_json(record)["status"] if record.exists() else "waiting"
    waiting = tuple(dict.fromkeys(m for job, m in planned.items() if states[job] == "waiting"))
    count = Counter(states.values())
    done = count["done"] + count["present"]
    return JobCount(len(planned), done, len(planned) - done - count["waiting"], waiting=waiting, scope=asked.scope)


def first_models(folder: StudyFolder) -> str:
    """Three plain models to begin with, less those that cannot run on this study, as ``--models`` takes them."""
    rows = [get_row(name) for name in ("mean_treated", "per_gene_linear", "ridge")]
    return ",".join(row.name for row in rows if available(row, folder.side, folder.samples) is None)


def _next(folder: StudyFolder, steps: dict[str, bool], stale: dict[str, str], jobs: JobCount) -> str:
    root = folder.word
    if jobs.waiting and not steps["stack"]:
        names = ",".join(dict.fromkeys(m.removesuffix(".by_cell_line") for m in jobs.waiting))
        scope = "" if jobs.scope == "pooled" else f" --scope {jobs.scope}"
        left = jobs.planned - jobs.done - jobs.failed
        return (
            f"pertstack fit {root} --models {names}{scope}    ({left:,} of {jobs.planned:,} jobs are still to be done)"
        )
    steps = {name: done and name not in stale for name, done in steps.items()}
    commands = {
        "fit": f"pertstack fit {root} --models {first_models(folder)}",
        "stack": f"pertstack stack {root}",
        "verdict": f"pertstack verdict {root}",
        "report": f"pertstack report {root}",
    }
    return next((command for step, command in commands.items() if not steps[step]), f"open {quote(str(folder.report))}")
