"""The founding study's size, end to end through the real command line: time, memory and disk of every step.

    python benchmarks/founding_size.py --samples 5000 --models 3                   a minute or two, 1 GB of disk
    python benchmarks/founding_size.py --samples 182246 --genes 978 --models 3     many rows
    python benchmarks/founding_size.py --samples 182246 --models 3                 the whole size: 55 GB of disk
    python benchmarks/founding_size.py --samples 182246 --models 10 --precision 16   ten models: 65 GB of disk

A LINCS-like file is written chunk by chunk (treated in X, a control per sample in a layer, controls shared by plates),
then every step runs as a process of its own. Inputs are removed as soon as a user could remove them. Memory is the
highest sum over the step's processes, read ten times a second: all of it, and the anonymous part alone (pages of
mapped files can be dropped by the system at any time). Bytes are those handed to read() and write().
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

Float32 = np.ndarray[Any, np.dtype[np.float32]]

LINES = ("A375", "A549", "HA1E", "HCC515", "HELA", "HT29", "MCF7", "PC3", "YAPC")
RANK, REPLICATES, WELLS, PER_PLATE, CHUNK = 24, 3, 20, 340, 1024
ATOMS = ("C", "N", "O", "S", "C(C)", "C(F)", "C(Cl)", "N(C)")


# -- the world: everything is a function of the seed and the row, so nothing is kept ----------------------------------


@dataclass
class World:
    """Samples of a LINCS-like study, their profiles made when asked for. ``part`` 1 gives new samples of it."""

    n_samples: int
    n_genes: int
    seed: int = 0
    shuffled: bool = False
    part: int = 0
    lines: int = 9
    compounds: int = 0
    obs: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        genes = self.n_genes
        self.loadings = (rng.standard_t(4, (RANK, genes)) * (rng.random((RANK, genes)) < 0.15)).astype(np.float32)
        self.base = rng.normal(7, 2, (1, genes)).astype(np.float32) + rng.normal(0, 1, (9, genes)).astype(np.float32)
        self.noise_bank = rng.normal(0, 0.5, genes + 500_000).astype(np.float32)
        self.genes = np.array([f"GENE{i:05d}" for i in range(genes)], dtype=object)
        self.compounds = self.compounds or max(60, min(4000, self.n_samples // 60))
        self.compound = rng.normal(0, 1, (self.compounds, RANK)) * rng.gamma(1.0, 0.6, (self.compounds, 1))
        self.line_factor = rng.uniform(0.4, 1.6, (9, RANK))
        self.errors: dict[int, Any] = {}
        self.obs = self._metadata(np.random.default_rng([self.seed, self.part]))

    def _metadata(self, rng: np.random.Generator) -> pd.DataFrame:
        """Conditions (compound, line, dose, time) in three replicates on three plates, each with a control well."""
        n = -(-self.n_samples // REPLICATES)
        line = np.sort(rng.integers(0, self.lines, n))
        compound = (rng.power(0.7, n) * self.compounds).astype(int)
        dose, hours = rng.choice([0.04, 0.37, 1.11, 3.33, 10.0], n), rng.choice([6, 24], n)
        batch = np.arange(n) // PER_PLATE
        take, replicate = np.repeat(np.arange(n), REPLICATES), np.tile(np.arange(REPLICATES), n)
        order = np.lexsort((take, replicate, batch[take], line[take]))[: self.n_samples]  # as plates are read
        if self.shuffled:
            order = rng.permutation(order)
        take, replicate = take[order], replicate[order]
        plate = batch[take] * REPLICATES + replicate
        self.line, self.dose = line[take], dose[take]
        self.drug, self.condition, self.n_conditions = compound[take], take, n
        self.well = plate * WELLS * 9 + self.line * WELLS + rng.integers(0, WELLS, len(take))
        smiles = ["c1ccccc1" + "".join(ATOMS[int(d)] for d in f"{c:o}") + "Br" for c in range(self.compounds)]
        return pd.DataFrame(
            {
                "pert_id": [f"BRD-K{c:08d}" for c in self.drug],
                "cell_id": np.array(LINES)[self.line],
                "smiles": np.array(smiles)[self.drug],
                "pert_idose": [f"{d:g} uM" for d in self.dose],
                "pert_itime": [f"{h} h" for h in hours[take]],
                "rna_plate": [f"P{p:05d}" for p in plate],
                "replicate": [f"X{r + 1}" for r in replicate],
                "control_id": [f"W{w:07d}" for w in self.well],
            },
            index=[f"{'N' * self.part}S{i:07d}" for i in range(len(take))],
        )

    def control(self, rows: slice) -> Float32:
        """Well noise is a window of one long bank: the same well gives the same bytes."""
        out = self.base[self.line[rows]]
        for row, well in zip(out, self.well[rows], strict=True):
            start = int(well) * 7919 % 499_979
            row += self.noise_bank[start : start + self.n_genes]
        return out

    def effect(self, rows: slice) -> Float32:
        scale = np.log10(1 + 10 * self.dose[rows])[:, None] / 2
        score = self.compound[self.drug[rows]] * self.line_factor[self.line[rows]] * scale
        return np.asarray(score.astype(np.float32) @ self.loadings)

    def treated(self, rows: slice) -> Float32:
        rng = np.random.default_rng([self.seed, 1, self.part, rows.start])
        out = rng.standard_normal((rows.stop - rows.start, self.n_genes), dtype=np.float32)
        out *= np.float32(0.5)
        return np.asarray(out + self.base[self.line[rows]] + self.effect(rows))

    def prediction(self, rows: slice, model: int) -> Float32:
        """The effect, shrunken, and an error of the condition: model 0 is the best."""
        if model not in self.errors:
            drawn = np.random.default_rng([self.seed, 2, self.part, model]).normal(0, 0.25, (self.n_conditions, RANK))
            self.errors = {model: drawn}  # of one model at a time
        wrong = (self.errors[model][self.condition[rows]] * (1 + 0.4 * model)).astype(np.float32) @ self.loadings
        return self.base[self.line[rows]] + np.float32(0.8) * self.effect(rows) + wrong


def write_h5ad(path: Path, world: World, layers: dict[str, Callable[[slice], Float32]], columns: list[str]) -> None:
    """An .h5ad file as anndata lays it out, written a thousand rows at a time."""
    n = len(world.obs)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", world.obs[columns])
        write_elem(file, "var", pd.DataFrame(index=world.genes))
        for group in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            write_elem(file, group, {})
        for key, make in layers.items():
            values = file.create_dataset(key, (n, world.n_genes), dtype="float32")
            values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for start in range(0, n, CHUNK):
                stop = min(start + CHUNK, n)
                values[start:stop] = make(slice(start, stop))


# -- one step: a process, watched ------------------------------------------------------------------------------------


@dataclass
class Step:
    """What one command cost, and what it said."""

    name: str
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    anonymous: int = 0
    read: int = 0
    written: int = 0
    said: str = ""

    def row(self) -> str:
        sizes = " | ".join(f"{v / 1e9:.2f}" for v in (self.peak, self.anonymous, self.read, self.written))
        return f"| {self.name} | {self.seconds:.1f} | {self.cpu:.1f} | {sizes} |"


HEADER = (
    "| step | seconds | CPU seconds | peak memory, GB | of it anonymous | read, GB | written, GB |\n"
    "|---|---|---|---|---|---|---|"
)


def processes(root: int) -> Iterator[int]:
    """A process and its descendants."""
    yield root
    try:
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))
    except OSError:
        return


def facts_of(pid: int, name: str) -> dict[str, int]:
    """Numbers of /proc/PID/NAME by their names; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.replace(":", " ").split() for line in lines)
    return {p[0]: int(p[1]) for p in pairs if len(p) > 1 and p[1].isdigit()}


def run(name: str, arguments: list[str], log: Path) -> Step:
    """Run a command to its end; ``rchar`` and ``wchar`` of every process are those last seen."""
    step, moved = Step(name), {}
    start = time.perf_counter()
    with (log / f"{name.replace(' ', '_')}.txt").open("w+") as said:
        process = subprocess.Popen(arguments, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            tree = list(processes(process.pid))
            memory = [facts_of(pid, "status") for pid in tree]
            step.peak = max(step.peak, 1024 * sum(m.get("VmRSS", 0) for m in memory))
            step.anonymous = max(step.anonymous, 1024 * sum(m.get("RssAnon", 0) for m in memory))
            times = {pid: ticks(pid) for pid in tree}
            moved.update({pid: (facts_of(pid, "io"), times[pid]) for pid in tree if times[pid] > 0})
            time.sleep(0.1)
        step.seconds = time.perf_counter() - start
        said.seek(0)
        step.said = said.read()
    step.read = sum(io.get("rchar", 0) for io, _ in moved.values())
    step.written = sum(io.get("wchar", 0) for io, _ in moved.values())
    step.cpu = sum(seconds for _, seconds in moved.values())
    print(step.row(), flush=True)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{step.said}")
    return step


def ticks(pid: int) -> float:
    """Processor seconds of a process so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


# -- the study --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=10_716)
    parser.add_argument("--models", type=int, default=3, help="models added from files")
    parser.add_argument("--fit", default="mean_treated", help="models fitted here; none for no fit")
    parser.add_argument("--scope", default="cell_line", help="scope of the models fitted here")
    parser.add_argument("--nested", action="store_true", help="fit also without each pair of folds")
    parser.add_argument("--combiners", default=None, help="default: those of the analysis plan")
    parser.add_argument("--memory", default="1 GB")
    parser.add_argument("--precision", default="32", choices=["32", "16"], help="bits of a stored value")
    parser.add_argument("--lines", type=int, default=9, help="cell lines: with one, a block as large as at full size")
    parser.add_argument("--compounds", type=int, default=0, help="0: one in sixty samples")
    parser.add_argument("--shuffled", action="store_true", help="rows of the file in random order")
    parser.add_argument("--predict", type=int, default=2000, help="new samples; 0 leaves the step out")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the study and the logs there")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="founding-", dir=options.folder))
    try:
        work(home, options)
    finally:
        if not options.keep:
            shutil.rmtree(home, ignore_errors=True)


def work(home: Path, options: argparse.Namespace) -> None:
    """All steps in order, each printed as soon as it is done."""
    world = World(
        options.samples,
        options.genes,
        shuffled=options.shuffled,
        lines=options.lines,
        compounds=options.compounds,
    )
    study, data, file = home / "study", home / "data.h5ad", home / "model.h5ad"

    def step(name: str, *arguments: str) -> Step:
        return run(name, [str(Path(sys.executable).with_name("pertstack")), *arguments], home)

    print(f"{options.samples:,} samples x {options.genes:,} genes, {options.models} models added, {options.fit} fitted")
    print(HEADER)
    write_h5ad(data, world, {"X": world.treated, "layers/control": world.control}, list(world.obs.columns))
    run("cp data", ["cp", str(data), str(home / "copy")], home)
    (home / "copy").unlink()
    step("init", "init", str(study), "--data", str(data), "--precision", options.precision)
    data.unlink()
    for m in range(options.models):
        if shutil.disk_usage(home).free < 2.5 * 4 * options.samples * options.genes:  # its file, its layer, and as much
            print(f"no room on the disk for more than {m} models", flush=True)
            options.models = m
            break
        write_h5ad(file, world, {"X": lambda rows, m=m: world.prediction(rows, m)}, [])  # type: ignore[misc]
        if m == 0:
            run("cp predictions", ["cp", str(file), str(home / "copy")], home)
            (home / "copy").unlink()
        step(f"add model{m}", "add", str(study), f"model{m}", str(file), "--fitted-on", "plan", "--scale", "treated")
        file.unlink()
    if options.fit != "none":
        nested = "--nested" if options.nested else "--no-nested"
        step("fit", "fit", str(study), "--models", options.fit, "--scope", options.scope, nested)
    chosen = [] if options.combiners is None else ["--combiners", options.combiners]
    for name in ("reduce", "stack", "verdict"):
        step(name, name, str(study), "--memory", options.memory, *(chosen if name == "stack" else []))
    for name, more in {"report": [], "status": [], "audit": [], "audit deep": ["--deep"]}.items():
        step(name, name.split()[0], str(study), *more)
    if options.predict:
        predict_new(home, study, options, step)
    say_sizes(study)


def say_sizes(study: Path) -> None:
    """Size of the study, of its report, and of the largest files beside the arrays."""
    files = [f for f in study.rglob("*") if f.is_file()]
    report = (study / "report.html").stat().st_size / 1e6
    print(f"study: {sum(f.stat().st_size for f in files) / 1e9:.2f} GB; report.html: {report:.2f} MB; largest others:")
    others = [f for f in files if f.relative_to(study).parts[0] not in ("store", "test_truth")]
    for found in sorted(others, key=lambda f: -f.stat().st_size)[:6]:
        print(f"  {found.relative_to(study)}: {found.stat().st_size / 1e6:.1f} MB")


def predict_new(home: Path, study: Path, options: argparse.Namespace, step: Callable[..., Step]) -> None:
    """New samples, with files of the added models' predictions for them."""
    new = World(options.predict, options.genes, part=1, lines=options.lines, compounds=options.compounds)
    write_h5ad(home / "new.h5ad", new, {"X": new.treated, "layers/control": new.control}, list(new.obs.columns))
    given: list[str] = []
    weights = json.loads((study / "results" / "weights.json").read_text())
    for m in range(options.models):
        if f"model{m}" in weights["models"]:
            path = home / f"new{m}.h5ad"
            write_h5ad(path, new, {"X": lambda rows, m=m: new.prediction(rows, m)}, [])  # type: ignore[misc]
            given += ["--predictions", f"model{m}={path}"]
    step("predict", "predict", str(study), str(home / "new.h5ad"), str(home / "out.h5ad"), *given)


if __name__ == "__main__":
    main()
