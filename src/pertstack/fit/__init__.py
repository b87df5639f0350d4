"""Base models and their cross-fitting: what is fitted, on which rows, and what comes back."""

from pertstack.fit.base import BaseModel, Needs
from pertstack.fit.inner_split import inner_split
from pertstack.fit.registry import available, get_model, get_row, list_models, register

__all__ = ["BaseModel", "Needs", "available", "get_model", "get_row", "inner_split", "list_models", "register"]
