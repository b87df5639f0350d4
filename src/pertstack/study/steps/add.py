"""Admitting predictions made elsewhere into a study: what is said of their fit rows is read, checked, written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pertstack._base.errors import InputError, MissingFileError
from pertstack._base.files import require_plain
from pertstack._base.findings import Finding
from pertstack._base.reading.remote import is_remote, local
from pertstack.design.plan.groups import apart
from pertstack.predictions.importers import AddReport, add_predictions
from pertstack.predictions.importers.cards import read_card
from pertstack.predictions.importers.fitted_file import read_fitted_on
from pertstack.predictions.sources.nested_source import has_nested
from pertstack.stacking.registry import refuse_reserved
from pertstack.study.development.fits_of_split import fits_of_split
from pertstack.study.folder import StudyFolder
from pertstack.study.members import kin_in
from pertstack.study.new_rows.handed_in import space_in
from pertstack.study.new_rows.in_memory import written
from pertstack.study.truth.held_out import row_marks


def add_model(
    folder: StudyFolder,
    name: str,
    files: Sequence[Any],
    *,
    fitted_on: Any,
    scale: str,
    missing: str = "refuse",
    card: Path | str | Mapping[str, Any] | None = None,
    transform: str | None = None,
    without: int | None = None,
    mapping: Mapping[str, str] | None = None,
    genes: Path | str | None = None,
    layer: str | None = None,
) -> AddReport:
    """Add predictions by sample id, or by what was done, and gene name; see ``predictions.importers.add_predictions``.

    Parameters
    ----------
    folder : of the study.
    name : of the model.
    files : one, or one per fold or cell line; paths, AnnData or DataFrames.
    fitted_on : 'plan', a plan digest, 'unknown', a fold plan, a list of ids, a table fold -> ids; or the path of a file
        with ids (one per line, or a column ``sample_id``) or with columns ``fold`` and ``sample_id``.
    scale : 'treated', or 'delta' (the stored control is added).
    missing : 'refuse' rows and genes that a covered block lacks, or 'record' them as not predicted.
    card : preprocessing card (file or mapping) of the data the model was fitted on, for files that carry none.
    transform : named map to the study's scale: log2, log2p1, exp2, ln_to_log2 (any two of ln, log2, log10),
        minmax_inverse:LOW:HIGH.
    layer : which matrix of AnnData files: a layer, obsm:NAME, or X; without it layers['prediction'], else X.
    mapping : canonical column -> column of the files, if rows are matched by what was done.
    genes : a list of gene names for files whose columns have none.
    without : the files are nested predictions, by fits that also left out this fold (docs/howto/nested-predictions.md).

    Raises
    ------
    InputError, IntegrityError
        Nothing was admitted.
    """
    refuse_reserved(name)
    spec = _said(fitted_on, folder)
    with TemporaryDirectory(prefix="pertstack-") as scratch:
        paths = [local(written(f, Path(scratch), f"in memory {i}")) for i, f in enumerate(files)]
        report = add_predictions(
            folder.store,
            name,
            paths,
            fitted_on=spec,
            scale=scale,  # type: ignore[arg-type]
            missing=missing,  # type: ignore[arg-type]
            marks=lambda: row_marks(folder),
            meta={"kind": "added", "files": [str(p) for p in paths]},
            own_card=folder.card,
            card=_given_card(card),
            transform=transform,
            without=without,
            layer=layer,
            samples=folder.samples,
            columns=mapping,
            space=space_in(folder),
            kin=kin_in(folder),
            other_names=folder.other_gene_names,
            genes=None if genes is None else local(genes),
        )
    said = fitted_on if isinstance(fitted_on, str) else type(fitted_on).__name__
    folder.ledger.append(
        "model_added",
        model=name,
        files=[p.name for p in paths],
        scale=scale,
        fitted_on=said,
        transform=transform,
        cards=_on_cards(report),
        without=without,
        blocks={r.block.id: r.digest for r in report.committed},
    )
    findings = (*report.findings, *_parts_on_a_word(folder, report))
    return replace(report, findings=findings if without is not None else (*findings, *nesting(folder, name)))


def _parts_on_a_word(folder: StudyFolder, report: AddReport) -> list[Finding]:
    """What 'plan' promises if parts are kept apart, which nothing here can check."""
    by_plan = any(r.fitted_on is not None and r.fitted_on.kind == "plan" for r in report.committed)
    if not by_plan or not apart(folder.plan.group_by):
        return []
    text = (
        f"{report.name} is out of fold by your word. This study keeps parts apart (--group {folder.plan.group_by}): "
        "the fit of a fold, and the final fit, must also have left out the development combinations that share a part "
        "with what it predicts. Nothing here can check that; --fitted-on FILE with columns fold and sample_id can be "
        "checked."
    )
    return [Finding("warning", "parts_on_your_word", text, where=report.name)]


def _said(fitted_on: Any, folder: StudyFolder) -> Any:
    """What is said of the fit rows: a word, ids, or a split of other software."""
    if not isinstance(fitted_on, str | Path):
        return fitted_on
    if is_remote(fitted_on):
        fitted_on = local(fitted_on)
    found = fits_of_split(Path(fitted_on), folder)
    return read_fitted_on(fitted_on) if found is None else found


def nesting(folder: StudyFolder, name: str) -> list[Finding]:
    """What it costs that an added model has no nested predictions, and how to bring them; nothing if it has."""
    if has_nested(folder.store, name) or not any(
        folder.store.status(b, name) == "committed" for b in folder.store.blocks("development")
    ):
        return []
    folds = ", ".join(map(str, range(folder.plan.n_folds)))
    return [
        Finding(
            "warning",
            "no_nested_predictions",
            (
                f"{name} has no nested predictions, so combinations with many weights (by gene, by cell line, "
                f"networks) cannot be scored honestly beside it and may not ship: often most of the gain. "
                f"To bring them, for each fold k of {folds} predict the other folds by fits that also leave out "
                f"fold k, and add these files with --without k (in Python without=k; "
                f"docs/howto/nested-predictions.md has the lines to copy)."
            ),
            where=name,
        )
    ]


def _given_card(card: Path | str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if card is None or isinstance(card, Mapping):
        return None if card is None else read_card(card, "card")
    require_plain(Path(card), InputError)
    if not Path(card).is_file():
        raise MissingFileError(
            f"--card names {card}, which does not exist. Give the card.json of the study it is from."
        )
    return read_card(Path(card).read_text(encoding="utf-8"), card)


def _on_cards(report: AddReport) -> list[str]:
    """Codes of what was found on the preprocessing cards: no_card, card_incomplete, card_matches."""
    return sorted({f.code for f in report.findings if f.code in ("no_card", "card_incomplete", "card_matches")})
