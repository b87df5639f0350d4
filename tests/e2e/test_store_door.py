"""The door of the store through the command line: what goes out and comes back scores the same, what does not belong
stays out and nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anndata
import numpy as np
import pandas as pd
import pytest

from copies import copied
from pertstack.cli.entry import main

from .conftest import ok


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The installed entry point with its exit codes and messages, without the start of a new process."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["pertstack", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Done(int(left.value.code or 0), said.out, " ".join(said.err.split()))

    return call


def refused(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, (word, done.err)


def fine(done: Done) -> Done:
    assert done.code == 0, done
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two models, not yet stacked: 240 samples x 40 genes, 2 cell lines, 3 folds. Copy before changing."""
    home = tmp_path_factory.mktemp("door")
    ok(
        "simulate",
        home / "w.h5ad",
        "--samples",
        240,
        "--genes",
        40,
        "--cell-lines",
        2,
        "--perturbations",
        30,
        "--seed",
        5,
    )
    ok("init", home / "study", "--data", home / "w.h5ad", "--seed", 2)
    ok("fit", home / "study", "--models", "mean_treated,ridge", "--no-nested")
    ok("export", home / "study", home / "ridge.npz", "--models", "ridge")
    return home


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return copied(base / "study", tmp_path / "study")


@dataclass
class Table:
    """Exported predictions as plain arrays."""

    values: np.ndarray
    ids: np.ndarray
    genes: np.ndarray
    folds: np.ndarray
    card: str

    @classmethod
    def load(cls, base: Path) -> Table:
        with np.load(base / "ridge.npz", allow_pickle=False) as f:
            return cls(f["predictions"], f["sample_ids"], f["gene_names"], f["fold_assignments"], str(f["card"]))

    def at(self, rows: Any, genes: Any = slice(None)) -> Table:
        return Table(self.values[rows][:, genes], self.ids[rows], self.genes[genes], self.folds[rows], self.card)

    def npz(self, path: Path, **more: Any) -> Path:
        arrays = {
            "predictions": np.ascontiguousarray(self.values),
            "sample_ids": self.ids,
            "gene_names": self.genes,
            "card": self.card,
        }
        np.savez(path, **{k: np.asarray(v) for k, v in {**arrays, **more}.items() if v is not None})
        return path

    def h5ad(self, path: Path) -> Path:
        data = anndata.AnnData(self.values, pd.DataFrame(index=self.ids), pd.DataFrame(index=self.genes))
        data.uns["pertstack_card"] = self.card
        data.write_h5ad(path)
        return path


@pytest.fixture(scope="module")
def table(base: Path) -> Table:
    return Table.load(base)


def rows_of(study: Path, name: str) -> list[dict]:
    board = json.loads((study / "results" / "leaderboard.json").read_text())
    return [row for row in board["rows"] if row["name"] == name]


def layers(study: Path, name: str) -> list[Path]:
    return sorted((study / "store").glob(f"blocks/*/layers/{name}"))


def nothing_left(study: Path, name: str) -> None:
    assert not layers(study, name)
    assert not list((study / "store" / "staging").iterdir())
    assert f'"{name}"' not in (study / "ledger.jsonl").read_text()


def add(run: Command, study: Path, name: str, *files: Path, fitted_on: object = "plan", more: tuple = ()) -> Done:
    return run("add", study, name, *files, "--fitted-on", fitted_on, "--scale", "treated", *more)


def test_out_shuffled_split_and_in_again_scores_exactly_the_same(
    run: Command, copy: Path, table: Table, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    files = []
    for fold in np.unique(table.folds):
        rows = rng.permutation(np.flatnonzero(table.folds == fold))
        piece = table.at(rows, rng.permutation(len(table.genes)))
        files.append(piece.h5ad(tmp_path / "f1.h5ad") if fold == 1 else piece.npz(tmp_path / f"f{fold}.npz"))
    fine(add(run, copy, "again", *files))
    for ours, theirs in zip(layers(copy, "ridge"), layers(copy, "again"), strict=True):
        chunks = sorted(p.relative_to(ours) for p in (ours / "c").rglob("0") if p.is_file())
        assert chunks and all((ours / c).read_bytes() == (theirs / c).read_bytes() for c in chunks)
    fine(run("stack", copy))
    fine(run("verdict", copy))
    first, second = rows_of(copy, "ridge"), rows_of(copy, "again")
    assert len(first) == len(second) >= 1 and {r["split"] for r in first} == {r["split"] for r in second}
    for a, b in zip(first, second, strict=True):
        assert a["scores"] == b["scores"] and len(a["scores"]) > 5
    fine(run("audit", copy, "--deep"))


def test_a_shift_by_one_row_is_refused_and_leaves_nothing(
    run: Command, copy: Path, table: Table, tmp_path: Path
) -> None:
    shifted = table.npz(tmp_path / "p.npz", sample_ids=np.roll(table.ids, 1))
    refused(add(run, copy, "shifted", shifted), 3)
    nothing_left(copy, "shifted")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"sample_ids": np.char.upper(t.ids)}, ("upper and lower case",)),
        (lambda t: {"gene_names": np.char.add(t.genes, ".7")}, ("version suffix",)),
        (lambda t: {"sample_ids": np.arange(len(t.ids)).astype(str)}, ("row numbers",)),
        (lambda t: {"gene_names": [f"ENSG{i:011d}" for i in range(len(t.genes))]}, ("another id style",)),
    ],
)
def test_names_that_differ_get_the_likely_cause(
    run: Command, base: Path, table: Table, tmp_path: Path, change: Callable, words: tuple[str, ...]
) -> None:
    path = table.npz(tmp_path / "p.npz", **change(table))
    refused(add(run, base / "study", "other", path), 3, "p.npz", *words)
    nothing_left(base / "study", "other")


def test_rows_a_model_was_fitted_on_are_counted_and_never_stacked(
    run: Command, copy: Path, table: Table, tmp_path: Path
) -> None:
    seen = table.ids[table.folds == 0][:7]
    ids = tmp_path / "fit_ids.txt"
    ids.write_text("\n".join([*seen, "a sample of another study"]))
    done = fine(add(run, copy, "elsewhere", table.npz(tmp_path / "p.npz"), fitted_on=ids))
    assert "7 rows were predicted by a model that was fitted on them" in done.err
    plan = pd.read_parquet(copy / "plan" / "folds.parquet").set_index("sample_id")
    groups = plan["group"][plan["role"] == "development"]
    beside = int(groups.isin(groups[list(seen)]).sum())  # nor are other rows of their groups out of fold
    assert beside > 7 and f"{beside - 7} rows were predicted by a model that was fitted on others" in done.err
    fine(run("stack", copy, "--combiners", "mean,simplex"))
    oof = json.loads((copy / "results" / "oof.json").read_text())
    assert oof["rows_seen"] == {"elsewhere": beside}


def test_unknown_provenance_waits_for_an_explicit_word(run: Command, copy: Path, table: Table, tmp_path: Path) -> None:
    done = fine(add(run, copy, "stranger", table.npz(tmp_path / "p.npz"), fitted_on="unknown"))
    assert "unverified" in done.err
    done = fine(run("stack", copy, "--combiners", "mean,simplex"))
    assert "stranger is not stacked" in done.err
    assert "stranger" not in json.loads((copy / "results" / "oof.json").read_text())["unverified"]
    done = fine(run("stack", copy, "--combiners", "mean,simplex", "--accept-unverified"))
    assert "stranger is stacked unverified" in done.err
    assert json.loads((copy / "results" / "oof.json").read_text())["unverified"] == ["stranger"]


def test_a_table_of_folds_and_fit_ids(run: Command, copy: Path, table: Table, tmp_path: Path) -> None:
    development = table.folds >= 0
    lines = [(f, i) for f in (0, 1, 2) for i in table.ids[development & (table.folds != f)]]
    path = tmp_path / "fits.csv"
    pd.DataFrame(lines, columns=["fold", "sample_id"]).to_csv(path, index=False)
    done = fine(add(run, copy, "tabled", table.npz(tmp_path / "p.npz"), fitted_on=path))
    assert "fitted on them" not in done.err, "no model saw what it predicts"
    pd.DataFrame([(0, i) for i in table.ids[development]], columns=["fold", "sample_id"]).to_csv(path, index=False)
    refused(add(run, copy, "short", table.npz(tmp_path / "p.npz"), fitted_on=path), 2, "no line for fold")
    nothing_left(copy, "short")


def test_partial_models_stay_partial(run: Command, copy: Path, table: Table, base: Path, tmp_path: Path) -> None:
    half = table.at(slice(None), slice(0, len(table.genes) // 2))
    lines = pd.Series(anndata.read_h5ad(base / "w.h5ad").obs["cell_line"])[table.ids].astype(str).to_numpy()
    one_line = table.at(lines == sorted(set(lines))[0])
    refused(add(run, copy, "half", half.npz(tmp_path / "half.npz")), 3, "announce them as missing")
    nothing_left(copy, "half")
    fine(add(run, copy, "half", tmp_path / "half.npz", more=("--missing", "record")))
    done = fine(add(run, copy, "one_line", one_line.npz(tmp_path / "one.npz")))
    assert "no predictions yet for" in done.err
    models = json.loads(fine(run("status", copy, "--json")).out)["models"]
    assert set(models["half"]["blocks"].values()) == {"partial"}
    assert models["one_line"]["missing"] == models["one_line"]["committed"] == 4
    fine(run("stack", copy, "--combiners", "mean,simplex"))
    fine(run("export", copy, tmp_path / "all.h5ad"))
    out = anndata.read_h5ad(tmp_path / "all.h5ad")
    assert np.isnan(out[:, table.genes[len(table.genes) // 2 :]].layers["half"]).all(), "never padded"
    assert np.isfinite(out[:, half.genes].layers["half"]).all()
    assert np.isnan(out[table.ids[lines != lines[lines == sorted(set(lines))[0]][0]]].layers["one_line"]).all()
    fine(run("export", copy, tmp_path / "half_again.npz", "--models", "half"))
    fine(add(run, copy, "half2", tmp_path / "half_again.npz", more=("--missing", "record")))
    first, second = layers(copy, "half"), layers(copy, "half2")
    assert [(p / "c/0/0").read_bytes() for p in first] == [(p / "c/0/0").read_bytes() for p in second]


def test_a_block_of_another_study_is_found_and_named(run: Command, copy: Path, base: Path, tmp_path: Path) -> None:
    fine(run("init", tmp_path / "other", "--data", base / "w.h5ad", "--seed", 9))
    fine(run("fit", tmp_path / "other", "--models", "mean_treated"))
    block = sorted((copy / "store" / "blocks").glob("*.zarr"))[0]
    shutil.rmtree(block)
    copied(tmp_path / "other" / "store" / "blocks" / block.name, block)
    done = run("audit", copy)
    assert done.code == 3 and block.name.removesuffix(".zarr") in done.out, done
    refused(run("stack", copy), 3)


def test_a_study_that_may_only_be_read(
    run: Command, copy: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system mounted read-only answers (permissions would stop nobody who is root)."""
    path, mkdir, opening = table.npz(tmp_path / "p.npz"), os.mkdir, os.open

    def read_only(target: Any) -> None:
        if not isinstance(target, int) and Path(os.fsdecode(target)).is_relative_to(copy):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))

    def no_mkdir(target: Any, *rest: Any, **named: Any) -> None:
        read_only(target)
        mkdir(target, *rest, **named)

    def no_open(target: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            read_only(target)
        return opening(target, flags, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", no_mkdir)
        patch.setattr(os, "open", no_open)
        refused(add(run, copy, "late", path), 2, "the file system is read-only")
        fine(run("status", copy))
        fine(run("audit", copy))
    nothing_left(copy, "late")
    fine(add(run, copy, "late", path))


@pytest.mark.parametrize("name", ["lab/net v2", ".hid.den", "__Zürich β-VAE"])
def test_any_name_goes_all_the_way(run: Command, copy: Path, table: Table, tmp_path: Path, name: str) -> None:
    fine(add(run, copy, name, table.npz(tmp_path / "p.npz")))
    assert name in json.loads(fine(run("status", copy, "--json")).out)["models"]
    fine(run("stack", copy, "--combiners", "mean,simplex"))
    assert name in (copy / "results" / "oof.json").read_text() or name in json.dumps(
        json.loads((copy / "results" / "weights.json").read_text()), ensure_ascii=False
    )
    fine(run("export", copy, tmp_path / "one.npz", "--models", name))
    fine(run("export", copy, tmp_path / "all.h5ad"))
    assert len(anndata.read_h5ad(tmp_path / "all.h5ad").layers) == 5
    fine(run("export", copy, tmp_path / "pairs", "--to", "cell-eval", "--models", name))
    fine(run("export", copy, tmp_path / "many.npz"))
    written = {unquote(p.name) for p in (tmp_path / "many").iterdir()}
    assert written == {f"{n}.npz" for n in (name, "ridge", "mean_treated")}, "one flat folder, names percent-encoded"
    assert {unquote(p.name) for p in (tmp_path / "pairs").iterdir()} == {
        f"{name}.{w}.h5ad" for w in ("predicted", "real")
    }
    fine(run("withdraw", copy, name, "--why", "a test"))
    assert name not in json.loads(fine(run("status", copy, "--json")).out)["models"]
    fine(run("audit", copy))


# -- the preprocessing card ------------------------------------------------------------------------------------------


def card_of(table: Table, **changes: Any) -> str:
    return json.dumps({**json.loads(table.card), **changes})


def test_cards_travel_and_agree(run: Command, copy: Path, table: Table, tmp_path: Path) -> None:
    assert json.loads(table.card) == json.loads((copy / "card.json").read_text())
    done = fine(add(run, copy, "with", table.npz(tmp_path / "p.npz")))
    assert "without a preprocessing card" not in done.err
    bare = table.npz(tmp_path / "bare.npz", card=None)
    assert "without a preprocessing card" in fine(add(run, copy, "bare", bare)).err
    done = fine(add(run, copy, "handed", bare, more=("--card", copy / "card.json")))
    assert "without a preprocessing card" not in done.err
    (tmp_path / "bare.npz.card.json").write_text(card_of(table, transform="counts", scale="delta"))
    refused(add(run, copy, "beside", bare), 3, "bare.npz", "transform differs", "scale differs", "--transform")
    nothing_left(copy, "beside")


def test_another_scale_is_refused_or_mapped_by_name(run: Command, copy: Path, table: Table, tmp_path: Path) -> None:
    own = json.loads(table.card)
    assert own["transform"] != "linear"
    linear = card_of(
        table,
        transform="linear",
        value_min=2 ** own["value_min"],
        value_max=2 ** own["value_max"],
        value_sd=100.0,
        gene_digest="x",
        gene_set_digest="y",
    )
    path = table.npz(tmp_path / "p.npz", predictions=np.exp2(table.values.astype(float)), card=linear)
    refused(add(run, copy, "linear", path), 3, "transform differs", "linear there", "log2")
    nothing_left(copy, "linear")
    refused(add(run, copy, "linear", path, more=("--transform", "exp2")), 2, "starts from log")
    refused(add(run, copy, "linear", path, more=("--transform", "lgo2")), 2, "log2")
    fine(add(run, copy, "linear", path, more=("--transform", "log2")))
    entry = json.loads((copy / "ledger.jsonl").read_text().splitlines()[-1])
    assert entry["facts"]["transform"] == "log2" and entry["facts"]["cards"] == ["card_matches"]
    fine(run("export", copy, tmp_path / "back.npz", "--models", "linear"))
    with np.load(tmp_path / "back.npz") as back:
        np.testing.assert_allclose(back["predictions"], table.values, rtol=1e-5, atol=1e-5)
