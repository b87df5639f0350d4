"""What the first use after an installation costs: loops that are compiled, in CPU seconds of one thread.

    python benchmarks/first_use.py       # three copies of the package without compiled loops; some two minutes

A study of 240 samples x 40 genes with three baselines is stacked with all default combiners and judged: in a copy of
the package that holds no compiled loop, then in the same copy again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "pertstack"
ROUNDS = 3


def stacked_and_judged() -> None:
    """Print the CPU seconds of ``stack`` and of ``verdict`` in this process."""
    import pertstack as ps
    from pertstack.data import SimulationConfig, simulate_to_file

    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world.h5ad"
        simulate_to_file(world, SimulationConfig(samples=240, genes=40, cell_lines=2, perturbations=30, seed=3))
        study = ps.Study.create(Path(folder) / "study", data=world, seed=1)
        study.cross_fit(["mean_treated", "ridge", "perturbation_knn"], engine="inline")
        for step in (study.stack, study.verdict):
            began = time.process_time()
            step()
            print(f"{time.process_time() - began:.1f}", end=" ")


def main() -> None:
    print("       stack, verdict: first; again")
    for i in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(PACKAGE, Path(folder) / "pertstack", ignore=shutil.ignore_patterns("__pycache__"))
            threads = {f"{n}_NUM_THREADS": "1" for n in ("OMP", "OPENBLAS", "MKL")}
            environment = {**os.environ, **threads, "PYTHONPATH": folder}
            command = [sys.executable, "-W", "ignore", __file__, "here"]
            said = [
                subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
                for _ in range(2)
            ]
        print(f"copy {i + 1}: {'; '.join(s.strip() for s in said)}", flush=True)


if __name__ == "__main__":
    stacked_and_judged() if sys.argv[1:] == ["here"] else main()
