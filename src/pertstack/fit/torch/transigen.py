"""TranSiGen and its two mixture-of-experts variants.

Tong X. et al. (2024), "Deep representation learning of chemical-induced transcriptional profile for phenotype-based
drug discovery", Nature Communications 15, 5378. Two variational autoencoders, one for x1 and one for x2; a head
predicts the code of x2 from the code of x1 and the molecule. Ours: losses are means (KL weight beta / n_genes),
posterior means when predicting (two calls agree), log-variances clamped, the dose beside the molecule, gates that
receive a gradient.
"""

from __future__ import annotations

from typing import ClassVar

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import Gate, mix, mlp
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import TranSiGenMoESettings, TranSiGenSettings

LOG_VARIANCE = (-10.0, 10.0)


class Gaussian(nn.Module):
    """Mean and clamped log-variance of a diagonal Gaussian."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(h), self.log_variance(h).clamp(*LOG_VARIANCE)


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A reparameterised draw (training only)."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def kl(mean: Tensor, log_variance: Tensor, to_mean: Tensor, to_log_variance: Tensor) -> Tensor:
    """KL divergence between diagonal Gaussians, summed over dimensions, mean over rows.

    Parameters
    ----------
    mean, log_variance : (B, d), of the first.
    to_mean, to_log_variance : (B, d), of the second.
    """
    ratio = (log_variance - to_log_variance).exp()
    apart = (mean - to_mean) ** 2 * (-to_log_variance).exp()
    return 0.5 * (ratio + apart - 1 - log_variance + to_log_variance).sum(dim=1).mean()


class Fusion(nn.Module):
    """No experts: the concatenation [z1 ; molecule] goes to the heads as it is."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, h.new_zeros(())


class ExpertFusion(nn.Module):
    """Mixture of experts on [z1 ; molecule], width kept; linear, ReLU, linear per expert."""

    def __init__(self, width: int, n_experts: int, k: int) -> None:
        super().__init__()
        self.gate = Gate(nn.Linear(width, n_experts), n_experts, k)
        self.experts = nn.ModuleList(mlp([width, width, width], last=False) for _ in range(n_experts))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        weights, balance = self.gate(h)
        return mix(self.experts, weights, [h]), balance


class TranSiGenNetwork(Network):
    """Two autoencoders and a head between their codes."""

    def __init__(self, sizes: Sizes, s: TranSiGenSettings, fusion: nn.Module, balance: float = 0.0) -> None:
        super().__init__()
        self.s, self.n_genes, self.balance = s, sizes.n_genes, balance
        n, last = sizes.n_genes, s.encoder[-1]
        self.encode_1 = mlp([n, *s.encoder], norm="batch", dropout=s.dropout)
        self.encode_2 = mlp([n, *s.encoder], norm="batch", dropout=s.dropout)
        self.code_1, self.code_2 = Gaussian(last, s.latent), Gaussian(last, s.latent)
        n_molecule = sizes.n_treatment if s.dose else sizes.n_drug
        self.molecule = mlp([n_molecule, s.molecule], norm="batch", dropout=s.dropout)
        self.fusion, self.head = fusion, Gaussian(s.latent + s.molecule, s.latent)
        self.decode_1 = mlp([s.latent, *s.decoder, n], norm="batch", dropout=s.dropout, last=False)
        self.decode_2 = mlp([s.latent, *s.decoder, n], norm="batch", dropout=s.dropout, last=False)

    def translate(self, z1: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance of z2 given z1 and the molecule, and the balance term."""
        molecule = self.molecule(batch.treatment if self.s.dose else batch.drug)
        fused, balance = self.fusion(torch.cat([z1, molecule], dim=1))
        mean, log_variance = self.head(fused)
        return mean, log_variance, balance

    def treated(self, z2: Tensor, batch: Batch) -> Tensor:
        out: Tensor = self.decode_2(z2)
        return out + batch.x1 if self.s.predict_delta else out

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        mse, x2 = nn.functional.mse_loss, batch.truth
        mean_1, lv_1 = self.code_1(self.encode_1(batch.x1))
        mean_2, lv_2 = self.code_2(self.encode_2(x2))
        z1 = draw(mean_1, lv_1)
        mean, lv, balance = self.translate(z1, batch)
        one = mse(self.decode_1(z1).float(), batch.x1)
        two = mse(self.treated(draw(mean_2, lv_2), batch).float(), x2)
        predicted = mse(self.treated(draw(mean, lv), batch).float(), x2)
        zero = torch.zeros_like(mean)
        divergence = kl(mean_1, lv_1, zero, zero) + kl(mean_2, lv_2, zero, zero) + kl(mean, lv, mean_2, lv_2)
        total = one + two + predicted + self.s.beta / self.n_genes * divergence + self.balance * balance
        return {"loss": total, "predicted": predicted, "reconstructed": 0.5 * (one + two), "balance": balance}

    def predict(self, batch: Batch) -> Tensor:
        z1, _ = self.code_1(self.encode_1(batch.x1))
        return self.treated(self.translate(z1, batch)[0], batch)

    def embed(self, batch: Batch) -> Tensor:
        z1, _ = self.code_1(self.encode_1(batch.x1))
        return self.translate(z1, batch)[0]


class TranSiGen(TorchModel):
    """TranSiGen (Tong et al. 2024): two autoencoders, joined by the molecule. Embedding: the predicted code of x2."""

    name: ClassVar[str] = "TranSiGen"

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return TranSiGenNetwork(sizes, self.settings, self.fusion(), getattr(self.settings, "balance", 0.0))

    def fusion(self) -> nn.Module:
        return Fusion()

    def answer(self, net: Network, batch: Batch) -> Tensor:
        """As decoded; data that never fell below zero while fitting are kept at or above it (the original ends in a
        ReLU)."""
        out = super().answer(net, batch)
        if self.encoder is not None and self._non_negative(self.encoder):
            scaler = self.encoder.scaler
            floor = torch.from_numpy(-scaler.mean / scaler.sd).to(out)
            out = torch.maximum(out, floor)
        return out

    def _non_negative(self, encoder: Encoder) -> bool:
        wish = self.settings.output
        return bool(wish == "non_negative" or (wish == "auto" and encoder.scaler.low >= 0))


class TranSiGenSparseMoE(TranSiGen):
    """TranSiGen fused by one of four experts per row, weighted by its probability (Fedus et al. 2022)."""

    name: ClassVar[str] = "TranSiGen_SparseMoE"
    chosen: ClassVar[int] = 1

    def fusion(self) -> nn.Module:
        s: TranSiGenMoESettings = self.settings
        return ExpertFusion(s.latent + s.molecule, s.experts, self.chosen)


class TranSiGenBalancedMoE(TranSiGenSparseMoE):
    """TranSiGen fused by two of four experts per row, weights renormalised."""

    name: ClassVar[str] = "TranSiGen_BalancedMoE"
    chosen: ClassVar[int] = 2
