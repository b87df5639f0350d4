"""A test that is encrypted at rest: without the key no value of it can be had, and nothing is spent by trying."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import anndata
import numpy as np
import pytest

import pertstack as ps
from copies import copied
from pertstack._base.errors import CorruptionError, InputError, MissingFileError, StackingError
from pertstack.cli.entry import main
from pertstack.predictions.store.sealed import SealedStore
from pertstack.predictions.store.store import PredictionStore
from pertstack.study.outputs.for_the_paper import METHODS
from pertstack.study.steps.bundle import verify_bundle

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def made(world_file, fitted_study, tmp_path_factory):
    """(root of a stacked study with a sealed test, its key, the truth of the test as the same study holds it open)."""
    place = tmp_path_factory.mktemp("sealed")
    study = ps.Study.create(place / "study", data=world_file, seed=1, seal_test=place / "key.txt")
    assert all(r.ok for r in study.cross_fit(["mean_treated", "ridge"], engine="inline"))
    study.stack(["mean"])
    truth = PredictionStore.open(fitted_study.folder.path("test_truth"))
    return study.folder.root, place / "key.txt", {b: truth.read(b, "treated") for b in truth.blocks()}


@pytest.fixture
def sealed(made, tmp_path):
    return ps.Study.open(copied(made[0], tmp_path / "study"))


@pytest.fixture
def key(made):
    return made[1]


def chunks(study):
    return sorted(p for p in study.folder.path("test_truth").rglob("c/*/*") if p.is_file())


def nothing_spent(study):
    assert study.folder.ledger.looks() == 0 and not study.folder.ledger.of_kind("test_opened")
    assert not (study.folder.results / "leaderboard.json").exists()


def test_no_file_of_the_study_holds_a_row_of_the_test(sealed, made, key):
    rows = [row.astype("<f4").tobytes() for values in made[2].values() for row in values]
    assert len(rows) > 40
    for path in sealed.folder.root.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert not [r for r in rows if r[:32] in raw], path
    assert key.stat().st_mode & 0o077 == 0
    assert sealed.folder.test_key in key.read_text() and sealed.folder.test_key in sealed.describe()


def test_with_the_key_the_board_is_that_of_an_open_test(sealed, key, fitted):
    fitted.withdraw("perturbation_knn", "the sealed study has two models")
    fitted.stack(["mean"])
    board, plain = sealed.verdict(key=key), fitted.verdict()
    assert board.headline == plain.headline and board.test_looks == 1
    assert board.to_dict()["rows"] == plain.to_dict()["rows"]
    assert sealed.verdict().headline == board.headline  # the same look again: nothing is opened, no key is needed
    assert not [f for f in sealed.audit(deep=True) if f.severity == "error"]


def test_a_key_that_is_missing_wrong_or_damaged_opens_nothing(sealed, key, tmp_path, world_file):
    ps.Study.create(tmp_path / "other", data=world_file, seal_test=tmp_path / "other.txt")
    (tmp_path / "cut.txt").write_text(key.read_text()[:-20])
    (tmp_path / "edited.txt").write_text(key.read_text().translate(str.maketrans("0123456789", "1234567890")))
    (tmp_path / "none.txt").write_bytes(b"\xff\x00" * 3000)
    cases = [
        (None, InputError, "Ask whoever holds that key"),
        (tmp_path / "absent.txt", MissingFileError, "does not exist"),
        (tmp_path / "other.txt", InputError, "Nothing was opened"),
        (tmp_path / "cut.txt", InputError, "damaged"),
        (tmp_path / "edited.txt", InputError, "damaged"),
        (tmp_path / "none.txt", InputError, "is not the key"),
        (tmp_path, InputError, "is no file"),
    ]
    for given, kind, said in cases:
        with pytest.raises(kind, match=said):
            sealed.verdict(key=given)
        with pytest.raises(kind, match=said):
            sealed.export(tmp_path / "out.h5ad", with_truth=True, key=given)
        nothing_spent(sealed)
    assert sealed.verdict(key=key).test_looks == 1


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_ciphertext_spends_no_look_and_is_named(sealed, key, tmp_path, harm):
    path = chunks(sealed)[0]
    harm(path)
    for step in (
        lambda: sealed.verdict(key=key),
        lambda: sealed.export(tmp_path / "out.h5ad", with_truth=True, key=key),
    ):
        with pytest.raises(CorruptionError, match=str(path.relative_to(sealed.folder.root))):
            step()
        nothing_spent(sealed)
    assert str(path) in {f.where for f in sealed.audit() if f.severity == "error"}


def test_chunks_that_were_exchanged_or_brought_from_elsewhere_are_not_decrypted(sealed, key, tmp_path, world_file):
    """Same key, same size, other place: the tag covers where a chunk belongs."""
    twin = ps.Study.create(tmp_path / "twin", data=world_file, seed=1, seal_test=key)
    blocks = [b for b in sealed.folder.store.blocks() if b.role == "test"]
    secret = bytes.fromhex(key.read_text().split()[-1])
    for other in (chunks(twin)[0], chunks(sealed)[1]):
        study = ps.Study.open(copied(sealed.folder.root, tmp_path / f"at{other.stat().st_ino}"))
        shutil.copy(other, chunks(study)[0])
        store = SealedStore.open(study.folder.path("test_truth"))
        store.key = secret
        with pytest.raises(CorruptionError, match="cannot be decrypted"):
            for block in blocks:
                for layer in store.layers(block):
                    store.read(block, layer)


def test_taking_the_mark_out_of_the_study_opens_nothing(sealed):
    path = sealed.folder.path("study.toml")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("test_key")))
    study = ps.Study.open(sealed.folder.root)
    with pytest.raises(StackingError) as told:
        study.verdict()
    assert told.value.exit_code == 3
    nothing_spent(study)


def test_an_export_leaves_a_sealed_truth_out_and_takes_it_along_with_the_key(sealed, made, key, tmp_path):
    sealed.verdict(key=key)
    test = sealed.folder.samples.query("role == 'test'").index
    sealed.export(tmp_path / "without.h5ad")
    assert np.isnan(anndata.read_h5ad(tmp_path / "without.h5ad")[test].layers["treated"]).all()
    assert not sealed.folder.ledger.of_kind("test_opened")
    sealed.export(tmp_path / "with.zarr", key=key)
    out = anndata.read_zarr(tmp_path / "with.zarr")
    for block, values in made[2].items():
        ids = sealed.folder.store.sample_ids(block)
        np.testing.assert_array_equal(np.asarray(out[ids].layers["treated"]), values)
    assert len(sealed.folder.ledger.of_kind("test_opened")) == 1
    sealed.export(tmp_path / "pairs", to="cell-eval", models=["ridge"], key=key)


def test_rows_without_ids_are_matched_with_no_key(sealed, made, tmp_path):
    store = sealed.folder.store
    block, treated = next(iter(made[2].items()))
    control = store.read(block, "control")
    np.savez(tmp_path / "theirs.npz", predictions=control, treated_test=treated, diseased_test=control)
    sealed.add("theirs", tmp_path / "theirs.npz", fitted_on="unknown", scale="treated")
    np.testing.assert_array_equal(store.read(block, "theirs"), control)
    nothing_spent(sealed)


def test_the_bundle_of_a_sealed_study_is_verified_without_key(sealed, key, tmp_path):
    sealed.verdict(key=key)
    bundle = sealed.bundle(tmp_path / "b.zip")
    found = verify_bundle(bundle)
    assert found.is_sound and found.findings == ()
    with zipfile.ZipFile(bundle) as archive:
        said = archive.read(METHODS).decode()
        assert not [n for n in archive.namelist() if "test_truth" in n or "key" in n]
    assert f"before anything was fitted, encrypted under key {sealed.folder.test_key}, and opened once" in said


def test_init_refuses_a_key_inside_the_study_and_a_test_that_is_not_there(world_file, tmp_path, key):
    root = tmp_path / "s"
    with pytest.raises(InputError, match="lies in the study"):
        ps.Study.create(root, data=world_file, seal_test=root / "key.txt")
    with pytest.raises(InputError, match="nothing to seal"):
        ps.Study.create(root, data=world_file, test=0, seal_test=tmp_path / "k.txt")
    with pytest.raises(InputError, match="is not the key"):
        ps.Study.create(root, data=world_file, seal_test=world_file)
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path, Path("/proc/self/mem")):
        with pytest.raises((InputError, MissingFileError)):
            ps.Study.create(root, data=world_file, seal_test=path)
    assert not root.exists() and not (tmp_path / "k.txt").exists()


def test_a_key_for_a_test_that_is_not_sealed_is_refused(fitted, key):
    fitted.stack(["mean"])
    with pytest.raises(InputError, match="is not sealed"):
        fitted.verdict(key=key)
    nothing_spent(fitted)


def test_the_command_line_seals_and_opens(world_file, sealed, key, tmp_path, monkeypatch, capsys):
    def pertstack(*words):
        monkeypatch.setattr("sys.argv", ["pertstack", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    code, said = pertstack("init", tmp_path / "s", "--data", world_file, "--seal-test", tmp_path / "k.txt")
    assert code == 0 and "sealed with key" in said.out, said.err
    for step in ("verdict", "run"):
        code, said = pertstack(step, sealed.folder.root)
        assert code == 2 and "--key FILE" in said.err
    code, said = pertstack("verdict", sealed.folder.root, "--key", key, "--json")
    assert code == 0 and json.loads(said.out)["test_looks"] == 1
    assert pertstack("export", sealed.folder.root, tmp_path / "o.h5ad", "--key", key)[0] == 0


def test_without_the_library_init_says_what_to_install_and_makes_nothing(world_file, tmp_path, monkeypatch):
    monkeypatch.setattr("pertstack.predictions.store.sealed.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pertstack\[seal\]'"):
        ps.Study.create(tmp_path / "s", data=world_file, seal_test=tmp_path / "key.txt")
    assert not list(tmp_path.glob("*"))
