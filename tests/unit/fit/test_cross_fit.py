"""Running jobs: crashes stay where they happen, results depend on nothing but the job, finished jobs are look-ups."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from double_models import Committer, Loader

from interrupts import interrupt, start
from pertstack._base.digests import digest_names
from pertstack._base.errors import FoldPlanMismatchError, InputError, LeakError, StorageError, UnknownNameError
from pertstack.fit import Job, cross_fit, plan_jobs

OWN_PROCESSES = True


def double(name: str, fold: int | None = 0, **params) -> Job:
    return Job(name.casefold(), f"double_models:{name}", params, "pooled", fold)


def run(jobs, tmp_path, *, loader=None, full=False, done=None, **options):
    committer = Committer(tmp_path / "out", full)
    results = cross_fit(
        jobs,
        rows_for=loader or Loader(),
        commit=committer,
        done=done or (lambda job: False),
        log_dir=tmp_path / "jobs",
        seed=options.pop("seed", 3),
        **options,
    )
    return results, {str(p.relative_to(tmp_path)): np.load(p) for p in sorted((tmp_path / "out").rglob("*.npz"))}


def values(found):
    return {name: f["predicted"] for name, f in found.items()}


def test_a_crash_a_kill_and_an_error_end_their_own_jobs_only(tmp_path):
    jobs = [double("Dies"), double("Raises"), double("Noise"), double("Dies", 1, how="kill"), double("Noise", 1)]
    results, found = run(jobs, tmp_path, workers=2)
    assert [r.job for r in results] == jobs
    assert [r.status for r in results] == ["crashed", "failed", "done", "crashed", "done"]
    assert "exit code 7" in results[0].error and "memory" in results[3].error
    assert results[1].error == "no ground state" and results[1].error_type == "ZeroDivisionError"
    log = Path(results[1].log).read_text()
    assert "ZeroDivisionError: no ground state" in log and "about to raise" in log
    assert "last words" in Path(results[0].log).read_text()
    assert {Path(name).parts[1] for name in found} == {"noise"}
    for result in results:
        kept = json.loads((tmp_path / "jobs" / result.job.folder / "job.json").read_text())
        assert kept["status"] == result.status and kept["error"] == result.error


def test_a_job_leaves_its_log_record_and_curve(tmp_path):
    _, found = run([double("Noise"), double("Noise", None)], tmp_path)
    folder = tmp_path / "jobs" / "noise" / "pooled.f0"
    log = (folder / "log.txt").read_text()
    assert "fitting noise" in log and "from a child" in log and "to stderr" in log
    record = json.loads((folder / "job.json").read_text())["record"]
    fit_ids = Loader()(double("Noise")).fit.obs.index
    assert record["fit_ids_digest"] == digest_names(sorted(fit_ids)) and record["n_fit"] == len(fit_ids)
    assert record["params"] == {"level": 1.0} and record["versions"]["numpy"] == np.__version__
    assert record["seconds"] >= record["fit_seconds"] > 0 and record["peak_memory_bytes"] > 10_000_000
    assert json.loads((folder / "curve.json").read_text())["epochs"] == [{"epoch": 0.0, "loss": 1.0}]
    assert all(f["embedding"].shape[1] == 2 for f in found.values())
    assert {Path(n).name for n in found} == {"A.f0.s000.npz", "B.f0.s000.npz", "A.test.s000.npz", "B.test.s000.npz"}


def test_peak_memory_belongs_to_the_job_not_to_the_worker(tmp_path):
    results, _ = run([double("Eats"), double("Noise")], tmp_path)
    eats, after = (r.record.peak_memory_bytes for r in results)
    assert eats > 200_000_000
    if sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK):
        assert after < eats - 100_000_000


def test_results_do_not_depend_on_workers_order_or_engine(tmp_path):
    jobs = [*plan_jobs("ridge", n_folds=2), *plan_jobs("mlp", {"max_epochs": 3}, n_folds=2), double("Noise", 0)]
    _, one = run(jobs, tmp_path / "one")
    _, two = run(jobs[::-1], tmp_path / "two", workers=2)
    _, here = run(jobs, tmp_path / "here", engine="inline")
    assert one.keys() == two.keys() == here.keys() and len(one) == 2 * 7
    for name, expected in values(one).items():
        np.testing.assert_array_equal(values(two)[name], expected)
        np.testing.assert_array_equal(values(here)[name], expected)


def test_a_fit_is_the_same_whatever_the_held_out_truth(tmp_path):
    """The rule the package stands on: change every treated value outside the fit rows, and nothing changes."""
    jobs = [*plan_jobs("ridge", n_folds=2), *plan_jobs("mean_treated", n_folds=2, scope="cell_line", cell_lines="AB")]
    _, plain = run(jobs, tmp_path / "plain", engine="inline")
    _, shifted = run(jobs, tmp_path / "shifted", loader=Loader(shift=50.0), engine="inline")
    assert plain.keys() == shifted.keys() and len(plain) == 12
    for name, expected in values(plain).items():
        np.testing.assert_array_equal(values(shifted)[name], expected)


def test_seeds_differ_by_everything_that_identifies_a_job_and_by_nothing_else():
    same = {"width": 8}
    base = Job.of("mlp", same, fold=0)
    others = [
        Job.of("mlp", {"width": 9}, fold=0),
        Job.of("mlp", same, fold=1),
        Job.of("mlp", same, fold=None),
        Job.of("mlp", same, fold=0, scope="cell_line", cell_line="A"),
        Job.of("ridge", fold=0),
    ]
    seeds = {j.seed(1) for j in [base, *others]} | {base.seed(2)}
    assert len(seeds) == 7
    assert Job.of("MLP", {"width": 8}, fold=0).seed(1) == base.seed(1)


def test_finished_jobs_are_look_ups(tmp_path):
    jobs = [double("Noise"), double("Raises")]
    results, found = run(jobs, tmp_path, done=lambda job: True)
    assert [r.status for r in results] == ["present", "present"] and not found


@pytest.mark.parametrize("engine", ["local", "inline"])
@pytest.mark.parametrize("leak", ["treated", "fit rows"])
def test_a_leak_stops_the_run(tmp_path, leak, engine):
    with pytest.raises(LeakError, match="PredictRows" if leak == "treated" else "fitted on"):
        run([double("Noise")], tmp_path, loader=Loader(leak=leak), engine=engine)


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_a_model_that_refuses_its_own_checkpoint_ends_its_job_only(tmp_path, engine):
    results, found = run([double("FindsAnotherPlan"), double("Noise")], tmp_path, engine=engine)
    assert [r.status for r in results] == ["failed", "done"] and len(values(found)) == 2
    assert results[0].error_type == "ModelFailedError" and "another plan lies here" in results[0].error
    assert "FoldPlanMismatchError" in Path(results[0].log).read_text()


def test_an_integrity_error_after_the_fit_still_stops_the_run(tmp_path):
    with pytest.raises(FoldPlanMismatchError, match="another plan lies here"):
        run([double("FindsAnotherPlan", when="predict"), double("Noise")], tmp_path)


def test_a_full_disk_stops_the_run(tmp_path):
    with pytest.raises(StorageError, match="disk is full"):
        run([double("Noise"), double("Noise", 1)], tmp_path, full=True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", r"1 values.*g002"),
        ("inf", "1 values.*g000"),
        ("short", r"shape \(15, 30\).*16 samples"),
        ("integers", "int64"),
    ],
)
def test_what_a_model_returns_is_checked(tmp_path, how, message):
    (result,), found = run([double("Broken", how=how)], tmp_path, engine="inline")
    assert result.status == "failed" and result.error_type == "ModelFailedError" and not found
    assert re.search(message, result.error), result.error


def test_a_time_limit_ends_a_job_and_what_it_started(tmp_path):
    start = time.monotonic()
    results, found = run([double("Sleeps"), double("Noise")], tmp_path, time_limit=6.0)
    assert time.monotonic() - start < 30
    assert [r.status for r in results] == ["timeout", "done"] and "time limit of 6 s" in results[0].error
    assert len(found) == 2


def test_ctrl_c_leaves_committed_work_and_no_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from double_models import Committer, Loader\n"
        "from pertstack.fit import Job, cross_fit\n"
        "root = Path(sys.argv[1])\n"
        "jobs = [Job(n.lower(), f'double_models:{n}', {}, 'pooled', 0) for n in ('Noise', 'Sleeps')]\n"
        "cross_fit(jobs, rows_for=Loader(), commit=Committer(root / 'out'), done=lambda j: False,\n"
        "          log_dir=root / 'jobs', seed=0)\n"
    )
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    process = start([sys.executable, str(script), str(tmp_path), *path], stderr=subprocess.PIPE)
    log = tmp_path / "jobs" / "sleeps" / "pooled.f0" / "log.txt"
    deadline = time.monotonic() + 60
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    interrupt(process)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode != 0 and b"KeyboardInterrupt" in stderr
    assert len(list((tmp_path / "out" / "noise").rglob("*.npz"))) == 2
    assert not any(Path(f"/proc/{w}").exists() for w in workers)


def test_bad_calls_are_refused_with_the_mend(tmp_path):
    job = double("Noise")
    with pytest.raises(InputError, match="more than once"):
        run([job, double("Noise", level=2.0)], tmp_path)
    with pytest.raises(UnknownNameError, match="'local'"):
        run([job], tmp_path, engine="locl")
    with pytest.raises(InputError, match="workers is 0"):
        run([job], tmp_path, workers=0)
    with pytest.raises(InputError, match="engine='inline'"):
        run([job], tmp_path, loader=lambda j: Loader()(j))
    with pytest.raises(InputError, match="cell line"):
        Job.of("ridge", fold=0, scope="cell_line")
    with pytest.raises(UnknownNameError, match="'ridge'"):
        Job.of("rigde", fold=0)


def test_an_unknown_parameter_or_class_fails_its_job_with_a_message(tmp_path):
    results, _ = run(
        [double("Noise", levl=2.0), Job("gone", "no_module:X", {}, "pooled", 0)], tmp_path, engine="inline"
    )
    assert "Did you mean 'level'" in results[0].error and "no_module" in results[1].error


def test_plan_jobs_covers_folds_lines_and_the_final_fit():
    ids = [j.id for j in plan_jobs("PerGeneLinear", n_folds=2, scope="cell_line", cell_lines=["HT 29", "A.1"])]
    assert ids == [
        "line.A%2E1.f0",
        "line.A%2E1.f1",
        "line.A%2E1.final",
        "line.HT%2029.f0",
        "line.HT%2029.f1",
        "line.HT%2029.final",
    ]
    assert plan_jobs("PerGeneLinear", n_folds=2)[0].model == "per_gene_linear"


@pytest.mark.slow
def test_dask_gives_the_same(tmp_path):
    pytest.importorskip("distributed")
    jobs = [*plan_jobs("ridge", n_folds=2), double("Raises"), double("Noise")]
    _, local = run(jobs, tmp_path / "local", engine="inline")
    results, found = run(jobs, tmp_path / "dask", engine="dask", workers=2)
    assert [r.status for r in results] == ["done", "done", "done", "failed", "done"]
    for name, expected in values(local).items():
        np.testing.assert_array_equal(values(found)[name], expected)
