"""Where nobody watches a bar, a line every ten seconds says how far a step is; the library alone is silent."""

from __future__ import annotations

import pytest

from pertstack._base.machine import progress


@pytest.fixture
def lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "_enabled", True)
    return lambda: capsys.readouterr().err.splitlines()


def test_every_way_to_advance_says_so(lines):
    """Fits update their task with a new description, other steps advance it, loops are tracked."""
    with progress.progress_bar() as bar:
        task = bar.add_task("waiting", total=4)
        bar.update(task, advance=1, description="cross-fitting (ridge f0)")
        bar.advance(task)
    assert list(progress.track(range(2), "reading", 2)) == [0, 1]
    said = lines()
    assert said[0].startswith("cross-fitting (ridge f0): 1 of 4 (25 %)") and "2 of 4 (50 %)" in said[1]
    assert any(line.startswith("reading: 2 of 2 (100 %)") for line in said)


def test_who_was_told_of_the_beginning_is_told_of_the_end(lines, monkeypatch):
    """``1 of 2`` was the last that was seen of a step that ended less than ten seconds later."""
    for turn in progress.track(range(2), "summing cells", 2):
        monkeypatch.setattr(progress, "EVERY", 10.0 * turn)
    assert [line.split(",")[0] for line in lines()] == ["summing cells: 1 of 2 (50 %)", "summing cells: 2 of 2 (100 %)"]
    assert list(progress.track(range(2), "quick", 2)) == [0, 1] and lines() == []


def test_the_library_is_silent(lines, monkeypatch):
    monkeypatch.setattr(progress, "_enabled", False)
    with progress.progress_bar() as bar:
        bar.advance(bar.add_task("waiting", total=1))
    progress.remark("nobody hears this")
    assert lines() == []
