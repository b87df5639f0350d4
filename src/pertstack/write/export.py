"""Predictions as one h5ad file that other tools open: treated in X, control in a layer, what is known in obs and uns.

Which predictions go in is the caller's choice; nothing is dropped or filled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.files import whole
from pertstack.data.rows import Float32


def predictions_to_h5ad(
    path: Path | str,
    ids: Sequence[str],
    genes: Sequence[str],
    *,
    treated: Float32,
    obs: pd.DataFrame | None = None,
    uns: Mapping[str, Any] | None = None,
    layers: Mapping[str, Float32] | None = None,
) -> Path:
    """Write predicted treated profiles.

    Parameters
    ----------
    path : of the .h5ad
    ids : n sample ids
    genes : n_genes names
    treated : (n, n_genes) predicted expression in the scale of the study; NaN where not predicted
    obs : frame whose index holds every id, in any order; columns are kept
    uns : plain values that travel along (plan digest, chosen combiner, preprocessing card)
    layers : name -> (n, n_genes), such as control or measured treated

    Raises
    ------
    InputError
        Shapes disagree, or ids or genes repeat.
    MisalignedError
        ``obs`` lacks some ids.
    StorageError
        The disk refuses; a file that was there before is still there.
    """
    import anndata  # slow to import

    path, shape = Path(path), (len(ids), len(genes))
    for name, array in {"treated": treated, **(layers or {})}.items():
        if np.shape(array) != shape:
            raise InputError(f"{name} has shape {np.shape(array)}, but there are {shape[0]} ids and {shape[1]} genes.")
    for kind, names in (("sample id", ids), ("gene", genes)):
        repeated = pd.Index(names)[pd.Index(names).duplicated()]
        if len(repeated):
            raise InputError(
                f"Each {kind} may occur once, because rows and columns are matched by name; "
                f"repeated: {first_few(repeated)}."
            )
    table = pd.DataFrame(index=pd.Index([str(i) for i in ids], name="sample_id"))
    if obs is not None:
        lost = [i for i in ids if i not in obs.index]
        if lost:
            raise MisalignedError(
                f"{len(lost):,} samples have a prediction but no metadata: {first_few(lost)}. "
                f"Give obs for every sample id."
            )
        table = obs.loc[list(ids)].copy()
        if table.index.name in table.columns:  # AnnData takes such a pair only if both are the same
            table.index.name = None
    data = anndata.AnnData(
        X=np.asarray(treated, dtype=np.float32),
        obs=table,
        var=pd.DataFrame(index=pd.Index([str(g) for g in genes])),
        uns=dict(uns or {}),
        layers={k: np.asarray(v, dtype=np.float32) for k, v in (layers or {}).items()},
    )
    with whole(path) as part:
        data.write_h5ad(part, compression="gzip")
    return path
