"""Files of predictions against the study, by name: samples and genes that are foreign or lacking, folds that differ.

No value is read here; values are checked in ``scale.py`` and ``shift.py``, on the sample that ``streaming.py`` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from pertstack._base.errors import MisalignedError, first_few
from pertstack.design.blocks import Block
from pertstack.predictions.importers.checks.sampled import Place
from pertstack.predictions.importers.fitted import FittedOnBlocks, check_file_folds
from pertstack.predictions.importers.readers.files import PredictionFile
from pertstack.predictions.store.align import likely_cause, match
from pertstack.predictions.store.store import PredictionStore

Missing = Literal["refuse", "record"]
"""What becomes of rows and genes that a covered block lacks: the addition is refused, or they are recorded as such."""


def check_names(files: list[PredictionFile], places: Mapping[str, Place]) -> None:
    """Every sample of the files is in the study; else a MisalignedError with the first ones and a likely cause."""
    for file in files:
        foreign = [s for s in file.sample_ids if s not in places]
        if foreign:
            cause = likely_cause(file.sample_ids, list(places))
            raise MisalignedError(
                f"{file.path}: {len(foreign):,} of {len(file.sample_ids):,} samples are not in this study: "
                f"{first_few(foreign)}. The study's samples look like {first_few(places, 3)}. "
                + (f"Likely cause: {cause}" if cause else "Leave them out, or map the ids to the study's.")
            )


def check_folds(files: list[PredictionFile], places: Mapping[str, Place], fitted: FittedOnBlocks) -> None:
    """Folds that a file names must part the samples as the plan does, if it claims to follow the plan.

    Parameters
    ----------
    files : those without folds are passed over.
    places : sample -> block and row.
    fitted : what the user says the model was fitted on.

    Raises
    ------
    FoldPlanMismatchError
        They do not.
    """
    for file in files:
        if file.folds is not None and fitted.by_plan:
            own_folds = [places[s].block.fold for s in file.sample_ids]
            check_file_folds(np.asarray(file.folds), file.sample_ids, own_folds, path=file.path)


def genes_not_predicted(files: list[PredictionFile], own: list[str], missing: Missing) -> list[str]:
    """Genes of the study that no file predicts, in the study's order.

    Parameters
    ----------
    files : of one model.
    own : genes of the study.
    missing : "refuse" or "record".

    Raises
    ------
    MisalignedError
        Files of different genes, foreign genes, or genes that lack and are refused.
    """
    given = set(files[0].gene_names)
    for file in files[1:]:
        if set(file.gene_names) != given:
            raise MisalignedError(
                f"{file.path} and {files[0].path} predict different genes ({len(file.gene_names):,} and "
                f"{len(given):,}; only one has {first_few(sorted(given.symmetric_difference(file.gene_names)))}). "
                f"Files of one model must agree."
            )
    absent = [g for g in own if g not in given]
    gap = absent if missing == "record" and len(absent) < len(own) else []
    for file in files:
        match("gene", file.gene_names, own, missing=gap, where=str(file.path))
    return gap


def samples_not_predicted(
    store: PredictionStore, files: list[PredictionFile], blocks: list[Block], *, missing: Missing
) -> dict[Block, tuple[str, ...]]:
    """Samples of the covered blocks that no file predicts, by block.

    Parameters
    ----------
    store : names the samples of blocks.
    files : of one model.
    blocks : that the files cover.
    missing : "refuse" or "record".

    Raises
    ------
    MisalignedError
        There are some, and they are refused.
    """
    given = {s for f in files for s in f.sample_ids}
    gone = {b: tuple(s for s in store.sample_ids(b) if s not in given) for b in blocks}
    gone = {b: names for b, names in gone.items() if names}
    if gone and missing == "refuse":
        n = sum(len(names) for names in gone.values())
        raise MisalignedError(
            f"{first_few(str(f.path) for f in files)}: {n:,} samples of {len(gone)} blocks are not predicted, such as "
            f"{first_few(s for names in gone.values() for s in names)}. If they really were not, say so with "
            f"missing='record' (--missing record); combiners then know of the gap."
        )
    return gone
