"""Embedding stacking: what base models know of a row, beyond what they predict, corrects the mixture of predictions.

Reads rows once and keeps sums. Frames are aligned in ``frames.py``, sums made in ``embedding_sums.py``, slopes solved
in ``stacking/experimental/reduced_rank.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from pertstack._base.errors import InputError, MisalignedError, unknown_name
from pertstack.data.rows import Float32
from pertstack.predictions.sources.embedding import EmbeddingSource, RowEmbeddings
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need
from pertstack.stacking.combiners.global_weights.simplex import Simplex
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.embedding_sums import FeatureSums, merge_folds
from pertstack.stacking.experimental.frames import CommonFrame
from pertstack.stacking.experimental.reduced_rank import LowRank, held_out_errors, low_rank_paths
from pertstack.stacking.sums import Array

Offset = Literal["simplex", "reference"]
STRENGTHS = tuple(float(s) for s in np.logspace(-2, 4, 13))
_POOR = 0.5  # share of a fit's anchor variance off the consensus from which a caution is said


@dataclass(frozen=True)
class EmbeddingCorrection(FittedCombiner):
    """The offset plus low-rank slopes on aligned embeddings.

    Rows that one of the embedding models did not predict get the offset alone.
    """

    name: str
    models: tuple[str, ...]
    gene_names: tuple[str, ...]
    offset: LinearWeights  # the mixture that is corrected, or the reference alone
    frames: tuple[CommonFrame, ...]
    slopes: LowRank
    intercept: Array  # (n_genes,)
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes); NaN where no model predicts.

        Raises
        ------
        MisalignedError
            A model predicts these rows but gives no embedding of them, or one that was never aligned.
        """
        out = self.offset.combine(tile)
        x = row_features(self.frames, tile)
        known = np.isfinite(x).all(axis=1)
        if not known.any():
            return out
        genes = self._genes_of(tile)
        correction = self.intercept[genes] + self.slopes.predict(x[known])[:, genes]
        out[known] = (out[known] + correction).astype(np.float32)
        return out

    def _genes_of(self, tile: Tile) -> Any:
        names = tuple(tile.gene_names.tolist())  # all known: the offset looked them up
        if names == self.gene_names:
            return slice(None)
        at = {g: i for i, g in enumerate(self.gene_names)}
        return np.array([at[g] for g in names], dtype=np.int64)

    def weights(self) -> dict[str, Any]:
        """The offset and what corrects it; slopes and frames are in ``arrays``."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.offset.reference,
            "mean": self.offset.weights()["mean"],
            "embeddings": {f.model: {"directions": f.width, "misfit": f.misfit} for f in self.frames},
            "facts": self.facts,
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Slopes ``left @ right`` on features about ``centre``, intercept, offset, and every model's frame."""
        found: dict[str, np.ndarray[Any, Any]] = {
            "left": self.slopes.left,
            "right": self.slopes.right,
            "centre": self.slopes.mean_x,
            "intercept": self.intercept,
            "offset": self.offset.coefficients,
        }
        for frame in self.frames:
            found[f"anchors:{frame.model}"], found[f"axes:{frame.model}"] = frame.target, frame.axes
        return found


@dataclass(frozen=True)
class EmbeddingRidge(Combiner):
    """Embedding stacking: aligned embeddings of all models that have them, regressed by reduced-rank ridge on what the
    simplex mixture leaves of the measured delta, all genes at once.

    Embeddings of different fits are centred, scaled and turned onto a consensus of the fits (Procrustes, Schoenemann
    1966; Gower 1975) by rows that every fit embedded; fits without such rows are refused. Slopes are those of Mukherjee
    and Zhu (2011), learned within folds; penalty and rank have least squared error on folds left out, and if nothing
    gains in each of them there is no correction. ``offset="reference"`` regresses the whole delta from the reference
    profile instead. Memory: one tile and, per fold, features x genes.
    """

    name: ClassVar[str] = "embedding_ridge"
    family: ClassVar[Family] = "nonlinear"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "rows", "embeddings"})
    complexity: ClassVar[int] = 9
    default: ClassVar[bool] = False
    offset: Offset = "simplex"
    width: int = 32  # directions kept of each model's common frame
    most_rank: int = 32
    memory: int = 500_000_000  # bytes that tiles may take

    def fit(self, evidence: Evidence) -> EmbeddingCorrection:
        """Learn the frames, the slopes and how far they are to be trusted.

        Raises
        ------
        InputError
            No rows were given, or no model has embeddings.
        MisalignedError
            Models have embeddings, but none that were ever aligned.
        """
        if self.offset not in ("simplex", "reference"):
            raise unknown_name("offset of embedding_ridge", self.offset, ("simplex", "reference"))
        if self.width < 1 or self.most_rank < 1:
            raise InputError(f"width is {self.width} and most_rank {self.most_rank}; both are at least 1.")
        frames, left_out = common_frames(evidence, self.width)
        base = Simplex().fit(evidence)
        if self.offset == "reference":
            base = _reference_alone(base)
        parts = list(self._sums(evidence, frames, base).values())
        slopes, facts = self._slopes(parts)
        intercept = self._intercept(merge_folds(parts))
        said = [*evidence.cautions, *left_out.values(), *_poor(frames)]
        if len([p for p in parts if p.count]) < 2:
            said.append("Nothing to leave out: the offset is not corrected.")
        facts |= {"rows": int(sum(p.count for p in parts)), "left_out": sorted(left_out), "offset": self.offset}
        return EmbeddingCorrection(
            self.name, evidence.models, evidence.gene_names, base, frames, slopes, intercept, tuple(said), facts
        )

    def _sums(self, evidence: Evidence, frames: tuple[CommonFrame, ...], base: LinearWeights) -> dict[int, FeatureSums]:
        """Sums of features and what the offset leaves, by fold; rows with all embeddings, genes with an offset."""
        assert evidence.source is not None and evidence.references is not None
        n_features = sum(f.width for f in frames)
        sums = {k: FeatureSums.empty(n_features, len(evidence.gene_names)) for k in evidence.folds}
        for tile, treated in iter_tiles(
            evidence.source, evidence.references, self.memory, blocks=[b for b in evidence.blocks if b.fold is not None]
        ):
            x = row_features(frames, tile)
            known = np.isfinite(x).all(axis=1)
            rest = treated[known].astype(np.float64) - base.combine(tile)[known]
            assert tile.block.fold is not None
            part = FeatureSums.of(x[known], np.where(np.isfinite(rest), rest, 0.0))
            sums[tile.block.fold] = sums[tile.block.fold].merge(part)
        return sums

    def _intercept(self, sums: FeatureSums) -> Array:
        """None beside the mixture, whose offset per gene would be noise; the mean delta if there is no mixture."""
        return np.zeros(len(sums.mean_y)) if self.offset == "simplex" else sums.mean_y

    def _slopes(self, parts: list[FeatureSums]) -> tuple[LowRank, dict[str, Any]]:
        """Slopes from all folds, penalty and rank being those of least error over folds left out in turn.

        Only settings that lower the error in every fold left out are considered: sums do not give a standard error, and
        a gain that one fold makes alone is chance more often than not.
        """
        parts = [p for p in parts if p.count] or parts[:1]
        strength, rank, gain = STRENGTHS[-1], 0, 0.0
        if len(parts) > 1:
            errors = np.stack([self._errors(parts, i) for i in range(len(parts))])  # (folds, strengths, 1 + ranks)
            total, plain = errors.sum(axis=0), float(errors[:, 0, 0].sum())
            total[~(errors < errors[:, :1, :1]).all(axis=0)] = np.inf
            best = np.unravel_index(int(np.argmin(total)), total.shape)
            if total[best] < plain * (1 - 1e-4):
                strength, rank, gain = STRENGTHS[int(best[0])], int(best[1]), float(1 - total[best] / plain)
        path = next(low_rank_paths(merge_folds(parts), [strength], self.most_rank))
        facts = {"rank": rank, "strength": strength if rank else None, "held_out_gain": round(gain, 6)}
        return path.cut(rank), facts

    def _errors(self, parts: list[FeatureSums], left: int) -> Array:
        """Squared error on one fold of slopes from the others, (strengths, 1 + ranks)."""
        rest = merge_folds([p for j, p in enumerate(parts) if j != left])
        paths = low_rank_paths(rest, STRENGTHS, self.most_rank)
        return np.stack([held_out_errors(p, parts[left], self._intercept(rest)) for p in paths])


def common_frames(evidence: Evidence, width: int) -> tuple[tuple[CommonFrame, ...], dict[str, str]]:
    """The common frame of every model that can be used, over the fits behind the visible rows; why others cannot.

    Raises
    ------
    InputError
        No rows, or no model has embeddings.
    MisalignedError
        Models have embeddings, but none that were ever aligned.
    """
    if evidence.source is None or evidence.references is None:
        raise InputError(
            "embedding_ridge learns from rows and embeddings, and none were given. Give the source and references "
            "of the reduction."
        )
    frames: list[CommonFrame] = []
    left_out: dict[str, str] = {}
    unaligned = False
    for model in evidence.models:
        fits, lacking = _fits(evidence, model)
        if lacking or not fits:
            where = f" in {len(lacking)} of its blocks" if fits else ""
            left_out[model] = f"{model} gives no embeddings{where}: it takes part by its predictions alone."
            continue
        try:
            frame = CommonFrame.of(model, fits, width)
        except MisalignedError as error:
            left_out[model], unaligned = str(error), True
            continue
        if frame.width:
            frames.append(frame)
        else:
            left_out[model] = (
                f"A fit of {model} embeds every anchor row alike: the model takes part by its predictions alone."
            )
    if frames:
        return tuple(frames), left_out
    if unaligned:
        raise MisalignedError(" ".join(left_out.values()))
    raise InputError(
        "No model has embeddings to stack. Networks (and mlp, low-rank models that embed) fitted by `pertstack fit` "
        f"give them; here: {' '.join(left_out.values())}"
    )


def _fits(evidence: Evidence, model: str) -> tuple[list[RowEmbeddings], list[str]]:
    """One sample of each fit behind a model's visible rows, in the order of blocks; blocks without embeddings."""
    source = evidence.source
    fits: dict[str, RowEmbeddings] = {}
    lacking = []
    for block in evidence.blocks:
        assert source is not None
        if not source.sound(block, model).any():
            continue
        found = source.embedding(block, model, start=0, stop=0) if isinstance(source, EmbeddingSource) else None
        if found is None:
            lacking.append(block.id)
        else:
            fits.setdefault(found.fit, found)
    return list(fits.values()), lacking


def row_features(frames: tuple[CommonFrame, ...], tile: Tile) -> Array:
    """Aligned embeddings of a tile's rows side by side, (n, F) float64; NaN where a model did not predict.

    Raises
    ------
    MisalignedError
        A model predicts rows of the tile but gives no embedding of them, or one that was never aligned.
    """
    parts = []
    for frame in frames:
        there = tile.available[tile.models.index(frame.model)]
        part = np.full((tile.n, frame.width), np.nan)
        if there.any():
            found = tile.embedding(frame.model)
            if found is None:
                raise MisalignedError(
                    f"{frame.model!r} predicts these rows but gives no embedding of them, and embedding_ridge was "
                    f"learned with it. Let the study fit it (no --predictions file for it), or provide its embeddings."
                )
            part[there] = frame.align(found)[there]
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _reference_alone(base: LinearWeights) -> LinearWeights:
    values = {**vars(base), "coefficients": np.zeros_like(base.coefficients), "intercept": np.zeros(())}
    return LinearWeights(**values)


def _poor(frames: tuple[CommonFrame, ...]) -> list[str]:
    return [
        f"{f.misfit:.0%} of what a fit of {f.model} says of the anchor rows stays off the other fits after turning: "
        f"its folds tell rows apart in different ways."
        for f in frames
        if f.misfit > _POOR
    ]
