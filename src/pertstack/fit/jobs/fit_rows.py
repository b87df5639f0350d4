"""How well a fit answers on rows it was fitted on: a few of them, kept beside ``job.json`` as ``fit_errors.json``.

The errors are no scores: they are held against the out-of-fold errors of the same samples, since a model whose
out-of-fold rows are as good as its fit rows is rare (``study/audit/probes_refitted.py``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pertstack._base.files import write_json
from pertstack.data.rows import FitRows
from pertstack.fit.base import BaseModel
from pertstack.fit.jobs.job import Job

MOST_ROWS = 128
FILE = "fit_errors.json"


def keep_fit_errors(model: BaseModel, rows: FitRows, job: Job, *, folder: Path) -> None:
    """Mean squared error over genes of up to 128 evenly spaced fit rows, by sample id, written as ``fit_errors.json``.

    Kept for the fits of single folds; final and nested fits have no out-of-fold rows to compare with, and a model that
    runs a program for its predictions is asked once only.

    Parameters
    ----------
    model : fitted.
    rows : that it was fitted on.
    job : of the fit.
    folder : of the job.
    """
    if job.fold is None or job.also is not None or hasattr(model, "predict_many"):
        return
    at = np.unique(np.linspace(0, rows.n_samples - 1, min(MOST_ROWS, rows.n_samples)).astype(np.int64))
    part = rows.take(at)
    predicted = np.asarray(model.predict(part.without_treated()), dtype=np.float64)
    errors = ((predicted - part.treated) ** 2).mean(axis=1)
    known = {str(s): round(float(e), 8) for s, e in zip(part.sample_ids, errors, strict=True) if np.isfinite(e)}
    write_json(folder / FILE, {"format": 1, "model": job.model, "fold": job.fold, "mean_squared_error": known})
