"""scGen: an autoencoder and differences in its latent space.

Lotfollahi M., Wolf F. A., Theis F. J. (2019), "scGen predicts single-cell perturbation responses", Nature Methods 16,
715-721. One autoencoder for control and treated profiles; the difference of mean codes is added to the code of a
control. The original has one difference for a whole data set. Ours has one per drug and cell line, shrunk towards
the drug's, which is shrunk towards the global one (weight n / (n + kappa)); a drug never fitted on gets its difference
by ridge regression on its features, if there are any. All rows are used: nothing is drawn at random after training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import FitRows, PredictRows
from pertstack.fit.torch.common.batches import Batch, Index, Table
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import mlp
from pertstack.fit.torch.common.model import PREDICT_ROWS, TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import ScGenSettings
from pertstack.fit.torch.transigen import Gaussian, draw, kl

Floats = np.ndarray[Any, np.dtype[np.float64]]


class ScGenNetwork(Network):
    """One variational autoencoder for all profiles; the latent differences are put in after training."""

    def __init__(self, sizes: Sizes, s: ScGenSettings) -> None:
        super().__init__()
        self.s, self.n_genes = s, sizes.n_genes
        kind: dict[str, Any] = {"norm": "batch", "activation": nn.LeakyReLU, "dropout": s.dropout}
        self.encode = mlp([sizes.n_genes, *s.hidden], **kind)
        self.code = Gaussian(s.hidden[-1], s.latent)
        self.decode = mlp([s.latent, *reversed(s.hidden), sizes.n_genes], **kind, last=False)

    def profile_loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.code(self.encode(x))
        error = nn.functional.mse_loss(self.decode(draw(mean, log_variance)).float(), x)
        zero = torch.zeros_like(mean)
        return error, kl(mean, log_variance, zero, zero)

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        error_1, kl_1 = self.profile_loss(batch.x1)
        error_2, kl_2 = self.profile_loss(batch.truth)
        total = 0.5 * (error_1 + error_2) + 0.5 * self.s.kl / self.n_genes * (kl_1 + kl_2)
        return {"loss": total, "reconstructed": 0.5 * (error_1 + error_2)}

    def embed(self, batch: Batch) -> Tensor:
        mean: Tensor = self.code(self.encode(batch.x1))[0]
        return mean

    def predict(self, batch: Batch) -> Tensor:
        code = self.embed(batch)
        assert batch.extra is not None, "rows to predict carry their latent difference"
        out: Tensor = self.decode(code + batch.extra)
        return out


@dataclass(frozen=True)
class Differences:
    """Latent differences treated - control: global, per drug, per drug and cell line, and by features."""

    overall: Floats  # (d,)
    drug: dict[str, Floats]
    drug_line: dict[tuple[str, str], Floats]
    feature_mean: Floats  # (F,)
    slope: Floats  # (F, d); zeros where nothing can be said

    def of(self, drug: str, line: str, features: Floats | None) -> Floats:
        """The most particular difference there is, (d,): of drug and line, of the drug, by features, overall.

        Parameters
        ----------
        drug, line : names.
        features : (n_features,), of the drug; None if unknown.
        """
        if (drug, line) in self.drug_line:
            return self.drug_line[drug, line]
        if drug in self.drug:
            return self.drug[drug]
        if features is None:
            return self.overall
        return self.overall + (features - self.feature_mean) @ self.slope


def learn_differences(
    difference: Floats, drug: list[str], line: list[str], *, features: dict[str, Floats], kappa: float, ridge: float
) -> Differences:
    """Means of latent differences, each shrunk towards the wider one with weight n / (n + kappa).

    ``overall`` is the mean over cell lines of their means, so that a line with many rows does not speak for all. The
    regression on features is fitted on the drugs' shrunk differences (kernel form: drugs are few).

    Parameters
    ----------
    difference : (n, d), treated less control in the latent space.
    drug, line : names of the n rows.
    features : drug -> (n_features,), for the drugs that have any.
    kappa : pseudo-rows.
    ridge : penalty, times the mean square of the centred features.
    """
    lines = sorted(set(line))
    at = {name: np.array([i for i, x in enumerate(line) if x == name]) for name in lines}
    overall = np.mean([difference[rows].mean(axis=0) for rows in at.values()], axis=0)
    by_drug: dict[str, list[int]] = {}
    by_both: dict[tuple[str, str], list[int]] = {}
    for i, (d, c) in enumerate(zip(drug, line, strict=True)):
        by_drug.setdefault(d, []).append(i)
        by_both.setdefault((d, c), []).append(i)
    of_drug = {d: _shrunk(difference[rows], overall, kappa) for d, rows in sorted(by_drug.items())}
    of_both = {k: _shrunk(difference[rows], of_drug[k[0]], kappa) for k, rows in sorted(by_both.items())}
    known = [d for d in of_drug if d in features]
    width = len(next(iter(features.values()))) if features else 0
    mean, slope = np.zeros(width), np.zeros((width, difference.shape[1]))
    if len(known) > 1 and width:
        x, y = np.stack([features[d] for d in known]), np.stack([of_drug[d] - overall for d in known])
        mean = x.mean(axis=0)
        x = x - mean
        kernel = x @ x.T
        penalty = ridge * float(np.trace(kernel)) / len(known)
        if penalty > 0:
            slope = x.T @ np.linalg.solve(kernel + penalty * np.eye(len(known)), y)
    return Differences(overall, of_drug, of_both, feature_mean=mean, slope=slope)


def _shrunk(rows: Floats, towards: Floats, kappa: float) -> Floats:
    out: Floats = (len(rows) * rows.mean(axis=0) + kappa * towards) / (len(rows) + kappa)
    return out


class ScGen(TorchModel):
    """scGen (Lotfollahi et al. 2019) with a latent difference per drug and cell line. Embedding: code of the
    control."""

    name: ClassVar[str] = "scGen"
    uses_features: ClassVar[bool | str] = "optional"
    differences: Differences | None = None

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return ScGenNetwork(sizes, self.settings)

    def validation(self, net: Network, table: Table, rows: Index) -> float:
        """Reconstruction error of control and treated profiles from posterior means."""
        assert isinstance(net, ScGenNetwork)
        total = 0.0
        for start in range(0, len(rows), PREDICT_ROWS):
            batch = table.batch(rows[start : start + PREDICT_ROWS], self.device)
            with torch.no_grad():
                for x in (batch.x1, batch.truth):
                    total += float(((net.decode(net.code(net.encode(x))[0]) - x) ** 2).sum())
        return float(total / (2 * len(rows) * table.control.shape[1]))

    def finish(self, net: Network, table: Table, rows: FitRows) -> None:
        """Differences of posterior means over all fit rows."""
        assert isinstance(net, ScGenNetwork)
        parts = []
        for start in range(0, table.n, PREDICT_ROWS):
            batch = table.batch(np.arange(start, min(start + PREDICT_ROWS, table.n)), self.device)
            with torch.no_grad():
                codes = [net.code(net.encode(x))[0] for x in (batch.x1, batch.truth)]
            parts.append((codes[1] - codes[0]).cpu().numpy().astype(np.float64))
        drug, line = [str(p) for p in rows.perturbation], [str(c) for c in rows.cell_line]
        s = self.settings
        self.differences = learn_differences(
            np.concatenate(parts), drug, line, features=self._features(table, drug), kappa=s.kappa, ridge=s.ridge
        )

    def encode(self, encoder: Encoder, rows: PredictRows) -> Table:
        assert self.differences is not None, "fit learns the differences"
        table = encoder.encode(rows)
        drug = [str(p) for p in rows.perturbation]
        features = self._features(table, drug)
        shift = [self.differences.of(d, str(c), features.get(d)) for d, c in zip(drug, rows.cell_line, strict=True)]
        width = len(self.differences.overall)
        extra = np.asarray(shift, dtype=np.float32).reshape(len(drug), width)
        return replace(table, extra=torch.from_numpy(extra))

    def _features(self, table: Table, drug: list[str]) -> dict[str, Floats]:
        """Known features by drug name."""
        matrix, known = table.features.numpy().astype(np.float64), table.known.numpy()[:, 0] > 0
        place = dict(zip(drug, table.drug, strict=True))
        return {d: matrix[i] for d, i in place.items() if known[i] and matrix.shape[1]}
