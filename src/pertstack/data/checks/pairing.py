"""How controls were given to samples, judged from the data themselves.

It decides what an own-control score means: a random control brings noise that truth and every prediction share, and a
constant prediction then scores like a good model (metrics: "shared control"). The same vocabulary is on the card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.checks.census import Census, Pairing

if TYPE_CHECKING:
    from pertstack.data.file import DataFile

SHOWN = 3.0  # standard errors by which a control must tell more about its own sample than about others
ALIKE, APART = 0.5, 2.0
"""Means of genes, treated against control, correlate above 0.9 on one scale; they are apart if they do not reach
``ALIKE`` and differ by more than ``APART`` times what single values vary by."""
FEWEST, LEAST = 20, 5
"""Genes, and samples of those that are kept, without which this is not asked; samples of a single cell line."""


def judge_pairing(file: DataFile, census: Census) -> Pairing:
    """Own, matched, pooled, random, none or unknown; with the number of distinct controls and the evidence."""
    if file.delta:
        return Pairing("none", 0, None)
    digest, lines = census.control_digest, file.obs["cell_line"].to_numpy(dtype=object)
    n_controls = len(np.unique(digest))
    table = pd.DataFrame({"control": digest, "line": lines})
    timed = table.assign(time=file.obs["time_h"].to_numpy()) if "time_h" in file.obs else table
    whole = timed.groupby([c for c in timed if c != "control"], dropna=False)["control"].nunique()
    if n_controls <= len(whole) and whole.max() == 1:
        return Pairing("pooled", n_controls, None)
    excess, error = pairing_excess(census.kept(), lines)
    evidence = None if excess is None else round(excess, 4)
    shown = excess is not None and error is not None and excess > SHOWN * error
    if n_controls == len(digest):
        return Pairing("own" if shown else "unknown", n_controls, evidence)
    if "plate" not in file.obs:
        return Pairing("unknown" if shown else "random", n_controls, evidence)
    table["plate"] = file.obs["plate"].to_numpy(dtype=object)
    within = table.groupby("control")["plate"].nunique(dropna=False).max() == 1
    return Pairing("matched" if within else "random", n_controls, evidence)


def pairing_excess(
    kept: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]], lines: np.ndarray[Any, Any]
) -> tuple[float | None, float | None]:
    """How much more a control correlates with its own treated sample than with others of the cell line, and its error.

    Both are taken as differences from the cell line's mean, so what all samples of a line share does not count.
    Distinct controls of one plate share the plate's noise with its treated samples, so plate-matched pairs show a
    positive number; controls from anywhere show zero. (None, None) when no cell line has four kept samples.
    """
    positions, control, treated = kept
    found = []
    for line in np.unique(lines[positions].astype(str)):
        rows = np.flatnonzero(lines[positions].astype(str) == line)
        rows = rows[np.isfinite(control[rows]).all(1) & np.isfinite(treated[rows]).all(1)]
        if len(rows) < 4:
            continue
        c, t = _unit(control[rows]), _unit(treated[rows])
        similar = c @ t.T
        others = (similar.sum(0) - np.diag(similar)) / (len(rows) - 1)
        found.append(np.diag(similar) - others)
    if not found:
        return None, None
    values = np.concatenate(found)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows as differences from the mean row, centred over genes and of length one (zero rows stay zero)."""
    centred = values - values.mean(0)
    centred = centred - centred.mean(1, keepdims=True)
    length = np.sqrt((centred**2).sum(1, keepdims=True))
    return np.asarray(centred / np.where(length > 1e-12, length, 1))


def pairing_findings(file: DataFile, census: Census, pairing: Pairing) -> list[Finding]:
    """What the user should know about the controls.

    Parameters
    ----------
    file : the data; with ``delta`` there are none.
    census : digest of every sample's control.
    pairing : what controls are shared by, from the digests.
    """
    found = [] if file.delta else _across_lines(file, census)
    if pairing.word in ("random", "unknown") and not file.delta:
        found.append(
            Finding(
                "warning",
                "controls_random" if pairing.word == "random" else "controls_unknown",
                f"{pairing.n_controls:,} distinct controls serve {file.n_samples:,} samples, "
                + (
                    "shared within cell lines without regard to plates"
                    if pairing.word == "random"
                    else "and how they were paired cannot be told"
                )
                + ". The noise of such a control is in the truth and in every prediction alike, so own-control "
                "scores are "
                "high even for a constant prediction: read the pooled and centroid references beside them.",
                file.n_samples,
                where=file.path,
                numbers={"n_controls": pairing.n_controls, "excess": pairing.excess},
            )
        )
    if "control_id" not in file.obs or file.delta:
        return found
    table = pd.DataFrame({"id": file.obs["control_id"].to_numpy(dtype=object), "digest": census.control_digest})
    table = table[table["id"].notna()]
    several = table.groupby("id")["digest"].nunique()
    contradicted = several.index[several > 1]
    if len(contradicted):
        found.append(
            Finding(
                "warning",
                "control_id_contradicted",
                f"{len(contradicted):,} control ids stand for more than one control profile: "
                f"{first_few(contradicted)}. The values are what "
                f"counts for leak checks; correct the column or drop it with --map control_id=none.",
                count=len(contradicted),
                examples=tuple(str(c) for c in contradicted[:10]),
                where=file.path,
            )
        )
    return found


def _across_lines(file: DataFile, census: Census) -> list[Finding]:
    """A warning if one control profile serves samples of several cell lines."""
    lines = file.obs["cell_line"].to_numpy(dtype=object)
    table = pd.DataFrame({"control": census.control_digest, "line": lines}, index=file.obs.index)
    several = table["control"].map(table.groupby("control")["line"].nunique() > 1).to_numpy(dtype=bool)
    if not several.any():
        return []
    samples, names = table.index[several], sorted({str(line) for line in lines[several]})
    return [
        Finding(
            "warning",
            "control_of_several_cell_lines",
            f"{int(several.sum()):,} samples share their control profile with samples of another cell line "
            f"({first_few(names)}): {first_few(samples)}. The difference between the lines is then in their effects. "
            f"Give every sample a control of its own cell line.",
            count=int(several.sum()),
            examples=tuple(str(s) for s in samples[:10]),
            where=file.path,
        )
    ]


def unlike_controls(file: DataFile, census: Census) -> list[Finding]:
    """Of the rows that were kept; see ``unlike``."""
    positions, control, treated = census.kept()
    lines = file.obs["cell_line"].astype(str).to_numpy()[positions]
    return [] if file.delta else unlike(treated, control, lines, where=file.path)


def unlike(treated: Any, control: Any, cell_lines: Any, *, where: str) -> list[Finding]:
    """An error if treated profiles do not resemble controls at all, gene by gene: another scale or other genes.

    Parameters
    ----------
    treated, control : (n, n_genes); rows with values that are not finite are left out.
    cell_lines : (n,) names.
    where : the file, for the finding.
    """
    whole = np.isfinite(control).all(axis=1) & np.isfinite(treated).all(axis=1)
    if whole.sum() < FEWEST or treated.shape[1] < FEWEST:
        return []
    t, c = (pd.DataFrame(v[whole].astype(np.float64)) for v in (treated, control))
    lines = np.asarray(cell_lines)[whole]
    if found := _unlike(t, c, lines, where):
        return found
    for line in np.unique(lines):
        mine = lines == line
        if mine.sum() >= LEAST and (found := _unlike(t[mine], c[mine], lines[mine], where, f" of cell line {line}")):
            return found
    return []


def _unlike(t: pd.DataFrame, c: pd.DataFrame, lines: Any, where: str, of: str = "") -> list[Finding]:
    """The error of ``unlike``, of all rows or of those of a line.

    Parameters
    ----------
    t, c : treated and control.
    lines : (n,) cell lines.
    where : the file.
    of : which rows, in words.
    """
    means = np.stack([v.groupby(lines).mean().to_numpy().ravel() for v in (t, c)])
    if (means.std(axis=1) == 0).any():
        return []
    r = float(np.corrcoef(means)[0, 1])
    away = float(np.sqrt(np.square(means[0] - means[1]).mean()))
    within = [v - v.groupby(lines).transform("mean") for v in (t, c)]
    spread = float(np.sqrt(np.mean([np.square(w.to_numpy()).mean() for w in within])))
    if r >= ALIKE or away <= APART * spread:
        return []
    below = float((t < 0).to_numpy().mean())
    seen = (
        f", and {below:.0%} of the treated values are below zero and no control is"
        if c.to_numpy().min() >= 0 < below
        else ""
    )
    return [
        Finding(
            "error",
            "treated_unlike_control",
            f"Treated profiles{of} do not resemble their controls: means of genes correlate {r:.2f} and differ by "
            f"{away:.3g} (root mean square), where values of a gene vary by {spread:.3g} within a cell line{seen}. "
            f"Effects would be those of the scale. If the values are differences already (log fold changes, z-scores), "
            f"say --delta --control-layer ''; else bring both to one scale, or the genes of both into one order.",
            where=where,
            numbers={"correlation": r, "difference": away, "spread": spread},
        )
    ]
