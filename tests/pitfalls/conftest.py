"""Two tiny studies, made once: one that is only fitted, one that went all the way. Copy before changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pertstack as ps
from copies import copied
from pertstack.data import SimulationConfig, simulate_to_file
from undrawn import undrawn_figure

MODELS = ["mean_treated", "ridge", "perturbation_knn"]
Copy = Callable[[], ps.Study]


@pytest.fixture(scope="module", autouse=True)
def _few_exchanges_and_pages_of_words(request: pytest.FixtureRequest) -> Iterator[None]:
    """A deep audit exchanges truths a dozen times; where that is not what is tested, half as often. Reports are written
    without drawing their figures, which the tests of the whole road do."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem != "test_probing_fits":
            patch.setattr("pertstack.study.audit.probes_refitted.PERMUTATIONS", 5)
        patch.setattr("pertstack.write.report.to_svg", undrawn_figure)
        yield


@pytest.fixture(scope="session")
def world_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 samples x 40 genes, 2 cell lines, 30 perturbations."""
    path = tmp_path_factory.mktemp("world") / "world.h5ad"
    simulate_to_file(path, SimulationConfig(samples=240, genes=40, cell_lines=2, perturbations=30, seed=3))
    return path


@pytest.fixture(scope="session")
def fitted_study(world_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ps.Study:
    study = ps.Study.create(tmp_path_factory.mktemp("fitted") / "study", data=world_file, seed=1)
    assert all(r.ok for r in study.cross_fit(MODELS, engine="inline"))
    return study


@pytest.fixture(scope="session")
def judged_study(fitted_study: ps.Study, tmp_path_factory: pytest.TempPathFactory) -> ps.Study:
    root = copied(fitted_study.folder.root, tmp_path_factory.mktemp("judged") / "study")
    study = ps.Study.open(root)
    study.stack(["mean", "simplex"])
    study.verdict()
    return ps.Study.open(root)


@pytest.fixture
def fitted(fitted_study: ps.Study, tmp_path: Path) -> ps.Study:
    """A copy of the fitted study to do harm to."""
    return ps.Study.open(copied(fitted_study.folder.root, tmp_path / "fitted"))


@pytest.fixture
def judged(judged_study: ps.Study, tmp_path: Path) -> ps.Study:
    """A copy of the judged study to do harm to."""
    return ps.Study.open(copied(judged_study.folder.root, tmp_path / "judged"))
