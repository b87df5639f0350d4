"""The score table: one value per name, metric and sample, from which every mean, interval and comparison is made.

How values come about is handled by ``score.py`` and ``metrics/``; resampling them, by ``stack/`` and ``verdict/``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError, MissingFileError, unknown_name
from pertstack._base.files import whole
from pertstack._base.machine.scratch import space
from pertstack._base.reading.damage import damage_named, require_modest_members
from pertstack._base.reading.tables import plain_texts
from pertstack.design.metric_names import Metric, parse_metric

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over samples with the count behind it: ``n_valid`` samples were defined, of ``n`` in the table."""

    value: float
    n_valid: int
    n: int


@dataclass(frozen=True)
class ScoreTable:
    """Scores of base models, combiners and references on every sample.

    ``values`` is NaN where the metric is not defined for the sample or the name did not predict it; ``predicted``
    tells these two apart.
    """

    samples: pd.DataFrame  # n_samples rows: sample_id, block, cell_line, fold, perturbation, group, effect_rms
    names: tuple[str, ...]
    metrics: tuple[str, ...]  # each spelled metric@reference
    values_by_name: np.ndarray[Any, np.dtype[np.float32]]  # (n_names, n_metrics, n_samples)
    predicted: Mask  # (n_names, n_samples)

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.metrics), len(self.samples))
        assert self.values_by_name.shape == shape, (self.values_by_name.shape, shape)

    @property
    def n(self) -> int:
        return len(self.samples)

    @property
    def digest(self) -> str:
        """Of names, metrics, samples, and every value bit by bit."""
        found = xxhash.xxh3_128(repr((self.names, self.metrics, list(self.samples.columns))).encode())
        rows = pd.util.hash_pandas_object(self.samples, index=False).to_numpy()
        for part in (rows, self.values_by_name, self.predicted):
            found.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        return found.hexdigest()

    def values(self, name: str, metric: str | Metric, reference: str | None = None) -> Float64:
        """Values (n_samples,) of one name; NaN where undefined.

        Parameters
        ----------
        name : of a model or combiner.
        metric : may carry its reference (``r2_top20@pooled``).
        reference : of a metric that does not; None for the own control.

        Raises
        ------
        UnknownNameError
            The name or metric is not in the table.
        """
        if name not in self.names:
            raise unknown_name("model or combiner", name, self.names)
        values: Float64 = self.values_by_name[self.names.index(name), self.column(metric, reference)].astype(np.float64)
        return values

    def column(self, metric: str | Metric, reference: str | None = None) -> int:
        """Position of a metric."""
        text = str(metric)
        if reference is not None:
            text = f"{text.partition('@')[0]}@{reference}"
        spelled = parse_metric(text).name
        if spelled not in self.metrics:
            raise unknown_name("metric of this table", spelled, self.metrics)
        return self.metrics.index(spelled)

    def mean(self, name: str, metric: str | Metric, reference: str | None = None, *, rows: Mask | None = None) -> Score:
        """Mean over the defined samples; 0.0 when none is defined, as the canonical metric says.

        Parameters
        ----------
        name, metric, reference : as in ``values``.
        rows : mask (n_samples,) or positions; None for all.
        """
        values = self.values(name, metric, reference)
        if rows is not None:
            values = values[rows]
        defined = values[~np.isnan(values)]
        return Score(float(defined.mean()) if len(defined) else 0.0, len(defined), len(values))

    def to_frame(self) -> pd.DataFrame:
        """Means: one row per name, one column per metric."""
        means = [[self.mean(name, metric).value for metric in self.metrics] for name in self.names]
        return pd.DataFrame(means, index=pd.Index(self.names, name="name"), columns=list(self.metrics))

    def take(self, rows: Mask) -> ScoreTable:
        """The chosen samples (mask or positions)."""
        samples = self.samples.iloc[rows if rows.dtype != bool else np.flatnonzero(rows)].reset_index(drop=True)
        return replace(
            self, samples=samples, values_by_name=self.values_by_name[:, :, rows], predicted=self.predicted[:, rows]
        )

    def merge(self, other: ScoreTable) -> ScoreTable:
        """Names of both tables on the same samples and metrics."""
        twice = sorted(set(self.names) & set(other.names))
        if twice or self.metrics != other.metrics or not self.samples.equals(other.samples):
            raise InputError(
                "These score tables cannot be joined: they must hold the same samples and metrics and different "
                f"names (in both: {', '.join(twice) or 'none'}). Score both with the same source, references and "
                "metrics."
            )
        return ScoreTable(
            self.samples,
            self.names + other.names,
            self.metrics,
            values_by_name=np.concatenate([self.values_by_name, other.values_by_name]),
            predicted=np.concatenate([self.predicted, other.predicted]),
        )

    @classmethod
    def one_after_the_other(cls, parts: Sequence[ScoreTable]) -> ScoreTable:
        """The samples of several tables of the same names and metrics, in the order given."""
        first = parts[0]
        assert all(p.names == first.names and p.metrics == first.metrics for p in parts)
        return cls(
            pd.concat([p.samples for p in parts], ignore_index=True),
            first.names,
            first.metrics,
            np.concatenate([p.values_by_name for p in parts], axis=2),
            np.concatenate([p.predicted for p in parts], axis=1),
        )

    def with_metrics_of(self, other: ScoreTable, order: Sequence[str]) -> ScoreTable:
        """Metrics of both tables on the same names and samples, in the given order."""
        assert self.names == other.names and self.samples.equals(other.samples)
        values = np.concatenate([self.values_by_name, other.values_by_name], axis=1)
        there = (*self.metrics, *other.metrics)
        columns = [there.index(m) for m in order]
        return replace(self, metrics=tuple(order), values_by_name=np.ascontiguousarray(values[:, columns]))

    def with_oracle(
        self, metric: str, models: Sequence[str], name: str = "oracle", *, scratch: Path | None = None
    ) -> ScoreTable:
        """The table with one more name: per sample the values of whichever model is best there.

        A ceiling that looks at the truth, never a candidate. Ties go to the first model; a sample on which no model is
        defined is not predicted.

        Parameters
        ----------
        metric : by which the best is chosen.
        models : to choose from.
        name : of the new row.
        scratch : folder for the values if they are many; None keeps them in memory.

        Raises
        ------
        InputError
            The table already holds that name.
        UnknownNameError
            No such model or metric.
        """
        if name in self.names:
            raise InputError(f"The table already holds {name!r}; give the oracle another name.")
        at = [self.names.index(m) if m in self.names else self._unknown(m) for m in models]
        sign = 1.0 if parse_metric(metric).higher_is_better else -1.0
        scores = sign * self.values_by_name[at, self.column(metric)]
        defined = ~np.isnan(scores).all(axis=0)
        best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=0)
        rows = np.arange(self.n)
        picked = self.values_by_name[np.asarray(at)[best], :, rows].T.copy()
        picked[:, ~defined] = np.nan
        shape = (len(self.names) + 1, *self.values_by_name.shape[1:])
        values = space(shape, self.values_by_name.dtype, scratch)
        values[:-1], values[-1] = self.values_by_name, picked
        return ScoreTable(
            self.samples,
            (*self.names, name),
            self.metrics,
            values_by_name=values,
            predicted=np.concatenate([self.predicted, defined[None]]),
        )

    def _unknown(self, name: str) -> int:
        raise unknown_name("model or combiner", name, self.names)

    def save(self, path: Path) -> None:
        """Write to one npz file, seen whole or not at all."""
        meta = {"format": 2, "names": list(self.names), "metrics": list(self.metrics)}
        rows = io.BytesIO()
        self.samples.to_parquet(rows)
        with whole(Path(path)) as part, part.open("wb") as file:  # in a study of many samples hundreds of megabytes
            np.savez_compressed(
                file,
                meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
                values=self.values_by_name,
                predicted=self.predicted,
                samples=np.frombuffer(rows.getbuffer(), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: Path, scratch: Path | None = None) -> ScoreTable:
        """Read what ``save`` wrote.

        Parameters
        ----------
        path : of the file.
        scratch : folder for the values if they are many; None keeps them in memory.

        Raises
        ------
        MissingFileError, InputError
            It is not there, or not what was written.
        """
        path = Path(path)
        if not path.exists():
            raise MissingFileError(f"{path} does not exist.")
        require_modest_members(path)
        with damage_named(path), np.load(path, allow_pickle=False) as z:
            meta = json.loads(z["meta"].tobytes())
            rows = io.BytesIO(z["samples"].tobytes())
            old = meta["format"] == 1  # every row a JSON object
            samples = plain_texts(pd.read_json(rows, orient="table") if old else pd.read_parquet(rows))
            return cls(
                samples,
                tuple(meta["names"]),
                tuple(meta["metrics"]),
                values_by_name=_read_values(z.zip, scratch),
                predicted=z["predicted"],
            )


def _read_values(file: zipfile.ZipFile, scratch: Path | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The values of an open npz file, a piece at a time: they may be mapped, and never lie in memory twice."""
    with file.open("values.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(stream)
        if dtype != np.float32 or by_column:
            raise InputError(f"The values of {file.filename} are {dtype}, by column: {by_column}; no score table.")
        values = space(shape, dtype, scratch)
        room, at = values.reshape(-1).view(np.uint8), 0
        while piece := stream.read(min(_PIECE, len(room) - at)):
            room[at : at + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
            at += len(piece)
        if at < len(room):
            raise InputError(f"{file.filename} ends after {at:,} of {len(room):,} bytes of scores.")
    return values


_PIECE = 2**18  # bytes read at once; unpacking holds a few times as many


def refuse_undefined(table: ScoreTable, metric: str, mend: str) -> None:
    """Refuse to decide by a metric that has no value anywhere: it would choose by position.

    Parameters
    ----------
    table : scores of everything that could be chosen.
    metric : that decides.
    mend : how another is named at this door.

    Raises
    ------
    InputError
        Every value is NaN.
    """
    if np.isfinite(table.values_by_name[:, table.column(metric)]).any():
        return
    raise InputError(
        f"{metric} is undefined on every one of {table.n:,} rows, for every model, so nothing can be chosen by it. "
        "(Metrics within plates need several perturbations on a plate, correlations need rows that vary, retrieval "
        "several perturbations, metrics of significant genes such genes, halves two controls of a cell line.) " + mend
    )
