"""Every metric that can be asked for has words, and no two have the same."""

from __future__ import annotations

import pytest

from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import ALIASES, direction, effect_names, metric_names

NAMES = (*metric_names(), *effect_names(), "r2_top20_landmark", "pds_l1_offtarget", "centroid_accuracy_offtarget")


def test_names_are_told_apart_by_their_words():
    labels = [metric_label(name, reference=False) for name in NAMES]
    assert len(set(labels)) == len(labels)
    assert not any("_" in label for label in labels)


def test_a_peers_name_has_the_words_of_ours():
    for name, ours in ALIASES.items():
        assert metric_label(name) == metric_label(ours)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("r2_top20@matched", "R² Top-20, matched control"),
        ("rmse_all@pooled", "RMSE, all genes"),
        ("rmse_top20@pooled", "RMSE Top-20, pooled control"),
        ("mse_all_corrected@own", "MSE, noise taken out"),
        ("pearson_heg1000@others", "Pearson r, 1000 most expressed genes, mean of the others"),
        ("mse_all", "MSE, all genes"),
        ("effect_pearson", "agreement with the noise-free effect, own control"),
    ],
)
def test_words_say_kind_genes_and_reference(name, words):
    assert metric_label(name) == words


def test_less_is_better_for_errors_alone():
    less = {name for name in (*NAMES, "mse_all") if direction(f"{name}@pooled") == -1}
    assert less == {n for n in (*NAMES, "mse_all") if n.startswith(("rmse_", "mae_", "mse_", "de_lfc_error"))}
    assert {"mse_exp2", "mse_all_corrected", "rmse_all", "mae_top20", "de_lfc_error"} <= less
