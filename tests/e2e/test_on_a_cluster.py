"""Steps on a Dask cluster of two processes: the same bits, and what happens when a worker is unwell."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copies import copied
from pertstack._base.errors import InputError, IntegrityError, StackingError
from pertstack.study.study import Study

from .conftest import ok, pertstack

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with plates and three fitted models, one with nested fits, nothing summed yet. Copy it."""
    folder = tmp_path_factory.mktemp("cluster")
    world, study = folder / "world.h5ad", folder / "study"
    ok("simulate", world, "--samples", 240, "--genes", 40, "--cell-lines", 2, "--perturbations", 30, "--seed", 5)
    ok("init", study, "--data", world, "--seed", 1)
    ok("fit", study, "--models", "mean_treated,per_gene_linear,ridge")
    ok("plan", study, "--primary", "r2_top20@pooled")
    return study


@contextmanager
def two_workers() -> Iterator[Any]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as started,
        distributed.Client(started) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers for all tests; leave them whole."""
    with two_workers() as found:
        yield found


def sums(study: Path) -> dict[str, bytes]:
    return {str(f.relative_to(study)): f.read_bytes() for f in sorted((study / "reduced").rglob("*.npy"))}


def test_a_cluster_gives_the_bits_of_one_process(fitted: Path, tmp_path: Path, client: Any):
    alone, together = (copied(fitted, tmp_path / name) for name in ("alone", "together"))
    on_it = ("--engine", "dask", "--address", client.scheduler.address)
    assert ok("reduce", alone, "--memory", "1 MB") == ok("reduce", together, "--memory", "1 MB", *on_it)
    assert sums(alone) and sums(alone) == sums(together)
    few = ("--combiners", "mean,simplex,gene_ridge,direct_pooled")
    assert ok("stack", alone, *few) == ok("stack", together, *few, *on_it)
    assert sums(alone) == sums(together)
    tables = [np.load(root / "results" / "oof_scores.npz") for root in (alone, together)]
    assert b"@plate" in tables[0]["meta"].tobytes()
    for name in ("meta", "samples", "predicted", "values"):
        np.testing.assert_array_equal(tables[0][name], tables[1][name], err_msg=name)
    stored = [json.loads((root / "results" / "oof.json").read_text()) for root in (alone, together)]
    assert stored[0]["choice"] == stored[1]["choice"] and stored[0]["key"] == stored[1]["key"]
    boards = (
        ok("verdict", "alone", cwd=tmp_path),  # a path would be broken where the screen ends
        ok("verdict", "together", *on_it, cwd=tmp_path).replace("together", "alone"),
    )
    assert boards[0].partition("Ledger:")[0].split() == boards[1].partition("Ledger:")[0].split()
    assert same_test_scores(alone, together)


def _counts() -> None:
    from pertstack.predictions.store.files import skeleton
    from pertstack.study.development import rows
    from pertstack.study.folder import StudyFolder

    skeleton.whole, skeleton.tables, rows.openings = skeleton.read_obs, 0, 0

    def read_obs(folder: Path) -> Any:
        skeleton.tables += 1
        return skeleton.whole(folder)

    class Counted(StudyFolder):
        @classmethod
        def open(cls, root: Path | str) -> StudyFolder:
            rows.openings += 1
            return StudyFolder.open(root)

    skeleton.read_obs, rows.StudyFolder = read_obs, Counted


def _counted() -> tuple[int, int]:
    from pertstack.predictions.store.files import skeleton
    from pertstack.study.development import rows
    from pertstack.study.folder import StudyFolder

    skeleton.read_obs, rows.StudyFolder = skeleton.whole, StudyFolder
    return rows.openings, skeleton.tables


def test_a_worker_opens_the_study_once_and_reads_the_tables_of_its_own_blocks(
    fitted: Path, tmp_path: Path, client: Any
):
    study = Study.open(copied(fitted, tmp_path / "study"))
    client.run(_counts)
    study.reduce(engine="dask", address=client.scheduler.address)
    openings, tables = zip(*client.run(_counted).values(), strict=True)
    assert max(openings) == 1 and sum(tables) == len(study.folder.store.blocks("development"))


def same_test_scores(*roots: Path) -> bool:
    one, two = (np.load(root / "results" / "test_scores.npz") for root in roots)
    assert b"replicate" in one["meta"].tobytes() and b"pds_l1" in one["meta"].tobytes()
    return all(one[name].tobytes() == two[name].tobytes() for name in ("meta", "samples", "predicted", "values"))


def _dies_once_scoring() -> None:
    from pertstack.study.development import out_of_fold

    out_of_fold.score = lambda *args, **options: os._exit(9)


@pytest.mark.slow
def test_a_look_goes_on_when_a_worker_dies_and_only_a_look_under_way_opens_the_test(fitted: Path, tmp_path: Path):
    from pertstack.study.steps.verdict import SharedTest

    alone, together = (copied(fitted, tmp_path / name) for name in ("alone", "together"))
    for root in (alone, together):
        Study.open(root).stack(["mean", "simplex"])
        with pytest.raises(InputError, match="not under way"):
            _ = SharedTest(root, ("ridge",), False, "1 GB", 1, None).opened
    Study.open(alone).verdict()
    with two_workers() as client:
        first, *_ = client.scheduler_info()["workers"]
        before = set(client.run(os.getpid).values())
        client.run(_dies_once_scoring, workers=[first])
        Study.open(together).verdict(engine="dask", address=client.scheduler.address)
        client.wait_for_workers(2)
        assert len(before - set(client.run(os.getpid).values())) == 1
    assert same_test_scores(alone, together)
    assert len(Study.open(together).folder.ledger.of_kind("look")) == 1
    with pytest.raises(InputError, match="not under way"):
        _ = SharedTest(together, ("ridge",), False, "1 GB", 1, None).opened


@pytest.mark.slow
def test_metrics_across_blocks_are_computed_here(fitted: Path, tmp_path: Path, client: Any):
    """Retrieval looks at all rows of a cell line and fold, and halves at all its controls."""
    alone, together = (copied(fitted, tmp_path / name) for name in ("alone", "together"))
    for root in (alone, together):
        ok("plan", root, "--primary", "pds_l1@pooled")
    stacked = [
        Study.open(root).stack(["mean", "simplex"], **how)
        for root, how in ((alone, {}), (together, {"engine": "dask", "address": client.scheduler.address}))
    ]
    assert "pds_l1@pooled" in stacked[0].scores.metrics
    assert stacked[0].scores.digest == stacked[1].scores.digest


def _dies_once() -> None:
    from pertstack.study.development import rows

    rows.make_parts = lambda *args, **options: os._exit(9)


def _is_another_version() -> None:
    import pertstack._base.machine.cluster
    import pertstack._base.version

    pertstack._base.version.__version__ = pertstack._base.machine.cluster.__version__ = "0.0.9"


@pytest.mark.slow
def test_the_work_of_a_worker_that_dies_is_done_again(fitted: Path, tmp_path: Path):
    alone, together = (copied(fitted, tmp_path / name) for name in ("alone", "together"))
    with two_workers() as client:
        first, *_ = client.scheduler_info()["workers"]
        before = set(client.run(os.getpid).values())
        client.run(_dies_once, workers=[first])  # the nanny starts a whole one in its place
        Study.open(together).reduce(engine="dask", address=client.scheduler.address)
        client.wait_for_workers(2)
        assert len(before - set(client.run(os.getpid).values())) == 1
    Study.open(alone).reduce()
    assert sums(alone) == sums(together)


def _twice(once: Path, item: int) -> int:
    if not once.exists():
        once.touch()
        os._exit(9)
    return 2 * item


def test_what_all_pieces_share_outlives_the_only_worker_that_had_it(tmp_path: Path):
    """As when the first of the workers to join is taken away."""
    from pertstack._base.machine.cluster import Cluster

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as one:
        found = dict(Cluster(1, one.scheduler_address).each(_twice, tmp_path / "died", range(5)))
    assert found == {i: 2 * i for i in range(5)}


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(fitted: Path, tmp_path: Path):
    root = copied(fitted, tmp_path / "study")
    with two_workers() as client:
        first, *_ = client.scheduler_info()["workers"]
        client.run(_is_another_version, workers=[first])
        fit = ("fit", root, "--models", "low_rank")
        for command in (("reduce", root), ("stack", root), fit, ("audit", root, "--deep")):
            refused = pertstack(*command, "--engine", "dask", "--address", client.scheduler.address)
            assert refused.returncode == 3, refused.stderr
            assert "0.0.9" in refused.stderr and f"'{first}'" in refused.stderr, refused.stderr
    assert not sums(root)


def test_a_worker_that_joins_later_is_refused_as_well(client: Any):
    from pertstack._base.machine.cluster import piece

    with pytest.raises(IntegrityError, match=r"0\.0\.9"):
        client.submit(piece, "0.0.9", len, "abc").result()


def test_a_worker_that_does_not_see_the_study_says_on_which_host(fitted: Path, tmp_path: Path, client: Any):
    """The folder is there when this process opens it, and elsewhere for the workers."""
    from pertstack._base.machine.cluster import Cluster
    from pertstack.study.development.rows import DevelopmentRows, reduce_piece

    rows = DevelopmentRows(Study.open(fitted).folder, ["ridge"])
    shared, blocks = rows.shared(), rows.source.blocks()
    moved = type(shared)(tmp_path / "elsewhere", shared.models, False, shared.memory)
    cluster = Cluster(2, client.scheduler.address)
    with pytest.raises(StackingError, match=r"elsewhere does not exist.*On host "):
        list(cluster.each(reduce_piece, moved, blocks))


def test_a_block_that_is_missing_is_named_with_its_host(fitted: Path, tmp_path: Path, client: Any):
    root = copied(fitted, tmp_path / "study")
    chunks = [f for f in (root / "store" / "blocks").glob("*.f1.*/layers/ridge/c/*/*") if f.is_file()]
    assert chunks
    for chunk in chunks:
        chunk.unlink()
    refused = pertstack("reduce", root, "--engine", "dask", "--address", client.scheduler.address)
    assert refused.returncode == 3, refused.stderr
    assert "ridge" in refused.stderr and ".f1." in refused.stderr and "On host " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_store_that_lacks_a_whole_block_is_refused_and_never_summed_without_it(fitted: Path, tmp_path: Path):
    """As on a host that mounts the study half."""
    root = copied(fitted, tmp_path / "study")
    shutil.rmtree(root / "store" / "blocks" / "LINE01.f1.s000.zarr")
    for command in (("reduce",), ("stack",), ("fit", "--models", "low_rank")):
        refused = pertstack(command[0], root, *command[1:])
        assert refused.returncode == 3, refused.stderr
        assert "'LINE01'" in refused.stderr and "LINE02" in refused.stderr and "audit" in refused.stderr
    assert not sums(root) and not (root / "results" / "oof.json").exists()


def test_wrong_addresses_and_engines_are_refused(fitted: Path):
    said = pertstack("reduce", fitted, "--address", "tcp://localhost:8786")
    assert said.returncode == 2 and "add --engine dask" in said.stderr
    said = pertstack("audit", fitted, "--engine", "dask")
    assert said.returncode == 2 and "--deep" in said.stderr
    said = pertstack("reduce", fitted, "--engine", "dusk")
    assert said.returncode == 2 and "Did you mean 'dask'?" in said.stderr


# -- the deep audit ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(fitted: Path) -> Path:
    """The same study with sums, weights and a verdict. Copy it."""
    root = copied(fitted, fitted.with_name("judged"))
    Study.open(root).stack(["mean", "simplex", "gene_ridge"])
    Study.open(root).verdict()
    return root


def flip_a_byte(root: Path, name: str) -> None:
    chunk = next(f for f in sorted(root.glob(name)) if f.is_file())
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)


def test_a_deep_audit_on_a_cluster_finds_what_one_process_finds(judged: Path, tmp_path: Path, client: Any):
    root = copied(judged, tmp_path / "study")
    flip_a_byte(root, "store/blocks/LINE02.f1.*/layers/ridge/c/*/*")
    flip_a_byte(root, "test_truth/blocks/*/layers/treated/c/*/*")
    said = [
        pertstack("audit", "study", "--deep", "--json", *on_it, cwd=tmp_path)
        for on_it in ((), ("--engine", "dask", "--address", client.scheduler.address))
    ]
    assert [s.returncode for s in said] == [3, 3], said
    assert said[0].stdout == said[1].stdout
    damaged = [f for f in json.loads(said[0].stdout)["findings"] if f["severity"] == "error"]
    assert [f["code"] for f in damaged] == ["chunk_changed", "chunk_changed"] and "On host" not in said[0].stdout


def test_sums_of_a_deep_audit_are_made_anew_on_the_cluster_with_the_same_bits(
    judged: Path, tmp_path: Path, client: Any
):
    from pertstack._base.machine.cluster import Cluster
    from pertstack.study.audit.elsewhere import read_elsewhere

    root = copied(judged, tmp_path / "study")
    kept = {Path(name).relative_to("reduced"): content for name, content in sums(root).items()}
    shutil.rmtree(root / "reduced")
    read = read_elsewhere(Study.open(root).folder, Cluster(2, client.scheduler.address), tmp_path / "anew")
    made = {f.relative_to(tmp_path / "anew"): f.read_bytes() for f in (tmp_path / "anew").rglob("*.npy")}
    assert made and made.items() <= kept.items()  # stack also sums without each fold
    store = Study.open(root).folder.store
    assert read.whole("store") == set(store.blocks()) and read.whole("test_truth") == set(store.blocks("test"))
    assert not (root / "reduced").exists()


def _dies_once_reading() -> None:
    from pertstack.study.audit import elsewhere

    elsewhere.verify_block = lambda *args: os._exit(9)


def _sees(root: Path) -> None:
    from pertstack.study.audit import elsewhere
    from pertstack.study.folder import StudyFolder

    class Mounted(StudyFolder):
        @classmethod
        def open(cls, _: Path | str) -> StudyFolder:
            return StudyFolder.open(root)

    elsewhere.StudyFolder = Mounted


@pytest.mark.slow
def test_an_audit_goes_on_when_a_worker_dies_and_names_the_host_that_sees_other_files(judged: Path, tmp_path: Path):
    root, half = copied(judged, tmp_path / "study"), copied(judged, tmp_path / "half")
    shutil.rmtree(half / "store" / "blocks" / "LINE01.f1.s000.zarr")
    with two_workers() as client:
        address = client.scheduler.address
        first, *_ = client.scheduler_info()["workers"]
        before = set(client.run(os.getpid).values())
        client.run(_dies_once_reading, workers=[first])
        assert Study.open(root).audit(deep=True, engine="dask", address=address) == Study.open(root).audit(deep=True)
        client.wait_for_workers(2)
        assert len(before - set(client.run(os.getpid).values())) == 1
        client.run(_sees, half)
        found = [f for f in Study.open(root).audit(deep=True, engine="dask", address=address) if f.severity == "error"]
        client.run(_sees, tmp_path / "nowhere")
        with pytest.raises(StackingError, match=r"nowhere does not exist.*On host "):
            Study.open(root).audit(deep=True, engine="dask", address=address)
    assert [f.code for f in found] == ["block_elsewhere"]
    assert "LINE01.f1.s000" in found[0].where and "On host " in found[0].message
