"""Base models and their cross-fitting: what is fitted, on which rows, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pertstack.fit.base import BaseModel, Needs
from pertstack.fit.inner_split import inner_split
from pertstack.fit.jobs.cross_fit import cross_fit
from pertstack.fit.jobs.job import Job, JobRecord, JobResult, JobRows, plan_jobs
from pertstack.fit.registry import RegistryRow, available, get_model, get_row, list_models, register

if TYPE_CHECKING:
    from pertstack.fit.external.model import ExternalModel

__all__ = [
    "BaseModel",
    "ExternalModel",
    "Job",
    "JobRecord",
    "JobResult",
    "JobRows",
    "Needs",
    "RegistryRow",
    "available",
    "cross_fit",
    "get_model",
    "get_row",
    "inner_split",
    "list_models",
    "plan_jobs",
    "register",
]


def __getattr__(name: str) -> Any:
    """``ExternalModel`` is imported when asked for: it brings anndata, which no other model needs."""
    if name == "ExternalModel":
        from pertstack.fit.external.model import ExternalModel

        return ExternalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
