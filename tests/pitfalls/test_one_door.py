"""One door to the held-out test: what a cut ledger, a crash or a second command at the same time may not do."""

from __future__ import annotations

import pytest

from pertstack._base.errors import CorruptionError


def cut_before(study, kind: str) -> None:
    """The attack: the ledger ends before the first entry of a kind, and the verdict's files are gone."""
    path = study.folder.path("ledger.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if f'"kind": "{kind}"' in line)
    path.write_text("".join(lines[:at]))
    for name in ("verdict.json", "leaderboard.json", "leaderboard.csv", "test_scores.npz", "checks.json"):
        (study.folder.results / name).unlink()


@pytest.mark.parametrize("kind", ["plan_locked", "look"])
def test_a_cut_ledger_is_not_laundered_by_ordinary_commands(judged, kind):
    cut_before(judged, kind)
    book = judged.folder.path("ledger.jsonl")
    before = book.read_bytes()
    steps = {
        "stack": lambda: judged.stack(["mean"]),
        "verdict": judged.verdict,
        "withdraw": lambda: judged.withdraw("ridge", "why not"),
    }
    for name, step in steps.items():
        with pytest.raises(CorruptionError, match="with which it ended before"):
            step()
        assert book.read_bytes() == before, name
    assert any(f.code == "ledger_cut_short" for f in judged.audit())
