"""Base models and their cross-fitting: what is fitted, on which rows, and what comes back."""

from pertstack.fit.base import BaseModel, Needs
from pertstack.fit.cross_fit import cross_fit
from pertstack.fit.inner_split import inner_split
from pertstack.fit.jobs import Job, JobRecord, JobResult, JobRows, plan_jobs
from pertstack.fit.registry import RegistryRow, available, get_model, get_row, list_models, register

__all__ = [
    "BaseModel",
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
