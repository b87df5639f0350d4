"""The report is one file that needs nothing else, says what is missing, and shows the numbers of the verdict."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pertstack._base.colours import VARIABLES, to_svg
from pertstack._base.findings import Finding
from pertstack.verdict.checks.checks import run_checks
from pertstack.verdict.checks.facts import Facts
from pertstack.verdict.decision import IN_WORDS
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from pertstack.verdict.words import number
from pertstack.write.figures import leaderboard_figure
from pertstack.write.forest import forest
from pertstack.write.report import render, report
from pertstack.write.report_input import QUESTIONS, ReportInput, question_of
from pertstack.write.tables.probe_table import probe_table
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling

MODELS = ["mlp", "ridge", "knn", "mean_treated"]
SETTING = Setting(
    KINDS,
    chosen="direct_pooled",
    test_looks=1,
    plan_digest="9f2c44e0a1b2" * 4,
    versions={"numpy": "2.4"},
    cautions={"simplex": ("weights did not settle",)},
)


def full_input(**changes):
    verdict = judge(world(), world(seed=6), SETTING, resampling=PlainResampling(20))
    correlation = pd.DataFrame(np.eye(4) * 0.2 + 0.8, MODELS, MODELS)
    weights = {"direct_pooled": dict(zip(MODELS, (0.8, 0.3, -0.1, 0.0), strict=True))}
    content = ReportInput(
        "A <study>",
        verdict,
        "perturbation",
        {"samples": 180, "cell lines": ["A375", "HT29"]},
        {"primary": "r2_top20", "combiners": []},
        [{"time": "t", "who": "ana", "kind": "look", "facts": {"n": 180}}],
        weights,
        correlation,
        correlation,
        {"effective number of models": 2.371},
        [{"name": "direct_pooled", "outcome": "kept", "reason": "gains"}],
        run_checks(Facts(verdict, correlation)),
        [Finding("warning", "shared_control", "14 control rows are shared.", 14)],
        [{"name": "transigen", "reason": "loss became NaN"}],
        pd.DataFrame({"cell_line": ["A375"], "coverage": [0.91], "width": [1.0]}),
        mean_name="plain_mean",
    )
    return dataclasses.replace(content, **changes)


class Tags(HTMLParser):
    """Collects open tags and checks that they close in order."""

    void = frozenset(("meta", "link", "br", "img", "hr", "input", "use", "path"))

    def __init__(self, text):
        super().__init__()
        self.seen, self.stack = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def page():
    return render(full_input())


def test_page_is_self_contained(page):
    tags = Tags(page)
    assert not tags.stack, "every tag is closed"
    for tag, attributes in tags.seen:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attributes
        for key in ("href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith("#")
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert all("w3.org" in a for a in addresses), "only SVG name spaces, nothing that is fetched"
    assert "@import" not in page and "url(http" not in page


def test_ids_are_unique_and_links_lead_somewhere(page):
    tags = Tags(page)
    ids = [a["id"] for _, a in tags.seen if "id" in a]
    assert len(ids) == len(set(ids))
    for key in ("href", "xlink:href"):
        for _, attributes in tags.seen:
            if key in attributes:
                assert attributes[key][1:] in ids
    for target in re.findall(r"url\(#([^)]+)\)", page):
        assert target in ids


def test_headline_comes_first_and_numbers_of_the_verdict_are_on_the_page(page):
    board = full_input().verdict.leaderboard
    text = unescape(re.sub(r"<(script|style|svg).*?</\1>", "", page, flags=re.S))
    assert text.index(board.decision.sentence) < text.index("What was asked") < text.index("Leaderboard</h2>")
    for row in board.ranked():
        for metric in ("r2_top20@own", "r2_top20@pooled", "rmse_all@own"):
            assert number(row.score(metric).value) in text
    for needed in (
        "opened 1 time",
        "180 / 180",
        "⚠ weights did not settle",
        "an artefact of the shared control",
        "2.37",
        "14 control rows are shared.",
        "loss became NaN",
        "9f2c44e0a1b2",
        QUESTIONS["perturbation"],
    ):
        assert needed in text, needed


def test_text_of_the_user_is_escaped(page):
    assert "A <study>" not in page and "A &lt;study&gt;" in page


def test_every_figure_has_an_alt_text_and_follows_light_and_dark(page):
    figures = re.findall(r"<svg .*?</svg>", page.split("<script>")[0], flags=re.S)
    assert len(figures) == 7
    for figure in figures:
        root = ElementTree.fromstring(figure)
        assert len(root.attrib["aria-label"]) > 20 and root.attrib["role"] == "img"
        inside = set(re.findall(r"#[0-9a-f]{6}\b", figure)) - {"#ffffff"}
        assert not inside, f"colours that do not follow the page: {inside}"
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_both_palettes_are_readable(page):
    """WCAG contrast of ink and muted text against paper is at least 4.5 in light and in dark."""
    css = page.split("</style>")[0]
    for block in re.findall(r":root \{[^}]*--paper[^}]*\}", css)[:2]:
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", block))
        for name in ("ink", "muted"):
            assert _contrast(colours[name], colours["paper"]) >= 4.5, (name, colours)
        for name in ("blue", "orange", "green", "purple"):
            assert _contrast(colours[name], colours["paper"]) >= 3.0, (name, colours)


def _contrast(a, b):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_missing_parts_are_left_out_with_a_reason():
    verdict = judge(
        None,
        world(20, ("A375",)),
        dataclasses.replace(SETTING, chosen=None, test_looks=0),
        resampling=PlainResampling(9),
    )
    text = unescape(render(ReportInput("bare", verdict, why_missing={"checks": "The checks were skipped on request."})))
    Tags(text)
    assert "Not decided yet: out of fold no combination was shown to beat mlp" in text
    for sentence in (
        "No combiner with linear weights was fitted.",
        "only one cell line",
        "The checks were skipped on request.",
        "No prediction intervals were computed.",
        "cannot be listed",
        "The leak checks of plan against data were not run.",
        "opened 0 times",
        "Correlations between models were not computed",
    ):
        assert sentence in text, sentence


def test_same_input_same_bytes(tmp_path, page):
    path = report(full_input(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page


def test_a_look_under_a_changed_plan_is_marked():
    verdict = judge(
        world(20), None, dataclasses.replace(SETTING, exploratory=True, test_looks=2), resampling=PlainResampling(9)
    )
    text = render(ReportInput("again", verdict))
    assert '<span class="tag warn">exploratory</span>' in text and "EXPLORATORY" in text and "opened 2 times" in text


@pytest.mark.parametrize(
    ("shift", "light"),
    [
        ({}, "green"),
        ({"own": 0.05, "pooled": -0.1, "centroid": -0.05, "rmse": 0.05}, "red"),
        ({"own": 0.0, "pooled": 0.0, "centroid": 0.0, "rmse": 0.0}, "amber"),
    ],
)
def test_the_headline_is_not_set_in_green_unless_the_gain_is_real(shift, light, undrawn):
    verdict = judge(world(by_name=shifts(**shift)), None, SETTING, resampling=PlainResampling(20))
    page = render(ReportInput("t", verdict))
    assert f'class="decision {light}"' in page and IN_WORDS[light] in page


def test_a_study_not_to_be_trusted_shows_no_real_gain_anywhere_above_the_board(undrawn):
    words = ("knn knows the noise of the rows it predicts (z = 104).",)
    doubted = dataclasses.replace(SETTING, accused={"knn": words}, accused_gravely=frozenset({"knn"}))
    pages = [
        render(ReportInput("t", judge(world(), None, s, resampling=PlainResampling(20)))) for s in (SETTING, doubted)
    ]
    tiles = [page[page.index('class="tiles"') : page.index("<nav")] for page in pages]
    assert "a real gain" in tiles[0] and "a real gain" not in tiles[1] and "not to be trusted" in tiles[1]
    assert "Without that doubt it would read" in pages[1][pages[1].index('id="gain"') :]


def test_svg_uses_variables_for_every_palette_colour():
    svg = to_svg(leaderboard_figure(full_input().verdict.leaderboard), name="x", alt='5 < 6 & "so"')
    assert "var(--orange)" in svg and not any(colour in svg for colour in VARIABLES)
    assert ElementTree.fromstring(svg).attrib["aria-label"] == '5 < 6 & "so"'


def test_every_grouping_has_its_question():
    assert "cell lines" in question_of("cell_line") and "held-out values of donor" in question_of("donor")


def test_probes_are_a_table_of_models_and_accusations_keep_their_words(undrawn):
    probes = [
        Finding("note", "too_good_passed", "The error is not below the noise.", where="transigen"),
        Finding("note", "replicate_noise_not_applicable", "Could not be tested: no replicates.", where="transigen"),
        Finding("error", "too_good", "biolord predicts noise.", where="biolord"),
    ]
    table = probe_table(probes)
    assert table.probes == ("too_good", "replicate_noise")
    assert {m: {p: o.word for p, o in c.items()} for m, c in table.cells.items()} == {
        "transigen": {"too_good": "passed", "replicate_noise": "not applicable"},
        "biolord": {"too_good": "error"},
    }
    page = render(full_input(probes=probes))
    assert "biolord predicts noise." in page and 'title="Could not be tested: no replicates."' in page
    assert page.count("The error is not below the noise.") == 1  # in the title of its cell, not a line of its own


def test_models_without_a_slope_are_named_beside_the_picture(request):
    page = render(full_input(slopes={"mlp": 1.02, "knn": 0.6, "ridge": 0.9}))
    assert "Without a slope, because its predictions hardly vary between samples: mean_treated." in page
    request.getfixturevalue("undrawn")
    assert "Without a slope" not in render(full_input(slopes=dict.fromkeys(MODELS, 1.0)))


def test_what_may_not_ship_is_folded_away_with_its_reason(undrawn):
    ladder = [
        {"name": "simplex", "outcome": "chosen", "reason": "best of 2 left"},
        {"name": "mean", "outcome": "may not ship", "reason": "loses beyond noise on own"},
    ]
    page = render(full_input(ladder=ladder))
    assert "1 that may not ship, and why" in page
    assert page.index("best of 2 left") < page.index("1 that may not ship") < page.index("loses beyond noise on own")


def test_all_competitors_at_once_stand_in_the_report(undrawn):
    content = full_input()
    page, facts = render(content), content.verdict.leaderboard.several
    assert "<h3>All at once</h3>" in page and "Cannot be told from the best (95 % confidence set" in page
    kept = {r["name"]: r["included"] for r in facts["confidence_set"]["rows"]}
    for name, included in kept.items():
        answer = "yes" if included else "no"
        assert f'<tr><td class="name">{name}</td><td>{answer}</td>' in page
    assert set(kept.values()) == {True, False}
    bare = dataclasses.replace(content.verdict.leaderboard, several={})
    assert "All at once" not in render(
        dataclasses.replace(content, verdict=dataclasses.replace(content.verdict, leaderboard=bare))
    )


def test_a_gain_that_does_not_ship_is_named_and_what_ships_is_in_the_first_figure(monkeypatch, undrawn):
    """Beside "shipped: X alone" the gain of another combination was read as that of X."""
    content = full_input()
    board = content.verdict.leaderboard
    assert board.ships == board.chosen == "direct_pooled" and "gain over best single<" in render(content)
    monkeypatch.setattr("pertstack.write.forest.SHOWN", 2)
    alone = "mean_treated"
    assert alone not in {r.name for r in forest(board)["rows"] if r.first}
    decision = dataclasses.replace(content.verdict.decision, ships=alone)
    held_back = dataclasses.replace(board, decision=decision)
    page = render(dataclasses.replace(content, verdict=dataclasses.replace(content.verdict, leaderboard=held_back)))
    assert "direct_pooled, not shipped: gain<" in page and f"shipped: {alone}" in page
    assert alone in {r.name for r in forest(held_back)["rows"] if r.first}
