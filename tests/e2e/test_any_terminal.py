"""Names, paths and screens from all over the world: no traceback, the right exit code, commands that can be copied."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import warnings

import anndata
import pytest
from rich.cells import cell_len
from rich.console import Console

from e2e.conftest import PERTSTACK, ok, pertstack

LINES, MODEL = ("細胞 1", "β-TC6"), "模型-Ω 🧬"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose name has a blank and letters beyond ASCII, with a study of names of that kind in it."""
    place = tmp_path_factory.mktemp("päth with 空 格")
    size = ("--samples", 120, "--genes", 20, "--cell-lines", 2, "--perturbations", 24)
    ok("simulate", place / "w.h5ad", *size)
    world = anndata.read_h5ad(place / "w.h5ad")
    names = {name: f"{'αß化🧬'[i % 4]}{i}" for i, name in enumerate(sorted(set(world.obs["perturbation"])))}
    world.obs["perturbation"] = world.obs["perturbation"].astype(str).map(names)
    world.obs["cell_line"] = world.obs["cell_line"].astype(str).map(dict(zip(("LINE01", "LINE02"), LINES, strict=True)))
    world.var_names = ["基因", *world.var_names[1:]]
    anndata.AnnData(world.X, world.obs, world.var, layers={"control": world.layers["control"]}).write_h5ad(
        place / "d.h5ad"
    )
    ok("init", "stüdy ✓", "--data", "d.h5ad", cwd=place)
    ok("fit", "stüdy ✓", "--models", "mean_treated,per_gene_linear", cwd=place)
    ok("export", "stüdy ✓", "öut.npz", "--models", "per_gene_linear", cwd=place)
    ok("add", "stüdy ✓", MODEL, "öut.npz", "--fitted-on", "plan", "--scale", "treated", cwd=place)
    return place


def test_the_next_command_can_be_copied_until_the_end(place):
    for step in ("stack", "verdict", "report"):
        following = next(x for x in ok("status", "stüdy ✓", cwd=place).splitlines() if x.startswith("Next: "))
        words = shlex.split(following.removeprefix("Next: "))
        assert words == ["pertstack", step, "stüdy ✓"]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Glyph")  # of our fonts: the page is shown in the reader's
            ok(*words[1:], *(["--combiners", "mean"] if step == "stack" else []), cwd=place)
    page = (place / "stüdy ✓" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in (*LINES, MODEL))


def test_wide_letters_keep_the_columns_of_the_board_apart(place):
    from pertstack.study.study import Study

    board = Study.open(place / "stüdy ✓").leaderboard()
    console = Console(width=80, record=True)
    with console.capture() as shown:
        console.print(board.short_table(width=80, every=True))
    lines = shown.get().splitlines()
    row = next(line for line in lines if MODEL in line)
    plain = next(line for line in lines if " per_gene_linear" in line)
    assert cell_len(row.rstrip()) == len(plain.rstrip()) <= 80


@pytest.mark.parametrize("words", [("verdict",), ("status", "--json")])
def test_a_terminal_in_ascii(place, words):
    done = in_another_setting(place, words[0], "stüdy ✓", *words[1:], LC_ALL="C", PYTHONIOENCODING="ascii")
    said = done.stdout.decode("ascii")
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    if "--json" in words:
        assert MODEL in json.dumps(json.loads(said), ensure_ascii=False)


def test_settings_under_which_files_cannot_be_named_are_told_with_the_mend(place):
    done = in_another_setting(place, "status", "stüdy ✓", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2 and b"PYTHONUTF8=1, or LC_ALL=C.UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def in_another_setting(place, *words: str, **setting: str) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LANG", "PYTHONUTF8", "PYTHONIOENCODING")}
    return subprocess.run(
        [str(PERTSTACK), *words], cwd=place, env=environment | setting, capture_output=True, timeout=300, check=False
    )


def test_who_read_enough_changes_no_exit_code(place):
    """It was 1, a defect of ours, with ``| head -1``; what the audit found was 3."""
    study = place / "stüdy ✓"
    broken = study.with_name("broken")
    subprocess.run(["cp", "-r", str(study), str(broken)], check=True)
    (broken / "ledger.jsonl").write_text("")
    assert pertstack("audit", "broken", cwd=place).returncode == 3
    process = subprocess.Popen(
        [str(PERTSTACK), "audit", "broken"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read() and process.wait(300) == 3
    process.stderr.close()
