"""What is wrong with a data file, found in one streamed pass; the preprocessing card comes from the same pass.

Errors stop the work, warnings go on to the report. Leaks between folds are handled by ``design/``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack._base.machine.memory import rows_per_tile
from pertstack._base.machine.progress import track
from pertstack._base.names import unusable_in_words, unusable_names
from pertstack.data.card import Card
from pertstack.data.checks.census import Census
from pertstack.data.checks.metadata import finding_about, metadata_findings, spreadsheet_names
from pertstack.data.checks.pairing import judge_pairing, pairing_findings, unlike_controls
from pertstack.data.checks.scales import parts_on_other_scales

if TYPE_CHECKING:
    from pertstack.data.file import DataFile


@dataclass(frozen=True)
class Examination:
    """The outcome of one pass over a data file."""

    findings: tuple[Finding, ...]
    card: Card
    control_digest: np.ndarray[Any, np.dtype[np.uint64]]  # (n_samples,) equal where controls are bytewise equal
    treated_digest: np.ndarray[Any, np.dtype[np.uint64]]  # (n_samples,)


def validate(file: DataFile) -> list[Finding]:
    """Findings about a data file, gravest first; [] when nothing is worth saying.

    Errors: duplicate sample ids or gene names, missing or non-finite values, controls identical to treated, raw
    counts. Warnings: constant genes, duplicate profiles, values on a linear or min-max scale, missing structures or
    doses, control ids that contradict the controls. The file is read once, in chunks; a second call is a look-up.
    """
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(file.examination.findings, key=lambda f: order[f.severity])


def examine(file: DataFile) -> Examination:
    """One pass over the values: findings, card, digests of rows."""
    census = Census(file)
    rows = rows_per_tile(file.n_genes, 8, 64 * 10**6)  # control, treated, and what is computed from them
    for chunk in track(file.chunks(rows), "checking the data", total=-(-file.n_samples // rows)):
        census.add(chunk)
    pairing = judge_pairing(file, census)
    findings = [
        *file.notes,
        *name_findings(file),
        *_values(file, census),
        *_scale(file, census),
        *unlike_controls(file, census),
        *parts_on_other_scales(file, census),
        *pairing_findings(file, census, pairing),
        *metadata_findings(file),
    ]
    return Examination(tuple(findings), census.card(pairing), census.control_digest, census.treated_digest)


def name_findings(file: DataFile) -> list[Finding]:
    """Names of samples, genes, perturbations and cell lines that cannot be used; no value is looked at."""
    return [
        *_names(file.obs.index, "sample id", "sample", file.path),
        *_names(file.var.index, "gene name", "gene", file.path),
        *spreadsheet_names(file),
        *(
            f
            for c in ("perturbation", "cell_line")
            for f in _control_characters(file.obs[c].dropna(), f"values of {c}", c, file.path)
        ),
    ]


def _names(index: pd.Index[Any], what: str, noun: str, where: str) -> list[Finding]:
    repeated = index[index.duplicated()].unique()
    found = []
    if len(repeated):
        mend = f"Give each {noun} a name of its own."
        if noun == "gene" and Path(where).suffix in (".h5ad", ".zarr"):
            kind = Path(where).suffix[1:]
            mend += (
                f' To number them: python -c "import anndata; a = anndata.read_{kind}({where!r}); '
                f"a.var_names_make_unique(); a.write_{kind}('unique.{kind}')\", then --data unique.{kind}."
            )
        found.append(
            finding_about(
                "error",
                f"duplicate_{noun}s",
                f"{len(repeated):,} {what}s occur more than once: {first_few(repeated)}. Rows and columns are matched "
                f"by name. {mend}",
                offenders=repeated,
                where=where,
            )
        )
    empty = [i for i, name in enumerate(index) if not str(name).strip() or str(name) == "nan"]
    if empty:
        found.append(
            finding_about(
                "error",
                f"empty_{noun}_names",
                f"{len(empty):,} {what}s are empty (positions {first_few(empty)}). Give every {noun} a name.",
                offenders=empty,
                where=where,
            )
        )
    return [*found, *_control_characters(index, f"{what}s", f"{noun}_names", where)]


def _control_characters(names: Iterable[object], what: str, code: str, where: str) -> list[Finding]:
    bad = unusable_names(names)
    return (
        [finding_about("error", f"unusable_{code}", unusable_in_words(bad, what), offenders=bad, where=where)]
        if bad
        else []
    )


def _values(file: DataFile, census: Census) -> list[Finding]:
    """Values that no score can be made of, or that say nothing."""
    return [*_not_finite(file, census), *_same_as_control(file, census), *_alike(file, census)]


def _not_finite(file: DataFile, census: Census) -> list[Finding]:
    found = []
    for layer, bad in (("treated", census.bad_treated), ("control", census.bad_control)):
        if bad.n == 0:
            continue
        rows, columns = file.obs.index[bad.rows], file.gene_names[bad.columns]
        text = (
            f"{bad.n:,} {layer} values are missing, infinite or the marker -666, in {len(rows):,} samples "
            f"({first_few(rows)}) and {len(columns):,} genes ({first_few(columns)}). No score can be computed with "
            f"them. Remove these genes or samples, or fill them in by a method you can defend before pertstack sees "
            f"the data."
        )
        found.append(finding_about("error", f"non_finite_{layer}", text, offenders=rows, where=file.path))
    return found


def _same_as_control(file: DataFile, census: Census) -> list[Finding]:
    """Samples whose treated profile is their control."""
    same = file.obs.index[census.same_as_control]
    if not len(same) or file.delta:
        return []
    if len(same) == file.n_samples:
        text = "The control is identical to the treated profile in all samples"
        mend = "Name the right layer with --control-layer."
    else:
        text = f"{len(same):,} of {file.n_samples:,} samples have a control identical to their treated profile: "
        text += first_few(same)
        mend = "Remove untreated samples from the table: controls belong in the control layer only."
    text = f"{text}. Their delta is zero by construction. {mend}"
    return [finding_about("error", "control_is_treated", text, offenders=same, where=file.path)]


def _alike(file: DataFile, census: Census) -> list[Finding]:
    """Genes that are the same in all samples, and samples that are the same in all genes."""
    found = []
    flat: Any = [] if file.delta or file.n_genes < 2 else file.obs.index[census.flat]
    if len(flat):
        text = (
            f"{len(flat):,} samples have one value in all genes: {first_few(flat)}. They measured nothing (an empty "
            f"well, cells without counts), and their effect is the control with its sign changed. Remove them."
        )
        found.append(finding_about("warning", "flat_profiles", text, offenders=flat, where=file.path))
    constant, repeated = file.gene_names[census.constant_genes], file.obs.index[census.repeated_treated()]
    if len(constant):
        text = (
            f"{len(constant):,} of {file.n_genes:,} genes have one value in all treated samples: "
            f"{first_few(constant)}. They carry no information and weaken no score, but a model that scales by spread "
            f"must not divide by it."
        )
        found.append(finding_about("warning", "constant_genes", text, offenders=constant, where=file.path))
    if len(repeated):
        text = (
            f"{len(repeated):,} samples have a treated profile that another sample has too, value by value: "
            f"{first_few(repeated)}. In different folds they would leak; the fold plan is checked for it."
        )
        found.append(finding_about("warning", "duplicate_profiles", text, offenders=repeated, where=file.path))
    return found


def _scale(file: DataFile, census: Census) -> list[Finding]:
    transform, low, high = census.transform, census.low, census.high
    if transform == "counts" and census.n_below:
        offenders = file.sample_ids[census.below]
        return [
            finding_about(
                "error",
                "negative_counts",
                f"All values are whole numbers, up to {high:g}, and {census.n_below:,} of them "
                f"{'is' if census.n_below == 1 else 'are'} below zero, in {len(offenders):,} samples "
                f"({first_few(offenders)}). A count is not: background was taken away, or the file is damaged. Take "
                f"the counts as they were measured, normalise for depth, take log2(x + 1) (or log1p), controls alike, "
                f"then start again.",
                offenders=offenders,
                where=file.path,
            )
        ]
    if transform == "counts" and file.counts_meant:
        return [
            Finding(
                "warning",
                "summed_counts",
                f"Values are sums of counts, up to {high:g}, as asked: errors and deltas are ruled by a few highly "
                f"expressed genes and by the number of cells. --normalise cp10k ends both.",
                where=file.path,
            )
        ]
    if transform == "counts":
        return [
            Finding(
                "error",
                "raw_counts",
                f"All values are whole numbers from {low:g} to {high:g}: these look like raw counts. Errors and deltas "
                f"would be ruled by a "
                f"few highly expressed genes. Normalise for depth and take log2(x + 1) (or log1p), controls alike, "
                f"then start again.",
                where=file.path,
            )
        ]
    if transform == "linear":
        return [
            Finding(
                "warning",
                "linear_scale",
                f"Values run from {low:g} to {high:g}: they do not look like log expression (usually 0 to 20). Deltas "
                f"on a linear scale are "
                f"ruled by highly expressed genes; take logarithms of treated and control first unless this is meant.",
                where=file.path,
            )
        ]
    if transform == "min-max":
        return [
            Finding(
                "warning",
                "min_max_scaled",
                f"{census.n_unit_genes:,} of {file.n_genes:,} genes run from exactly 0 to exactly 1 over all rows: "
                f"they were min-max scaled on "
                f"the whole table, held-out rows included, which is a mild leak and a scale no new data will have. "
                f"Start from unscaled values if you can.",
                census.n_unit_genes,
                where=file.path,
            )
        ]
    return []
