"""Metric names in plain words, for the first time a reader meets them.

One place for all: a new metric gets a line in ``MEASURES``, a new control reference one in ``AGAINST``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import split_metric

MEASURES: dict[str, str] = {
    "r2": "the SQUARED correlation between measured and predicted change over {genes}, averaged over samples: 1 is "
    "perfect, 0 is none. Squaring hides the sign: a prediction that is exactly wrong scores 1 too",
    "pearson": "the correlation between measured and predicted change over {genes}, averaged over samples: 1 is "
    "perfect, 0 is none, below 0 is the wrong way round",
    "spearman": "the rank correlation between measured and predicted change over {genes}",
    "cosine": "the cosine between measured and predicted change over {genes}: 1 is the same direction",
    "cod": "the coefficient of determination over {genes}: the share of the squared change that is predicted; below 0 "
    "is worse than predicting no change",
    "rmse": "the root mean squared error over {genes}, in the units of the data: LESS is better",
    "mae": "the mean absolute error over {genes}, in the units of the data: LESS is better",
    "mse": "the mean squared error over {genes}: LESS is better",
    "sign_acc": "the share of {genes} whose direction (up or down) is predicted right: 0.5 is a coin",
    "pds": "how often a prediction is closer to its own perturbation's measured change than to others': 1 is always, "
    "0.5 is chance",
    "centroid_accuracy": "how often a prediction is closer to its own perturbation than to others: 0.5 is chance",
    "slope": "how much the measured change moves when the predicted one moves by 1: below 1 the model is too bold",
    "effect_pearson": "the correlation with the noise-free effect, which only a simulation knows",
}
AGAINST: dict[str, str] = {
    "own": "Own control: the sample's own control profile is subtracted from truth and prediction, so its noise is "
    "shared and flatters everyone",
    "pooled": "Pooled control: the mean of all controls of the cell line is subtracted, so no single control's noise "
    "is shared",
    "matched": "Matched control: the mean of the other controls of the sample's plate is subtracted",
    "centroid": "Centroid: the mean of all treated profiles is subtracted, so what every perturbation does counts for "
    "nothing",
    "plate": "Within plate: plate means are removed from truth and prediction, so reading the plate counts for nothing",
    "halves": "Control halves: one half of the controls is subtracted from the truth, the other from the prediction, "
    "so they share no noise",
    "others": "Other perturbations: the mean of all others is subtracted, so what every perturbation does counts for "
    "nothing",
}


def explain(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """(term, sentence) for every metric and every reference met, each once, in their order."""
    said: dict[str, str] = {}
    references: dict[str, str] = {}
    for name in metrics:
        metric, against = split_metric(name)
        term = metric_label(name, reference=False)
        words = _measure(metric)
        if words is not None and term not in said:
            said[term] = words
        if against in AGAINST and not metric.startswith(("rmse_all", "mae_all")):
            term, sentence = AGAINST[against].split(": ", 1)
            references[term] = sentence
    return [*said.items(), *references.items()]


def _measure(metric: str) -> str | None:
    parts = re.fullmatch(r"(?P<stem>.+?)(?:_(?P<span>top\d+|all))?(?P<strict>_strict)?(?:_landmarks?)?", metric)
    if parts is None or parts["stem"] not in MEASURES:
        return None
    span = parts["span"] or "all"
    genes = "all genes" if span == "all" else f"the {span[3:]} genes of largest measured effect"
    words = MEASURES[parts["stem"]].format(genes=genes)
    return words + ("; a constant prediction counts as 0 instead of being left out" if parts["strict"] else "")
