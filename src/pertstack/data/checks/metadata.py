"""Checks of the sample table: controls among the samples, names alike, cell lines, doses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.labels import is_control_name, parts_of
from pertstack.data.near_names import alike_finding, near_names

if TYPE_CHECKING:
    from pertstack.data.file import DataFile

_OFTEN_CONTROL = re.compile(
    r"\b(?:controls?|ctrls?|ctl|dmso|vehicle|mock|non.?target\w*|safe.?harbou?r|scrambled?|untreated|unperturbed"
    r"|unstimulated|empty.vector|luciferase|lacz|e?gfp|aavs1|rosa26|pbs|saline|medium|parental|wild.?type)\b",
    re.IGNORECASE,
)

_MONTH = "(?:jan|feb|mar|mrz|apr|may|mai|jun|jul|aug|sept?|oct|okt|nov|dec|dez)"
_BY_SPREADSHEET = re.compile(
    rf"(?i:\d{{1,2}}[-.]\s?{_MONTH})|{_MONTH.title()}-\d\d|\d{{4}}-\d\d-\d\d(?: 00:00:00)?|(?i:\d+(?:[.,]\d+)?E\+\d+)"
)
"""1-Mar, Sep-02, 2001-03-01, 2.31E+13; not sep-1 and mar-2, which are genes of C. elegans."""


def finding_about(severity: Any, code: str, message: str, *, offenders: Iterable[object], where: str) -> Finding:
    """A finding that counts its offenders and shows ten of them.

    Parameters
    ----------
    severity : "note", "warning" or "error".
    code, message : of the finding.
    offenders : what it is about, each once.
    where : the file.
    """
    names = [str(o) for o in offenders]
    return Finding(severity, code, message, count=len(names), examples=tuple(names[:10]), where=where)


def untreated_samples(file: DataFile) -> list[Finding]:
    """Samples that are controls by name, in a table of treated samples."""
    names = file.obs["perturbation"].astype(str)
    usual = {n for n in names.unique() if is_control_name(n)}
    rows = file.obs.index[names.isin(usual).to_numpy(dtype=bool)]
    if not len(rows):
        return []
    return [
        finding_about(
            "warning",
            "untreated_samples",
            f"{len(rows):,} samples are controls by name ({first_few(sorted(set(file.obs['perturbation'][rows])))}): "
            f"{first_few(rows)}. They "
            f"would be fitted and scored as if they were a perturbation. Remove them from the table, or keep them if "
            f"that is meant.",
            offenders=rows,
            where=file.path,
        )
    ]


def perhaps_untreated(file: DataFile) -> list[Finding]:
    """Perturbations whose name has a word that often means a control, and that are taken as samples."""
    names = [n for n in map(str, file.obs["perturbation"].unique()) if not is_control_name(n)]
    alike = sorted(n for n in names if _OFTEN_CONTROL.search(" ".join(parts_of(n)).replace("_", " ")))
    if not alike:
        return []
    text = (
        f"{len(alike):,} perturbations have a name that often means a control, and are fitted and scored as samples: "
        f"{first_few(alike)}. If they are controls, name each with --control-label, or remove them."
    )
    return [finding_about("warning", "perhaps_untreated", text, offenders=alike, where=file.path)]


def spreadsheet_names(file: DataFile) -> list[Finding]:
    """Genes and perturbations whose names a spreadsheet made of gene symbols."""
    found = []
    for what, names in (("genes", file.gene_names), ("perturbations", file.obs["perturbation"].unique())):
        made = sorted(n for n in map(str, names) if _BY_SPREADSHEET.fullmatch(n))
        if made:
            text = (
                f"{len(made):,} {what} have names that spreadsheets make of gene symbols: {first_few(made)}. Dates "
                f"were MARCHF1, SEPTIN2 and the like (1-Mar may be MARCHF1 or MARC1), numbers with an exponent RIKEN "
                f"ids (2310009E13Rik). Tables, targets and predictions that use the symbols do not reach them: write "
                f"the names again where the file was made."
            )
            found.append(finding_about("warning", "names_by_spreadsheet", text, offenders=made, where=file.path))
    return found


def lines_alike(file: DataFile) -> list[Finding]:
    """Cell lines whose names differ in case or punctuation only."""
    groups = near_names(file.obs["cell_line"].unique(), numbered=False)
    if not groups:
        return []
    said = "; ".join(" = ".join(g) for g in groups[:10])
    text = (
        f"Names of cell lines are alike but for case, punctuation or zeros: {said}. Each is a cell line of its own "
        f"here, with its own controls, centroid and blocks, and --group cell_line may hold out one of them while "
        f"models learn from the other. If they are one line, write one name: --map cell_line=COLUMN."
    )
    names = [name for group in groups for name in group]
    return [finding_about("warning", "lines_alike", text, offenders=names, where=file.path)]


def names_alike(file: DataFile) -> list[Finding]:
    """Names that may be one perturbation, but for those whose structures are all known: these are compared as such."""
    obs = file.obs
    known = set(obs.loc[obs["smiles"].notna(), "perturbation"].astype(str)) if "smiles" in obs else set()
    groups = [g for g in near_names(obs["perturbation"].unique()) if not known.issuperset(g)]
    mend = (
        "name a column that holds them together with --group COLUMN, or one with the right names with "
        "--map perturbation=COLUMN."
    )
    return alike_finding(groups, file.path, mend)


def metadata_findings(file: DataFile) -> list[Finding]:
    """Everything that is found in the sample table."""
    found = [*untreated_samples(file), *perhaps_untreated(file), *names_alike(file), *lines_alike(file)]
    genetic = _looks_genetic(file)
    return [*found, *([] if genetic else _structures(file)), *_doses(file, genetic)]


def _structures(file: DataFile) -> list[Finding]:
    """Perturbations without a structure, or with several."""
    if "smiles" not in file.obs:
        text = (
            "No SMILES are known, so models that read chemical structures are not available. Name the column with "
            "--map smiles=COLUMN, or give any features with --features FILE."
        )
        return [Finding("warning", "no_structures", text, where=file.path)]
    found = []
    smiles = file.obs.groupby("perturbation", sort=True, observed=True)["smiles"]
    known, spellings = smiles.count(), smiles.nunique()
    lacking, several = known.index[known == 0], spellings.index[spellings > 1]
    if len(lacking):
        text = (
            f"{len(lacking):,} of {len(known):,} perturbations have no SMILES: {first_few(lacking)}. Models that read "
            f"structures see them as unknown; nothing is put in their place."
        )
        found.append(finding_about("warning", "structures_missing", text, offenders=lacking, where=file.path))
    if len(several):
        text = (
            f"{len(several):,} perturbations come with more than one SMILES: {first_few(several)}. Salts or spellings "
            f"may differ; the first one (sorted) is used for features."
        )
        found.append(finding_about("warning", "structures_differ", text, offenders=several, where=file.path))
    return found


def _doses(file: DataFile, genetic: bool) -> list[Finding]:
    """Samples without a dose, or no doses at all when they are to be expected."""
    obs = file.obs
    if "log10_dose" not in obs:
        text = (
            "No doses are known; samples of one perturbation at different doses cannot be told apart. Name the column "
            "with --map dose=COLUMN if there is one."
        )
        return [] if genetic else [Finding("warning", "no_doses", text, where=file.path)]
    lacking = obs.index[obs["log10_dose"].isna()]
    if not len(lacking):
        return []
    text = f"{len(lacking):,} of {len(obs):,} samples have no usable dose: {first_few(lacking)}."
    return [finding_about("warning", "doses_missing", text, offenders=lacking, where=file.path)]


def _looks_genetic(file: DataFile) -> bool:
    """Whether perturbations are genes of this file (``A+ctrl``, ``A+B``), so that structures are not to be expected."""
    from pertstack.data.side.targets import genes_of

    genes, names = set(file.gene_names), sorted(set(file.obs["perturbation"]))
    hits = sum(bool(set(genes_of(name)) & genes) for name in names[:200])
    return hits > 0.5 * len(names[:200])
