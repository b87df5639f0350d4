"""Predictions for others: one AnnData file with every layer, npz with ids, pairs for cell-eval.

Held-out treated values leave only when the caller passes the truth store, which ``HeldOutTruth`` alone opens.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, LeakError, unknown_name
from pertstack._base.files import whole
from pertstack._base.reading.tables import plain_texts
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block, Role
from pertstack.predictions.store.files.chunks import DTYPE
from pertstack.predictions.store.reader import StoreReader

Which = Role | Literal["all"]


def export_anndata(
    store: StoreReader,
    path: str | Path,
    *,
    models: Sequence[str] | None = None,
    role: Which = "development",
    truth: StoreReader | None = None,
    card: Mapping[str, Any] | None = None,
    more: Mapping[str, Iterable[Float32]] | None = None,
) -> Path:
    """One .h5ad or .zarr: X absent, layers control, treated and every model; NaN where not predicted. Written by
    chunks, and there whole or not at all.

    Parameters
    ----------
    store : development rows, and controls of test rows.
    path : of the file; the suffix says the format.
    models : names; None for all.
    role : "development", "test" or "all".
    truth : store of the test's treated values; without it they are NaN.
    card : the study's preprocessing card, for ``uns["pertstack_card"]`` as JSON.
    more : further layers by name, all their rows in order, some at a time.

    Raises
    ------
    InputError
        Another suffix, or the file exists.
    """
    from anndata.io import write_elem  # slow to import

    path = Path(path)
    blocks = _blocks(store, role)
    names = _models(store, models)
    with _new_anndata(path) as root:
        write_elem(root, "obs", _obs(store, blocks))
        write_elem(root, "var", pd.DataFrame(index=pd.Index(store.gene_names)))
        for part in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            write_elem(root, part, {"pertstack_card": json.dumps(dict(card))} if part == "uns" and card else {})
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        n = sum(store.n_samples(b) for b in blocks)
        for name in ("control", "treated", *names):
            key = name if "/" not in name else name.replace("/", "∕")  # a slash would make a group
            _write_layer(root["layers"], key, (n, store.facts.n_genes), _chunks(store, blocks, name, truth=truth))
        for name, rows in (more or {}).items():
            _write_layer(root["layers"], name, (n, store.facts.n_genes), rows)
    return path


def _write_layer(layers: Any, key: str, shape: tuple[int, int], chunks: Iterable[Float32]) -> None:
    size = (max(1, min(512, shape[0])), shape[1])
    create = getattr(layers, "create_array", None) or layers.create_dataset
    array = create(key, shape=shape, dtype="float32", chunks=size)
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    at = 0
    for values in chunks:
        array[at : at + len(values)] = values
        at += len(values)


@contextmanager
def _new_anndata(path: Path) -> Iterator[Any]:
    if path.exists():
        raise InputError(f"{path} exists. Choose another name, or remove it first.")
    if path.suffix not in (".h5ad", ".zarr"):
        raise InputError(f"{path}: AnnData files end in .h5ad or .zarr. Name it so.")
    with whole(path) as part:
        if path.suffix == ".h5ad":
            import h5py

            with h5py.File(part, "w") as file:
                yield file
        else:
            import zarr

            yield zarr.open_group(str(part), mode="w", zarr_format=3)
            zarr.consolidate_metadata(str(part))


def export_npz(
    store: StoreReader,
    path: str | Path,
    model: str,
    *,
    role: Which = "development",
    card: Mapping[str, Any] | None = None,
) -> Path:
    """One model: predictions, sample_ids, gene_names, fold_assignments (-1 = test) and the preprocessing card (JSON),
    as ``pertstack add`` reads them back. Genes that the model predicts nowhere are left out.

    Parameters
    ----------
    store : of the predictions.
    path : of the file; ``.npz`` is appended if it lacks.
    model : name.
    role : "development", "test" or "all".
    card : the study's preprocessing card; None leaves it out.
    """
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    blocks = [b for b in _blocks(store, role) if store.status(b, _models(store, [model])[0]) == "committed"]
    ids = [i for b in blocks for i in store.sample_ids(b)]
    folds = [-1 if b.fold is None else b.fold for b in blocks for _ in range(store.n_samples(b))]
    gaps = [set(store.record(b, model).missing_genes) for b in blocks]
    nowhere = set.intersection(*gaps) if gaps else set()
    there = np.array([str(g) not in nowhere for g in store.gene_names], dtype=bool)
    arrays: dict[str, Any] = {
        "sample_ids": np.array(ids, dtype=str),
        "fold_assignments": np.array(folds),
        "gene_names": np.array([str(g) for g in store.gene_names], dtype=str)[there],
        "plan_digest": np.array(store.plan_digest or ""),
    }
    if card is not None:
        arrays["card"] = np.array(json.dumps(dict(card)))
    shape = (len(ids), int(there.sum()))
    rows = (values if there.all() else values[:, there] for values in _chunks(store, blocks, model, truth=None))
    _write_npz(path, shape, rows, arrays)
    return path


def _write_npz(path: Path, shape: tuple[int, int], rows: Iterator[Float32], others: Mapping[str, Any]) -> None:
    """An npz as ``np.savez`` writes it, its ``predictions`` a few rows at a time; there whole or not at all."""
    header = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
    with whole(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("predictions.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for values in rows:
                stream.write(np.ascontiguousarray(values, dtype=DTYPE).data)
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def cell_eval_pair(
    store: StoreReader,
    model: str,
    *,
    role: Role = "development",
    truth: StoreReader | None = None,
    control_name: str = "control",
) -> tuple[Any, Any]:
    """(predicted, real) AnnData as cell-eval takes them: profiles in X, ``obs.perturbation``, and each sample's control
    as a separate row. Only samples the model predicted; whole in memory.

    Parameters
    ----------
    store : of the predictions.
    model : name; must predict all genes.
    role : "development" or "test".
    truth : store of the test's treated values.
    control_name : what controls are called in ``obs.perturbation``.

    Raises
    ------
    LeakError
        ``role='test'`` without the truth store.
    """
    if role == "test" and truth is None:
        raise LeakError("Treated values of the test leave only through the verdict. Run `pertstack verdict` first.")
    name = _models(store, [model])[0]
    predicted, real, tables = [], [], []
    for block in _blocks(store, role):
        if store.status(block, name) != "committed":
            continue
        record = store.record(block, name)
        if record.missing_genes:
            raise InputError(
                f"{name!r} predicts only some genes; cell-eval needs the same genes on both sides. Name the models "
                f"that predict all of them with --models."
            )
        keep = ~np.isin(np.asarray(store.sample_ids(block), dtype=object), record.missing_samples)
        control = store.read(block, "control")[keep]
        source = store if block.role == "development" else truth
        assert source is not None
        obs = store.obs(block)[keep].assign(block=block.id)
        wells = obs.set_index(obs.index + ":control").assign(perturbation=control_name)
        predicted += [store.read(block, name)[keep], control]
        real += [source.read(block, "treated")[keep], control]
        tables += [obs, wells]
    if not tables:
        raise InputError(f"{name!r} has no predictions in the {role} rows; there is nothing to export.")
    import anndata  # slow to import

    obs, var = _told_apart(pd.concat(tables), control_name), pd.DataFrame(index=pd.Index(store.gene_names))
    return (
        anndata.AnnData(X=np.concatenate(predicted), obs=obs, var=var),
        anndata.AnnData(X=np.concatenate(real), obs=obs, var=var),
    )


def _told_apart(obs: pd.DataFrame, control_name: str) -> pd.DataFrame:
    """Samples whose perturbation was done at several doses or times, with these behind its name: judges that know
    perturbations alone would average over them."""
    names = obs["perturbation"].astype(str)
    several = pd.Series(names != control_name)
    for said in (_doses(obs), _times(obs)):
        many = said.groupby(names.to_numpy()).transform("nunique") > 1
        obs = obs.assign(perturbation=obs["perturbation"].astype(str) + said.where(many & several, ""))
    return obs


def _doses(obs: pd.DataFrame) -> pd.Series[Any]:
    """The dose of every sample in words, after a blank; nothing if it is unknown."""
    unit = obs["dose_unit"].fillna("").astype(str) if "dose_unit" in obs else pd.Series("", index=obs.index)
    found = pd.Series("", index=obs.index)
    if "dose" in obs:
        given = pd.to_numeric(obs["dose"], errors="coerce")
        found = given.map(lambda v: "" if pd.isna(v) else f" {v:g}").astype(str) + (" " + unit).where(unit != "", "")
        found = found.where(given.notna(), "")
    if "log10_dose" in obs:
        molar = obs["log10_dose"].map(lambda v: "" if pd.isna(v) else f" {10**v:.4g}")
        found = (molar + np.where(unit == "", "", " uM")).where(obs["log10_dose"].notna(), found)
    return found


def _times(obs: pd.DataFrame) -> pd.Series[Any]:
    if "time_h" not in obs:
        return pd.Series("", index=obs.index)
    return obs["time_h"].map(lambda v: "" if pd.isna(v) else f" {v:g} h")


def _blocks(store: StoreReader, role: Which) -> list[Block]:
    return store.blocks(None if role == "all" else role)


def _models(store: StoreReader, models: Sequence[str] | None) -> list[str]:
    known = store.models()
    for name in models or ():
        if name not in known:
            raise unknown_name("model", name, known)
    return known if models is None else list(models)


def _obs(store: StoreReader, blocks: Sequence[Block]) -> pd.DataFrame:
    tables = [store.obs(b).assign(block=b.id, role=b.role, fold=-1 if b.fold is None else b.fold) for b in blocks]
    obs = plain_texts(pd.concat(tables))
    for column in obs.columns:
        if obs[column].dtype == object:
            obs[column] = pd.Categorical(obs[column].where(obs[column].isna(), obs[column].map(str)))
    return obs


def _chunks(
    store: StoreReader, blocks: Sequence[Block], name: str, *, truth: StoreReader | None, n_rows: int = 512
) -> Iterator[Float32]:
    for block in blocks:
        source = truth if truth is not None and block.role == "test" and name == "treated" else store
        there = source.status(block, name) == "committed"
        n = store.n_samples(block)
        for start in range(0, n, n_rows):
            stop = min(start + n_rows, n)
            if there:
                yield source.read(block, name, start=start, stop=stop)
            else:
                yield np.full((stop - start, store.facts.n_genes), np.nan, DTYPE)
