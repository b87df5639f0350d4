"""Groups that share parts vary together: intervals are wider for it, never narrower, and others keep their bits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._stats.group_means import GroupMeans
from pertstack._stats.group_sums import GroupSums
from pertstack._stats.intervals import difference_to_best, interval
from pertstack._stats.shared_parts import keys_of, spread_of_mean, wider
from pertstack.design.plan.groups import shared_parts
from pertstack.reduce.scoring.calibration import mean_interval, share_interval
from pertstack.verdict.judge import judge
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting
from references.judged_world import KINDS, world

METHODS = ["auto", "bootstrap_t", "wild_rademacher"]


def doubles(rng, n_genes=26, n=31, alike=0.3, rows=1):
    """Scores (rows, n) of doubles of which those of a gene have correlation ``alike``, their names, their parts."""
    pairs = list(combinations([f"g{i:02d}" for i in range(n_genes)], 2))
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:n]]
    effect = {g: rng.normal(0, alike**0.5, rows) for pair in pairs for g in pair}
    values = [effect[a] + effect[b] + rng.normal(0, (1 - 2 * alike) ** 0.5, rows) for a, b in chosen]
    names = ["+".join(pair) for pair in chosen]
    return np.array(values).T, np.array(names), dict(zip(names, chosen, strict=True))


def test_the_interval_of_a_mean_over_doubles_holds_the_truth():
    """Of 120 worlds with a known mean; benchmarks/shared_parts.py counts more."""
    rng, held = np.random.default_rng(2), {"apart": 0, "alike": 0}
    for _ in range(120):
        (values,), names, parts = doubles(rng)
        for kind, known in (("apart", None), ("alike", parts)):
            e = interval(values, names, rng=np.random.default_rng(0), resamples=100, parts=known)
            held[kind] += e.lo <= 0 <= e.hi
    assert 0.9 < held["alike"] / 120 < 0.99 and held["apart"] / 120 < 0.87, held


def test_variances_by_plain_loops():
    """Expectations of the spread and of the mean product of pairs, solved by numpy for the same two unknowns."""
    rng = np.random.default_rng(5)
    (values,), names, parts = doubles(rng, n_genes=12, n=20)
    share = rng.uniform(0.5, 1.5, 20)
    share /= share.sum()
    pull = share * (values - share @ values)
    keys = [parts[n] for n in names]
    sharing = np.array([[0 if i == j else len({*a} & {*b}) for j, b in enumerate(keys)] for i, a in enumerate(keys)])
    alone, pairs = share @ share, share @ sharing @ share
    # E spread = s2 - v, E together = c - v, v = s2 alone + c pairs
    left = [[1 - alone, -pairs], [-alone, 1 - pairs]]
    s2, c = np.linalg.solve(left, [(pull**2 / share).sum(), pull @ sharing @ pull / pairs])
    found = spread_of_mean(pull, share, keys_of(names, parts))
    assert c > 0 and (found.group, found.alike) == pytest.approx((s2, c))
    assert found.mean == pytest.approx(s2 * alone + c * pairs) and found.mean > found.apart


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METHODS))
def test_never_narrower_whichever_method(seed, method):
    """Also where doubles of a gene are unlike (a negative covariance), of few groups and with undefined scores."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 16))
    (values,), names, parts = doubles(rng, n_genes=int(rng.integers(6, 12)), n=n, alike=0.0)
    values[rng.random(n) < 0.1] = np.nan
    said = {"method": method, "resamples": 100}
    plain = interval(values, names, rng=np.random.default_rng(0), **said)
    known = interval(values, names, rng=np.random.default_rng(0), parts=parts, **said)
    assert known.value == pytest.approx(plain.value, nan_ok=True)
    assert known.lo <= plain.lo + 1e-12 and known.hi >= plain.hi - 1e-12
    assert known.p is None or known.p >= plain.p - 1e-12


def test_unlike_doubles_count_as_apart():
    names = ["a+b", "b+c", "c+d", "d+a", "e+f", "f+g", "g+h", "h+e"]  # two rings, neighbours far apart
    parts = {n: tuple(n.split("+")) for n in names}
    pull, share = np.tile([1.0, -1.0], 4) / 8, np.full(8, 1 / 8)
    assert (
        spread_of_mean(pull, share, keys_of(names, parts)).alike == 0 and wider(pull, share, keys_of(names, parts)) == 1
    )
    together = np.repeat([1.0, -1.0], 4) / 8  # a ring is hard, the other easy
    assert wider(together, share, keys_of(names, parts)) > 1.5


@pytest.mark.parametrize(
    "parts", [None, {f"p{i}": (f"p{i}",) for i in range(30)}, {f"p{i}": (f"a{i}", f"b{i}") for i in range(30)}]
)
def test_groups_that_share_nothing_keep_their_bits(parts):
    rng = np.random.default_rng(3)
    values, groups = rng.normal(0, 1, (4, 60)), np.repeat([f"p{i}" for i in range(30)], 2)
    plain, known = GroupSums.of(values, groups), GroupSums.of(values, groups, parts)
    assert known.total.tobytes() == plain.total.tobytes()
    means = GroupMeans.of(values, groups)
    assert means.errors(parts).tobytes() == means.errors().tobytes()
    pool = np.array([False, True, True, True])
    ends = [
        [(e.lo, e.hi, e.p) for e in difference_to_best(values, pool, groups, rng=np.random.default_rng(0), parts=p)]
        for p in (None, parts)
    ]
    assert ends[0] == ends[1]


def test_which_groups_are_combinations_that_share_parts():
    def found(groups, names=None, among=()):
        return shared_parts(pd.DataFrame({"group": groups, "perturbation": groups if names is None else names}), among)

    assert found(["A+B", "B+C", "D"]) == {"A+B": ("A", "B"), "B+C": ("B", "C"), "D": ("D",)}
    assert found(["A", "B", "B"]) is None and found(["A+B", "C+D"]) is None
    assert found(["K562", "K562", "A375"], ["A+B", "B+C", "A+B"]) is None  # lines are no combinations
    assert found(["A_B", "B_C"]) is None and found(["A_B", "B_C"], among=["A", "B", "C"]) is not None
    assert found(["s1", "s2"], ["A+B", "B+A"]) == {"s1": ("A", "B"), "s2": ("A", "B")}


def test_calibration_over_doubles_is_less_sure():
    (values,), names, parts = doubles(np.random.default_rng(2))
    for made, x in ((mean_interval, values), (share_interval, (values > -0.3).astype(float))):
        (_, plain), (_, known) = made(x, names), made(x, names, parts=parts)
        assert known[0] < plain[0] and known[1] > plain[1]


def test_the_verdict_counts_it_everywhere_and_says_so():
    """A ring of doubles, hard or easy by gene: gain, score, set and panel widen; the footer counts the groups."""
    table, rng = world(40, ("A375",)), np.random.default_rng(1)
    of_gene = rng.normal(0, 0.05, 41)
    names = [f"g{i}+g{i + 1}" for i in range(40)]
    table.samples["perturbation"] = table.samples["group"] = names
    shift = of_gene[:-1] + of_gene[1:]
    table.values_by_name[:] += shift.astype(np.float32)
    table.values_by_name[table.names.index("direct_pooled")] += shift.astype(np.float32)
    setting = Setting(KINDS, chosen="direct_pooled", test_looks=1)
    plain, known = (
        judge(table, None, setting, resampling=GroupResampling(resamples=300, parts=parts))
        for parts in (None, shared_parts(table.samples))
    )
    primary = "r2_top20@pooled"
    one, two = (v.leaderboard.row("direct_pooled") for v in (plain, known))
    for a, b in ((one.score(primary), two.score(primary)), (one.versus(primary), two.versus(primary))):
        assert b.ci[0] < a.ci[0] and b.ci[1] > a.ci[1] and a.value == b.value
    assert "40 of which share parts" in known.leaderboard.footer() and "share parts" not in plain.leaderboard.footer()
    for word in ("simultaneous", "best_of"):
        a, b = (v.leaderboard.several[word] for v in (plain, known))
        a, b = (x["rows"][0]["ci"] if "rows" in x else x["ci"] for x in (a, b))
        assert b[1] - b[0] > a[1] - a[0]
    p = [{r["name"]: r["p"] for r in v.leaderboard.several["confidence_set"]["rows"]} for v in (plain, known)]
    assert min(p[1].values()) >= min(p[0].values())
