"""Truth and predictions of a test set laid side by side: read, matched, checked, in the treated scale.

Nothing is scored here; that is done in ``evaluation.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, IntegrityError, StackingError, first_few
from pertstack._base.findings import Finding
from pertstack._base.machine.progress import track
from pertstack._base.reading.remote import local
from pertstack.data import DataFile, open_data
from pertstack.data.cells import CellChoice
from pertstack.data.checks.census import KEPT
from pertstack.data.checks.pairing import unlike
from pertstack.data.readers.columns.aliases import alias_of
from pertstack.data.readers.columns.genes import other_names
from pertstack.data.readers.spill import Table
from pertstack.data.rows import Float32
from pertstack.predictions.importers.by_key import columns_of
from pertstack.predictions.importers.cards import named_transform
from pertstack.predictions.importers.checks.scale import Scale
from pertstack.predictions.importers.checks.value_checks import check_values
from pertstack.predictions.importers.onto import Given, common_genes, given, laid_out, scratch
from pertstack.predictions.importers.readers.anndata_files import anndata_columns
from pertstack.predictions.importers.readers.gene_lists import positional
from pertstack.predictions.importers.readers.named_files import Paths, named_files
from pertstack.predictions.importers.space import space_of
from pertstack.predictions.source import Mask
from pertstack.study.new_rows.common_rows import common_rows

ROWS = ("perturbation", "cell_line", "log10_dose", "time_h", "plate")
TOLD = ("pseudobulk", "controls_from_rows", "genes_by_column", "labels_parted")
"""Notes on the truth that everybody should read: what was made of its rows."""


@dataclass(frozen=True)
class Matched:
    """Samples that every model predicts, with what was measured and predicted, all (n, n_genes), treated scale."""

    models: tuple[Given, ...]
    predicted: Mapping[str, int]  # samples each model predicts, also those that others lack
    samples: pd.DataFrame
    genes: Sequence[str]
    treated: Float32
    control: Float32
    values: Mapping[str, Float32]
    findings: tuple[Finding, ...]
    control_reference: str

    def shown(self) -> list[dict[str, Any]]:
        """One line per model: its files, how rows were matched, how much it predicts."""
        return [
            {
                "model": g.model,
                "files": ", ".join(dict.fromkeys(f.path.name for f in g.files)),
                "how": _how(g),
                "samples": self.predicted[g.model],
                "genes": len(g.genes),
            }
            for g in self.models
        ]


def matched_values(
    truth: str | Path,
    predictions: Paths,
    *,
    scale: Scale = "treated",
    mapping: Mapping[str, str] | None = None,
    control_layer: str = "control",
    control_label: str | Sequence[str] | None = None,
    treated_layer: str | None = None,
    cells: CellChoice | None = None,
    delta: bool = False,
    layer: str | None = None,
    genes: str | Path | None = None,
    transform: str | None = None,
    control: str | Path | None = None,
    metadata: str | Path | None = None,
) -> Matched:
    """Read, match and check.

    Parameters
    ----------
    truth, predictions, scale, mapping, control_layer, control_label, treated_layer, delta, layer, genes, transform : as
        in ``evaluation.evaluate``, errors too.
    control, metadata : of a truth in a table, as there.
    cells : how cells of the truth become samples.
    """
    named, truth = named_files(predictions), local(truth)
    file = open_data(
        truth,
        mapping=_of_truth(truth, mapping, None if metadata is None else local(metadata)),
        control_layer=control_layer,
        control_label=control_label,
        treated_layer=treated_layer,
        cells=cells,
        delta=delta,
        control=control,
        metadata=metadata,
    )
    samples = file.obs[[c for c in ROWS if c in file.obs]]
    own, other = [str(g) for g in file.gene_names], other_names(file.var)
    space, mapped = space_of(file.notes), None if transform is None else named_transform(transform, scale)
    listed = None if genes is None else local(genes)
    models = tuple(
        given(
            name,
            paths,
            samples,
            mapping=mapping,
            layer=layer,
            genes=listed,
            own=own,
            other=other,
            space=space,
            transform=mapped,
            differences=scale == "delta",
        )
        for name, paths in named.items()
    )
    scored, said = common_genes(models, own)
    said += [f for g in models for f in g.findings] + [f for f in file.notes if f.severity != "note" or f.code in TOLD]
    treated, controls = _measured(file, scored, len(models))
    values, predicted = _predicted(models, samples, scored)
    for g in models:
        said += _checked(
            g,
            values[g.model],
            predicted[g.model],
            treated=treated,
            control=controls,
            samples=samples,
            genes=scored,
            scale=scale,
        )
    counts = {m: int(p.sum()) for m, p in predicted.items()}
    common, more = common_rows(predicted, file)
    if any(f.numbers.get("same") for f in more):
        said = [f for f in said if f.code != "keys_missing"]  # one line for all models
    if not common.all():
        samples, treated, controls = samples[common], treated[common], controls[common]
        values = {m: v[common] for m, v in values.items()}
    if scale == "delta":
        for v in values.values():
            v += controls
    return Matched(
        models,
        counts,
        samples,
        genes=scored,
        treated=treated,
        control=controls,
        values=values,
        findings=(*said, *more),
        control_reference=file.control_reference,
    )


def _checked(
    model: Given,
    values: Float32,
    predicted: Mask,
    treated: Float32,
    control: Float32,
    samples: pd.DataFrame,
    genes: Sequence[str],
    scale: Scale,
) -> list[Finding]:
    """Scale, alignment and copies; an error ends the evaluation."""
    found = check_values(
        model.model,
        values,
        treated,
        control=control,
        samples=samples,
        rows=np.flatnonzero(predicted).tolist(),
        scale=scale,
        gene_names=genes,
        ids_in_file=len(model.matches) < len(model.files),
        genes_by_list=positional(genes) or any(f.code == "genes_by_list" for f in model.findings),
    )
    if wrong := [f for f in found if f.severity == "error"]:
        raise IntegrityError(wrong[0].message)
    return found


def _of_truth(truth: Path, mapping: Mapping[str, str] | None, metadata: Path | None) -> dict[str, str] | None:
    """The columns that the truth has; if its columns cannot be listed beforehand, all that were named.

    One value for all rows (``const:``) says what a file does not: the truth keeps its own column.
    """
    if mapping is None:
        return None
    columns = _columns(truth)
    if columns is None:
        return dict(mapping)
    columns += [] if metadata is None else _columns(metadata) or []
    own = columns_of(mapping, columns)
    told = {k for k, v in own.items() if v.startswith("const:") and alias_of(columns, k) is not None}
    return {k: v for k, v in own.items() if k not in told}


def _columns(path: Path) -> list[str] | None:
    """Names of what is said of the rows of a file, in a table all its columns; None for other kinds of files."""
    found = anndata_columns(path)
    if found is not None or not path.is_file():
        return found
    try:
        return Table(path).columns
    except (StackingError, OSError, ValueError):
        return None


def _measured(file: DataFile, genes: Sequence[str], n_models: int) -> tuple[Float32, Float32]:
    """Treated and control of the truth on the genes that are scored."""
    shape = (file.n_samples, len(genes))
    treated, control = (scratch(shape, n_models + 2) for _ in range(2))
    at = {str(g): i for i, g in enumerate(file.gene_names)}
    columns = np.array([at[g] for g in genes])
    for chunk in track(file.chunks(), "Reading the truth", -(-file.n_samples // 512)):
        treated[chunk.start : chunk.stop] = chunk.treated[:, columns]
        control[chunk.start : chunk.stop] = chunk.control[:, columns]
    bad: Mask = np.asarray(~(np.isfinite(treated).all(axis=1) & np.isfinite(control).all(axis=1)))
    if bad.any():
        raise InputError(
            f"{file.path}: {int(bad.sum()):,} samples have NaN or infinite measured values: "
            f"{first_few(file.obs.index[bad], 5)}. Leave them out, or mend the values."
        )
    some = np.linspace(0, len(treated) - 1, min(len(treated), KEPT)).astype(int)
    lines = file.obs["cell_line"].astype(str).to_numpy()[some]
    for finding in [] if file.delta else unlike(treated[some], control[some], lines, where=file.path):
        raise InputError(f"{file.path}: {finding.message}")
    return treated, control


def _predicted(
    models: Sequence[Given], samples: pd.DataFrame, genes: Sequence[str]
) -> tuple[dict[str, Float32], dict[str, Any]]:
    values = {g.model: scratch((len(samples), len(genes)), len(models) + 2) for g in models}
    return values, {g.model: laid_out(g, samples, genes, out=values[g.model]) for g in models}


def _how(model: Given) -> str:
    if not model.matches:
        return "sample id"
    names = {"log10_dose": "dose", "time_h": "time"}
    return ", ".join(names.get(c, c.replace("_", " ")) for c in model.matches[0].key)
