"""One door for every format: ``open_data`` looks at the path and passes it to the reader that knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pertstack._base.errors import InputError, StackingError
from pertstack._base.files import missing_file
from pertstack._base.findings import Finding
from pertstack._base.reading.damage import damage_named
from pertstack._base.reading.dialects import PACKED
from pertstack._base.reading.remote import is_remote, local, redacted
from pertstack.data.cells.choice import CellChoice
from pertstack.data.choices import ControlChoice
from pertstack.data.file import DataFile
from pertstack.data.labels import one_spelling, spelling_finding
from pertstack.data.readers import wide_tables
from pertstack.data.readers.anndata.tables import refuse_packed
from pertstack.data.readers.cell_lists import as_anndata, cell_lists
from pertstack.data.readers.control_rows import Labels
from pertstack.data.readers.refused import refuse_kind


def open_data(
    path: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    control_layer: str = "control",
    treated_layer: str | None = None,
    delta: bool = False,
    treated_optional: bool = False,
    control: str | Path | None = None,
    metadata: str | Path | None = None,
    controls: ControlChoice = "plate_mean",
    seed: int = 0,
    control_label: Labels = None,
    cells: CellChoice | None = None,
) -> DataFile:
    """Open a data file for reading in chunks.

    Parameters
    ----------
    path
        ``.h5ad`` file or ``.zarr`` folder (AnnData); parquet of cells, with genes and values as lists, a file or a
        folder; ``.parquet`` / ``.csv`` / ``.tsv`` table; ``.gctx`` / ``.gct``; PDGrapher's ``.pt`` or the folder of
        them; ``.pkl`` tables of the founding study. Layouts: ``docs/formats-data.md``. Or the
        address of one (``s3://``, ``https://``, ...), which is copied once.
    mapping
        Canonical column -> source column (``{"cell_line": "cell_id"}``), ``const:VALUE`` or ``none``.
    control_layer
        AnnData: layer with the control profile of every sample.
    treated_layer
        AnnData: layer with the treated profiles; None is X.
    delta
        The values are already differences from control: the control is zero.
    treated_optional
        AnnData: the file may lack treated profiles (samples to predict); they then read as NaN. With
        ``control_layer="X"`` X holds the controls.
    control
        Tables and pickles: the file with the controls.
    metadata
        A table of what is said of the rows, by their ids: siginfo / instinfo of GCTX, or one beside a table or AnnData.
    controls, seed
        If controls are wells or rows of the same file (GCTX level 3, AnnData without a control layer): which of
        them become the control of a sample, and the seed if they are drawn.
    control_label
        If controls are rows or wells: the perturbation, or perturbations, that are the control; common names are
        known.
    cells
        AnnData whose rows are cells: how they become samples.

    Raises
    ------
    MissingFileError
        Nothing lies at ``path``; near names in the same folder are shown.
    InputError
        The file cannot be read, lacks a layer or column, or holds unknown units.
    """
    path, given = local(path), path
    controls_at, table_at = (None if p is None else local(p) for p in (control, metadata))
    for named in (path, controls_at, table_at):
        if named is not None and not named.exists():
            raise missing_file(named)
    refuse_packed(path)
    with damage_named(path):
        file = _open(
            path,
            mapping=mapping,
            control_layer=control_layer,
            treated_layer=treated_layer,
            delta=delta,
            treated_optional=treated_optional,
            control=controls_at,
            metadata=table_at,
            controls=controls,
            seed=seed,
            control_label=control_label,
            cells=cells,
        )
    file.path = redacted(given) if is_remote(given) else str(path)
    changed = one_spelling(file.obs["perturbation"].unique())
    file.obs["perturbation"] = file.obs["perturbation"].replace(changed)
    file.notes += spelling_finding(changed, file.path)
    return file


def _open(
    path: Path,
    *,
    mapping: Mapping[str, str] | None,
    control_layer: str,
    treated_layer: str | None,
    delta: bool,
    treated_optional: bool,
    control: Path | None,
    metadata: Path | None,
    controls: ControlChoice,
    seed: int,
    control_label: Labels,
    cells: CellChoice | None,
) -> DataFile:
    told: list[Finding] = []
    kind, place = _kind(path, metadata), path
    unused = {
        "--control": control is not None and (kind in ("anndata", "gctx", "pdgrapher") or delta),
        "--metadata": metadata is not None and kind in ("pdgrapher", "merge"),
        "--treated-layer": treated_layer is not None and kind != "anndata",
        "--control-layer": control_layer not in ("control", "") and kind != "anndata" and not treated_optional,
        "--control-label": bool(control_label) and control is not None and not treated_optional,
        "--map gene": "gene" in (mapping or {}) and kind not in ("anndata", "gctx"),
    }
    _refuse_unused(path, [option for option, given in unused.items() if given], kind=kind, delta=delta)
    if (columns := cell_lists(path)) is not None:
        kind, place = "anndata", as_anndata(path, columns)
    elif kind == "table" and control is None and not delta:
        found = wide_tables.as_anndata(path, metadata, mapping=mapping, label=control_label)
        kind, place, told = ("table", path, []) if found is None else ("anndata", *found)
    if kind == "anndata":
        from pertstack.data.readers.anndata.reader import open_anndata

        with _named(place, path):
            file = open_anndata(
                place,
                mapping=mapping,
                control_layer=control_layer,
                treated_layer=treated_layer,
                delta=delta,
                treated_optional=treated_optional,
                control_label=control_label,
                controls=controls,
                seed=seed,
                cells=cells,
                metadata=metadata if place == path or columns is not None else None,
            )
        file.notes += told
        return file
    if kind == "gctx":
        from pertstack.data.readers.gctx_reader import open_gctx

        return open_gctx(
            path,
            metadata=metadata,
            mapping=mapping,
            delta=delta,
            controls=controls,
            seed=seed,
            control_label=control_label,
        )
    return _open_pair(kind, path, control, mapping=mapping, delta=delta, metadata=metadata)


@contextmanager
def _named(place: Path, path: Path) -> Iterator[None]:
    """Errors name the file that was given, not the scratch file that was made of it."""
    try:
        yield
    except StackingError as error:
        error.args = tuple(a.replace(str(place), str(path)) if isinstance(a, str) else a for a in error.args)
        raise


_UNUSED = {
    "--control": "its controls are in a layer or among its rows (--control-layer, --control-label)",
    "--metadata": "it carries its own",
    "--treated-layer": "only AnnData has layers",
    "--control-layer": "only AnnData has layers",
    "--control-label": "with --control, no row of the data is a control",
    "--map gene": "its genes are named by its columns",
}
"""Why an option says nothing of a file."""


def _refuse_unused(path: Path, options: list[str], *, kind: str, delta: bool) -> None:
    """Refuse options that nothing would be made of, so that nobody thinks they were followed.

    Parameters
    ----------
    path : the file.
    options : those given that do not go with it.
    kind : of the file.
    delta : whether values are said to be differences.

    Raises
    ------
    InputError
        There is one.
    """
    if not options:
        return
    why = _UNUSED[options[0]]
    if options[0] == "--control" and delta:
        why = "with --delta, values are differences from the control already"
    elif options[0] == "--control" and kind == "gctx":
        why = "its controls are among its columns (pert_type, or --control-label)"
    raise InputError(f"{path}: {options[0]} is of no use here: {why}. Leave it out.")


def _open_pair(
    kind: str,
    path: Path,
    control: Path | None,
    *,
    mapping: Mapping[str, str] | None,
    delta: bool,
    metadata: Path | None,
) -> DataFile:
    """Formats whose controls lie in a separate file, or within the export."""
    if kind == "table":
        from pertstack.data.readers.tables_reader import open_tables

        return open_tables(path, control, mapping=mapping, delta=delta, metadata=metadata)
    if kind == "pdgrapher":
        from pertstack.data.readers.pdgrapher import open_pdgrapher

        return open_pdgrapher(path)
    from pertstack.data.readers.merge import open_merge

    if control is None:
        raise InputError(f"{path}: the table of controls is missing. Name it with --control FILE.")
    return open_merge(path, control, mapping=mapping)


_KINDS = {
    ".h5ad": "anndata",
    ".h5": "anndata",
    ".zarr": "anndata",
    ".parquet": "table",
    ".pq": "table",
    ".csv": "table",
    ".tsv": "table",
    ".txt": "table",
    ".tab": "table",
    ".gctx": "gctx",
    ".gct": "gctx",
    ".pt": "pdgrapher",
    ".pkl": "merge",
    ".pickle": "merge",
}


def _kind(path: Path, metadata: Path | None) -> str:
    if path.is_dir() and path.suffix != ".zarr":
        refuse_kind(path, "", metadata)
        return "pdgrapher" if any(path.glob("data_backward_*.pt")) else "anndata"
    suffixes = [s.casefold() for s in path.suffixes]
    last = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in PACKED else (suffixes[-1] if suffixes else "")
    refuse_kind(path, last, metadata)
    if last not in _KINDS:
        raise InputError(
            f"{path}: files of kind {last or 'without suffix'!r} are not known. Known: {', '.join(sorted(_KINDS))}."
        )
    return _KINDS[last]
