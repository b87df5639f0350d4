"""The commit record: what one committed array is, where it belongs, and who made it.

It lives in the attributes of the array's own ``zarr.json``, so that *existing* and *committed* are the same fact.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pertstack._base.digests import OWN, digest_json, own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError
from pertstack._base.files import read_json
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.files.chunks import DTYPE, ChunkFacts, Grid
from pertstack.predictions.store.files.rounding import CODES

FORMAT = 1
ATTRIBUTE = "prediction"
Kind = Literal["layer", "embedding"]


@dataclass(frozen=True)
class Record:
    """One committed array. ``digest`` names its content: equal digests, equal values."""

    store_uuid: str
    block: Block
    model: str
    kind: Kind
    grid: Grid
    samples_sha256: str
    genes_sha256: str
    chunks: tuple[ChunkFacts, ...]
    missing_samples: tuple[str, ...] = ()
    missing_genes: tuple[str, ...] = ()
    fitted_on: FittedOn | None = None
    plan_digest: str | None = None  # of the store, when this was committed
    meta: dict[str, Any] = field(default_factory=dict)
    attempt: str = ""
    host: str = ""
    pid: int = 0
    time: str = ""  # UTC, ISO 8601
    software: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over shape, chunk hashes, missing names and what the values are aligned to."""
        return digest_json(
            {
                "kind": self.kind,
                "shape": [self.grid.n, self.grid.width],
                "samples": self.samples_sha256,
                "genes": self.genes_sha256,
                "chunks": [c.xxh3_128 for c in self.chunks],
                "missing_samples": sorted(self.missing_samples),
                "missing_genes": sorted(self.missing_genes),
            }
        )

    @property
    def n_bytes(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON. A long list of fit rows is kept beside the blocks, by its digest."""
        fitted = None if self.fitted_on is None else {**self.fitted_on.to_json(), "fit_ids": []}
        return with_own_digest(
            {
                "format": FORMAT,
                "store_uuid": self.store_uuid,
                "block": self.block.id,
                "model": self.model,
                "kind": self.kind,
                "samples_sha256": self.samples_sha256,
                "genes_sha256": self.genes_sha256,
                "chunks": [c.to_json() for c in self.chunks],
                "missing_samples": list(self.missing_samples),
                "missing_genes": list(self.missing_genes),
                "fitted_on": fitted,
                "plan_digest": self.plan_digest,
                "meta": self.meta,
                "attempt": self.attempt,
                "host": self.host,
                "pid": self.pid,
                "time": self.time,
                "software": self.software,
            }
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any], grid: Grid, fit_ids: frozenset[str] = frozenset()) -> Record:
        """A record as it was written.

        Parameters
        ----------
        value : plain JSON.
        grid : of its array.
        fit_ids : samples it was fitted on, kept in a file of their own.
        """
        fitted = value["fitted_on"]
        return cls(
            store_uuid=value["store_uuid"],
            block=Block.from_id(value["block"]),
            model=value["model"],
            kind=value["kind"],
            grid=grid,
            samples_sha256=value["samples_sha256"],
            genes_sha256=value["genes_sha256"],
            chunks=tuple(ChunkFacts(**c) for c in value["chunks"]),
            missing_samples=tuple(value["missing_samples"]),
            missing_genes=tuple(value["missing_genes"]),
            fitted_on=None if fitted is None else FittedOn.from_json({**fitted, "fit_ids": fit_ids}),
            plan_digest=value["plan_digest"],
            meta=dict(value["meta"]),
            attempt=value["attempt"],
            host=value["host"],
            pid=value["pid"],
            time=value["time"],
            software=dict(value["software"]),
        )


def read_record(path: Path) -> tuple[dict[str, Any], Grid]:
    """The record in an array's ``zarr.json`` and its grid.

    Raises
    ------
    CorruptionError
        Not JSON, not an array written by pertstack, another format, or chunk list and shape disagree.
    """
    meta = read_json(path)
    try:
        value = meta["attributes"][ATTRIBUTE]
        n, width = meta["shape"]
        grid = Grid(int(n), int(width), {t.name: t for t in (DTYPE, CODES)}[meta["data_type"]])
        shape = list(meta["chunk_grid"]["configuration"]["chunk_shape"])
        keys = [c["key"] for c in value["chunks"]]
        known = value["format"] == FORMAT
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"{path} holds no commit record of pertstack ({type(error).__name__}: {error}). Something else wrote or "
            f"changed it; move the folder out of the store."
        ) from error
    if not known:
        raise CorruptionError(f"{path} has record format {value['format']!r}; this version reads {FORMAT}.")
    if shape != [grid.rows, width] or keys != [grid.key(i) for i in range(grid.count)]:
        raise CorruptionError(f"{path}: shape, chunk shape and the list of chunks do not agree. It was changed since.")
    if OWN in value and not own_digest_fits(value):
        raise CorruptionError(
            f"{path}: the record is not the one that was committed (its digest does not fit). Who was fitted on what "
            f"stands in it; restore it from a copy, or withdraw the model and predict again."
        )
    return value, grid


@cache
def software_versions() -> dict[str, str]:
    """Versions that a commit record carries."""
    from pertstack._base.version import __version__

    return {
        "pertstack": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "anndata": version("anndata"),
        "zarr": version("zarr"),
    }


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
