"""Models that misbehave; a loader and a committer as a study would pass: importable by worker processes."""

from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import FoldPlanMismatchError, StorageError
from pertstack._base.files import write_json
from pertstack.data.rows import FitRows
from pertstack.design.blocks import Block
from pertstack.fit import JobRows, Needs
from pertstack.fit.baselines.model import Baseline
from references.fit_world import make_rows


def folds_of(rows: FitRows) -> np.ndarray:
    """Fold 0, 1 or -1 (test) per row, by perturbation."""
    number = np.array([int(p[1:]) for p in rows.perturbation])
    return np.array([0, 1, -1])[number % 3]


@dataclass(frozen=True)
class Loader:
    """Rows of a job; ``shift`` is added to treated values of every row outside the fit rows."""

    world: tuple[tuple[str, Any], ...] = ()
    shift: float = 0.0
    leak: str = ""

    def __call__(self, job) -> JobRows:
        rows = make_rows(**dict(self.world))
        fold = folds_of(rows)
        held = fold == (-1 if job.fold is None else job.fold)
        fit = ~held & (fold >= 0)
        treated = rows.treated + np.float32(self.shift) * (~fit)[:, None]
        rows = replace(rows, treated=treated)
        if job.cell_line is not None:
            fit, held = fit & (rows.cell_line == job.cell_line), held & (rows.cell_line == job.cell_line)
        blocks = []
        for line in sorted(set(rows.cell_line[held])):
            part = rows.take(held & (rows.cell_line == line))
            part = rows.take(fit) if self.leak == "fit rows" else part
            blocks.append((Block(line, job.fold), part if self.leak == "treated" else part.without_treated()))
        return JobRows(rows.take(fit), iter(blocks))


@dataclass(frozen=True)
class Committer:
    """Writes each block as npz beside its record."""

    root: Path
    full: bool = False

    def path(self, job, block: Block) -> Path:
        return self.root / job.model / job.id / f"{block.id}.npz"

    def __call__(self, job, block, predicted, embedding, record) -> None:
        if self.full:
            raise StorageError(28, "Cannot write: the disk is full.")
        path = self.path(job, block)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, predicted=predicted, **({} if embedding is None else {"embedding": embedding}))
        write_json(path.with_suffix(".json"), record.to_json())


@dataclass
class _Double(Baseline):
    """Answers with the control unless it misbehaves."""

    needs: ClassVar[Needs] = Needs()

    def fit(self, rows, *, rng):
        return self

    def predict(self, rows):
        return np.array(rows.control)


@dataclass
class Dies(_Double):
    name: ClassVar[str] = "dies"
    how: str = "exit"

    def fit(self, rows, *, rng):
        os.write(2, b"last words\n")
        os._exit(7) if self.how == "exit" else os.kill(os.getpid(), 9)


@dataclass
class Raises(_Double):
    name: ClassVar[str] = "raises"

    def fit(self, rows, *, rng):
        warnings.warn("about to raise", stacklevel=2)
        raise ZeroDivisionError("no ground state")


@dataclass
class FindsAnotherPlan(_Double):
    """As a model does whose checkpoint was left by a fit on other rows; ``when`` it finds out."""

    name: ClassVar[str] = "findsanotherplan"
    when: str = "fit"

    def fit(self, rows, *, rng):
        return self._refuse("fit")

    def predict(self, rows):
        return self._refuse("predict")

    def _refuse(self, when):
        if when == self.when:
            raise FoldPlanMismatchError("a file of another plan lies here")
        return self


@dataclass
class Sleeps(_Double):
    name: ClassVar[str] = "sleeps"
    seconds: float = 60.0

    def fit(self, rows, *, rng):
        time.sleep(self.seconds)
        return self


@dataclass
class Noise(_Double):
    """Uses its generator in fit, so a seed that depended on order or workers would show."""

    name: ClassVar[str] = "noise"
    level: float = 1.0
    curve: Any = None
    draw_: Any = None

    def fit(self, rows, *, rng):
        print("fitting noise")
        os.system("echo from a child; echo to stderr >&2")
        self.draw_ = rng.normal(size=rows.n_genes).astype(np.float32) * np.float32(self.level)
        self.curve = [{"epoch": 0.0, "loss": 1.0}]
        return self

    def params(self):
        return {"level": self.level}

    def predict(self, rows):
        return rows.control + self.draw_

    def embed(self, rows):
        return rows.control[:, :2]


@dataclass
class Broken(_Double):
    name: ClassVar[str] = "broken"
    how: str = "nan"

    def predict(self, rows):
        out = np.array(rows.control)
        if self.how == "nan":
            out[1, 2] = np.nan
        if self.how == "inf":
            out = out.astype(np.float64)
            out[0, 0] = 1e300
        if self.how == "integers":
            out = out.astype(int)
        return out[:-1] if self.how == "short" else out


@dataclass
class Eats(_Double):
    """Takes 200 MB for a moment."""

    name: ClassVar[str] = "eats"

    def fit(self, rows, *, rng):
        sys.stdout.write(f"{np.ones(25_000_000).sum()}\n")
        return self
