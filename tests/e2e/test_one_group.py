"""One group, or nearly: no NaN and no None reaches a reader, and a missing interval is said in words (issue 16)."""

from __future__ import annotations

import re

import anndata
import pytest

import pertstack as ps
from pertstack._base.errors import InputError
from pitfalls.test_asked_metric import world

from .conftest import ok

UNSAID = re.compile(r"(?<![\w/.-])(?:nan|NaN|inf|None)(?![\w/.:-])")


def text_of(page):
    """Words of a page, without scripts, styles and pictures."""
    page = re.sub(r"<(script|style|svg).*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_test_of_one_group_has_no_interval_and_says_so(tmp_path):
    data, _ = world(genes=30, perturbations=5, lines=4)
    data.write_h5ad(tmp_path / "data.h5ad")
    study = tmp_path / "s"
    ok("init", study, "--data", tmp_path / "data.h5ad", "--folds", 2)
    ok("fit", study, "--models", "mean_treated,mean_shift,per_gene_linear")
    said = [
        ok("stack", study, "--combiners", "mean,simplex"),
        ok("verdict", study),
        ok("report", study),
        ok("status", study),
    ]
    board = ps.Study.open(study).leaderboard()
    said += [repr(board), board._repr_html_(), board.headline, text_of(study / "report.html")]
    assert not [found for words in said for found in UNSAID.findall(words)]
    assert "Scored on 1 perturbation only: there is no interval" in board.headline
    assert any("there is no interval" in c for c in board.cautions)
    assert "no interval: too few groups" in said[-1] and "rough guide, and a repeat" not in said[-1]


def test_evaluate_with_one_perturbation_says_that_there_is_nothing_to_compare():
    data, models = world(genes=30, perturbations=1, lines=12)
    guess = anndata.AnnData(models["one"], data.obs[[]], data.var[[]])
    with pytest.raises(InputError, match=r"share a single perturbation \(d00\)"):
        ps.evaluate(data, {"one": guess})
