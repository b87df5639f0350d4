"""New samples for a study: opened, and refused if predictions for them would mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, IntegrityError, MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack.data import DataFile, SideInformation, build_side, open_data
from pertstack.data.cells import CellChoice
from pertstack.data.labels import one_spelling
from pertstack.data.near_names import near_names
from pertstack.data.readers.matrices import MappedRows
from pertstack.data.side.side import PerturbationFeatures
from pertstack.fit.registry import list_models
from pertstack.predictions.importers.cards import named_transform
from pertstack.predictions.importers.checks.scale import LONG, levels, offset_after, other_logarithm
from pertstack.predictions.store.align import likely_cause
from pertstack.study.folder import StudyFolder
from pertstack.study.new_rows.known_names import by_study_names


def open_new(folder: StudyFolder, new: Path, reading: Mapping[str, Any] | None = None) -> DataFile:
    """The file of new samples, checked against the study: genes, sample ids, values of the controls.

    Parameters
    ----------
    folder : of the study.
    new : the file.
    reading : how it differs from the study's (``mapping``, ``control_layer``, ``control``, ``metadata``, ``controls``,
        ``control_label``, and a named ``transform`` to the study's scale; ``features`` and ``targets`` of its
        perturbations); what is left out is read as the study's data were.

    Raises
    ------
    MisalignedError, InputError, IntegrityError
        Genes are missing; samples are not new; controls were preprocessed in another way.
    """
    choices = folder.choices
    usual = {
        "mapping": choices["map"],
        "control_layer": choices.get("control_layer", "control"),
        "controls": choices.get("controls", "plate_mean"),
        "control_label": choices.get("control_label"),
    }
    given = {name: value for name, value in (reading or {}).items() if value is not None}
    if "mapping" in given:
        given["mapping"] = {**choices["map"], **given["mapping"]}
    if "cells" in choices:
        usual["cells"] = CellChoice.from_json(choices["cells"])
    transform = given.pop("transform", None)
    beside: dict[str, Path] = {kind: Path(given.pop(kind)) for kind in ("features", "targets") if kind in given}
    _refuse_useless(folder, beside)
    options = {**usual, **given}
    file = open_data(new, delta=choices["delta"], treated_optional=True, seed=choices["seed"], **options)
    own = list(map(str, folder.gene_names))
    file.var = by_study_names(file.var, own, folder.other_gene_names)
    theirs, ours = set(file.gene_names), set(own)
    if ours - theirs:
        cause = likely_cause(list(file.gene_names), own)
        raise MisalignedError(
            f"{new} lacks {len(ours - theirs):,} of the study's {len(ours):,} genes "
            f"({first_few(sorted(ours - theirs))}). The ensemble was learned with them; "
            f"provide profiles processed in the same way." + (f" Likely cause: {cause}" if cause else "")
        )
    if transform is not None:
        named = named_transform(str(transform), "delta" if choices["delta"] else "treated")
        file.control = MappedRows(file.control, named, str(new))
    file.beside = beside
    names = file.obs["perturbation"]
    file.obs["perturbation"] = names.replace(one_spelling(names.unique(), like=folder.samples["perturbation"].unique()))
    _refuse_known_samples(folder, file, new)
    _refuse_other_values(folder, file, new)
    _refuse_other_dose_units(folder, file, new)
    return file


def _refuse_known_samples(folder: StudyFolder, file: DataFile, new: Path) -> None:
    """New samples must be new: models were fitted on the development samples, and would repeat what they saw."""
    table = folder.plan.table
    fitted = file.obs.index.intersection(pd.Index(table.loc[table["role"] != "test", "sample_id"]))
    if len(fitted):
        raise InputError(
            f"{len(fitted):,} of {file.n_samples:,} samples of {new} are development samples of this study "
            f"({first_few(fitted)}): the models were fitted on them, so predictions for them would be in-sample. Leave "
            f"them out; out-of-fold predictions of theirs are in `pertstack export`."
        )


def _refuse_other_values(folder: StudyFolder, file: DataFile, new: Path) -> None:
    """Controls of new samples must have the values of the study's data: range and spread, on up to 512 of them.

    Raises
    ------
    IntegrityError
        They run far outside the study's range, or vary less than half or more than twice as much.
    """
    card = folder.card
    if folder.choices["delta"]:
        return
    rows = np.unique(np.linspace(0, file.n_samples - 1, min(512, file.n_samples)).astype(int))
    order = file.var.index.get_indexer(pd.Index(folder.gene_names))
    control = np.asarray(file.read_control(rows), dtype=np.float64)[:, order]
    low, high, spread = float(control.min()), float(control.max()), float(control.std())
    _refuse_other_logarithm(folder, control, file.obs["cell_line"].to_numpy(dtype=object)[rows], new)
    width = max(card.value_max - card.value_min, 1e-12)
    outside = low < card.value_min - 0.25 * width or high > card.value_max + 0.25 * width
    ratio = spread / max(card.value_sd, 1e-12)
    if outside or not 0.5 <= ratio <= 2:
        raise IntegrityError(
            f"Controls of {new} run from {low:.3g} to {high:.3g} (standard deviation {spread:.3g}), and the study's "
            f"values from {card.value_min:.3g} to {card.value_max:.3g} ({card.value_sd:.3g}): they were "
            f"preprocessed in another way (transform, scaling). Predictions would be meaningless; provide "
            "values as in the study."
        )


def _refuse_other_logarithm(folder: StudyFolder, control: Any, lines: Any, new: Path) -> None:
    """Controls whose gene means are the study's times the factor between two logarithms, by name."""
    references, total, n = folder.references, np.zeros(control.shape[1]), 0
    for line in set(lines) & set(references.cell_lines) or set(references.cell_lines):
        weight = int((lines == line).sum()) or 1
        total, n = total + weight * references.pooled(line), n + weight
    ours, theirs = total / n, control.mean(axis=0)
    slope, r = levels(theirs, ours)
    logs = other_logarithm(slope, r, offset_after(slope, theirs, ours))
    if logs is not None:
        raise IntegrityError(
            f"Controls of {new} are {LONG[logs[0]]} where the study has {LONG[logs[1]]}: means of genes follow the "
            f"study's (correlation {r:.4f}), and one unit there is {slope:.3f} here. Predict with --transform "
            f"{logs[0]}_to_{logs[1]}."
        )


def _refuse_other_dose_units(folder: StudyFolder, file: DataFile, new: Path) -> None:
    """Doses without a unit can be compared with each other only: refuse them beside doses that have one."""
    known = {"the study": _has_dose_units(folder.samples), str(new): _has_dose_units(file.obs)}
    if {True, False} <= set(known.values()):
        without = next(name for name, has in known.items() if has is False)
        raise InputError(
            f"Doses of {without} have no unit, and those of {next(n for n, has in known.items() if has)} have one, so "
            f"they cannot be compared. Give {new} its doses as the study has them: --map dose_unit=const:UNIT says a "
            f"unit, --map dose_unit=none says that the numbers are in the study's own, --map dose=none does without."
        )


def _has_dose_units(obs: pd.DataFrame) -> bool | None:
    """Whether doses come with units; None if there are no doses."""
    if "log10_dose" not in obs or obs["log10_dose"].isna().all():
        return None
    return "dose_unit" not in obs or bool(obs["dose_unit"].notna().any())


_MULTI_HOT = ("genes", "targets")
"""Kinds of features whose columns are genes, those that the perturbations of a file happen to name."""


def merged_side(
    known: SideInformation,
    file: DataFile,
    gene_names: Any,
    *,
    other: Mapping[str, str] | None = None,
    findings: list[Finding] | None = None,
) -> SideInformation:
    """The study's side information, with what the new file says of perturbations that the study knows nothing of.

    They get structures, perturbed genes and targets from the file, and features from what lies beside it; else they
    stay unknown, and models say what they do then.

    Parameters
    ----------
    known : of the study.
    file : new samples.
    gene_names : of the study.
    other : second name of a gene -> its name in the study.
    findings : gets a warning of genes that were matched although their capitals differ; None for nobody to tell.

    Raises
    ------
    InputError
        Features with other columns than the study's, or files that name none of the perturbations.
    """
    features, targets = file.beside.get("features"), file.beside.get("targets")
    side, told = build_side(file.obs, gene_names, uns=file.uns, features=features, targets=targets, other=other)
    if findings is not None:
        findings += [f for f in told if f.code == "genes_by_capitals"]
    found = {}
    for kind, table in known.features.items():
        new = side.features.get(kind)
        found[kind] = table if new is None else _extended(table, _with_columns(table, new, file))
    return SideInformation(found, known.graph)


def _with_columns(table: PerturbationFeatures, other: PerturbationFeatures, file: DataFile) -> PerturbationFeatures:
    """Features of new perturbations in the columns of the study's."""
    if other.columns == table.columns:
        return other
    at = pd.Index(table.columns).get_indexer(pd.Index(other.columns))
    lacking = sorted(set(table.columns) - set(other.columns))
    if lacking and table.kind not in _MULTI_HOT:
        raise InputError(
            f"{file.beside.get('features', file.path)} lacks {len(lacking):,} of the {len(table.columns):,} features "
            f"of the study ({first_few(lacking)}), so new perturbations cannot be told by them. Give those that the "
            f"study was made with."
        )
    matrix = np.zeros((len(other.perturbations), len(table.columns)), dtype=np.float32)
    matrix[:, at[at >= 0]] = other.matrix[:, at >= 0]
    known = np.asarray(matrix.any(axis=1)) if table.kind in _MULTI_HOT else other.known
    return replace(other, columns=table.columns, matrix=matrix, known=known)


def _extended(table: PerturbationFeatures, other: PerturbationFeatures) -> PerturbationFeatures:
    names = sorted({*table.perturbations, *other.perturbations})
    values, known = table.rows(names)
    more, more_known = other.rows(names)
    return replace(
        table,
        perturbations=tuple(names),
        matrix=np.where(known[:, None], values, more),
        known=known | more_known,
    )


def _refuse_useless(folder: StudyFolder, beside: Mapping[str, Path]) -> None:
    """Refuse files of features or targets that no model of the study reads."""
    kinds = {"features": "user", "targets": "targets"}
    for word, path in beside.items():
        if kinds[word] not in folder.side.features:
            raise InputError(
                f"--{word} {path} is of no use here: the study was made without {word}, so no model learned from them. "
                f"Leave it out, or make the study with --{word}."
            )


def unknown_findings(folder: StudyFolder, file: DataFile, models: Iterable[str], where: str) -> list[Finding]:
    """A warning of new perturbations that models cannot tell apart, because nothing says what they are.

    Parameters
    ----------
    folder : of the study.
    file : new samples.
    models : whose answers are used; those that were added are passed over.
    where : the file, for the message.
    """
    rows = [row for row in list_models() if row.name in set(models)]
    kinds = {k for row in rows for k in row.needs.features}
    told: list[Finding] = []
    side = merged_side(folder.side, file, folder.gene_names, other=folder.other_gene_names, findings=told)
    tables = [t for k, t in side.features.items() if k in kinds]
    names = sorted(set(file.obs["perturbation"].astype(str)))
    known = np.any([t.rows(names)[1] for t in tables], axis=0) if tables else np.ones(len(names), dtype=bool)
    lacking = [n for n, there in zip(names, known, strict=True) if not there]
    if not lacking:
        return told
    mine = sorted(set(folder.samples["perturbation"].astype(str)))
    near = [g for g in near_names([*lacking, *mine]) if set(g) & set(lacking) and set(g) & set(mine)]
    perhaps = f" Perhaps the same, spelt otherwise: {first_few([' = '.join(g) for g in near])}." if near else ""
    readers = first_few([r.name for r in rows if r.needs.features])
    text = (
        f"{len(lacking):,} of {len(names):,} perturbations of {where} have no features in this study "
        f"({first_few(lacking)}), so {readers} gives all of them one answer, that of no perturbation in particular; "
        f"the expected score does not hold for them.{perhaps} Write names as the study does, or give what is known "
        f"of them (--features FILE, --targets FILE, a column smiles), if the study has it."
    )
    return [*told, Finding("warning", "features_unknown", text, len(lacking), tuple(lacking[:10]), where=where)]
