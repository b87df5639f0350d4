"""References: what is subtracted from a profile before it is scored or combined.

``own`` is the sample's control; ``pooled`` the mean control and ``centroid`` the mean treated profile of its cell
line, both over development rows only, so that nothing of the held-out truth enters; ``matched`` the mean of the other
controls of its plate (``matched.py``). Rows of a fold meet the centroid of the other folds: a mean that contains the
rows it is compared with makes every fitted level look wrong. Which reference a number uses is for callers to choose.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.digests import digest_array, digest_json, digest_names
from pertstack._base.errors import CorruptionError, InputError, MissingFileError, first_few
from pertstack._base.files import write_atomic
from pertstack.data.rows import Names
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.matched import MatchedControls, PlateGather, grouping_of

SLICED: tuple[Reference, ...] = ("own", "pooled", "centroid")
"""References against which the one pass cuts top-gene slices; no weights are learned against the matched one."""

_CHUNK_ROWS = 256  # fixed, so that the sums have the same bits whatever the memory


@dataclass(frozen=True)
class References:
    """Mean control and mean treated profile per cell line, over development rows.

    ``controls`` holds mean controls of further cell lines, which have no development rows (a control is an input, so
    it may be known for a line whose truth is not). Profiles are in the treated scale, float64. ``landmarks`` marks
    genes that were measured rather than inferred, if the data say so.
    """

    gene_names: Names  # (n_genes,)
    cell_lines: tuple[str, ...]  # lines with development rows
    counts: np.ndarray[Any, np.dtype[np.int64]]  # (n_lines,) development rows
    mean_control: Float64  # (n_lines, n_genes)
    mean_treated: Float64  # (n_lines, n_genes)
    folds: tuple[int, ...] = ()
    fold_counts: np.ndarray[Any, np.dtype[np.int64]] | None = None  # (n_lines, n_folds) development rows
    fold_treated: Float64 | None = None  # (n_lines, n_folds, n_genes) mean treated; 0 if there are no rows
    controls: Mapping[str, Float64] = field(default_factory=dict)
    plates: MatchedControls = field(default_factory=MatchedControls)
    landmarks: np.ndarray[Any, np.dtype[np.bool_]] | None = None  # (n_genes,)

    @classmethod
    def collect(cls, source: BlockSource) -> References:
        """One streamed pass over control and treated of the source's development blocks.

        Rows of the held-out test are never read. Cell lines are sorted by name.

        Raises
        ------
        InputError
            The source has no development rows.
        """
        sums: dict[str, list[Any]] = {}
        by_fold: dict[tuple[str, int | None], tuple[int, Float64]] = {}
        blocks = sorted(b for b in source.blocks() if b.role == "development")
        plates = PlateGather(grouping_of(source, blocks))
        for block in blocks:
            control, n = _sum_layer(source, block, "control", plates)
            treated, _ = _sum_layer(source, block, "treated")
            if n == 0:
                continue
            have = sums.setdefault(block.cell_line, [0, np.zeros_like(control), np.zeros_like(treated)])
            have[0] += n
            have[1] += control
            have[2] += treated
            before, total = by_fold.get((block.cell_line, block.fold), (0, 0.0))
            by_fold[block.cell_line, block.fold] = (before + n, total + treated)
        if not sums:
            raise InputError(
                "There are no development rows to take reference profiles from. Collect references from a source "
                "that has development blocks (role='development')."
            )
        lines = tuple(sorted(sums))
        counts = np.array([sums[line][0] for line in lines], dtype=np.int64)
        control = np.stack([sums[line][1] for line in lines]) / counts[:, None]
        treated = np.stack([sums[line][2] for line in lines]) / counts[:, None]
        folds = tuple(sorted({fold for _, fold in by_fold if fold is not None}))
        fold_counts = np.zeros((len(lines), len(folds)), dtype=np.int64)
        fold_treated = np.zeros((len(lines), len(folds), len(source.gene_names)))
        for (line, fold), (n, total) in by_fold.items():
            if fold is not None:
                at = lines.index(line), folds.index(fold)
                fold_counts[at], fold_treated[at] = n, total / n
        means = (counts, control, treated, folds, fold_counts, fold_treated)
        return cls(np.asarray(source.gene_names), lines, *means, plates=plates.finish())

    def pooled(self, cell_line: str) -> Float64:
        """Mean control of a cell line over its development rows, (n_genes,).

        A line without development rows answers with the controls given by ``add_controls``.

        Raises
        ------
        InputError
            Nothing is known of the line.
        """
        if cell_line in self.cell_lines:
            return self._row(self.mean_control, cell_line)
        if cell_line in self.controls:
            return self.controls[cell_line]
        raise InputError(
            f"Cell line {cell_line!r} has no development rows (known: {first_few(self.cell_lines)}), so its mean "
            f"control is not known. Provide the mean of its controls with add_controls({cell_line!r}, mean_control): "
            "controls are inputs."
        )

    def centroid(self, cell_line: str, fold: int | None = None) -> Float64:
        """Mean treated profile of a cell line over its development rows outside ``fold``, (n_genes,).

        Rows of a fold are compared with the mean of the other folds, rows of the test (``fold`` None) with that of all
        folds: the profile never contains a row it is compared with. A line without development rows there: its pooled
        control plus the mean over the other lines of (centroid - pooled), each line counting once.
        """
        mine = self._outside(cell_line, fold)
        if mine is not None:
            return mine
        others = [(line, self._outside(line, fold)) for line in self.cell_lines]
        shifts = [profile - self._row(self.mean_control, line) for line, profile in others if profile is not None]
        if not shifts:
            raise InputError(
                f"All development rows are in only one fold ({fold}): no row outside it could give its centroid, or "
                f"score weights that it did not teach. Use 2 or more folds."
            )
        shift: Float64 = np.mean(shifts, axis=0)
        return self.pooled(cell_line) + shift

    def _outside(self, cell_line: str, fold: int | None) -> Float64 | None:
        """Mean treated profile of a line outside a fold; None if it has no such rows."""
        if cell_line not in self.cell_lines:
            return None
        if fold is None:
            return self._row(self.mean_treated, cell_line)
        if self.fold_counts is None or self.fold_treated is None:
            raise InputError(
                "The references of this study were collected by an older version, which did not keep the centroid of "
                "each fold: out of fold its centroid contains the rows it is compared with. Make the study again with "
                "`pertstack init`."
            )
        at = self.cell_lines.index(cell_line)
        n = np.where(np.array(self.folds) == fold, 0, self.fold_counts[at])
        if not n.sum():
            return None
        answer: Float64 = n @ self.fold_treated[at] / n.sum()
        return answer

    def _row(self, profiles: Float64, cell_line: str) -> Float64:
        row: Float64 = profiles[self.cell_lines.index(cell_line)]
        return row

    def add_controls(self, cell_line: str, mean_control: Any) -> References:
        """References that also know the mean control (n_genes,) of a line without development rows. Returns a new
        object.
        """
        profile = np.asarray(mean_control, dtype=np.float64)
        if profile.shape != (len(self.gene_names),) or not np.isfinite(profile).all():
            raise InputError(
                f"The mean control of {cell_line!r} has shape {profile.shape} and "
                f"{int((~np.isfinite(profile)).sum())} values that are not finite; {len(self.gene_names)} finite "
                "values are needed, one per gene in the study's order."
            )
        if cell_line in self.cell_lines:
            raise InputError(
                f"Cell line {cell_line!r} has {int(self.counts[self.cell_lines.index(cell_line)])} development rows, "
                "whose mean control is its reference; add_controls is for lines without development rows."
            )
        return replace(self, controls={**self.controls, cell_line: profile})

    def with_controls_of(self, source: BlockSource) -> References:
        """References that also know every cell line and plate of ``source`` (such as the test): only its control
        layer is read. What development rows told stays as it is.
        """
        sums: dict[str, tuple[Float64, int]] = {}
        plates = PlateGather(self.plates)
        for block in sorted(source.blocks()):
            known = block.cell_line in self.cell_lines or block.cell_line in self.controls
            if known and not plates.wants(source.obs(block), block.cell_line):
                continue
            total, n = _sum_layer(source, block, "control", plates)
            if known:
                continue
            before, count = sums.get(block.cell_line, (np.zeros_like(total), 0))
            sums[block.cell_line] = (before + total, count + n)
        answer = self
        for line, (total, count) in sums.items():
            if count:
                answer = answer.add_controls(line, total / count)
        return replace(answer, plates=plates.finish())

    def with_landmarks(self, landmarks: np.ndarray[Any, np.dtype[np.bool_]] | None) -> References:
        """References that also know which genes (n_genes,) are landmarks; None if nothing is known."""
        return replace(self, landmarks=landmarks)

    @property
    def digest(self) -> str:
        """Content digest: reductions made with other references are not reused."""
        extra = {line: digest_array(np.asarray(v)) for line, v in self.controls.items()}
        main = [digest_array(self.counts), digest_array(self.mean_control), digest_array(self.mean_treated)]
        if self.fold_treated is not None:
            main += [digest_array(np.asarray(self.fold_counts)), digest_array(self.fold_treated)]
        more = {k: digest_array(np.asarray(v)) for k, v in self.plates.to_arrays().items() if v.dtype.kind in "fi"}
        names = [digest_names(map(str, self.gene_names)), list(self.cell_lines)]
        return digest_json([*names, main, extra, more] if self.plates.by else [*names, main, extra])

    def save(self, path: Path) -> None:
        """Write to one npz file, seen whole or not at all."""
        extra = sorted(self.controls)
        empty = np.zeros((0, len(self.gene_names)))
        by_fold: dict[str, Any] = {"fold_counts": self.fold_counts, "fold_treated": self.fold_treated}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            format=np.int64(1),
            gene_names=np.asarray(self.gene_names, dtype=str),
            cell_lines=np.asarray(self.cell_lines, dtype=str),
            counts=self.counts,
            mean_control=self.mean_control,
            mean_treated=self.mean_treated,
            control_lines=np.asarray(extra, dtype=str),
            controls=np.stack([self.controls[line] for line in extra]) if extra else empty,
            landmarks=np.zeros(0, dtype=bool) if self.landmarks is None else self.landmarks,
            **self.plates.to_arrays(),
            folds=np.asarray(self.folds, dtype=np.int64),
            **{k: v for k, v in by_fold.items() if v is not None},
        )
        write_atomic(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what ``save`` wrote."""
        path = Path(path)
        if not path.exists():
            raise MissingFileError(f"{path} does not exist; collect the references first.")
        try:
            with np.load(path, allow_pickle=False) as z:
                extra = dict(zip(z["control_lines"].tolist(), z["controls"], strict=True))
                lines = tuple(z["cell_lines"].tolist())
                names = z["gene_names"].astype(object)
                marks = z["landmarks"] if "landmarks" in z and len(z["landmarks"]) else None
                means = (z["counts"], z["mean_control"], z["mean_treated"])
                found = cls(
                    names, lines, *means, controls=extra, plates=MatchedControls.from_arrays(z), landmarks=marks
                )
                if "folds" not in z:
                    return found  # of an older version
                folds = tuple(z["folds"].tolist())
                return replace(found, folds=folds, fold_counts=z["fold_counts"], fold_treated=z["fold_treated"])
        except (ValueError, KeyError, OSError) as error:
            raise CorruptionError(f"{path} is not a references file written by pertstack ({error}).") from error


def _sum_layer(source: BlockSource, block: Block, layer: str, plates: PlateGather | None = None) -> tuple[Float64, int]:
    """Sum over the rows of one layer of a block, float64 (n_genes,), and their number; ``plates`` sees them pass."""
    obs = source.obs(block)
    n = len(obs)
    total: Float64 = np.zeros(len(source.gene_names))
    for start in range(0, n, _CHUNK_ROWS):
        rows = source.read(block, layer, start=start, stop=min(n, start + _CHUNK_ROWS))
        total += rows.sum(axis=0, dtype=np.float64)
        if plates is not None:
            plates.add(obs.iloc[start : start + len(rows)], block.cell_line, rows)
    return total, n
