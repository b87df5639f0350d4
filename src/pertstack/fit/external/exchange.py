"""The folder through which an external model is spoken to: files in, files out, everything by name.

In: ``fit.h5ad`` (treated in X, layer ``control``), ``predict.h5ad`` (layer ``control`` only), ``task.json``. Out:
``predictions.h5ad`` (treated or delta in X, optionally ``obsm["embedding"]``) or ``predictions.npz`` (``predictions``,
``sample_ids``, ``gene_names``, optionally ``embedding``) or ``predictions.csv``. A card with ``files = "csv"`` gets its
input as CSV instead (``exchange_csv.py``). Described for users in ``docs/external-models.md``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, ModelFailedError, first_few
from pertstack._base.files import write_json
from pertstack._base.reading.damage import damage_named, require_by_itself, require_modest_members
from pertstack.data.readers.anndata.tables import open_anndata_file, read_frame, read_whole
from pertstack.data.rows import FitRows, Float32, Names, PredictRows
from pertstack.data.side.side import FeatureKind, PerturbationFeatures
from pertstack.fit.external import exchange_csv
from pertstack.fit.external.card import ModelCard
from pertstack.fit.external.sandbox import plain_file

CELLS = "cells.h5ad"
OUTPUTS = ("predictions.h5ad", "predictions.npz", exchange_csv.OUTPUT)
FAR = 5.0  # standard deviations by which a typical gene's mean may differ from the fit rows before it is another scale


@dataclass(frozen=True)
class Answer:
    """What an external model wrote, checked and put in our order: treated scale."""

    treated: Float32  # (n_samples, n_genes)
    embedding: Float32 | None


def write_task(
    folder: Path,
    card: ModelCard,
    fit: FitRows,
    *,
    predict: PredictRows,
    seed: int,
    params: dict[str, Any],
    cells: Any = None,
) -> None:
    """Write the input files and ``task.json``; samples to predict carry no treated values.

    Parameters
    ----------
    folder : made if needed; answers of an earlier run are removed.
    card : says which files and features the model takes.
    fit, predict : rows to fit on and to predict.
    seed : handed to the model.
    params : plain JSON, handed to the model.
    cells : single cells as AnnData, for a card that asks for them; see ``data.cells.raw``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*OUTPUTS, exchange_csv.EMBEDDING):
        (folder / name).unlink(missing_ok=True)
    features = _features(card, fit)
    if card.files == "csv":
        exchange_csv.write_tables(folder, fit, predict, obs=(_plain_obs(fit), _plain_obs(predict)), features=features)
    else:
        _write(folder / "fit.h5ad", fit, features, fit.treated)
        _write(folder / "predict.h5ad", predict, features, None)
        if cells is not None:
            cells.write_h5ad(folder / CELLS)
    inputs = exchange_csv.INPUTS if card.files == "csv" else ("fit.h5ad", "predict.h5ad")
    inputs = (*inputs, CELLS) if cells is not None else inputs
    task = {
        "format": 1,
        "model": card.name,
        "seed": seed,
        "params": params,
        "files": card.files,
        "inputs": list(inputs),
        "outputs": list(OUTPUTS),
        "scale": card.scale,
        "n_fit": fit.n_samples,
        "n_predict": predict.n_samples,
        "n_genes": fit.n_genes,
        "features": None if features is None else features.kind,
    }
    write_json(folder / "task.json", task)


def _features(card: ModelCard, rows: PredictRows) -> PerturbationFeatures | None:
    wanted: tuple[FeatureKind, ...] = card.needs.features
    if wanted:
        return next((rows.side.features[k] for k in wanted if k in rows.side.features), None)
    return rows.side.best()


def _plain_obs(rows: PredictRows) -> pd.DataFrame:
    """What is known of the samples, in texts and numbers that any program reads; fit rows with their group."""
    obs = rows.obs.copy()
    for column in obs.columns:
        if obs[column].dtype == object or isinstance(obs[column].dtype, pd.CategoricalDtype | pd.StringDtype):
            obs[column] = np.array(["" if pd.isna(v) else str(v) for v in obs[column]], dtype=object)
    obs.index = pd.Index([str(s) for s in obs.index], dtype=object)
    if isinstance(rows, FitRows):
        obs["group"] = rows.group.astype(str).astype(object)
    return obs


def _write(path: Path, rows: PredictRows, features: PerturbationFeatures | None, treated: Float32 | None) -> None:
    import anndata  # slow to import

    obs = _plain_obs(rows)
    var = pd.DataFrame(index=pd.Index([str(g) for g in rows.gene_names], dtype=object))
    table = anndata.AnnData(X=treated, obs=obs, var=var, layers={"control": np.asarray(rows.control)})
    if features is not None:
        table.obsm["features"], known = features.rows(rows.perturbation)
        table.obs["features_known"] = known
    table.write_h5ad(path)


def read_answer(folder: Path, card: ModelCard, fit: FitRows, *, predict: PredictRows) -> Answer:
    """Read and check what the model wrote; rows and genes in our order.

    Parameters
    ----------
    folder : of the exchange.
    card : says which files the model writes, and in which scale.
    fit, predict : as they were given to ``write_task``.

    Raises
    ------
    ModelFailedError
        No file, damaged, missing or foreign samples or genes, duplicates, wrong shape, not finite, another scale.
    """
    values, samples, genes, embedding = _read(folder, card)
    if getattr(values, "shape", None) != (len(samples), len(genes)):
        raise ModelFailedError(
            f"{card.name} wrote as its predictions {_array(values)} for {len(samples):,} sample ids x {len(genes):,} "
            f"gene names."
        )
    rows = _order(card, "samples", samples, predict.sample_ids)
    columns = _order(card, "genes", genes, predict.gene_names)
    if values.dtype.kind not in "fiu":
        raise ModelFailedError(f"{card.name} wrote predictions of type {values.dtype}; numbers are needed.")
    values = np.asarray(values, dtype=np.float32)[rows][:, columns]
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ModelFailedError(
            f"{card.name} wrote predictions with NaN or infinite values for {len(bad):,} samples "
            f"({first_few(predict.sample_ids[bad], 5)})."
        )
    treated = _refuse_other_scale(card, values, predict, fit)
    if embedding is None:
        return Answer(treated, None)
    numbers = getattr(getattr(embedding, "dtype", None), "kind", "") in set("fiu")
    vectors = np.asarray(embedding, dtype=np.float32) if numbers else np.zeros(0)
    if vectors.ndim != 2 or len(vectors) != len(samples) or not np.isfinite(vectors).all():
        raise ModelFailedError(
            f"{card.name} wrote, beside its predictions, as embedding {_array(embedding)}, where finite numbers for "
            f"{len(samples):,} samples belong."
        )
    return Answer(treated, vectors[rows])


def _read(folder: Path, card: ModelCard) -> tuple[Any, list[str], list[str], Any]:
    linked = [
        name for name in (*OUTPUTS, exchange_csv.EMBEDDING) if (p := folder / name).exists() and not plain_file(p)
    ]
    if linked:
        raise ModelFailedError(
            f"{card.name} left {first_few(linked)} as a link to another place, which is not followed. Write the file "
            "itself."
        )
    path = next((folder / name for name in OUTPUTS if (folder / name).is_file()), None)
    if path is None:
        raise ModelFailedError(
            f"{card.name} ended without writing {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]} into {folder}."
        )
    try:
        with damage_named(path):
            return _content(path)
    except InputError as error:
        raise ModelFailedError(
            f"{card.name} wrote {path.name}, which cannot be read ({error}). It needs predictions, sample_ids and "
            f"gene_names as plain arrays (no objects), an AnnData file with its predictions in X, or a CSV file with "
            f"sample ids in the first column and genes in the header."
        ) from error


def _content(path: Path) -> tuple[Any, list[str], list[str], Any]:
    """Values, sample ids, gene names and embedding (or None); nothing else of the file is read."""
    if path.suffix == ".csv":
        return exchange_csv.read_tables(path.parent)
    if path.suffix == ".h5ad":
        with open_anndata_file(path)[1] as root:
            require_by_itself(root, path)
            samples, genes = (list(map(str, read_frame(root, name, path).index)) for name in ("obs", "var"))
            values = read_whole(root["X"], path)
            if values.shape == (len(samples), len(genes)) and not isinstance(values, np.ndarray):
                values = values.toarray()
            inside = root.get("obsm", {})
            return values, samples, genes, read_whole(inside["embedding"], path) if "embedding" in inside else None
    require_modest_members(path)
    with np.load(path, allow_pickle=False) as found:
        samples, genes = ([str(v) for v in found[key]] for key in ("sample_ids", "gene_names"))
        return found["predictions"], samples, genes, found.get("embedding")


def _array(values: Any) -> str:
    shape = getattr(values, "shape", None)  # numpy gives the bytes of what is no array
    return type(values).__name__ if shape is None else f"an array of shape {shape}"


def _order(card: ModelCard, what: str, found: list[str], wanted: Names) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of the wanted names among those found; each must occur once. Never by position."""
    expected, have = [str(w) for w in wanted], Counter(found)
    missing = [w for w in expected if w not in have]
    foreign = sorted(have.keys() - set(expected))
    twice = sorted(name for name, count in have.items() if count > 1)
    problems = [("lack", missing), ("include foreign", foreign), ("repeat", twice)]
    told = [f"{verb} {len(names):,} {what} ({first_few(names, 5)})" for verb, names in problems if names]
    if told:
        raise ModelFailedError(
            f"The predictions of {card.name} {' and '.join(told)}. They must hold the {len(expected):,} {what} of "
            f"predict.h5ad (predict_control.csv), each once, by name; the order is free."
        )
    position = {name: i for i, name in enumerate(found)}
    return np.array([position[w] for w in expected], dtype=np.int64)


def _refuse_other_scale(card: ModelCard, values: Float32, predict: PredictRows, fit: FitRows) -> Float32:
    """The treated profiles behind the values, unless these are plainly in another scale than the card says.

    Plainly: a typical gene's mean lies over 5 standard deviations from the fit rows, or varies 10 times as much, or the
    other reading (delta for treated, treated for delta) comes three times closer.
    """
    readings = {"treated": values, "delta": values + predict.control}
    treated = readings[card.scale]
    spread = fit.treated.std(axis=0, dtype=np.float64)
    typical = float(np.median(spread))
    if fit.n_samples < 3 or typical <= 0:
        return treated
    centre, unit = fit.treated.mean(axis=0, dtype=np.float64), np.maximum(spread, typical / 10)
    shifts = {k: (v.mean(axis=0, dtype=np.float64) - centre) / unit for k, v in readings.items()}
    away = {k: float(np.median(np.abs(shift))) for k, shift in shifts.items()}
    wide = float(np.median(treated.std(axis=0, dtype=np.float64))) / typical
    other = "delta" if card.scale == "treated" else "treated"
    mixed_up = away[card.scale] > 1 and away[card.scale] > 3 * away[other]
    if away[card.scale] > FAR or wide > 2 * FAR or mixed_up:
        raise ModelFailedError(
            f"The predictions of {card.name} are in another scale than the data: a typical gene's mean lies "
            f"{away[card.scale]:.1f} standard deviations from the fit rows (read as {other}: {away[other]:.1f}), and "
            f"it varies {wide:.1f} times as much. Its card says scale = {card.scale!r}; transform them back in its "
            f"script, or correct the card."
        )
    return treated
