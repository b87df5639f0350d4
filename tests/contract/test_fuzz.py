"""Every door takes mutated files: refused in words or read, never a traceback, 20 seconds of work or a gigabyte.

A few mutations of each run in the gate; ``make test-all`` goes through five hundred a door (``FUZZ=n`` for another
number). Formats that carry checksums must not admit other values.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from fuzz import Outcome, many, mutated, tree, tried
from pertstack.data import FitRows, SideInformation, build_side, open_data, validate
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.foreign import read_split
from pertstack.fit.external.card import load_card
from pertstack.fit.external.exchange import read_answer
from pertstack.fit.profiles import load_models_toml
from pertstack.predictions.importers.cards import read_card
from pertstack.predictions.importers.fitted_file import read_fitted_on
from pertstack.predictions.importers.readers.opening import open_file

FEW = 12
N, G = 24, 6
GENES = [f"G{g}" for g in range(G)]
IDS = [f"s{i}" for i in range(N)]
DRUGS = [f"d{i % 8}" for i in range(N)]
RNG = np.random.default_rng(0)
VALUES = RNG.normal(8, 1, (N, G)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore")


def obs() -> pd.DataFrame:
    table = {"perturbation": DRUGS, "cell_line": ["A", "B"] * 12, "dose": 1.0, "plate": "p"}
    return pd.DataFrame(table, index=pd.Index(IDS, dtype=object))


def world() -> ad.AnnData:
    a = ad.AnnData(VALUES, obs=obs(), var=pd.DataFrame(index=GENES), layers={"control": VALUES - 1})
    a.obs["moa"] = pd.Categorical(["x", "y", "z"] * 8)
    a.uns["targets"] = {d: np.array(["G1", "G2"]) for d in set(DRUGS)}
    a.uns["other"] = np.arange(5.0)
    return a


def frame() -> pd.DataFrame:
    return pd.concat([obs().reset_index(names="sample_id"), pd.DataFrame(VALUES, columns=GENES)], axis=1)


def as_zarr(path: Path, a: ad.AnnData) -> None:
    before, ad.settings.zarr_write_format = ad.settings.zarr_write_format, 2
    a.write_zarr(path)
    ad.settings.zarr_write_format = before


def gctx(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = VALUES
        file["0/META/ROW/id"] = np.array(GENES, dtype="S")
        for name, column in {"id": IDS, "pert_id": DRUGS, "cell_iname": ["A549"] * N}.items():
            file[f"0/META/COL/{name}"] = np.array(column, dtype="S")
        file["0/META/COL/pert_type"] = np.array((["trt_cp"] * 5 + ["ctl_vehicle"]) * 4, dtype="S")
        file["0/META/COL/rna_plate"] = np.array(["P"] * N, dtype="S")


def predictions() -> pd.DataFrame:
    return pd.DataFrame(VALUES, index=pd.Index(IDS, name="sample_id"), columns=GENES)


def npz(path: Path) -> None:
    np.savez(path, predictions=VALUES, sample_ids=np.array(IDS), gene_names=np.array(GENES))


# -- what a door does with a file --------------------------------------------------------------------------------------


def init(path: Path, **options: Any) -> object:
    file = open_data(path, **options)
    validate(file)
    build_side(file.obs, file.gene_names, uns=file.uns)
    return [np.asarray(c.treated).tolist() for c in file.chunks()], list(file.sample_ids)


def add(path: Path) -> object:
    file = open_file(path)
    return [np.asarray(c.values).tolist() for c in file.chunks()], list(file.sample_ids)


def side(path: Path, what: str) -> object:
    return str(build_side(obs(), GENES, **{what: path}))


def plan(path: Path) -> object:
    found = read_split(path, obs())
    return str(FoldPlan.from_file(path, obs(), group_by="perturbation").table if found is None else found.table)


def answer(path: Path) -> object:
    """What an external program wrote, of which the names of samples and genes are known."""
    (path.parent / "card.toml").write_text(CARD)
    names = [np.array(v, dtype=object) for v in (GENES, IDS)]
    table = FitRows(names[0], VALUES - 1, obs(), SideInformation(), VALUES, np.arange(N))
    found = read_answer(path.parent, load_card(path.parent / "card.toml"), table, predict=table)
    return found.treated.tolist()


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def csv_of(table: pd.DataFrame, **how: Any) -> Callable[[Path], object]:
    return lambda path: table.to_csv(path, index=False, **how)


FEATURES = pd.DataFrame(RNG.normal(size=(8, 3)), index=pd.Index(sorted(set(DRUGS)), name="perturbation")).reset_index()
TARGETS = pd.DataFrame({"perturbation": sorted(set(DRUGS)), "gene": (GENES * 2)[:8]})
EDGES = pd.DataFrame({"a": GENES[:5], "b": GENES[1:], "score": [900, 800, 700, 600, 500]})
FOLDS = pd.DataFrame({"sample_id": IDS, "role": ["test" if d in ("d0", "d7") else "development" for d in DRUGS]})
FOLDS["fold"] = [None if d in ("d0", "d7") else int(d[1]) % 3 for d in DRUGS]
CARD = """format = 1
name = "theirs"
summary = "a model"
[run]
command = ["python", "run.py", "{folder}"]
scale = "treated"
time_limit = 60
memory = 1000000000
[needs]
features = ["structure"]
targets = true
[params]
size = 7
"""
MODELS = 'profile = "fast"\n[ridge]\npenalty = 0.5\n[perturbation_knn]\nk = 5\n'


@dataclass(frozen=True)
class Door:
    """A file that somebody brings, and what reads it. ``checked``: its bytes carry checksums, so a change that did not
    make them right again is never read as other values."""

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    checked: bool = False


DOORS = {
    "init h5ad": Door("w.h5ad", lambda p: world().write_h5ad(p), init),
    "init zarr": Door("w.zarr", lambda p: as_zarr(p, world()), init),
    "init csv.gz": Door("w.csv.gz", csv_of(frame()), lambda p: init(p, delta=True), checked=True),
    "init tsv.gz": Door("w.tsv.gz", csv_of(frame(), sep="\t"), lambda p: init(p, delta=True), checked=True),
    "init parquet": Door("w.parquet", lambda p: frame().to_parquet(p), lambda p: init(p, delta=True)),
    "init gctx": Door("w.gctx", gctx, init),
    "side features csv": Door("f.csv", csv_of(FEATURES), lambda p: side(p, "features")),
    "side features parquet": Door("f.parquet", FEATURES.to_parquet, lambda p: side(p, "features")),
    "side targets": Door("t.tsv", csv_of(TARGETS, sep="\t"), lambda p: side(p, "targets")),
    "side graph": Door("g.csv.gz", csv_of(EDGES), lambda p: side(p, "graph")),
    "plan csv": Door("plan.csv", csv_of(FOLDS), plan),
    "plan parquet": Door("plan.parquet", lambda p: FOLDS.to_parquet(p), plan),
    "plan json": Door("split.json", text(json.dumps({"train": DRUGS[1:6], "test": DRUGS[:1]})), plan),
    "plan pickle": Door(
        "split.pkl", lambda p: p.write_bytes(pickle.dumps({"train": DRUGS[1:6], "test": ["d0"]})), plan
    ),
    "plan.toml": Door("plan.toml", AnalysisPlan().save, AnalysisPlan.load),
    "fitted on csv": Door("ids.csv", lambda p: FOLDS[["sample_id", "fold"]].to_csv(p, index=False), read_fitted_on),
    "card of a model": Door("card.toml", text(CARD), lambda p: load_card(p).row),
    "models.toml": Door("models.toml", text(MODELS), load_models_toml),
    "card of predictions": Door(
        "c.json",
        text(json.dumps({"scale": "log2", "transform": "none"})),
        lambda p: read_card(p.read_text("latin1"), p),
    ),
    "add h5ad": Door("p.h5ad", lambda p: world().write_h5ad(p), add),
    "add zarr": Door("p.zarr", lambda p: as_zarr(p, world()), add),
    "add npz": Door("p.npz", npz, add, checked=True),
    "add csv.gz": Door("p.csv.gz", lambda p: predictions().to_csv(p), add, checked=True),
    "add tsv.gz": Door("p.tsv.gz", lambda p: predictions().to_csv(p, sep="\t"), add, checked=True),
    "add parquet": Door("p.parquet", lambda p: predictions().to_parquet(p), add),
    "add feather": Door("p.feather", lambda p: predictions().reset_index().to_feather(p), add),
    "answer h5ad": Door("predictions.h5ad", lambda p: world().write_h5ad(p), answer),
    "answer npz": Door("predictions.npz", npz, answer, checked=True),
    "answer csv": Door("predictions.csv", lambda p: predictions().to_csv(p), answer),
    "add pickle": Door("p.pkl", lambda p: predictions().to_pickle(p), add),
}


def went_through(door: Door, tmp_path: Path, numbers: range) -> list[Outcome]:
    original = tmp_path / "original" / door.name
    original.parent.mkdir()
    door.make(original)
    there = door.read(original)  # also warms up what is compiled or imported once

    def step(number: int) -> object:
        place = tmp_path / f"m{number}"
        place.mkdir()
        path = place / door.name
        shutil.copytree(original, path) if original.is_dir() else shutil.copy(original, path)
        packed_again = mutated(path, np.random.default_rng(number))
        try:
            value = door.read(path)
            if door.checked and not packed_again and value != there:
                raise AssertionError("other values were admitted under a checksum that does not fit")
            return value
        finally:
            shutil.rmtree(place)

    return tried(step, numbers)


def held(door: Door, tmp_path: Path, numbers: range) -> None:
    found = went_through(door, tmp_path, numbers)
    assert len(found) == len(numbers)
    failed = [f"mutation {o.number}: {o.said}" for o in found if o.kind == "failed"]
    assert not failed, "\n".join([f"{len(failed)} of {len(numbers)}", *failed[:20]])
    stem = door.name.split(".")[0]
    silent = [o.number for o in found if o.kind == "refused" and stem not in o.said and "'" not in o.said]
    assert not silent, f"the file is not named in the refusals of {silent[:10]}"


@pytest.mark.parametrize("name", DOORS)
def test_a_mutated_file_is_refused_in_words_or_read(tmp_path: Path, name: str) -> None:
    held(DOORS[name], tmp_path, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
def test_many_mutated_files_are_refused_in_words_or_read(tmp_path: Path, name: str) -> None:
    held(DOORS[name], tmp_path, many())


@pytest.mark.slow
def test_many_mutated_checkpoints_are_refused_in_words_or_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from pertstack.fit.torch.common.checkpoint import Identity, read_checkpoint, write_checkpoint

    identity = Identity("rows", "params")
    state = {"epoch": 3, "model": {"w": torch.ones(4, 3)}, "loss": [0.5, 0.25]}
    door = Door(
        "checkpoint.pt", lambda p: write_checkpoint(p, identity, state), lambda p: str(read_checkpoint(p, identity))
    )
    held(door, tmp_path, many())


def test_the_child_tells_of_a_traceback_a_crash_a_hang_and_a_gigabyte() -> None:
    def step(number: int) -> object:
        if number == 1:
            raise KeyError("x")
        if number == 2:
            os.abort()
        return len(bytearray(b"x" * 11 * 10**8)) if number == 3 else number

    found = tried(step, range(5))
    assert [o.kind for o in found] == ["read", "failed", "failed", "failed", "read"]
    assert "KeyError" in found[1].said and "signal" in found[2].said and "memory" in found[3].said


def test_other_values_where_a_checksum_should_have_told_are_a_failure(tmp_path: Path) -> None:
    door = Door("p.txt", text("1234567890" * 9), lambda p: p.read_bytes().decode("latin1"), checked=True)
    with pytest.raises(AssertionError, match="other values were admitted"):
        held(door, tmp_path, range(4))


def test_a_tree_is_changed_in_one_place() -> None:
    value = {"a": [1, {"b": 2}], "c": "d"}
    changed = [tree(value, np.random.default_rng(k)) for k in range(50)]
    assert value == {"a": [1, {"b": 2}], "c": "d"} and all(json.dumps(c) != json.dumps(value) for c in changed)
