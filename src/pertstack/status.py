"""Where a study stands: steps done, models by block. Whether files are what they were is asked by ``auditing.py``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pertstack.folder import StudyFolder

MARKS = {"committed": "●", "partial": "◐", "absent": "○", "missing": "·"}


@dataclass(frozen=True)
class Status:
    """What is there. ``matrix`` maps model -> block id -> committed | partial | absent | missing."""

    root: Path
    facts: dict[str, Any]
    blocks: tuple[str, ...]
    matrix: dict[str, dict[str, str]]
    reasons: dict[str, str]  # "model block" -> why absent
    steps: dict[str, bool]
    next_step: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: facts of the study, steps done, counts and states per model."""
        return {
            "format": 1,
            "study": str(self.root),
            **self.facts,
            "n_blocks": len(self.blocks),
            "steps": self.steps,
            "next": self.next_step,
            "models": {
                name: {state: sum(s == state for s in states.values()) for state in MARKS} | {"blocks": states}
                for name, states in self.matrix.items()
            },
            "absent": self.reasons,
        }

    def to_rich(self) -> Group:
        """Facts, steps, and a model x block matrix for the terminal."""
        lines = [f"{key.replace('_', ' ')}: {value:,}" if isinstance(value, int) and not isinstance(value, bool)
                 else f"{key.replace('_', ' ')}: {value}" for key, value in self.facts.items()]  # fmt: skip
        steps = "  ".join(f"{'✓' if done else '–'} {name}" for name, done in self.steps.items())
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
        legend = "  ".join(f"{mark} {state}" for state, mark in MARKS.items())
        return Group(Text("\n".join(lines)), Text(steps), table, Text(legend), Text(f"Next: {self.next_step}"))


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
        "fit": bool(matrix),
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
    return Status(folder.root, facts, tuple(b.id for b in blocks), matrix, reasons, steps, _next(folder.root, steps))


def _next(root: Path, steps: dict[str, bool]) -> str:
    commands = {
        "fit": f"pertstack fit {root} --models mean_treated,per_gene_linear,ridge",
        "stack": f"pertstack stack {root}",
        "verdict": f"pertstack verdict {root}",
        "report": f"pertstack report {root}",
    }
    return next((command for step, command in commands.items() if not steps[step]), f"open {root / 'report.html'}")
