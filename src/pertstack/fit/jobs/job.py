"""Jobs: one base model x scope x fold (or the final fit), what is recorded of it, and what came of it.

A job is recognised by its content and seeded by it, so neither the order of jobs nor the number of workers can change a
result. Running jobs is handled by ``worker.py`` (one job), ``pool.py`` and ``dask_engine.py`` (many).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pertstack._base.digests import canonical_json, digest_json, keyed_hash64
from pertstack._base.errors import InputError
from pertstack._base.names import undotted
from pertstack.data.cells.raw import RawCells
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.design.blocks import Block
from pertstack.fit.registry import get_row

Scope = Literal["pooled", "cell_line"]
Status = Literal["done", "present", "failed", "crashed", "timeout", "stopped"]
VERSIONED = ("pertstack", "numpy", "scipy", "scikit-learn", "torch", "pandas")


@dataclass(frozen=True)
class Job:
    """Fit one model on everything a scope may see outside one fold, and predict that fold; ``fold`` None is the final
    fit. A nested fit leaves out a second fold ``also`` and predicts both, so that weights can be scored on rows that
    not even the base models behind their level-one rows have seen.

    The final fit sees all development rows of its scope and predicts the held-out test.
    """

    model: str  # name under which predictions are kept
    target: str  # "module:Class"
    params: Mapping[str, Any] = field(hash=False)  # plain JSON
    scope: Scope
    fold: int | None
    cell_line: str | None = None  # for scope "cell_line"
    also: int | None = None  # a second fold left out: a nested fit, which predicts both folds

    def __post_init__(self) -> None:
        if (self.scope == "cell_line") != (self.cell_line is not None):
            raise InputError(
                f"A job of scope {self.scope!r} has cell line {self.cell_line!r}: a cell line is named exactly when "
                f"the scope is 'cell_line'."
            )
        if self.also is not None and (self.fold is None or self.also <= self.fold):
            raise InputError(f"A nested job leaves out two folds in ascending order; got {self.fold} and {self.also}.")

    @classmethod
    def of(
        cls,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        fold: int | None,
        scope: Scope = "pooled",
        cell_line: str | None = None,
        alias: str | None = None,
        also: int | None = None,
    ) -> Job:
        """The job of a registered model.

        Parameters
        ----------
        name : in the registry.
        params : hyper-parameters on top of those the registry fixes.
        fold : not fitted on; None for the final fit.
        scope : "pooled", or "cell_line" for a fit on one line.
        cell_line : of that scope.
        alias : keeps the predictions under another name (for other parameters).
        also : a second fold that is not fitted on, for nested fits.

        Raises
        ------
        UnknownNameError
            No such model.
        """
        row = get_row(name)
        return cls(alias or row.name, row.target, {**row.fixed, **(params or {})}, scope, fold, cell_line, also)

    @property
    def id(self) -> str:
        """Name of the job's folder below its model, as ``pooled.f0`` or ``line.A375.final``."""
        part = "final" if self.fold is None else f"f{self.fold}" + ("" if self.also is None else f"+f{self.also}")
        return f"pooled.{part}" if self.cell_line is None else f"line.{undotted(self.cell_line)}.{part}"

    @property
    def folder(self) -> str:
        """Path of the job's folder below the log folder."""
        return f"{undotted(self.model)}/{self.id}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "params": dict(self.params)}

    @property
    def digest(self) -> str:
        """By which a job is recognised: model, class, parameters, scope and fold."""
        return digest_json(self.to_json())

    def seed(self, study_seed: int) -> int:
        """64-bit seed from a keyed hash of study seed and job: the same whatever else runs, and in whatever order."""
        return keyed_hash64(canonical_json(self.to_json()), key=f"pertstack {study_seed}".encode())

    def __str__(self) -> str:
        return f"{self.model} {self.id}"


def plan_jobs(
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    n_folds: int,
    scope: Scope = "pooled",
    cell_lines: Sequence[str] = (),
    final: bool = True,
    nested: bool = False,
    alias: str | None = None,
) -> list[Job]:
    """All jobs of one model: every fold, then the final fit; for scope ``cell_line`` each line in turn.

    Parameters
    ----------
    name, params, alias : as in ``Job.of``.
    n_folds : K.
    scope : "pooled" or "cell_line".
    cell_lines : for scope ``cell_line``.
    final : whether there is a final fit.
    nested : adds a fit for every pair of folds, K (K - 1) / 2 in all (Varma and Simon 2006; methods F11).
    """
    left: list[tuple[int | None, int | None]] = [(k, None) for k in range(n_folds)]
    left += [(None, None)] if final else []
    left += [(j, k) for j in range(n_folds) for k in range(j + 1, n_folds)] if nested else []
    lines: list[str | None] = [None] if scope == "pooled" else [*sorted(cell_lines)]
    return [
        Job.of(name, params, fold=fold, also=also, scope=scope, cell_line=line, alias=alias)
        for line in lines
        for fold, also in left
    ]


@dataclass(frozen=True)
class JobRows:
    """What a job works on: fit rows, and blocks to predict (read one at a time when an iterator is given)."""

    fit: FitRows
    blocks: Iterable[tuple[Block, PredictRows]]
    anchors: PredictRows | None = None  # rows that every fit of a model embeds, so that their frames can be aligned
    cells: RawCells | None = None  # what the samples were made of, if that was cells


@dataclass(frozen=True)
class JobRecord:
    """Facts of a job that travel with its predictions and are in its ``job.json``; plain JSON throughout."""

    job: Job
    seed: int
    n_fit: int
    fit_ids_digest: str  # digest_names of the sorted fit sample ids
    fit_seconds: float
    seconds: float  # since the start of the job
    peak_memory_bytes: int
    versions: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)  # every hyper-parameter, also those left at their default
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the model adds: best epoch, penalty chosen, device

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "job": self.job.to_json(), "job_digest": self.job.digest}


@dataclass(frozen=True)
class JobResult:
    """What came of a job. ``present``: committed by an earlier run, nothing was done."""

    job: Job
    status: Status
    seconds: float = 0.0
    record: JobRecord | None = None
    error: str = ""
    error_type: str = ""
    log: str = ""  # path of the log file

    @property
    def ok(self) -> bool:
        return self.status in ("done", "present")

    def to_json(self) -> dict[str, Any]:
        """Content of ``job.json``."""
        return {
            "format": 1,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "error_type": self.error_type,
            "log": self.log,
            "job": self.job.to_json(),
            "record": None if self.record is None else self.record.to_json(),
        }


RowsFor = Callable[[Job], JobRows]
Commit = Callable[[Job, Block, Float32, Float32 | None, JobRecord], None]
CommitAnchors = Callable[[Job, PredictRows, Float32, JobRecord], None]
"""What to do with the anchor rows as a fit embeds them; called before the fit's first block."""
Done = Callable[[Job], bool]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a prediction, those that are installed."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """As they were when first asked for, and imported."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
