"""Predictions of a study, or of a file made with it, as cells of counts for judges that score cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.predictions.as_cells import read_templates, write_cells
from pertstack.predictions.importers.readers.opening import open_file
from pertstack.predictions.importers.space import space_of
from pertstack.study.folder import StudyFolder

KEY = ["perturbation", "cell_line"]
SUMMED = ("cp10k", "5e4")
"""Ways of making samples of cells from which shares of counts can be read back."""


def export_cells(
    folder: StudyFolder,
    path: Path,
    *,
    cells: Path | None,
    model: str | None,
    profiles: Path | None,
    per_target: int,
    seed: int,
    sampled: bool,
) -> Path:
    """``per_target`` cells of counts for every perturbation and cell line; see ``predictions.as_cells``.

    Parameters
    ----------
    folder : of the study.
    path : of the .h5ad.
    cells : file with control cells as counts, whose depth and spread the cells take.
    model : whose predictions, of all blocks it predicts; or
    profiles : a file of predictions, such as ``pertstack predict`` writes.
    per_target : cells of each.
    seed : of cells and counts.
    sampled : the mean over cells is the prediction in expectation, else exactly.

    Raises
    ------
    InputError
        No control cells, not one model, or a study whose values are no logarithms of shares.
    """
    if path.suffix != ".h5ad":
        raise InputError(f"{path}: cells are written as .h5ad. Name it so.")
    if cells is None:
        raise InputError(
            "--to vcc writes cells, and the study has profiles. Name a file with control cells as counts, whose depth "
            "they take: --cells controls.h5ad."
        )
    if per_target < 1:
        raise InputError(f"--cells-per-target is {per_target}; a target has at least one cell.")
    made = folder.path("plan", "findings.json")
    space = space_of(Finding.from_json(f) for f in read_json(made)) if made.exists() else None
    if space not in SUMMED:
        raise InputError(
            f"The samples of this study are {'not sums of cells' if space is None else f'made with {space}'}, and "
            f"counts can be read back only from log1p of summed counts. Make it from counts of cells: pertstack init "
            f"STUDY --data cells.h5ad --normalise cp10k."
        )
    table = _of_file(profiles) if profiles is not None else _of_store(folder, model)
    templates = read_templates(cells, seed=seed)
    return write_cells(path, table, templates, per_target=per_target, seed=seed, sampled=sampled)


def _of_file(path: Path) -> pd.DataFrame:
    """Mean profile of every pair in a file of predictions."""
    file = open_file(path)
    if file.obs is None or not set(KEY) <= set(file.obs.columns):
        raise InputError(
            f"{path} does not say perturbation and cell_line of its rows. `pertstack predict STUDY NEW.h5ad "
            f"{path.name}` writes such a file."
        )
    parts = ((file.obs.iloc[c.start : c.start + len(c.values)], c.values) for c in file.chunks())
    return _means(parts, file.gene_names)


def _of_store(folder: StudyFolder, model: str | None) -> pd.DataFrame:
    store = folder.store
    if model is None:
        raise InputError(
            f"Name one model with --models ({first_few(store.models())}), or with --profiles a file that `pertstack "
            f"predict` wrote."
        )

    def parts() -> Iterator[tuple[pd.DataFrame, Float32]]:
        for block in store.blocks():
            if store.status(block, model) != "committed":
                continue
            record = store.record(block, model)
            if record.missing_genes:
                raise InputError(f"{model!r} predicts only some genes of {block.id}; cells have all of them.")
            keep = ~np.isin(np.asarray(store.sample_ids(block), dtype=object), record.missing_samples)
            yield store.obs(block)[keep], store.read(block, model)[keep]

    return _means(parts(), [str(g) for g in store.gene_names])


def _means(parts: Iterable[tuple[pd.DataFrame, Float32]], genes: list[str]) -> pd.DataFrame:
    """Mean expression of every pair as log1p, from profiles as log1p.

    Raises
    ------
    InputError
        There is none, or a pair was predicted at several doses or times, of which the form of cells knows nothing.
    """
    apart: dict[str, dict[tuple[str, str], set[float]]] = {"log10_dose": {}, "time_h": {}}
    total: dict[tuple[str, str], Any] = {}
    count: dict[tuple[str, str], int] = {}
    for obs, values in parts:
        keys = list(zip(*(obs[k].astype(str) for k in KEY), strict=True))
        for name, seen in apart.items():
            for key, value in zip(keys, obs.get(name, []), strict=name in obs):
                seen.setdefault(key, set()).update([float(value)] if pd.notna(value) else [])
        for key, row in zip(keys, values, strict=True):
            total[key] = total.get(key, 0) + np.expm1(row.astype(np.float64))
            count[key] = count.get(key, 0) + 1
    if not total:
        raise InputError("There is no prediction to write.")
    for name, word in (("log10_dose", "doses"), ("time_h", "times")):
        if several := [" / ".join(k) for k, found in apart[name].items() if len(found) > 1]:
            raise InputError(
                f"{len(several):,} targets are predicted at several {word} ({first_few(several)}), and cells have one "
                f"prediction of each target and context. Write those of one of the {word}: --profiles FILE, made by "
                f"`pertstack predict` from rows of it."
            )
    made = sorted(total)
    means = np.log1p(np.stack([total[k] / count[k] for k in made]))
    return pd.DataFrame(means, pd.MultiIndex.from_tuples(made, names=KEY), genes)
