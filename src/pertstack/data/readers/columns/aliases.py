"""Names that columns of metadata have in files, canonical column by column.

Capitals, blanks, points and underscores do not count: ``Cell Line``, ``CellLine`` and ``cell_line`` are one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from pertstack.data.readers.columns.units import unit_in_name

DURATIONS = ("hours", "hrs", "hour", "minutes", "days", "day", "weeks", "week")
"""Columns of times that are called by their unit alone."""
ALIASES: dict[str, tuple[str, ...]] = {
    "perturbation": (
        "perturbation",
        "pert_id",
        "cmap_name",
        "pert_iname",
        "sm_name",
        "condition",
        "compound",
        "drug",
        "drug_name",
        "drugname_drugconc",
        "perturbagen",
        "perturbagen_name",
        "perturbation_name",
        "pert_name",
        "perturbation_id",
        "pert",
        "product_name",
        "cytokine",
        "treatment",
        "target_gene",
        "gene_target",
        "target_gene_name",
        "perturbed_gene",
        "target",
        "gene",
        "guide_identity",
    ),
    "cell_line": (
        "cell_line",
        "cell_iname",
        "cell_mfc_name",
        "cell_id",
        "cell_type",
        "celltype",
        "cell_line_name",
        "cell_name",
        "cell",
        "cellline",
        "cell_line_id",
        "context",
    ),
    "smiles": ("smiles", "SMILES", "canonical_smiles", "Smiles", "pert_smiles"),
    "dose": ("dose", "pert_dose", "dose_uM", "pert_idose", "dose_val", "dose_value", "concentration"),
    "log10_dose": ("log10_dose", "log10_concentration", "log10_conc", "log10(dose)", "log10(concentration)"),
    "dose_unit": ("dose_unit", "pert_dose_unit", "dose_units", "concentration_unit"),
    "time": ("time_h", "time", "pert_time", "pert_itime", "timepoint_hr", "timepoint", "time_hr", *DURATIONS),
    "time_unit": ("time_unit", "pert_time_unit", "time_units"),
    "plate": (
        "plate",
        "rna_plate",
        "det_plate",
        "plate_id",
        "plate_name",
        "batch",
        "gem_group",
        "gem_batch",
        "library_id",
        "library",
        "batch_id",
        "batch_var",
    ),
    "replicate": ("replicate", "rep", "replicate_id", "bio_rep", "pert_replicate"),
    "control_id": ("control_id", "paired_control_id", "ctrl_id", "control_sample"),
}
LOG_DOSE = re.compile(r"^(log|ln|log2)[_. (]*(dose|conc)", re.IGNORECASE)
"""Columns that may hold logarithms of doses, of which base is not said."""
AMOUNTS = ("dose", "log10_dose", "time")
"""Canonical columns that hold numbers; a unit may stand behind their names."""
CELL_EXTRAS: dict[str, tuple[str, ...]] = {
    "guide": ("guide", "guide_id", "guide_identity", "guide_ids", "sgrna", "sgRNA", "sgRNA_ID", "sgID_AB"),
    "donor": ("donor", "donor_id", "patient", "patient_id", "individual"),
}
"""What else may tell samples made of cells apart, by the names it has in files."""
_BETWEEN = re.compile(r"[\s._\-]+")


def plain_name(name: object) -> str:
    """A name of a column without what spellings differ in.

    >>> plain_name("Cell Line"), plain_name("cell_line"), plain_name("CellLine")
    ('cellline', 'cellline', 'cellline')
    """
    return _BETWEEN.sub("", str(name)).casefold()


def column_of(columns: Iterable[object], names: Iterable[str]) -> str | None:
    """The first of some names among some columns, as it is written there: by exact spelling first, then by any.

    Parameters
    ----------
    columns : of a table.
    names : in the order of preference.
    """
    there, names = [str(c) for c in columns], list(names)
    exact = set(there)
    loose = {plain_name(c): c for c in reversed(there)}
    found = (n if n in exact else None for n in names)
    return next((f for f in found if f is not None), None) or next(
        (loose[p] for p in map(plain_name, names) if p in loose), None
    )


def alias_of(columns: Iterable[object], name: str) -> str | None:
    """The column that has a name of a canonical column; None if there is none."""
    there = [str(c) for c in columns]
    found = column_of(there, ALIASES[name])
    return found if found is not None else next((c for c in there if is_alias(c, name)), None)


def is_alias(column: object, name: str) -> bool:
    """Whether a column has a name of a canonical one; behind that of a dose or time may stand a unit.

    >>> is_alias("Dose (nM)", "dose"), is_alias("time_min", "time"), is_alias("dose_nM", "time")
    (True, True, False)
    """
    known = alias_names(name)
    return plain_name(column) in known or (
        name in AMOUNTS and plain_name(unit_in_name(column, "time" if name == "time" else "dose")[0]) in known
    )


@lru_cache
def alias_names(*names: str) -> frozenset[str]:
    """The plain names of some canonical columns; of all if none is named."""
    return frozenset(plain_name(a) for n in names or ALIASES for a in ALIASES[n])
