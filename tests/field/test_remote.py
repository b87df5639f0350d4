"""Data and predictions that lie in an object store or on the web, and what is said when they cannot be had."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import threading
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import PERTSTACK, pertstack
from pertstack._base.errors import InputError, MissingFileError
from pertstack._base.reading import remote
from pertstack.data.readers.open import open_data
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.new_rows.evaluation_rows import matched_values
from pertstack.study.study import Study
from references import object_stores
from references import prediction_files as files

fsspec = pytest.importorskip("fsspec")
SECRET = "hunter2"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the truth as h5ad and zarr, and a prediction file; and the predicted profiles."""
    folder = tmp_path_factory.mktemp("store")
    frame = files.profiles(files.truth(folder))
    anndata.read_h5ad(folder / "truth.h5ad").write_zarr(folder / "truth.zarr")
    obs = pd.DataFrame({"condition": frame.index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    files.h5ad(folder / "m.h5ad", frame, obs, files.GENES)
    return folder, frame


def in_store(world, put):
    """Truth and predictions as matched from a store: the values of the files, row by row."""
    _, frame = world
    for name in ("truth.h5ad", "truth.zarr"):
        found = matched_values(put(name), {"m": put("m.h5ad")})
        theirs = frame.loc[found.samples["perturbation"]]
        np.testing.assert_allclose(found.values["m"], theirs, rtol=0, atol=1e-6)
        assert len(found.samples) == 36


@pytest.fixture
def memory(world):
    system = fsspec.filesystem("memory")
    system.put(str(world[0]), "/bucket", recursive=True)
    remote._copied.cache_clear()
    yield lambda name: f"memory://bucket/{name}"
    system.rm("/bucket", recursive=True)


def test_any_store_of_fsspec(world, memory):
    in_store(world, memory)
    assert open_data(memory("truth.h5ad")).path == "memory://bucket/truth.h5ad"


def test_commands_take_addresses(world, memory, tmp_path):
    """``init``, ``add`` and ``evaluate``; a path type that loses one of the slashes does no harm."""
    done = pertstack("init", "study", "--data", memory("truth.h5ad"), "--folds", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'data = "memory://bucket/truth.h5ad"' in (tmp_path / "study" / "study.toml").read_text()
    words = ("--fitted-on", "unknown", "--scale", "treated")
    done = pertstack("add", "study", "m", memory("m.h5ad"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = pertstack("evaluate", memory("truth.zarr"), f"other={memory('m.h5ad')}", cwd=tmp_path)
    assert done.returncode == 0 and "other" in done.stdout, done.stderr


def test_splits_features_and_lists_are_taken_from_addresses(world, memory, tmp_path):
    """Whatever a command takes as a file beside the data."""
    system, names = fsspec.filesystem("memory"), sorted(world[1].index)
    split = {"fold_0": {"train": names[9:], "test": names[:9]}, "fold_1": {"train": names[:9], "test": names[9:]}}
    system.pipe("/bucket/kfold_splits.json", json.dumps(split).encode())
    table = pd.DataFrame({"perturbation": names, "a": range(18), "b": 1.0})
    system.pipe("/bucket/features.csv", table.to_csv(index=False).encode())
    words = ("--plan", memory("kfold_splits.json"), "--features", memory("features.csv"))
    done = pertstack("init", "study", "--data", memory("truth.h5ad"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = Study.open(tmp_path / "study")
    assert study.folder.plan.n_folds == 2 and list(study.folder.side.features["user"].columns) == ["a", "b"]
    said = ("--fitted-on", memory("kfold_splits.json"), "--scale", "treated")
    done = pertstack("add", "study", "m", memory("m.h5ad"), *said, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def web(world):
    pytest.importorskip("aiohttp")
    handler = functools.partial(Quiet, directory=str(world[0]))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_web(world, web):
    in_store(world, lambda name: f"{web}/{name}")
    with pytest.raises(MissingFileError, match="Nothing lies at"):
        open_data(f"{web}/absent.h5ad?token={SECRET}")


def test_s3(world, monkeypatch):
    """A local server of S3, with credentials from the environment."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "someone"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    try:
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("bucket")
        system.put(str(world[0]) + "/", "bucket/", recursive=True)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        in_store(world, lambda name: f"s3://bucket/{name}")
        with pytest.raises(MissingFileError, match="Nothing lies at s3://bucket/absent"):
            open_data("s3://bucket/absent.h5ad")
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "package"), [("gs://bucket", "gcsfs"), ("hf://datasets/me/screen", "huggingface_hub")]
)
def test_google_and_hugging_face(world, tmp_path, kind, package):
    """Their own clients, in a process of its own (one reads the address when imported), against a local server."""
    pytest.importorskip(package)
    server, address = object_stores.serve(world[0])
    told = {"STORAGE_EMULATOR_HOST": address, "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [str(PERTSTACK), "evaluate", f"{kind}/truth.zarr", f"m={kind}/m.h5ad"]
    try:
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        table = ScoreTable.load(tmp_path / "evaluation" / "scores.npz")
        here = matched_values(world[0] / "truth.h5ad", {"m": world[0] / "m.h5ad"})
        theirs = np.sqrt(((here.treated - here.values["m"]) ** 2).mean(axis=1))
        at = {s: i for i, s in enumerate(here.samples.index)}
        order = [at[s] for s in table.samples["sample_id"]]
        np.testing.assert_allclose(table.values("m", "rmse_all"), theirs[order], rtol=1e-5)
        command[2] = f"{kind}/absent.h5ad"
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and f"Nothing lies at {kind}/absent.h5ad" in " ".join(done.stderr.split())
    finally:
        server.shutdown()


def test_a_bucket_that_cannot_be_reached_is_refused_within_seconds(monkeypatch, tmp_path):
    """Nothing listens on the port; the store's own patience is minutes."""
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 5.0)
    remote._copied.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    done = pertstack("evaluate", "s3://bucket/truth.h5ad", "m=s3://bucket/m.h5ad", cwd=tmp_path)
    assert done.returncode == 2 and "s3://bucket/m.h5ad" in done.stderr and "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_a_store_that_does_not_answer_is_given_up(world, memory, monkeypatch):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", lambda *a, **k: time.sleep(3))
    with pytest.raises(InputError, match=r"did not answer within 0 seconds.*Copy the file here"):
        open_data(memory("truth.h5ad"))


def test_a_store_without_its_package_names_the_command(world, memory, monkeypatch):
    def missing(name):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match=r"Install s3fs to access S3.*pip install 'pertstack\[remote\]'"):
        open_data("s3://bucket/cells.h5ad")


def test_a_copy_that_the_disk_cannot_hold_is_refused(world, memory, monkeypatch):
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: type("U", (), {"free": 10})())
    with pytest.raises(InputError, match="point TMPDIR to a larger disk"):
        open_data(memory("truth.h5ad"))


@pytest.mark.parametrize("address", [f"sftp://me:{SECRET}@host/x.h5ad", f"oss://bucket/x.h5ad?token={SECRET}"])
def test_other_kinds_of_addresses_are_refused_in_words(address, tmp_path):
    """They were once files that do not exist."""
    done = pertstack("init", "study", "--data", address, cwd=tmp_path)
    assert done.returncode == 2 and "are not read. Known are s3, s3a, gs" in " ".join(done.stderr.split())
    assert "x.h5ad" in done.stderr and SECRET not in done.stderr
    done = pertstack("evaluate", "truth.h5ad", f"m={address}", cwd=tmp_path)
    assert done.returncode == 2 and "are not read. Known are" in " ".join(done.stderr.split())


def test_the_address_of_a_file_is_the_file(world):
    assert open_data(f"file://{world[0] / 'truth.h5ad'}").n_samples == 36


@pytest.mark.parametrize(
    "address",
    [
        f"https://me:{SECRET}@host.example/x.h5ad",
        f"https://host.example/x.h5ad?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
        f"s3://key:{SECRET}@bucket/x.h5ad",
        f"https:/me:{SECRET}@host.example/x.h5ad",
    ],
)
def test_credentials_in_an_address_are_not_shown(address, monkeypatch, tmp_path):
    """In messages, also where the library repeats the address in its own."""

    def refuse(url, **options):
        raise OSError(f"cannot open {url} (at {address})")

    remote._copied.cache_clear()
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda name: None)
    monkeypatch.setattr(remote, "_patience", dict)
    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    done = pertstack("--debug", "init", "study", "--data", address, cwd=tmp_path)
    assert done.returncode == 2 and "x.h5ad" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert SECRET not in remote.redacted(f"in a text ({address}), 'quoted {address}'")
    assert not (tmp_path / "study").exists()


def test_a_signed_address_is_stored_without_its_signature(world, memory, tmp_path, monkeypatch):
    asked = remote._asked

    def strip(address, shown):
        return asked(address.partition("?")[0], shown)

    monkeypatch.setattr(remote, "_asked", strip)
    done = pertstack("init", "study", "--data", f"{memory('truth.h5ad')}?sig={SECRET}", "--folds", 2, cwd=tmp_path)
    assert done.returncode == 0 and SECRET not in done.stdout + done.stderr
    for path in (tmp_path / "study").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
