"""The tests that hang on rounding, run as on other processors: `make processors`.

Each line below switches vector units off or picks other kernels, as another machine would, and runs the same tests in a
process of its own. What passes here and fails there compares numbers more strictly than floating point allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy._core._multiarray_umath as umath

SENSITIVE = (
    "tests/laws",
    "tests/contract",
    "tests/unit/fit_torch",
    "tests/unit/fit",
    "tests/unit/reduce",
    "tests/unit/stack",
    "tests/unit/stacking",
    "tests/unit/verdict",
    "tests/e2e/test_small_study.py",
)


def variants() -> dict[str, dict[str, str]]:
    """Name -> environment. numpy's vector units are those this machine has above its baseline."""
    units = " ".join(u for u in umath.__cpu_dispatch__ if umath.__cpu_features__.get(u))
    numpy_alone = {f"numpy without {units}": {"NPY_DISABLE_CPU_FEATURES": units}} if units else {}
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {
        "one thread": one,
        "two threads": dict.fromkeys(one, "2"),
        "torch without vector units": {"ATEN_CPU_CAPABILITY": "default"},
        **numpy_alone,
        "OpenBLAS for Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
        "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
        "OpenBLAS for Zen": {"OPENBLAS_CORETYPE": "Zen"},
    }


def main(paths: list[str]) -> int:
    """Run every variant, also after a failure; the exit code counts those that failed."""
    root = Path(__file__).resolve().parents[1]
    chosen = paths or [p for p in SENSITIVE if (root / p).exists()]
    failed = []
    for name, env in variants().items():
        print(f"== {name}: {' '.join(f'{k}={v}' for k, v in env.items())}", flush=True)
        start = time.monotonic()
        words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not slow", *chosen]
        code = subprocess.run(words, cwd=root, env={**os.environ, **env}, check=False).returncode
        print(
            f"== {name}: {'passed' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - start:.0f} s",
            flush=True,
        )
        failed += [name] if code else []
    print(f"{len(variants()) - len(failed)} passed, {len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
