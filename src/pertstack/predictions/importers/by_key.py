"""Predictions matched by what was done: one for a perturbation in a cell line serves every sample of that pair.

Most files of the field name no sample: their rows are cells, or one profile a pair. If ids do not fit, rows are
matched by perturbation and cell line, and by dose, time and plate if both sides know them. Rows of one key are
averaged. The result is a ``PredictionFile`` with the ids of the samples, which then meets every other check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack.data.choices import Normalise
from pertstack.data.readers.columns.columns import canonical_obs, source_column
from pertstack.data.readers.columns.tuple_labels import part_labels
from pertstack.data.readers.control_rows import control_rows
from pertstack.data.rows import Float32
from pertstack.predictions.importers.key_findings import key_findings, mixed_names, nothing_fits, refuse_doubles
from pertstack.predictions.importers.keys import Codes, Labels, Serving, few_of, keys_of, n_served
from pertstack.predictions.importers.named_rows import labelled, refuse_turned
from pertstack.predictions.importers.readers.files import STATUS, PredictionFile
from pertstack.predictions.importers.space import Averaging, averaging
from pertstack.predictions.store.align import names_index

FINER = ("log10_dose", "time_h", "plate")
"""Parts of a key beyond perturbation and cell line, used if file and samples both have them."""
PREDICTED = frozenset({"predicted", "prediction", "predictions", "pred", "generated", "imputed"})
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class KeyMatch:
    """A file whose rows now carry the ids of samples, and what the matching found.

    ``missing`` and ``left_over`` are keys in words: samples without a prediction, predictions without a sample.
    """

    file: PredictionFile
    key: tuple[str, ...]
    n_rows: int  # of the file, without controls
    n_keys: int  # of them that serve a sample
    n_controls: int
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    findings: tuple[Finding, ...]
    row_of: Codes  # (n,) which prediction serves each sample of ``file``


def columns_of(mapping: Mapping[str, str] | None, columns: Iterable[object]) -> dict[str, str]:
    """The part of a mapping that speaks of columns of one file: others name columns of the truth or of other files."""
    there = set(map(str, columns))
    return {k: v for k, v in (mapping or {}).items() if v in there or v == "none" or v.startswith("const:")}


def by_id_or_key(
    file: PredictionFile,
    samples: pd.DataFrame,
    mapping: Mapping[str, str] | None = None,
    *,
    space: Normalise | None = None,
    own_genes: Sequence[str] = (),
    differences: bool = False,
) -> KeyMatch | None:
    """None if the ids of the file are those of the samples; else the match by what was done.

    Parameters
    ----------
    file : names, and values still to be read.
    samples : index = sample ids; perturbation, cell_line, and log10_dose, time_h, plate where known.
    mapping : canonical column -> column of the file.
    space : how the samples were made of cells; None if they were not.
    own_genes : the genes of the samples.
    differences : the values are differences from the control.

    Raises
    ------
    MisalignedError
        No id fits and no column says what was done, or nothing agrees.
    """
    refuse_turned(file, samples["perturbation"].astype(str), own_genes)
    mapping = columns_of(mapping, () if file.obs is None else file.obs.columns)
    file = labelled(file, samples, mapping)
    if file.obs is None:
        return None
    if source_column(file.obs, mapping, "perturbation") is None:
        return None
    if _ids_fit(file, samples, mapping):
        return None
    return _match_by_key(file, samples, mapping, space=space, own_genes=len(own_genes), differences=differences)


def _predictions_only(obs: pd.DataFrame) -> Mask:
    """Rows that are predictions, if a column says which of measured and predicted a row is; else all."""
    for name in STATUS:
        if name in obs.columns:
            words = as_texts(obs[name]).str.strip().str.casefold()
            found = words.isin(PREDICTED).to_numpy(dtype=bool)
            if found.any() and not found.all():
                return np.asarray(found)
    return np.ones(len(obs), dtype=bool)


def _ids_fit(file: PredictionFile, samples: pd.DataFrame, mapping: Mapping[str, str] | None) -> bool:
    """Whether most ids are samples of the study, each once, and mean the same perturbation there.

    Numbers from 0 up are the names anndata gives to rows without names: such ids fit only by accident.
    """
    index = names_index(file.sample_ids)
    if not index.is_unique:
        return False
    at = samples.index.get_indexer(index)
    known = at >= 0
    if known.mean() < 0.5:
        return False
    column = source_column(file.obs, mapping, "perturbation") if file.obs is not None else None
    if column is None:
        return True
    assert file.obs is not None
    said = as_texts(file.obs[column]).to_numpy()[known]
    own = samples["perturbation"].astype(str).to_numpy()[at[known]]
    labels = Labels.of(own, said)
    return bool(np.mean([labels.key(a) == labels.key(b) for a, b in zip(said, own, strict=True)]) > 0.999)


def _match_by_key(
    file: PredictionFile,
    samples: pd.DataFrame,
    mapping: Mapping[str, str] | None = None,
    *,
    space: Normalise | None = None,
    own_genes: int = 0,
    differences: bool = False,
) -> KeyMatch:
    """Rows of a file averaged by key, one row for every sample of the key.

    Raises
    ------
    MisalignedError
        No key of the file is one of the samples; or a pair has two different predictions if others have one.
    InputError
        The samples lie in several cell lines and the file does not say which it predicts.
    """
    file, treated, n_controls, notes = _predicted_rows(file, mapping)
    given, said = _given(file, treated, samples, mapping)
    labels = Labels.of(samples["perturbation"].astype(str), given["perturbation"].astype(str))
    said += notes
    columns = _shared(given, samples, labels, notes=said, file=file)
    said += mixed_names(given, columns, labels, file)
    serving = Serving.of(treated, keys_of(given, columns, labels), samples.index, keys_of(samples, columns, labels))
    if not serving.keys:
        raise MisalignedError(nothing_fits(file, given, samples, columns))
    refuse_doubles(file, serving.codes, serving.count, serving.keys)
    how, of_space = averaging(
        file, space, float(np.median(serving.count)), own_genes=own_genes, differences=differences
    )
    matched = replace(
        file,
        sample_ids=serving.samples,
        obs=None,
        folds=None,
        rows=lambda n_rows: _expanded(_means(file, serving.codes, serving.count, how), serving.order, n_rows),
    )
    n_rows = int(treated.sum())
    found = key_findings(
        file,
        columns,
        n_rows,
        n_keys=len(serving.keys),
        n_samples=len(serving.samples),
        n_controls=n_controls,
        missing=serving.missing,
        left=serving.left_over,
    )
    return KeyMatch(
        matched,
        columns,
        n_rows,
        n_keys=len(serving.keys),
        n_controls=n_controls,
        missing=serving.missing,
        left_over=serving.left_over,
        findings=(*said, *of_space, *found),
        row_of=serving.order,
    )


def _predicted_rows(
    file: PredictionFile, mapping: Mapping[str, str] | None
) -> tuple[PredictionFile, Mask, int, list[Finding]]:
    """Which rows are predictions, neither controls nor measured; how many are controls; labels taken apart."""
    assert file.obs is not None
    obs, notes = part_labels(file.obs, source_column(file.obs, mapping, "perturbation"), str(file.path))
    found = control_rows(obs, mapping, None, where=str(file.path))
    controls = np.zeros(len(obs), dtype=bool) if found is None else found.rows | found.aside
    treated: Mask = _predictions_only(obs) & ~controls
    if not treated.any():
        raise InputError(f"{file.path}: all {len(treated):,} rows are controls, so there is nothing to evaluate.")
    n_controls = int(controls.sum())
    if n_other := len(treated) - int(treated.sum()) - n_controls:
        text = f"{file.path}: {n_other:,} rows are not predictions, as a column of the file says, and are not used."
        notes.append(Finding("note", "rows_not_predicted", text, n_other, where=str(file.path)))
    return replace(file, obs=obs), treated, n_controls, notes


def _given(
    file: PredictionFile, treated: np.ndarray[Any, Any], samples: pd.DataFrame, mapping: Mapping[str, str] | None
) -> tuple[pd.DataFrame, list[Finding]]:
    """Canonical columns of the predicted rows; the cell line of the samples if the file has none."""
    assert file.obs is not None
    obs, notes = file.obs.loc[treated], []
    lines = sorted(set(samples["cell_line"].astype(str)))
    own = dict(mapping or {})
    column = source_column(obs, own, "cell_line")
    if column is None and not own.get("cell_line", "").startswith("const:"):
        if len(lines) > 1:
            raise InputError(
                f"{file.path} does not say which cell line its {len(obs):,} rows are of, and the samples lie in "
                f"{len(lines)}: {first_few(lines)}. Name the column with --map cell_line=COLUMN, or the line with "
                f"--map cell_line=const:{lines[0]}."
            )
        own["cell_line"] = f"const:{lines[0]}"
    obs = obs.set_axis(pd.RangeIndex(len(obs)).astype(str))
    found, _ = canonical_obs(obs, own, where=file.path.name)
    theirs = set(found["cell_line"].astype(str))
    if len(lines) == 1 and len(theirs) == 1 and theirs != set(lines):
        text = f"{file.path}: cell line {theirs.pop()!r} is taken for {lines[0]!r}, the only one on either side."
        notes.append(Finding("warning", "cell_line_renamed", text, where=str(file.path)))
        found["cell_line"] = lines[0]
    return found, notes


def _shared(
    given: pd.DataFrame, samples: pd.DataFrame, labels: Labels, notes: list[Finding], file: PredictionFile
) -> tuple[str, ...]:
    """Columns of the key: a finer one is used if the file then still predicts as many samples."""
    key: tuple[str, ...] = ("perturbation", "cell_line")
    reached = n_served(given, samples, key, labels=labels)
    for name in FINER:
        if name not in given or name not in samples or given[name].isna().all() or samples[name].isna().all():
            continue
        n = n_served(given, samples, (*key, name), labels=labels)
        if name == "plate":
            key, reached = ((*key, name), n) if n == reached else (key, reached)
        elif n:
            key, reached = (*key, name), n
        elif reached:
            word = "dose" if name == "log10_dose" else "time"
            raise MisalignedError(
                f"{file.path}: no prediction has the {word} of a sample of its perturbation and cell line "
                f"({first_few(few_of(given[name]))} in the file, {first_few(few_of(samples[name]))} in the truth"
                f"{', as log10 of micromolar' if word == 'dose' else ', in hours'}). Say the unit with --map "
                f"{word}_unit=const:{'uM' if word == 'dose' else 'h'}, or match without it: --map {word}=none."
            )
    return key


def _means(file: PredictionFile, codes: Codes, count: Codes, how: Averaging) -> Any:
    """Profile of the rows of each key, (n_keys, n_genes) float32; every value is read once."""
    total = np.zeros((len(count), len(file.gene_names)))
    at = 0
    for chunk in file.chunks():
        here = codes[at : at + len(chunk.values)]
        at += len(here)
        kept = here >= 0
        values = how.lift(chunk.values[kept])
        order = np.argsort(here[kept], kind="stable")
        ordered = here[kept][order]
        if not len(ordered):
            continue
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        total[ordered[starts]] += np.add.reduceat(values[order], starts, axis=0)
    return how.finish(total, count).astype(np.float32)


def _expanded(means: Float32, order: Codes, n_rows: int) -> Iterator[Float32]:
    for start in range(0, len(order), n_rows):
        yield means[order[start : start + n_rows]]
