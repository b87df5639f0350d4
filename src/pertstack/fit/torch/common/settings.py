"""Hyper-parameters of the torch models: one frozen dataclass each, readable without torch installed.

The values here are the ``default`` profile; ``fit/profiles.toml`` holds what ``paper`` and ``fast`` change. Every field
is recorded with a job. What the fields do to a network is decided in the model files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every torch model shares: optimisation, early stopping, inputs, machine."""

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine"] = "cosine"  # cosine: down to 2 % of the rate over all epochs
    patience: int = 10  # epochs without a better validation error before stopping
    validation_share: float = 0.1  # of the fit rows, whole groups; 0 = no early stopping
    gradient_clip: float = 5.0  # 0 = off
    genes_per_step: int = 0  # per-gene heads only; 0 = all genes in every step
    features: Literal["auto", "user", "structure", "genes"] = "auto"
    on_missing_structure: Literal["raise", "mask", "drop"] = "raise"  # drop: not fitted on, predicted as "unknown"
    unknown_dropout: float = 0.05  # how often a cell line (and, unless "raise", a structure) is hidden while training
    device: str = "auto"
    threads: int = 1
    mixed_precision: bool = True  # on CUDA only

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "schedule": ("constant", "cosine"),
        "features": ("auto", "user", "structure", "genes"),
        "on_missing_structure": ("raise", "mask", "drop"),
    }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class TranSiGenSettings(Settings):
    encoder: tuple[int, ...] = (1200,)
    decoder: tuple[int, ...] = (800,)
    latent: int = 100
    molecule: int = 400
    beta: float = 0.1  # weight of the KL terms, per gene (the paper sums over genes)
    dropout: float = 0.1
    dose: bool = True
    predict_delta: bool = False
    output: Literal["auto", "linear", "non_negative"] = "auto"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Settings.choices,
        "output": ("auto", "linear", "non_negative"),
    }


@dataclass(frozen=True, kw_only=True)
class TranSiGenMoESettings(TranSiGenSettings):
    experts: int = 4
    balance: float = 0.1  # weight of the load-balancing term; at the usual 0.01 one expert in four can die


@dataclass(frozen=True, kw_only=True)
class ChemCPASupervisedSettings(Settings):
    encoder: tuple[int, ...] = (512, 256)
    latent: int = 256
    drug: int = 128
    drug_hidden: int = 256
    dose: int = 32
    dropout: float = 0.1
    cell: int = 16


@dataclass(frozen=True, kw_only=True)
class ChemCPASettings(Settings):
    batch_size: int = 128
    width: int = 256
    depth: int = 3
    latent: int = 64
    drug_width: int = 128
    drug_depth: int = 2
    doser_width: int = 64
    doser_depth: int = 2
    adversary_width: int = 128
    adversary_depth: int = 2
    adversary_learning_rate: float = 1e-3
    adversary_weight_decay: float = 1e-5
    adversary_every: int = 3  # every third step trains the adversaries
    drug_adversary: float = 1.0  # weights of the adversarial terms
    cell_adversary: float = 1.0
    gradient_penalty: float = 0.5
    paired: float = 1.0  # weight of MSE(decode(z(x1) + drug), x2): ours, since we have pairs
    min_rows_per_drug: int = 5  # drugs with fewer fit rows share one adversary class
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ScGenSettings(Settings):
    epochs: int = 40
    hidden: tuple[int, ...] = (800, 800)
    latent: int = 100
    dropout: float = 0.2
    kl: float = 5e-5
    kappa: float = 5.0  # rows at which a drug's own difference gets half the weight
    ridge: float = 1.0  # structure -> latent difference, for perturbations never fitted on


@dataclass(frozen=True, kw_only=True)
class BiolordSettings(Settings):
    batch_size: int = 128
    decoder_width: int = 256
    decoder_depth: int = 2
    attribute_width: int = 256
    attribute_depth: int = 2
    n_ordered: int = 64
    n_category: int = 4
    latent: int = 32
    reconstruction_penalty: float = 100.0
    latent_penalty: float = 0.1  # lambda
    latent_noise: float = 0.1  # sigma, training only
    shared_code: bool = False  # one code for both profiles of a pair: our variant
    code_spread: float = 0.1  # standard deviation of the codes at the start
    latent_learning_rate: float = 1e-2
    latent_weight_decay: float = 0.0  # of the codes: with it, codes of rows seen rarely fade to zero
    attribute_learning_rate: float = 1e-3
    attribute_weight_decay: float = 1e-5  # weight_decay and learning_rate are the decoder's
    cell_group: Literal["attribute", "code"] = "attribute"  # whose rate and decay the cell line vectors have
    dropout: float = 0.1  # attribute network
    decoder_dropout: float = 0.1
    decoder_norm: Literal["none", "batch"] = "none"
    norm_momentum: float = 0.1  # share of a batch in the running mean and variance of batch norm
    norm_epsilon: float = 1e-5
    infer: Literal["control", "zero"] = "control"  # zero: the ablation that never looks at x1
    infer_steps: int = 60
    infer_learning_rate: float = 5e-2
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Settings.choices,
        "infer": ("control", "zero"),
        "cell_group": ("attribute", "code"),
        "decoder_norm": ("none", "batch"),
    }


@dataclass(frozen=True, kw_only=True)
class MultiDCPSettings(Settings):
    gene: int = 128
    drug: tuple[int, ...] = (256, 128)
    cell: tuple[int, ...] = (200, 100, 50)
    dose: int = 4
    head: int = 128
    dropout: float = 0.1
    residual: bool = False  # x2 = a x1 + b + head per gene: our variant
    learning_rate: float = 5e-3
    genes_per_step: int = 256


@dataclass(frozen=True, kw_only=True)
class MultiDCPCheMoESettings(MultiDCPSettings):
    dose: int = 128
    gate: int = 128
    experts: int = 4
    chosen: int = 2
    balance: float = 0.01


@dataclass(frozen=True, kw_only=True)
class CheMoESettings(Settings):
    vector: int = 128
    hidden: int = 256
    gate: int = 128
    experts: int = 4
    chosen: int = 2
    expert: tuple[int, ...] = (64, 32)
    balance: float = 0.01
    dropout: float = 0.1
    residual: bool = False  # x2 = a x1 + b + expert output per gene: our variant
    learning_rate: float = 5e-3
    genes_per_step: int = 128


@dataclass(frozen=True, kw_only=True)
class PDGrapherSettings(Settings):
    epochs: int = 25
    patience: int = 6
    batch_size: int = 64
    learning_rate: float = 5e-3
    bins: int = 64
    width: int = 16
    layers: int = 2
    node_hidden: int = 1
    node_state: int = 8
    dropout: float = 0.0


SETTINGS: dict[str, type[Settings]] = {
    "TranSiGen": TranSiGenSettings,
    "TranSiGen_SparseMoE": TranSiGenMoESettings,
    "TranSiGen_BalancedMoE": TranSiGenMoESettings,
    "ChemCPA": ChemCPASettings,
    "ChemCPASupervised": ChemCPASupervisedSettings,
    "scGen": ScGenSettings,
    "Biolord": BiolordSettings,
    "MultiDCP": MultiDCPSettings,
    "MultiDCP_CheMoE": MultiDCPCheMoESettings,
    "CheMoE": CheMoESettings,
    "PDGrapher": PDGrapherSettings,
}
