"""Files of predictions laid onto samples that are already there: one array per model, without a store.

The same readers and the same matching as ``add``; what is checked on the values is said in ``value_checks.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack.data.choices import Normalise
from pertstack.data.rows import Float32
from pertstack.predictions.importers.by_key import KeyMatch, by_id_or_key
from pertstack.predictions.importers.cards import NamedTransform, mapped_file
from pertstack.predictions.importers.key_findings import of_several
from pertstack.predictions.importers.readers.files import PredictionFile
from pertstack.predictions.importers.readers.gene_lists import with_genes
from pertstack.predictions.importers.readers.opening import open_file, refuse_repeats
from pertstack.predictions.source import Mask
from pertstack.predictions.store.align import likely_cause, match, names_index

IN_MEMORY = 1_500_000_000
"""Arrays together larger than this lie in a scratch file that the system pages in and out."""


@dataclass(frozen=True)
class Given:
    """The files of one model, their rows named by the samples they stand for."""

    model: str
    files: tuple[PredictionFile, ...]
    matches: tuple[KeyMatch, ...]  # one per file that was matched by what was done
    findings: tuple[Finding, ...]

    @property
    def genes(self) -> set[str]:
        """Genes that every file of the model predicts."""
        return set.intersection(*(set(f.gene_names) for f in self.files))


def given(
    model: str,
    paths: Sequence[Path],
    samples: pd.DataFrame,
    *,
    mapping: Mapping[str, str] | None = None,
    layer: str | None = None,
    genes: Path | None = None,
    own: Sequence[str] = (),
    other: Mapping[str, str] | None = None,
    space: Normalise | None = None,
    transform: NamedTransform | None = None,
    differences: bool = False,
) -> Given:
    """Open and match the files of one model.

    Parameters
    ----------
    model : name, for messages.
    paths : its files.
    samples : index = sample ids; what was done to them.
    mapping : canonical column -> column of the files.
    layer : AnnData: where the predictions are; None to find them.
    genes : list of names for columns without any.
    own : genes of the truth.
    other : second name -> gene of the truth.
    space : how the truth was made of cells; None if it was not.
    transform : a map of every row before it is averaged.
    differences : the values are differences from the control.

    Raises
    ------
    MisalignedError
        Rows are foreign or occur twice.
    InputError
        A file cannot be read, or does not say what its rows are.
    """
    files: list[PredictionFile] = []
    matches: list[KeyMatch] = []
    findings: list[Finding] = []
    for path in paths:
        opened = open_file(path, layer=layer, told=set((mapping or {}).values()))
        opened = opened if transform is None else mapped_file(opened, transform)
        file, named = with_genes(opened, own, genes, other=other)
        findings += named
        matched = by_id_or_key(file, samples, mapping, space=space, own_genes=own, differences=differences)
        if matched is None:
            kept = _by_id(file, samples, findings)
            files.append(kept)
            continue
        files.append(matched.file)
        matches.append(matched)
    findings += of_several([m.findings for m in matches], [m.missing for m in matches])
    refuse_repeats(files)
    return Given(model, tuple(files), tuple(matches), tuple(replace(f, where=model) for f in findings))


def _by_id(file: PredictionFile, samples: pd.DataFrame, findings: list[Finding]) -> PredictionFile:
    """The file as it is, its foreign rows counted; refused if no id fits."""
    known = samples.index.isin(file.sample_ids)
    foreign = [s for s in file.sample_ids if s not in samples.index]
    if not known.any():
        cause = likely_cause(file.sample_ids, [str(s) for s in samples.index])
        raise MisalignedError(
            f"{file.path}: none of its {len(file.sample_ids):,} rows is a sample that is asked for: "
            f"{first_few(file.sample_ids, 3)} in the file, {first_few(samples.index, 3)} asked for. "
            + (f"Likely cause: {cause} " if cause else "")
            + "To match by what was done, give the rows a column that says the perturbation (such as "
            "target_gene or condition) and name it with --map perturbation=COLUMN if it is called otherwise."
        )
    if foreign:
        text = f"{file.path}: {len(foreign):,} rows are no sample asked for and are not used: {first_few(foreign, 5)}."
        findings.append(Finding("warning", "rows_left_over", text, count=len(foreign), examples=tuple(foreign[:10])))
    return file


def common_genes(models: Sequence[Given], own: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Genes of the truth that every model predicts, in its order; a warning names who lacks which.

    Raises
    ------
    MisalignedError
        A model shares no gene with the truth, or all together leave fewer than two.
    """
    for g in models:
        if not g.genes & set(own):
            match("gene", list(g.files[0].gene_names), list(own), where=str(g.files[0].path))
    kept = [name for name in own if all(name in g.genes for g in models)]
    if len(kept) < 2:
        raise MisalignedError(
            f"{len(kept)} genes are in the truth and in every model's file, so nothing can be compared: "
            + "; ".join(f"{g.model} predicts {len(g.genes & set(own)):,} of {len(own):,}" for g in models)
            + ". Evaluate models of the same genes together."
        )
    if len(kept) == len(own):
        return kept, []
    lacking = {g.model: len(own) - len(g.genes & set(own)) for g in models}
    words = ", ".join(f"{m} lacks {n:,}" for m, n in lacking.items() if n)
    text = (
        f"Scored on {len(kept):,} of {len(own):,} genes, those that every model predicts: {words}. Scores on other "
        f"genes would differ, most of all the top ones."
    )
    return kept, [Finding("warning", "genes_common", text, len(own) - len(kept), numbers=lacking)]


def laid_out(model: Given, samples: pd.DataFrame, genes: Sequence[str], *, out: Float32) -> Mask:
    """Write the values of a model into an array; which samples (n,) it predicts.

    Parameters
    ----------
    model : matched files.
    samples : index = sample ids: rows of the array.
    genes : columns of the array.
    out : (n_samples, n_genes) float32, filled; NaN where the model predicts nothing.

    Raises
    ------
    InputError
        A predicted row holds NaN or infinity in places: only whole rows may be left out.
    """
    out[...] = np.nan
    broken: list[str] = []
    for file in model.files:
        columns = names_index(file.gene_names).get_indexer(names_index(genes))
        for chunk in file.chunks():
            at = samples.index.get_indexer(pd.Index(chunk.sample_ids, dtype=object))
            kept = at >= 0
            values = np.take(chunk.values[kept], columns, axis=1)
            out[at[kept]] = values
            finite = np.isfinite(values)
            holes = finite.any(axis=1) & ~finite.all(axis=1) | np.isinf(values).any(axis=1)
            broken += [chunk.sample_ids[i] for i in np.flatnonzero(kept)[holes]]
    if broken:
        raise InputError(
            f"{model.model}: NaN or infinite values in {len(broken):,} predicted rows: {first_few(broken, 5)}. A model "
            f"may leave out whole rows or whole genes, not single values. Mend the values or leave those rows out."
        )
    return np.asarray(np.isfinite(out[:, 0])) if out.shape[1] else np.zeros(len(samples), dtype=bool)


def scratch(shape: tuple[int, int], n_arrays: int) -> Float32:
    """An array of float32, in a scratch file that goes with it if ``n_arrays`` of them would fill the memory."""
    if 4 * shape[0] * shape[1] * n_arrays <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="pertstack-") as stream:
        stream.truncate(4 * shape[0] * shape[1])
        mapped: Any = np.memmap(stream, np.float32, "r+", shape=shape)
    return np.asarray(mapped)
