"""External programs that work, fail, hang, answer wrongly: each ends in numbers checked by name or in a message."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from double_models import Committer, Loader

from pertstack._base.errors import ConflictError, InputError, MissingFileError, ModelFailedError, UnknownNameError
from pertstack.fit import Job, available, cross_fit, get_model, get_row, list_models
from pertstack.fit.external.card import load_card
from pertstack.fit.external.environment import clean_environment, interpreter_for
from pertstack.fit.external.model import ExternalModel
from pertstack.fit.jobs import worker
from references.fit_world import make_rows, split_by_perturbation

OWN_PROCESSES = True
ON_DISK = True

READ = """
import json, sys
from pathlib import Path
import anndata, numpy as np
folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
fit, new = anndata.read_h5ad(folder / "fit.h5ad"), anndata.read_h5ad(folder / "predict.h5ad")
assert new.X is None and list(new.layers) == ["control"] and "treated" not in new.obs, "held-out truth was assigned"
shift = (fit.X - fit.layers["control"]).mean(axis=0)
out, ids, genes = new.layers["control"] + shift, list(new.obs_names), list(new.var_names)
more = {}
"""
WRITE = """
np.savez(folder / "predictions.npz", predictions=out, sample_ids=np.array(ids), gene_names=np.array(genes), **more)
"""
H5AD = """
import pandas as pd
table = anndata.AnnData(np.asarray(out), obs=pd.DataFrame(index=ids), var=pd.DataFrame(index=genes))
table.obsm["embedding"] = out[:, :3]
table.write_h5ad(folder / "predictions.h5ad")
"""


def make_card(
    folder: Path, middle: str = "", *, write: str = WRITE, run: str = "", rest: str = "", name="mine"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(READ + middle + write)
    card = folder / f"{name}.toml"
    card.write_text(f'format = 1\nname = "{name}"\nsummary = "a test"\n[run]\nscript = "model.py"\n{run}\n{rest}')
    return card


def run_here(card, python, folder, log, *, hidden) -> None:
    """Stands in for a process where only the answer matters (a Python start costs a second each)."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr(sys, "argv", ["model.py", str(folder)])
        exec((card.path.parent / "model.py").read_text(), {})


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("pertstack.fit.external.model.run_program", run_here)


def ask(card: Path, **params):
    rows = make_rows(n_perturbations=8, n_genes=6)
    fit, held = split_by_perturbation(rows, 2)
    model = ExternalModel(str(card), **params)
    model.folder = card.parent / "job"
    new = held.without_treated()
    predicted = model.fit(fit, rng=np.random.default_rng(0)).predict(new)
    return model, fit, new, predicted


def test_a_ten_line_script_gives_mean_shift_and_leaves_only_its_log(tmp_path):
    model, fit, new, predicted = ask(make_card(tmp_path, "print('seed', task['seed'])\n"))
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    assert [p.name for p in (tmp_path / "job").iterdir()] == ["external.log"]
    assert "seed" in (tmp_path / "job" / "external.log").read_text()
    assert model.embed(new) is None and model.name == "mine"


@pytest.mark.parametrize("write", [WRITE, H5AD])
def test_samples_and_genes_in_another_order_are_put_right_by_name(tmp_path, in_process, write):
    middle = "out, ids, genes = out[::-1, ::-1], ids[::-1], genes[::-1]\nmore = {'embedding': out[:, :3]}\n"
    model, fit, new, predicted = ask(make_card(tmp_path, middle, write=write))
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(new), expected[:, ::-1][:, :3], atol=1e-5)


def test_a_program_that_predicts_deltas_says_so_on_its_card(tmp_path, in_process):
    _, fit, new, predicted = ask(make_card(tmp_path, "out = out - new.layers['control']\n", run='scale = "delta"'))
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        ("out, ids = out[:-3], ids[:-3]", r"lack 3 samples \('s0029', 's0030', 's0031'\)"),
        ("ids[0] = 'elsewhere'", r"lack 1 samples \('s0024'\) and include foreign 1 samples \('elsewhere'\)"),
        ("ids[1] = ids[0]", r"lack 1 samples.*repeat 1 samples \('s0024'\)"),
        ("genes[2] = 'TP53'", r"lack 1 genes \('g002'\) and include foreign 1 genes \('TP53'\)"),
        ("out, genes = out[:, :4], genes[:4]", r"lack 2 genes"),
        ("out = out[:, :4]", r"shape \(8, 4\) for 8 sample ids x 6 gene names"),
        ("out[1, 1] = np.nan", r"NaN or infinite values for 1 samples \('s0025'\)"),
        ("out = out - new.layers['control']", "another scale.*scale = 'treated'"),
        ("out = 10 ** out", "another scale"),
        ("out = out.astype(str)", "of type <U"),
        ("ids = [None] * len(ids)", "cannot be read.*no objects"),
        ("more = {'embedding': np.ones((3, 2))}", r"embedding an array of shape \(3, 2\)"),
        ("(folder / 'predictions.npz').write_bytes(b'PK junk'); sys.exit(0)", "cannot be read"),
        ("(folder / 'predictions.h5ad').write_bytes(b'junk'); sys.exit(0)", "cannot be read"),
        ("sys.exit(0)", "ended without writing predictions.h5ad, predictions.npz or predictions.csv"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_values_and_kept_for_a_look(tmp_path, in_process, middle, message):
    with pytest.raises(ModelFailedError, match=message):
        ask(make_card(tmp_path, middle + "\n"))
    assert (tmp_path / "job" / "exchange" / "task.json").exists()


@pytest.mark.parametrize(
    ("middle", "message"),
    [("sys.exit('no licence found')", r"exit code 1.*no licence"), ("import os; os.kill(os.getpid(), 9)", "code -9")],
)
def test_a_program_that_fails_is_quoted(tmp_path, middle, message):
    with pytest.raises(ModelFailedError, match=message):
        ask(make_card(tmp_path, middle + "\n"))


def test_treated_values_declared_as_deltas_are_refused(tmp_path, in_process):
    with pytest.raises(ModelFailedError, match=r"another scale.*read as treated"):
        ask(make_card(tmp_path, run='scale = "delta"'))


def test_a_log_that_is_a_link_leaves_what_it_leads_to_alone(tmp_path, in_process):
    """In a study that somebody sent: the logs of its jobs led to a file of the reader's."""
    mine, place = tmp_path / "mine.txt", tmp_path / "job"
    mine.write_text("mine")
    place.mkdir()
    for name in ("log.txt", "external.log"):
        (place / name).symlink_to(mine)
    with worker._logging_to(place / "log.txt", own_process=False):
        print("said")
    ask(make_card(tmp_path))
    assert mine.read_text() == "mine" and (place / "log.txt").read_text() == "said\n"
    assert not (place / "external.log").is_symlink()


def test_a_program_that_hangs_is_stopped_with_all_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr("pertstack.fit.external.sandbox._bubblewrap", lambda: None)  # in it, process ids are others
    program = (  # no import that takes seconds on a busy machine: it must get to the word within its limit
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "(pathlib.Path(sys.argv[1]) / 'child').write_text(str(child.pid)); print('waiting', flush=True)\n"
        "time.sleep(60)\n"
    )
    card = make_card(tmp_path, run="time_limit = 4")
    (tmp_path / "model.py").write_text(program)
    start = time.monotonic()
    with pytest.raises(ModelFailedError, match=r"time limit of 4 s.*waiting"):
        ask(card)
    assert time.monotonic() - start < 20
    child = Path("/proc") / (tmp_path / "job" / "exchange" / "child").read_text()
    deadline = time.monotonic() + 5
    while child.exists() and "Z" not in (child / "stat").read_text().split() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "Z" in (child / "stat").read_text().split()


def test_a_command_may_be_any_program(tmp_path):
    card = make_card(tmp_path)
    text = card.read_text().replace('script = "model.py"', 'command = ["{python}", "{card}/model.py", "{folder}"]')
    card.write_text(text)
    ask(card)
    card.write_text(text.replace('"{python}"', '"no-such-program"'))
    row = get_row(str(card))
    assert "'no-such-program', which is not found" in (available(row, make_rows().side) or "")
    with pytest.raises(ModelFailedError, match="cannot be started"):
        ask(card)


def test_jobs_run_the_program_once_for_all_blocks_and_others_go_on_when_it_fails(tmp_path):
    good = make_card(tmp_path / "a", "print('one run')\n", name="good", rest="[params]\nrate = 0.1\n")
    bad = make_card(tmp_path / "b", "sys.exit('out of luck')\n", name="bad")
    jobs = [Job.of(str(bad), fold=0), Job.of(str(good), {"rate": 0.2}, fold=0)]
    results = cross_fit(
        jobs,
        rows_for=Loader(),
        commit=Committer(tmp_path / "out"),
        done=lambda j: False,
        seed=0,
        log_dir=tmp_path / "jobs",
    )
    assert [r.status for r in results] == ["failed", "done"] and "out of luck" in results[0].error
    assert (tmp_path / "jobs/good/pooled.f0/external.log").read_text().count("one run") == 1
    assert len(list((tmp_path / "out" / "good").rglob("*.npz"))) == 2
    params = json.loads((tmp_path / "jobs/good/pooled.f0/job.json").read_text())["record"]["params"]
    assert params["rate"] == 0.2 and params["card_digest"] == load_card(good).digest
    names = [r.name for r in list_models()]
    assert "good" in names


def test_a_changed_card_is_another_model(tmp_path):
    card = make_card(tmp_path)
    before = load_card(card).digest
    (tmp_path / "model.py").write_text(READ + "out += 1\n" + WRITE)
    with pytest.raises(ConflictError, match="has changed"):
        ExternalModel(str(card), card_digest=before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("format = 1", "format = "), InputError, "not valid TOML"),
        (("format = 1", "format = 2"), InputError, "format = 1"),
        (("script", "scirpt"), UnknownNameError, "'script'"),
        (("[run]", "[rnu]"), UnknownNameError, "'run'"),
        (("model.py", "gone.py"), MissingFileError, "is not beside it"),
        (('script = "model.py"', ""), InputError, "exactly one of 'script'"),
        (('script = "model.py"', 'command = "R model.R"'), InputError, "list of words"),
        (('script = "model.py"', 'script = "model.py"\nscale = "log"'), InputError, "'treated' or 'delta'"),
        (("[run]", '[run]\nrequirements = []\ninterpreter = "p"'), InputError, "one of the two"),
        (("[run]", "[needs]\nfeature = 1\n[run]"), UnknownNameError, "'features'"),
        (("[run]", '[run]\ntime_limit = "soon"'), InputError, "time_limit is 'soon'; write a number above zero"),
        (("[run]", "[run]\ntime_limit = nan"), InputError, "a number above zero"),
        (("[run]", "[run]\ntime_limit = true"), InputError, "a number above zero"),
        (("[run]", "[run]\nmemory = -1"), InputError, "memory is -1; write a whole number of bytes above zero"),
        (("[run]", "[run]\nfile_size = 1.5"), InputError, "a whole number of bytes above zero"),
        (("[run]", "[run]\npython_version = 3.11"), InputError, "python_version is 3.11; write text"),
        (('script = "model.py"', "script = 7"), InputError, "script is 7; write text"),
        (("[run]", "[needs]\nfeatures = 7\n[run]"), InputError, "features is 7; write a list of 'user', 'structure'"),
        (("[run]", '[needs]\nfeatures = ["colour"]\n[run]'), InputError, "write a list of"),
        (("[run]", '[needs]\ngraph = "yes"\n[run]'), InputError, "graph is 'yes'; write true or false"),
        (("[run]", '[needs]\npredicts = "log"\n[run]'), InputError, "'treated' or 'delta'"),
        (("format = 1", "params = 5\nformat = 1"), InputError, "5 stands where a table should"),
        (("model.py", "m\\u0000.py"), InputError, "script is 'm.x00.py'; write text"),
        (("model.py", "m" * 5000), InputError, "cannot be read"),
        (("model.py", "loop.py"), InputError, "cannot be read"),
        (("model.py", "latin.py"), InputError, "cannot be read.*in UTF-8 beside the card"),
        (('script = "model.py"', "command = []"), InputError, "exactly one of 'script'"),
        (('script = "model.py"', 'command = ["a\\u0000"]'), InputError, "list of words"),
        (("[run]", f"[run]\nmemory = {2**63}"), InputError, "a whole number of bytes above zero"),
    ],
)
def test_a_wrong_card_is_refused_with_the_mend(tmp_path, change, error, message):
    card = make_card(tmp_path)
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "latin.py").write_bytes(b"name = '\xe9'")
    card.write_text(card.read_text().replace(*change))
    with pytest.raises(error, match=message):
        load_card(card)


def test_a_card_that_is_a_folder_or_a_link_to_itself_is_refused_by_name(tmp_path):
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for path in (tmp_path, tmp_path / "loop.toml", tmp_path / ("m" * 300)):
        with pytest.raises(InputError, match=f"{path.name}.*cannot be read"):
            load_card(path)


def test_the_limits_of_a_card_are_those_of_its_program(tmp_path):
    """``memory`` and ``file_size`` were known words, and nothing read them."""
    card = make_card(tmp_path, run="time_limit = 60\nmemory = 1_000_000_000\nfile_size = 5_000_000")
    found = load_card(card)
    assert (found.time_limit, found.memory, found.file_size) == (60, 10**9, 5 * 10**6)


def test_unknown_cards_and_parameters_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="biolord_published"):
        load_card("biolrd_published")
    with pytest.raises(UnknownNameError, match="max_epochs"):
        get_model("biolord_published", {"max_epoch": 3})


def test_shipped_cards_are_listed_with_licence_and_citation():
    rows = {r.name: r for r in list_models() if r.kind == "external"}
    for name in ("biolord_published", "scgen_published"):
        card = load_card(name)
        assert rows[name].needs == card.needs and card.licence and card.citation and "==" in "".join(card.requirements)
        assert get_model(name).params()["max_epochs"] == 100


# -- environments -----------------------------------------------------------------------------------------------------


def tiny_wheel(folder: Path) -> Path:
    """A wheel of one module, made by hand, so that an environment can be built without a package index."""
    path = folder / "tinypkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinypkg.py", "ANSWER = 42\n")
        wheel.writestr("tinypkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        wheel.writestr("tinypkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinypkg-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PERTSTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    (tmp_path / "wheels").mkdir()
    tiny_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)


@pytest.mark.parametrize("with_uv", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_environment_is_built_once_from_pins_with_pips_settings(tmp_path, monkeypatch, offline, with_uv):
    if with_uv and shutil.which("uv") is None:
        pytest.importorskip("uv")
    if not with_uv:
        monkeypatch.setattr("pertstack.fit.external.environment.find_uv", lambda: None)
    card = load_card(make_card(tmp_path / "m", run='requirements = ["tinypkg==1.0"]'))
    log = tmp_path / "log.txt"
    log.write_text("")
    python = interpreter_for(card, log)
    assert Path(python).is_file() and os.popen(f"{python} -c 'import tinypkg; print(tinypkg.ANSWER)'").read() == "42\n"
    assert Path(python).is_relative_to(tmp_path / "cache")
    size = len(log.read_text())
    assert interpreter_for(card, log) == python and len(log.read_text()) == size


def test_an_environment_that_cannot_be_built_fails_with_the_installers_words(tmp_path, offline):
    pytest.importorskip("uv")
    card = load_card(make_card(tmp_path / "m", run='requirements = ["no-such-package==9.9"]'))
    log = tmp_path / "log.txt"
    log.write_text("")
    with pytest.raises(ModelFailedError, match=r"could not be built.*no-such-package"):
        interpreter_for(card, log)
    assert not any((tmp_path / "cache" / "environments").iterdir())


def test_pips_settings_reach_uv_and_our_path_does_not_reach_the_program(monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "one two")
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    found = clean_environment()
    assert found["UV_FIND_LINKS"] == "one,two" and "PYTHONPATH" not in found
    monkeypatch.setenv("UV_FIND_LINKS", "mine")
    assert clean_environment()["UV_FIND_LINKS"] == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("biolord_published", 60), ("scgen_published", 20)])
def test_the_published_packages_really_run(name, epochs):
    """Builds the real environment (about a minute, kept in the user's cache) and beats the mean treated profile."""
    if sys.version_info[:2] != (3, 11) and shutil.which("uv") is None:
        pytest.skip("the pins are for Python 3.11")
    rows = make_rows(n_perturbations=40, replicates=8, noise=0.1)
    fit, held = split_by_perturbation(rows, 8)
    new = held.without_treated()
    predicted = get_model(name, {"max_epochs": epochs}).fit(fit, rng=np.random.default_rng(0)).predict(new)
    mean = get_model("mean_treated_cell_line").fit(fit, rng=np.random.default_rng(0)).predict(new)
    error, bar = (float(np.sqrt(((p - held.treated) ** 2).mean())) for p in (predicted, mean))
    assert error < bar, f"{name}: {error:.3f}, mean treated {bar:.3f}"


def test_the_ten_lines_of_the_documentation_work(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "external-models.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    card_text = page.split("```toml\n")[1].split("```")[0]
    kept = [line for line in card_text.splitlines() if not line.startswith(("requirements", "features"))]
    (tmp_path / "mine.toml").write_text("\n".join(kept))
    (tmp_path / "mine.py").write_text(code)
    _, fit, new, predicted = ask(tmp_path / "mine.toml")
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
