"""Aligned predictions of a study for other tools, with the shipped ensemble once the test was judged.

Treated values of the test go along when nothing is left to be protected, or on the user's word (``with_truth``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError
from pertstack._base.memory import parse_bytes
from pertstack.data.rows import Float32
from pertstack.predictions.exports import cell_eval_pair, export_anndata, export_npz
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.names import encode_name
from pertstack.reduce.read_tiles import ordered_blocks, read_tile
from pertstack.study.folder import StudyFolder
from pertstack.study.held_out import HeldOutTruth
from pertstack.study.learned import final_fits, stored_stack

KINDS = {".h5ad": "h5ad", ".zarr": "zarr", ".npz": "npz", "": "cell-eval"}
ENSEMBLE = "ensemble"


def export_study(
    folder: StudyFolder, path: Path, *, to: str, models: Sequence[str] | None, with_truth: bool = False
) -> list[Path]:
    """Write predictions of all blocks, aligned by name; treated values of the test only after the last planned look.

    Parameters
    ----------
    to : h5ad or zarr (one file: control, treated, every model and, after the verdict, ``ensemble`` on the test rows),
        npz (one model, or a folder with one file for each), cell-eval (a folder with real and predicted profiles), or
        auto (from the name of ``path``). Model names in file names are percent-encoded as in the store.

    with_truth : also the treated values of the test before that, or under a rule of looks; the ledger says so and every
        later result is marked.

    Raises
    ------
    InputError
        An unknown format, or something lies at ``path`` already.
    """
    kind = KINDS.get(path.suffix) if to == "auto" else to
    if kind not in KINDS.values():
        raise InputError(
            f"Cannot tell the format of {path} (--to {to}). Use a name ending in .h5ad, .zarr or .npz, or "
            f"--to cell-eval with a folder."
        )
    if path.exists():
        raise InputError(f"{path} exists already. Remove it, or choose another name.")
    judged = (folder.results / "verdict.json").exists()
    names = list(models) if models is not None else folder.store.models()
    if kind == "npz":
        targets = (
            {path: names[0]} if len(names) == 1 else {path.with_suffix("") / f"{encode_name(n)}.npz": n for n in names}
        )
        return [
            export_npz(folder.store, target, name, role="all", card=folder.card.to_json())
            for target, name in targets.items()
        ]
    door = HeldOutTruth(folder)
    truth = door.open("export", to=path.name, form=kind) if with_truth or (judged and door.is_spent) else None
    if kind == "cell-eval":
        return [p for name in names for p in _cell_eval(folder, path, name, truth)]
    card = folder.card.to_json()
    written = export_anndata(folder.store, path, models=names, role="all", truth=truth, card=card)
    if judged and models is None:
        _append_ensemble(folder, written)
    return [written]


def _cell_eval(folder: StudyFolder, path: Path, name: str, truth: Any) -> list[Path]:
    predicted, real = cell_eval_pair(
        folder.store, name, role="test" if truth is not None else "development", truth=truth
    )
    path.mkdir(parents=True, exist_ok=True)
    targets = [path / f"{encode_name(name)}.{what}.h5ad" for what in ("predicted", "real")]
    for target, data in zip(targets, (predicted, real), strict=True):
        data.uns["pertstack_card"] = json.dumps(folder.card.to_json())
        data.write_h5ad(target)
    return targets


def _append_ensemble(folder: StudyFolder, path: Path) -> None:
    """Layer ``ensemble``: the shipped combination on test rows; NaN on development rows, on which its weights were
    learned."""
    shape = (len(folder.samples), len(folder.gene_names))
    if path.suffix == ".h5ad":
        import h5py

        with h5py.File(path, "r+") as root:
            _fill(root["layers"], shape, _ensemble_rows(folder))
    else:
        import zarr

        _fill(zarr.open_group(str(path), mode="r+", use_consolidated=False)["layers"], shape, _ensemble_rows(folder))
        zarr.consolidate_metadata(str(path))


def _fill(layers: Any, shape: tuple[int, int], rows: Iterator[Float32]) -> None:
    create = getattr(layers, "create_array", None) or layers.create_dataset
    array = create(ENSEMBLE, shape=shape, dtype="float32", chunks=(max(1, min(512, shape[0])), shape[1]))
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    at = 0
    for values in rows:
        array[at : at + len(values)] = values
        at += len(values)


def _ensemble_rows(folder: StudyFolder) -> Iterator[Float32]:
    """Rows of every block in the store's order."""
    stored = stored_stack(folder)
    fitted = final_fits(folder, stored, workers=1, memory="1 GB")[stored.chosen]
    source = StoreSource(
        folder.store, None, "all", stored.models, groups=folder.plan.groups,
        accept_unverified=stored.accept_unverified, distance=folder.training_distance,
    )  # fmt: skip
    step = max(1, parse_bytes("200 MB") // (4 * len(folder.gene_names) * (len(stored.models) + 3)))
    for block in ordered_blocks(source):
        n = folder.store.n_samples(block)
        for start in range(0, n, step):
            stop = min(n, start + step)
            if block.role == "development":
                yield np.full((stop - start, len(folder.gene_names)), np.nan, np.float32)
            else:
                yield fitted.combine(read_tile(source, folder.references, block, start, stop))
