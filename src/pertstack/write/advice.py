"""What to do about a numbered check, and what a probe asks, in a sentence each: the report stands alone, offline.

The documentation says more under anchors of the same names (``check-11``, ``probe-too_good``); a test compares them.
"""

from __future__ import annotations

CHECKS: dict[str, str] = {
    "dominant_model": "Add a model that errs differently (another input, another architecture), not another good "
    "near-copy.",
    "redundancy": "Keep one of each pair, or use a combination that prunes or ties them.",
    "correlated_errors": "Compare with the replicate ceiling: often the shared part of the error is measurement noise, "
    "which nothing predicts.",
    "overfitting_gap": "Prefer global or shrunken weights to weights by gene, and believe the scores on unseen rows.",
    "below_mean": "Suspect rows or genes out of order in an added prediction, or a model on another scale: "
    "pertstack audit compares them.",
    "too_good": "Ask of every model which rows it was fitted on, and whether its settings were chosen on the test.",
    "unstable_weights": "Drop near-copies (check 2), or fit more rows.",
    "calibration": "Check the scale the model was added with: treated or delta, log2 or not.",
    "unseen_cell_line": "Read the scores by cell line: the mean over all mixes two questions.",
    "hardly_above_mean": "Prefer the mean: it has nothing to fit and nothing to break.",
    "coupled_gain": "Do not ship on the own-control number; decide on the pooled control (r2_top20@pooled).",
    "one_cell_line": "Report it as a finding about that cell line.",
    "few_groups": "Treat every interval as a rough guide, and measure more perturbations before a costly decision.",
    "interval_coverage": "Widen the intervals by the shortfall, or refit: the judged rows differ from the development "
    "rows.",
    "shipped_loses": "Ship the best single model, find out what differs between development and test (check 9, the "
    "scores by cell line), and settle it on new data.",
    "suspicious_models": "Ask which rows the model was fitted on; withdraw it (pertstack withdraw), stack again, and "
    "see what is left of the gain.",
}
PROBES: dict[str, str] = {
    "too_good": "Is the error on single measurements smaller than the noise between replicates, which cannot be "
    "predicted?",
    "replicate_noise": "Does the model know in which direction two replicates of one condition differ?",
    "noise_floor": "Is the error on means of replicates smaller than their noise?",
    "jump": "Does the model improve from out of fold to the test by far more than the others?",
    "fold_fingerprint": "Do out-of-fold predictions carry the slight mark of having been made without their fold? Its "
    "absence is no accusation.",
    "oof_against_fit": "Is the model as good on rows it claims not to have seen as on those it was fitted on?",
    "permuted_truth": "Is anything still gained when truths are exchanged between samples, so that nothing can be?",
}
ACCUSATIONS: dict[str, str] = {
    "too_good_to_be_true": "too_good",
    "knows_replicate_noise": "replicate_noise",
    "below_noise_floor": "noise_floor",
    "jumps_on_the_test": "jump",
    "oof_equals_fit": "oof_against_fit",
    "oof_like_fit": "oof_against_fit",
    "gain_survives_permutation": "permuted_truth",
}
"""Code of an accusation -> the probe that makes it."""
OUTCOMES = ("_passed", "_found", "_missing", "_unclear", "_not_applicable")
"""Endings of a code that tell how a probe went."""


def probe_of(code: str) -> tuple[str, str]:
    """Probe and outcome of a code; an accusation has no outcome in its code. On the test a probe is one of its own.

    >>> probe_of("test_too_good_passed"), probe_of("knows_replicate_noise")
    (('test_too_good', 'passed'), ('replicate_noise', ''))
    """
    ending = next((e for e in OUTCOMES if code.endswith(e)), "")
    name = code.removesuffix(ending)
    where = "test_" if name.startswith("test_") else ""
    name = name.removeprefix("test_")
    return where + ACCUSATIONS.get(name, name), ending.replace("_", " ").strip()
