"""The results of cross-fitting as a list that can be read: how many jobs were done, which failed and why."""

from __future__ import annotations

from html import escape

import pandas as pd

from pertstack._base.shown import count_of, shown
from pertstack.fit.jobs.job import JobResult

COLUMNS = ["model", "job", "status", "seconds", "error", "log"]


class JobResults(list[JobResult]):
    """A list of ``JobResult``, shown in a notebook as counts and failures."""

    def __repr__(self) -> str:
        return "\n".join([self._counts(), *(f"{r.job}: {r.error} Log: {r.log}" for r in self if not r.ok)])

    def _repr_html_(self) -> str:
        failed = self.to_frame().query("status not in ('done', 'present')")
        table = "" if failed.empty else failed.map(lambda v: shown(str(v))).to_html(index=False)
        return f"<p>{escape(self._counts())}</p>{table}"

    def to_frame(self) -> pd.DataFrame:
        """One line per job: model, job, status, seconds, error, log."""
        lines = [(r.job.model, r.job.id, r.status, r.seconds, r.error, r.log) for r in self]
        return pd.DataFrame(lines, columns=COLUMNS)

    def _counts(self) -> str:
        done, there = (sum(r.status == s for r in self) for s in ("done", "present"))
        models = count_of(len({r.job.model for r in self}), "model")
        return f"{count_of(done, 'job')} done, {there} already there, {len(self) - done - there} failed ({models})"
