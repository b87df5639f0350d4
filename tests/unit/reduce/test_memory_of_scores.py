"""What grows with samples or perturbations is mapped or made a piece at a time, and the values are the same."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack._base.machine import scratch
from pertstack.design.metric_names import parse_metrics
from pertstack.reduce import References, ScoreTable, samples_of, score
from pertstack.reduce.metrics import effect_level
from pertstack.reduce.scoring import score as score_module
from pertstack.reduce.scoring.mixtures import no_change, single
from references.memory_source import world

METRICS = ("r2_top20@own", "r2_top20@pooled", "pearson_all@own", "pearson_all@pooled", "rmse_all@own", "mae_all@own")


def peak_of(work: Callable[[], Any]) -> tuple[int, Any]:
    tracemalloc.start()
    answer = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, answer


def table_of(n: int) -> ScoreTable:
    rng = np.random.default_rng(0)
    samples = pd.DataFrame({"sample_id": [f"S{i}" for i in range(n)], "group": "g", "effect_rms": rng.random(n)})
    samples["fold"] = pd.array([0] * (n - 1) + [None], dtype="Int64")
    names = tuple(f"m{i}" for i in range(40))
    values = rng.normal(size=(len(names), len(METRICS), n)).astype(np.float32)
    return ScoreTable(samples, names, METRICS, values_by_name=values, predicted=np.ones((len(names), n), bool))


def test_a_large_score_table_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY", 2**16)
    table = table_of(20_000)  # 19 MB of values
    table.save(tmp_path / "scores.npz")
    ScoreTable.load(tmp_path / "scores.npz")  # imports
    peak, back = peak_of(lambda: ScoreTable.load(tmp_path / "scores.npz", tmp_path))
    assert peak < table.values_by_name.nbytes / 2, peak  # most of it are names of samples
    np.testing.assert_array_equal(back.values_by_name, table.values_by_name)
    pd.testing.assert_frame_equal(back.samples, table.samples)
    assert back.digest == table.digest
    peak, best = peak_of(lambda: back.with_oracle("rmse_all", ["m0", "m1"], scratch=tmp_path))
    assert peak < table.values_by_name.nbytes / 5, peak
    np.testing.assert_array_equal(best.values_by_name, table.with_oracle("rmse_all", ["m0", "m1"]).values_by_name)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


def test_a_score_table_of_the_first_format_is_read(tmp_path: Path) -> None:
    table, path = table_of(50), tmp_path / "old.npz"
    meta = {"format": 1, "names": list(table.names), "metrics": list(table.metrics)}
    text = [json.dumps(meta).encode(), table.samples.to_json(orient="table").encode()]
    raw = [np.frombuffer(t, dtype=np.uint8) for t in text]
    np.savez_compressed(path, meta=raw[0], values=table.values_by_name, predicted=table.predicted, samples=raw[1])
    back = ScoreTable.load(path)
    np.testing.assert_array_equal(back.values_by_name, table.values_by_name)
    assert list(back.samples["sample_id"]) == list(table.samples["sample_id"])


@pytest.mark.parametrize("fault", ["cut", "doubles"])
def test_values_that_are_not_what_they_should_be_are_refused(tmp_path: Path, fault: str) -> None:
    table, path = table_of(50), tmp_path / "scores.npz"
    table.save(path)
    with np.load(path) as z:
        parts = dict(z)
    whole = io.BytesIO()
    np.save(whole, parts["values"].astype(np.float64) if fault == "doubles" else parts["values"])
    values = whole.getvalue()[: -100 if fault == "cut" else None]
    np.savez(path, **{k: v for k, v in parts.items() if k != "values"})
    with zipfile.ZipFile(path, "a") as z:
        z.writestr("values.npy", values)
    with pytest.raises(InputError, match="ends after" if fault == "cut" else "float64"):
        ScoreTable.load(path)


def test_scores_written_to_a_map_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = world(n=40, n_genes=30, n_drugs=7, folds=(0, 1), seed=3)
    references = References.collect(source)
    before = score(source, {}, references, metrics=METRICS)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    after = score(source, {}, references, metrics=METRICS, scratch=tmp_path)
    assert isinstance(after.values_by_name.base, np.memmap) and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(after.values_by_name, before.values_by_name)


def test_nothing_of_a_tile_is_kept_while_whole_perturbations_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    source = world(n=300, n_genes=400, n_drugs=7, folds=(0, 1), seed=3)
    references = References.collect(source)
    combines = {f"c{i}": lambda tile, i=i: tile.predictions[0] + np.float32(i) for i in range(10)}
    metrics, held = ["pearson_all@pooled", "pds_l1@pooled"], []

    def compared(source: Any, combines: Any, references: Any, metrics: Any, **options: Any) -> Any:
        held.append(tracemalloc.get_traced_memory()[0])
        return np.zeros((len(combines), len(metrics), len(samples_of(source))))

    monkeypatch.setitem(score_module._BEYOND_SAMPLES, "set", compared)
    score(source, combines, references, metrics=metrics)  # imports
    peak, _ = peak_of(lambda: score(source, combines, references, metrics=metrics))
    assert held[1] < peak / 5, (held, peak)


def test_the_test_of_effects_is_made_a_few_perturbations_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = world(n=500, n_genes=60, n_drugs=400, folds=(0, 1), seed=3)
    references, combines = References.collect(source), {"m1": single("m1"), "no_change": no_change}
    metrics = parse_metrics(["pearson_exp2@others", "mse_degs@own", "cod_t5@centroid", "mse_all_corrected@pooled"])

    def values() -> Any:
        return effect_level.effect_level_values(source, combines, references, metrics)

    monkeypatch.setattr(effect_level, "_PIECE", 10**6)
    values()  # imports
    at_once, whole = peak_of(values)
    monkeypatch.setattr(effect_level, "_PIECE", 7)
    by_piece, cut = peak_of(values)
    np.testing.assert_array_equal(cut, whole)
    assert by_piece < 0.7 * at_once, (by_piece, at_once)
