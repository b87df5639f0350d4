"""ChemCPA: an autoencoder whose basal state is cleaned of drug and cell line by adversaries.

Hetzel L. et al. (2022), "Predicting cellular responses to novel drug perturbations at a single-cell resolution",
NeurIPS 35; Lotfollahi M. et al. (2023), "Predicting cellular responses to complex perturbations in high-throughput
screens", Molecular Systems Biology 19, e11517. Controls and treated profiles reconstruct themselves; drug (from its
features, scaled by dose) and cell line vectors are added to a basal state from which two classifiers try to read them.
Ours: a paired term, since we have pairs; drugs with few rows share one class of the adversary; the adversarial reward
ends where a classifier is as blind as a guess, so that codes cannot run away; the decoder's variance is clamped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch, Table
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import mlp
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Optimisers, Sizes, autocast, update
from pertstack.fit.torch.common.settings import ChemCPASettings

VARIANCE = (1e-3, 1e2)


class ChemCPANetwork(Network):
    """Encoder, drug and dose networks, cell line vectors, decoder, two adversaries."""

    def __init__(self, sizes: Sizes, s: ChemCPASettings, drug_class: Any, cell_class: Any) -> None:
        super().__init__()
        self.s = s
        widths = [s.width] * s.depth
        self.encode = mlp([sizes.n_genes, *widths, s.latent], norm="batch", dropout=s.dropout, last=False)
        self.decode = mlp([s.latent, *widths, 2 * sizes.n_genes], norm="batch", dropout=s.dropout, last=False)
        self.drug = mlp([sizes.n_drug, *[s.drug_width] * s.drug_depth, s.latent], dropout=s.dropout, last=False)
        self.doser = mlp([sizes.n_treatment, *[s.doser_width] * s.doser_depth, 1], last=False)
        self.cell = nn.Embedding(sizes.n_cell_lines, s.latent)
        self.n_drug_classes, self.n_cell_classes = int(drug_class.max()) + 1, int(cell_class.max()) + 1
        hidden = [s.adversary_width] * s.adversary_depth
        self.drug_adversary = mlp([s.latent, *hidden, self.n_drug_classes], norm="batch", last=False)
        self.cell_adversary = mlp([s.latent, *hidden, self.n_cell_classes], norm="batch", last=False)
        self.drug_class: Tensor
        self.cell_class: Tensor
        self.register_buffer("drug_class", torch.from_numpy(drug_class), persistent=False)
        self.register_buffer("cell_class", torch.from_numpy(cell_class), persistent=False)

    def adversaries(self) -> list[nn.Parameter]:
        return [*self.drug_adversary.parameters(), *self.cell_adversary.parameters()]

    def autoencoder(self) -> list[nn.Parameter]:
        parts = (self.encode, self.decode, self.drug, self.doser, self.cell)
        return [p for part in parts for p in part.parameters()]

    def drug_vector(self, batch: Batch) -> Tensor:
        """What the drug adds to the basal state, scaled by a number in (0, 1) for its dose."""
        out: Tensor = self.drug(batch.drug) * self.doser(batch.treatment).sigmoid()
        return out

    def decoded(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped variance per gene."""
        mean, raw = self.decode(code).float().chunk(2, dim=1)
        return mean, nn.functional.softplus(raw).clamp(*VARIANCE)

    def basal(self, batch: Batch) -> Tensor:
        """Basal states of controls, then of treated profiles, (2 B, latent), in one batch norm."""
        out: Tensor = self.encode(torch.cat([batch.x1, batch.truth]))
        return out

    def classes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Drug class (0 = control) and cell class of controls, then treated profiles."""
        drug, cell = self.drug_class[batch.row], self.cell_class[batch.row]
        return torch.cat([torch.zeros_like(drug), drug]), torch.cat([cell, cell])

    def guesses(self, basal: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropies of the drug and the cell line adversary."""
        drug, cell = self.classes(batch)
        entropy = nn.functional.cross_entropy
        return entropy(self.drug_adversary(basal).float(), drug), entropy(self.cell_adversary(basal).float(), cell)

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """What the autoencoder minimises: likelihood, paired error, minus the (capped) confusion of the adversaries."""
        basal, n = self.basal(batch), len(batch.row)
        cell, drug = self.cell(batch.cell), self.drug_vector(batch)
        codes = torch.cat([basal[:n] + cell, basal[n:] + cell + drug, basal[:n] + cell + drug])
        mean, variance = self.decoded(codes)
        x = torch.cat([batch.x1, batch.truth])
        likelihood = nn.functional.gaussian_nll_loss(mean[: 2 * n], x, variance[: 2 * n])
        paired = nn.functional.mse_loss(mean[2 * n :], batch.truth)
        drug_guess, cell_guess = self.guesses(basal, batch)
        reward = self.s.drug_adversary * drug_guess.clamp(max=self._blind(self.n_drug_classes))
        reward = reward + self.s.cell_adversary * cell_guess.clamp(max=self._blind(self.n_cell_classes))
        return {
            "loss": likelihood + self.s.paired * paired - reward,
            "predicted": paired,
            "likelihood": likelihood,
            "drug_adversary": drug_guess,
            "cell_adversary": cell_guess,
        }

    @staticmethod
    def _blind(n_classes: int) -> float:
        return math.log(max(n_classes, 2))

    def adversary_loss(self, batch: Batch) -> Tensor:
        """What the adversaries minimise: cross-entropies, and the squared gradient of their scores by the basal
        state."""
        basal = self.basal(batch).detach().float().requires_grad_(True)
        drug_guess, cell_guess = self.guesses(basal, batch)
        penalty = basal.new_zeros(())
        if self.s.gradient_penalty > 0:
            for adversary in (self.drug_adversary, self.cell_adversary):
                (slope,) = torch.autograd.grad(adversary(basal).sum(), [basal], create_graph=True)
                penalty = penalty + (slope.float() ** 2).mean()
        return drug_guess + cell_guess + self.s.gradient_penalty * penalty

    def predict(self, batch: Batch) -> Tensor:
        code = self.encode(batch.x1) + self.drug_vector(batch) + self.cell(batch.cell)
        return self.decoded(code)[0]

    def embed(self, batch: Batch) -> Tensor:
        return torch.cat([self.encode(batch.x1), self.drug_vector(batch)], dim=1)


def adversary_classes(names: Sequence[str], least: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Class of each row from 1 on; names with fewer rows than ``least`` share the last class. 0 is left for
    controls."""
    _, index, count = np.unique(np.asarray(names, dtype=str), return_inverse=True, return_counts=True)
    often = count >= least
    code = np.where(often, np.cumsum(often), int(often.sum()) + 1)
    out: np.ndarray[Any, np.dtype[np.int64]] = code[index].astype(np.int64)
    return out


class ChemCPA(TorchModel):
    """ChemCPA (Hetzel et al. 2022), adversarial. Embedding: basal state of the control and drug vector."""

    name: ClassVar[str] = "ChemCPA"

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        drug = adversary_classes([str(p) for p in rows.perturbation], self.settings.min_rows_per_drug)
        cell = adversary_classes([str(c) for c in rows.cell_line], 1) - 1
        return ChemCPANetwork(sizes, self.settings, drug, cell)

    def optimisers(self, net: Network) -> Optimisers:
        assert isinstance(net, ChemCPANetwork)
        s = self.settings
        return [
            torch.optim.Adam(net.autoencoder(), lr=s.learning_rate, weight_decay=s.weight_decay),
            torch.optim.Adam(net.adversaries(), lr=s.adversary_learning_rate, weight_decay=s.adversary_weight_decay),
        ]

    def step(
        self, net: Network, optimisers: Optimisers, batch: Batch, *, step: int, device: torch.device
    ) -> dict[str, Tensor]:
        """Every third step trains the adversaries, the others the autoencoder."""
        assert isinstance(net, ChemCPANetwork)
        s = self.settings
        if step % s.adversary_every == s.adversary_every - 1:
            with autocast(device, s):
                loss = net.adversary_loss(batch)
            update(net.adversaries(), [optimisers[1]], loss, clip=s.gradient_clip)
            return {"adversary_loss": loss}
        with autocast(device, s):
            losses = net.loss(batch, step)
        update(net.autoencoder(), [optimisers[0]], losses["loss"], clip=s.gradient_clip)
        return losses

    def finish(self, net: Network, table: Table, rows: FitRows) -> None:
        """The classes of the fit rows are of no use once the adversaries are trained."""
        assert isinstance(net, ChemCPANetwork)
        net.drug_class, net.cell_class = net.drug_class[:0], net.cell_class[:0]
