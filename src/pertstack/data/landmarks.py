"""Which genes were measured and which inferred from them, if the data file says so.

About nine tenths of the genes of an L1000 profile are inferred from 978 landmarks, so metrics over all genes count the
same information several times. What is done with the mark is decided in ``reduce/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

Mask = np.ndarray[Any, np.dtype[np.bool_]]
COLUMNS = ("is_landmark", "landmark", "pr_is_lm", "feature_space")
_YES = frozenset({"1", "1.0", "true", "yes", "landmark"})


def landmarks_of(var: pd.DataFrame) -> Mask | None:
    """Mask (n_genes,) of landmark genes from ``var``, in its order; None if the genes are not told apart.

    The first of ``COLUMNS`` that is there decides: booleans, 0 / 1, or words ("landmark" in LINCS 2020's
    ``feature_space``). A file that marks fewer than two genes, or all of them, tells nothing apart.

    >>> landmarks_of(pd.DataFrame({"feature_space": ["landmark", "inferred", "landmark"]})).tolist()
    [True, False, True]
    """
    column = next((c for c in COLUMNS if c in var), None)
    if column is None:
        return None
    mask = np.array([str(value).strip().lower() in _YES for value in var[column]], dtype=bool)
    return mask if 2 <= mask.sum() < len(mask) else None
