"""pertstack: ensembles of perturbation-response models that honestly beat the best of them, or the numbers that say why none can."""

__version__ = "0.1.0"
