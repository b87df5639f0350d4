"""Shared MLP: one small network for all genes corrects the simplex mixture, seeing the models' deltas and the context.

Reads rows: a bounded sample of the evidence's blocks, whatever their size. The network and its training are in
``stacking/experimental/small_net.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError, MisalignedError
from pertstack.data.rows import Float32
from pertstack.reduce.read_tiles import read_tile
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need, availability
from pertstack.stacking.combiners.global_weights.simplex import global_error_gram
from pertstack.stacking.combiners.row_weights.feature_weighted import gene_features
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.small_net import PARTS, Cells, Float, correction, epochs, squared_rest, start_net
from pertstack.stacking.solvers.convex import simplex_weights
from pertstack.stacking.sums import Array, Reference, Sums, merge_sums

_CHUNK = 64  # consecutive rows read at once when a block is sampled
_PIECE = 256  # rows predicted at once, so that the hidden layer stays small


@dataclass(frozen=True)
class Inputs:
    """How tiles become inputs of the net; models and genes in their own order, so that names do not matter."""

    reference: Reference
    unit: float  # root mean square of the truth, delta units
    base: Array  # (M,) weights of the mixture that is corrected, in the order of the evidence's models
    order: np.ndarray[Any, np.dtype[np.int64]]  # (M,) models by squared error
    samples: SampleFeatures
    genes: Float  # (n_genes, C)

    def deltas(self, tile: Tile, rows: list[int]) -> tuple[Float, Any, Any]:
        """(n, n_genes, M) deltas in units of the truth, a missing model standing at the mean of those that are there;
        whether any is there, (n, n_genes) or None for all; and the reference profile."""
        profile = tile.pooled[None, :] if self.reference == "pooled" else tile.control
        x = (tile.predictions[rows] - profile) / np.float32(self.unit)
        there = availability(tile, rows)
        if there is not None:
            known = np.where(there, x, np.float32(0))
            mean = known.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
            x = np.where(there, x, mean[None])
        return x.transpose(1, 2, 0), None if there is None else there.any(axis=0), profile

    def net_inputs(self, deltas: Float) -> tuple[Float, Float]:
        """The mixture (n, g), and the net's inputs (n, g, 1 + M): the mixture and each model's distance from it, so
        that copies of a model say no more than one."""
        mixture = deltas @ self.base.astype(np.float32)
        apart = deltas[:, :, self.order] - mixture[:, :, None]
        return mixture, np.concatenate([mixture[:, :, None], apart], axis=2)

    def context(self, tile: Tile, rows: list[int]) -> Float:
        """(n, S): mean size and disagreement of the models, cell line, dose, time; none depends on their order."""
        found = self.samples.of_tile(tile, rows)
        n_models = len(rows)
        size = found[:, :n_models].mean(axis=1)
        return np.column_stack([size, found[:, 2 * n_models :]]).astype(np.float32)


@dataclass(frozen=True)
class CorrectedMixture(FittedCombiner):
    """The simplex mixture plus the net's correction, cell by cell."""

    name: str
    models: tuple[str, ...]
    gene_names: tuple[str, ...]
    inputs: Inputs
    net: dict[str, Float]
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes); NaN where no model predicts."""
        rows = self.rows_of(tile)
        genes = self._genes_of(tile)
        x, some, profile = self.inputs.deltas(tile, rows)
        made, context = np.empty(x.shape[:2], dtype=np.float32), self.inputs.context(tile, rows)
        for at in range(0, tile.n, _PIECE):
            part = slice(at, at + _PIECE)
            mixture, inner = self.inputs.net_inputs(x[part])
            made[part] = mixture + correction(self.net, inner, context[part], gene=genes)[0]
        out = profile + np.float32(self.inputs.unit) * made
        return np.asarray(out if some is None else np.where(some, out, np.nan), dtype=np.float32)

    def _genes_of(self, tile: Tile) -> Float:
        names = tuple(tile.gene_names.tolist())
        if names == self.gene_names:
            return self.inputs.genes
        at = {g: i for i, g in enumerate(self.gene_names)}
        unseen = sum(g not in at for g in names)
        if unseen:
            raise MisalignedError(
                f"Combiner {self.name!r} knows nothing of {unseen:,} genes of these rows. Leave them out, or stack "
                f"again with them."
            )
        return self.inputs.genes[[at[g] for g in names]]

    def weights(self) -> dict[str, Any]:
        """The mixture that is corrected; the net is in ``arrays``."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.inputs.reference,
            "mean": self.inputs.base.tolist(),
            "unit": self.inputs.unit,
            "facts": self.facts,
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Parameters of the net, context of the genes, order of the models."""
        return {**{f"net:{k}": self.net[k] for k in PARTS}, "genes": self.inputs.genes, "order": self.inputs.order}


@dataclass(frozen=True)
class SharedMlp(Combiner):
    """One network for all genes and samples: deltas of all models, gene and sample context in, a correction of the
    simplex mixture out (methods F17; one hidden layer, squared error).

    Gene context: log power of the truth, agreement of the models, basal level; sample context: size and disagreement
    of the predictions, cell line, dose, time. Trained on at most ``rows`` rows and ``cells`` cells that every model
    predicts, drawn over all blocks. How many epochs is found on one fold left out, none being among the answers, then
    all rows are used. If a model is missing, the mean of those that are there stands in for it.
    """

    name: ClassVar[str] = "shared_mlp"
    family: ClassVar[Family] = "nonlinear"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "sample_moments", "rows"})
    complexity: ClassVar[int] = 9
    default: ClassVar[bool] = False
    hidden: int = 12
    most_epochs: int = 12
    rows: int = 2000
    cells: int = 300_000
    batch: int = 32  # rows a step
    rate: float = 3e-3
    decay: float = 1e-5

    def fit(self, evidence: Evidence) -> CorrectedMixture:
        if min(self.hidden, self.most_epochs, self.rows, self.cells, self.batch) < 1:
            raise InputError("hidden, most_epochs, rows, cells and batch of shared_mlp must all be at least 1.")
        if evidence.source is None or evidence.references is None:
            raise InputError(
                "shared_mlp learns from rows, and none were given. Give the source and references of the reduction."
            )
        drawn, folds, cautions = _draw(evidence, self.rows)
        inputs, best, said = _inputs(evidence, evidence.sums), 0, list(cautions)
        genes = self._genes(evidence, len(drawn))
        if len(evidence.folds) < 2 or len(drawn) < 2:
            said.append("Nothing to leave out: the simplex mixture is not corrected.")
        else:
            best = self._epochs(evidence, drawn, folds, genes)
        net = self._start(inputs, evidence)
        if best:
            cells = _cells(drawn, inputs, genes)
            net = next(islice(self._train(net, cells, evidence.seed), best - 1, None))
        facts = {"epochs": best, "rows": int(sum(t.n for t, _ in drawn)), "genes": int(genes.size)}
        return CorrectedMixture(
            self.name, evidence.models, evidence.gene_names, inputs, net, (*evidence.cautions, *said), facts
        )

    def _genes(self, evidence: Evidence, n_tiles: int) -> Any:
        """Genes that are learned from: all, or as many as the cells allow, drawn; those that every model predicts."""
        sums = evidence.sums
        there = np.flatnonzero(sums.complete)
        power = sums.raw_target() / np.maximum(sums.count, 1.0)
        there = there[np.argsort(power[there], kind="stable")]
        n_rows = min(self.rows, len(evidence.reduction.samples))
        most = max(self.cells // max(n_rows, 1), 1) if n_tiles else 1
        if there.size <= most:
            return there
        return there[np.sort(np.random.default_rng(evidence.seed).choice(there.size, most, replace=False))]

    def _start(self, inputs: Inputs, evidence: Evidence) -> dict[str, Float]:
        n_sample = 2 + len(inputs.samples.cell_lines) + len(inputs.samples.numbers)
        rng = np.random.default_rng(evidence.seed)
        return start_net(1 + evidence.n_models, n_sample, inputs.genes.shape[1], hidden=self.hidden, rng=rng)

    def _train(self, net: dict[str, Float], cells: Cells, seed: int) -> Any:
        rng = np.random.default_rng(seed + 1)
        return epochs(net, cells, rate=self.rate, decay=self.decay, batch=self.batch, rng=rng)

    def _epochs(self, evidence: Evidence, drawn: Any, folds: Any, genes: Any) -> int:
        """Epochs of least squared error on one fold left out, 0 for no correction; three without gain end the search.

        Mixture, unit and gene context are learned without that fold too.
        """
        left = evidence.folds[-1]
        sums = merge_sums([s for k, s in evidence.fold_sums.items() if k != left])
        inputs = _inputs(evidence, sums)
        learn = _cells([d for d, k in zip(drawn, folds, strict=True) if k != left], inputs, genes)
        held = _cells([d for d, k in zip(drawn, folds, strict=True) if k == left], inputs, genes)
        if not learn.n or not held.n or not genes.size:
            return 0
        best, least = 0, float(np.mean(held.rest**2, dtype=np.float64))
        nets = self._train(self._start(inputs, evidence), learn, evidence.seed)
        for epoch, net in enumerate(islice(nets, self.most_epochs), start=1):
            error = squared_rest(net, held)
            if error < least * (1 - 1e-4):
                best, least = epoch, error
            elif epoch - best >= 3:
                break
        return best


def _inputs(evidence: Evidence, sums: Sums) -> Inputs:
    """Scalings and context from sums; the order of models is by their squared error, so that names do not matter."""
    errors = global_error_gram(sums)
    count = float(np.maximum(sums.count[sums.count > 0].sum(), 1.0))
    unit = float(np.sqrt(sums.raw_target().sum() / count))
    genes, _ = gene_features(evidence, sums)
    samples, _ = SampleFeatures.learn(evidence)
    return Inputs(
        evidence.reference,
        unit if unit > 0 else 1.0,
        simplex_weights(errors),
        order=np.argsort(np.diag(errors), kind="stable"),
        samples=samples,
        genes=genes[:, 1:].astype(np.float32),
    )


def _draw(evidence: Evidence, most: int) -> tuple[list[tuple[Tile, Float32]], list[int | None], tuple[str, ...]]:
    """Tiles with their truth and folds: all rows of the evidence's blocks, or chunks spread over them, about ``most``
    rows in all."""
    assert evidence.source is not None and evidence.references is not None
    n_rows = {b: len(evidence.reduction.tables[b]) for b in evidence.blocks}
    share = min(1.0, most / max(sum(n_rows.values()), 1))
    rng = np.random.default_rng(evidence.seed)
    tiles, folds = [], list[int | None]()
    for block in evidence.blocks:
        starts = np.arange(0, n_rows[block], _CHUNK)
        if share < 1:
            starts = np.sort(rng.choice(starts, max(1, round(share * starts.size)), replace=False))
        for start in starts.tolist():
            stop = min(start + _CHUNK, n_rows[block])
            tile = read_tile(evidence.source, evidence.references, block, start=start, stop=stop)
            tiles.append((tile, np.asarray(evidence.source.read(block, "treated", start=start, stop=stop))))
            folds.append(block.fold)
    said = () if share == 1 else (f"Learned from about {share:.0%} of the rows, spread over all blocks.",)
    return tiles, folds, said


def _cells(drawn: list[tuple[Tile, Float32]], inputs: Inputs, genes: Any) -> Cells:
    """Cells of the drawn tiles' rows that every model predicts, on the chosen genes."""
    x, sample, rest = [], [], []
    for tile, treated in drawn:
        rows = list(range(len(tile.models)))
        whole = tile.available.all(axis=0)
        deltas, _, profile = inputs.deltas(tile, rows)
        truth = (treated - profile)[whole][:, genes] / np.float32(inputs.unit)
        mixture, inner = inputs.net_inputs(deltas[whole][:, genes])
        x.append(inner)
        rest.append(truth - mixture)
        sample.append(inputs.context(tile, rows)[whole])
    if not x:
        nothing = np.zeros((0, len(genes), 1 + inputs.base.size), np.float32)
        return Cells(nothing, np.zeros((0, 1), np.float32), inputs.genes[genes], nothing[:, :, 0])
    return Cells(np.concatenate(x), np.concatenate(sample), inputs.genes[genes], np.concatenate(rest))
