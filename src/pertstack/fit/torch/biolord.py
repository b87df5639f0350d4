"""Biolord: latent optimisation, with the codes of new rows inferred from their controls.

Piran Z., Cohen N., Hoshen Y., Nitzan M. (2024), "Disentanglement of single-cell data with biolord", Nature
Biotechnology 42, 1678-1683. There is no encoder: each training profile owns a code; known attributes (drug with dose,
cell line) have their own networks; a decoder joins them. The original decodes a held-out row from a code that was
never trained, or needs the held-out rows at fit. Ours is trained on all controls (drug vector zero) and all treated
profiles of the fit rows; for a new row the code is inferred from its control with everything else frozen, and the
treated profile is decoded from that code with the row's drug. No row to be predicted is needed at fit.
``infer = "zero"`` is the ablation that never looks at the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from xxhash import xxh3_128_digest

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch, Index, Table
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.model import PREDICT_ROWS, TorchModel
from pertstack.fit.torch.common.network import Network, Optimisers, Sizes, autocast
from pertstack.fit.torch.common.settings import BiolordSettings

LOG_VARIANCE = (-6.0, 6.0)
KEPT_BATCHES = 256  # of 128 rows: 4 MB with 32 numbers a row


def attribute_network(n_in: int, s: BiolordSettings) -> nn.Sequential:
    """Linear without bias, batch norm, ReLU, dropout in every block, the last included: attribute vectors are >= 0."""
    sizes = [n_in, *[s.attribute_width] * (s.attribute_depth - 1), s.n_ordered]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b, bias=False), batch_norm(b, s), nn.ReLU(), nn.Dropout(s.dropout)]
    return nn.Sequential(*layers)


def decoder_layers(widths: Sequence[int], s: BiolordSettings) -> nn.Sequential:
    """Linear, batch norm if wanted, ReLU, dropout, through ``widths``."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        norm = [batch_norm(b, s)] if s.decoder_norm == "batch" else []
        layers += [nn.Linear(a, b), *norm, nn.ReLU(), nn.Dropout(s.decoder_dropout)]
    return nn.Sequential(*layers)


def batch_norm(width: int, s: BiolordSettings) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, eps=s.norm_epsilon, momentum=s.norm_momentum)


class BiolordNetwork(Network):
    """Codes of training profiles, attribute networks, decoder with a mean and a variance per gene."""

    def __init__(self, sizes: Sizes, s: BiolordSettings, n_rows: int) -> None:
        super().__init__()
        self.s, self.n_rows = s, n_rows
        self.codes = nn.Embedding(2 * n_rows, s.latent)  # controls first, then treated profiles
        nn.init.normal_(self.codes.weight, std=s.code_spread)
        self.held: Tensor
        self.register_buffer("held", torch.zeros(n_rows, dtype=torch.bool), persistent=False)
        self.inferred: dict[bytes, Tensor] = {}
        self.attribute = attribute_network(sizes.n_treatment, s)
        self.cell = nn.Embedding(sizes.n_cell_lines, s.n_category)
        widths = [s.latent + s.n_ordered + s.n_category, *[s.decoder_width] * s.decoder_depth]
        self.hidden = decoder_layers(widths, s)
        self.mean = nn.Linear(widths[-1], sizes.n_genes)
        self.log_variance = nn.Linear(widths[-1], sizes.n_genes)

    def attributes(self, batch: Batch, treated: bool) -> Tensor:
        """Drug-dose vector and cell line vector, (B, n_ordered + n_category); a control has drug vector zero."""
        treatment = batch.treatment if treated else torch.zeros_like(batch.treatment)
        return torch.cat([self.attribute(treatment), self.cell(batch.cell)], dim=1)

    def decode(self, code: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance per gene."""
        h = self.hidden(torch.cat([code, attributes], dim=1))
        return self.mean(h), self.log_variance(h).clamp(*LOG_VARIANCE)

    def cost(self, code: Tensor, attributes: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss per row (B,) and squared error per row (B,): likelihood, reconstruction and size of the code, per gene.

        The original weighs the mean over rows of |code|² by lambda against means over genes; so do we.

        Parameters
        ----------
        code : (B, latent), of the rows.
        attributes : (B, width), embedded drug, dose and cell line.
        x : (B, n_genes), standardised truth.
        """
        mean, log_variance = self.decode(code, attributes)
        mean, log_variance = mean.float(), log_variance.float()
        squared = (mean - x) ** 2
        likelihood = 0.5 * (log_variance + squared * (-log_variance).exp()).mean(dim=1)
        error = squared.mean(dim=1)
        return likelihood + self.s.reconstruction_penalty * error + self.s.latent_penalty * (code**2).sum(dim=1), error

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Controls of all rows and treated profiles of those that are not held back, as one batch (one batch norm)."""
        use = ~self.held[batch.row]
        code = torch.cat([self.code_of(batch.row, treated=False), self.code_of(batch.row[use], treated=True)])
        code = code + self.s.latent_noise * torch.randn_like(code)
        treatment = torch.cat([torch.zeros_like(batch.treatment), batch.treatment[use]])
        cell = self.cell(torch.cat([batch.cell, batch.cell[use]]))
        attributes = torch.cat([self.attribute(treatment), cell], dim=1)
        loss, error = self.cost(code, attributes, torch.cat([batch.x1, batch.truth[use]]))
        return {"loss": loss.mean(), "reconstructed": error.mean()}

    def code_of(self, row: Tensor, treated: bool) -> Tensor:
        """Codes of fit rows; with ``shared_code`` both profiles of a pair have the same."""
        code: Tensor = self.codes(row + (self.n_rows if treated and not self.s.shared_code else 0))
        return code

    def infer(self, batch: Batch) -> Tensor:
        """Codes (B, latent) of new rows, kept on the CPU for the last batches: rows are predicted, then embedded."""
        if self.training or batch.x1.device.type != "cpu":
            return self._infer(batch)
        key = xxh3_128_digest(batch.x1.numpy().tobytes() + batch.cell.numpy().tobytes())
        if key not in self.inferred:
            while len(self.inferred) >= KEPT_BATCHES:
                del self.inferred[next(iter(self.inferred))]
            self.inferred[key] = self._infer(batch)
        return self.inferred[key]

    def _infer(self, batch: Batch) -> Tensor:
        """Steps of Adam from zero on the reconstruction of the control, all else frozen."""
        code = torch.zeros(len(batch.row), self.s.latent, device=batch.x1.device)
        if self.s.infer == "zero":
            return code
        with torch.no_grad():
            attributes = self.attributes(batch, treated=False).float()
        code.requires_grad_(True)
        adam = torch.optim.Adam([code], lr=self.s.infer_learning_rate)
        for _ in range(self.s.infer_steps):
            loss, _error = self.cost(code, attributes, batch.x1)
            (code.grad,) = torch.autograd.grad(loss.sum(), [code])
            adam.step()
        return code.detach()

    def predict(self, batch: Batch) -> Tensor:
        code = self.infer(batch)
        with torch.no_grad():
            return self.decode(code, self.attributes(batch, treated=True))[0]

    def embed(self, batch: Batch) -> Tensor:
        code = self.infer(batch)
        with torch.no_grad():
            return torch.cat([self.attributes(batch, treated=True).float(), code], dim=1)


class Biolord(TorchModel):
    """Biolord (Piran et al. 2024), codes inferred from controls. Embedding: drug-dose, cell line, code of the
    control."""

    name: ClassVar[str] = "Biolord"

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return BiolordNetwork(sizes, self.settings, rows.n_samples)

    def optimisers(self, net: Network) -> Optimisers:
        """Adam with a rate and decay each for codes, attributes and decoder; ``cell_group`` places the cell lines."""
        assert isinstance(net, BiolordNetwork)
        s, cell = self.settings, list(net.cell.parameters())
        with_codes = s.cell_group == "code"
        groups = [
            ([*net.codes.parameters(), *(cell if with_codes else [])], s.latent_learning_rate, s.latent_weight_decay),
            (
                [*net.attribute.parameters(), *([] if with_codes else cell)],
                s.attribute_learning_rate,
                s.attribute_weight_decay,
            ),
            (
                [*net.hidden.parameters(), *net.mean.parameters(), *net.log_variance.parameters()],
                s.learning_rate,
                s.weight_decay,
            ),
        ]
        return [torch.optim.Adam(parameters, lr=rate, weight_decay=decay) for parameters, rate, decay in groups]

    def trained_rows(self, fit: Index, validation: Index) -> Index:
        """Inner validation rows take part with their controls, which are inputs; their treated profiles do not."""
        assert isinstance(self.net, BiolordNetwork)
        self.net.held[torch.from_numpy(validation).to(self.device)] = True
        return np.concatenate([fit, validation])

    def validation(self, net: Network, table: Table, rows: Index) -> float:
        """Error of treated profiles decoded from the codes of their controls, which training holds at hand."""
        assert isinstance(net, BiolordNetwork)
        total = 0.0
        for start in range(0, len(rows), PREDICT_ROWS):
            batch = table.batch(rows[start : start + PREDICT_ROWS], self.device)
            with torch.no_grad(), autocast(self.device, self.settings):
                code = net.code_of(batch.row, treated=False)
                mean, _ = net.decode(code, net.attributes(batch, treated=True))
            total += float(((mean.float() - batch.truth) ** 2).sum())
        return float(total / (len(rows) * table.control.shape[1]))

    def answer(self, net: Network, batch: Batch) -> Tensor:
        with autocast(self.device, self.settings):
            return net.predict(batch).float()

    def describe(self, net: Network, batch: Batch) -> Tensor:
        with autocast(self.device, self.settings):
            return net.embed(batch).float()

    def finish(self, net: Network, table: Table, rows: FitRows) -> None:
        """Nothing is kept of the codes: no prediction may look one up."""
        assert isinstance(net, BiolordNetwork)
        net.inferred.clear()
        net.codes = nn.Embedding(0, self.settings.latent, _weight=torch.empty(0, self.settings.latent))
