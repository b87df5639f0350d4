"""Aligned predictions of a study for other tools, with the shipped ensemble once the test was judged.

Treated values of the test go along when nothing is left to be protected, or on the user's word (``with_truth``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, first_few
from pertstack._base.files import whole
from pertstack._base.machine.memory import parse_bytes
from pertstack._base.machine.progress import remark
from pertstack.data.rows import Float32
from pertstack.predictions.exports import cell_eval_pair, export_anndata, export_npz
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.names import encode_name
from pertstack.reduce.read_tiles import ordered_blocks, read_tile
from pertstack.stacking.combiner import FittedCombiner
from pertstack.study.development.learned import Stored, stored_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.outputs.as_cells import export_cells
from pertstack.study.sealed_results import verdict_facts
from pertstack.study.shipped import fit_named, refuse_unjudged, what_ships
from pertstack.study.truth.held_out import HeldOutTruth

KINDS = {".h5ad": "h5ad", ".zarr": "zarr", ".npz": "npz", "": "cell-eval"}
ENSEMBLE = "ensemble"


def export_study(
    folder: StudyFolder,
    path: Path,
    *,
    to: str,
    models: Sequence[str] | None,
    with_truth: bool = False,
    key: Path | None = None,
    cells: Path | None = None,
    profiles: Path | None = None,
    per_target: int = 400,
    seed: int = 0,
    sampled: bool = False,
) -> list[Path]:
    """Write predictions of all blocks, aligned by name; treated values of the test only after the last planned look.

    Parameters
    ----------
    folder : of the study.
    path : of the file or folder to write.
    to : h5ad or zarr (one file: control, treated, every model and, after the verdict, ``ensemble`` on the test rows),
        npz (one model, or a folder with one file for each), cell-eval or scperteval (a folder with real and predicted
        profiles), cell-eval2 (the same, a pair for each of several cell lines), vcc (an .h5ad of cells for ``vcc
        prep``), or auto (from the name of ``path``). Model names in file names are percent-encoded as in the store.
    models : names; None for all.
    with_truth : also the treated values of the test before that, or under a rule of looks; the ledger says so and every
        later result is marked.
    key : the file with the key of a sealed test; without it the test's treated values are left out.
    cells, profiles, per_target, seed, sampled : for vcc only; see ``study.as_cells``.

    Raises
    ------
    InputError
        An unknown format, or something lies at ``path`` already.
    """
    kind = KINDS.get(path.suffix) if to == "auto" else to
    kind = "cell-eval" if kind == "scperteval" else kind  # scPertEval takes the same pair
    if kind not in (*KINDS.values(), "cell-eval2", "vcc"):
        raise InputError(
            f"Cannot tell the format of {path} (--to {to}). Use a name ending in .h5ad, .zarr or .npz, or "
            f"--to cell-eval with a folder, or --to vcc with a name ending in .h5ad."
        )
    if path.exists():
        raise InputError(f"{path} exists already. Remove it, or choose another name.")
    if kind == "vcc":
        one = models[0] if models is not None and len(models) == 1 else None
        made = export_cells(
            folder, path, cells=cells, model=one, profiles=profiles, per_target=per_target, seed=seed, sampled=sampled
        )
        return [made]
    judged = verdict_facts(folder) is not None
    ensemble = _what_ships(folder) if judged and models is None and kind in ("h5ad", "zarr") else None
    names = list(models) if models is not None else folder.store.models()
    if kind == "npz":
        return _npz(folder, path, names)
    door = HeldOutTruth(folder, key)
    due = judged and door.is_spent
    if due and door.is_locked and not with_truth:
        due = False
        remark(f"The test of {folder.root} is sealed: its treated values are left out. With --key FILE they go along.")
    truth = door.open("export", to=path.name, form=kind) if with_truth or due else None
    if kind in ("cell-eval", "cell-eval2"):
        by_line = kind == "cell-eval2"
        with whole(path) as part:
            written = [p.name for name in names for p in _cell_eval(folder, part, name, truth, by_line=by_line)]
        return [path / name for name in written]
    card = folder.card.to_json()
    more = {} if ensemble is None else {ENSEMBLE: _ensemble_rows(folder, *ensemble)}
    return [export_anndata(folder.store, path, models=names, role="all", truth=truth, card=card, more=more)]


def _npz(folder: StudyFolder, path: Path, names: Sequence[str]) -> list[Path]:
    """One file for one model, else a folder with a file for each."""
    card = folder.card.to_json()
    if len(names) == 1:
        return [export_npz(folder.store, path, names[0], role="all", card=card)]
    place = path.with_suffix("")
    if place.exists():
        raise InputError(f"{place} exists already. Remove it, or choose another name.")
    with whole(place) as part:
        for name in names:
            export_npz(folder.store, part / f"{encode_name(name)}.npz", name, role="all", card=card)
    return [place / f"{encode_name(name)}.npz" for name in names]


def _cell_eval(folder: StudyFolder, path: Path, name: str, truth: Any, *, by_line: bool) -> list[Path]:
    """A pair of all rows, or one for each of several cell lines: cell-eval2 knows perturbations only, takes the lines
    in a file for replicates, and finds no effect in them."""
    predicted, real = cell_eval_pair(
        folder.store, name, role="test" if truth is not None else "development", truth=truth
    )
    known = set(folder.samples["perturbation"].astype(str))
    if apart := sorted(set(real.obs["perturbation"]) - known - {"control"}):
        remark(
            f"Perturbations of several doses or times have these in their names ({first_few(apart, 3)}): judges "
            f"average all rows of one name."
        )
    path.mkdir(parents=True, exist_ok=True)
    lines = real.obs["cell_line"].astype(str)
    parts = {"": np.ones(len(lines), dtype=bool)}
    if by_line and lines.nunique() > 1:
        parts = {f".{encode_name(line)}": (lines == line).to_numpy() for line in sorted(lines.unique())}
    written = []
    for of, mine in parts.items():
        for what, data in (("predicted", predicted), ("real", real)):
            kept = data[mine].copy()
            kept.uns["pertstack_card"] = json.dumps(folder.card.to_json())
            written.append(path / f"{encode_name(name)}{of}.{what}.h5ad")
            kept.write_h5ad(written[-1])
    return written


def _what_ships(folder: StudyFolder) -> tuple[Stored, FittedCombiner] | None:
    """The stack and the fit that the headline names; None if the verdict says that nothing should be used."""
    stored = stored_stack(folder)
    refuse_unjudged(folder, stored)
    name = what_ships(folder, stored)
    return None if name is None else (stored, fit_named(folder, stored, name, workers=1))


def _ensemble_rows(folder: StudyFolder, stored: Stored, fitted: FittedCombiner) -> Iterator[Float32]:
    """What ships, on the rows of every test block in the store's order; NaN on development rows, on which the weights
    were learned."""
    source = StoreSource(
        folder.store,
        None,
        "all",
        stored.models,
        groups=folder.plan.groups,
        accept_unverified=stored.accept_unverified,
        distance=folder.training_distance,
    )
    step = max(1, parse_bytes("200 MB") // (4 * len(folder.gene_names) * (len(stored.models) + 3)))
    for block in ordered_blocks(source):
        n = folder.store.n_samples(block)
        for start in range(0, n, step):
            stop = min(n, start + step)
            if block.role == "development":
                yield np.full((stop - start, len(folder.gene_names)), np.nan, np.float32)
            else:
                yield fitted.combine(read_tile(source, folder.references, block, start=start, stop=stop))
