"""Predicted profiles as cells of whole counts, for judges that score cells (Virtual Cell Challenge, cell-eval2).

A profile has no cells. Those written here are control cells of the same cell line: each keeps its number of counts,
and counts are moved between genes until the sum over the cells of a target is the prediction, to the last count; or,
``sampled``, so that the prediction is what they have in expectation, as independent cells would. What varies between
cells is what varies between control cells; nothing is predicted of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from pertstack._base.errors import InputError, first_few
from pertstack._base.files import whole
from pertstack._base.machine.progress import track
from pertstack._base.reading.tables import as_texts
from pertstack.data.cells.recognise import kind_of
from pertstack.data.readers.anndata.tables import open_anndata_file, read_frame
from pertstack.data.readers.columns.columns import source_column
from pertstack.data.readers.control_rows import control_rows
from pertstack.data.readers.matrices import StoredRows, take

Shares = np.ndarray[Any, np.dtype[np.float64]]
MOST_TEMPLATES = 4000
"""Control cells of a cell line that are read; more are drawn from at random."""


@dataclass(frozen=True)
class Templates:
    """Control cells of every cell line, as counts."""

    path: Path
    genes: tuple[str, ...]
    of_line: Mapping[str, Any]  # cell line -> csr matrix (n_cells, n_genes) of int64

    def line(self, name: str) -> Any:
        """Those of a line; of the only one if the file tells no lines apart.

        Raises
        ------
        InputError
            The file has none.
        """
        if name not in self.of_line and None in self.of_line:
            return self.of_line[None]  # type: ignore[index]
        if name not in self.of_line:
            raise InputError(
                f"{self.path} has no control cell of {name!r}; it has {first_few(self.of_line)}. The cells "
                f"written take their depth from control cells of the same cell line or context. Add them to the file."
            )
        return self.of_line[name]


def read_templates(path: Path, *, seed: int = 0) -> Templates:
    """Control cells of a file of counts; all of its cells if no column says a perturbation.

    Raises
    ------
    InputError
        No control among the rows, or values that are no counts.
    """
    kind, root = open_anndata_file(path)
    obs, var = read_frame(root, "obs", path), read_frame(root, "var", path)
    found = control_rows(obs, None, None, where=path.name)
    if found is None and source_column(obs, None, "perturbation") is not None:
        raise InputError(
            f"{path}: no row is known as a control by its name (non-targeting, DMSO, ctrl ...). Give a file of control "
            f"cells: data[data.obs[COLUMN] == CONTROL].write_h5ad('controls.h5ad')."
        )
    rows = np.arange(len(obs)) if found is None else np.flatnonzero(found.rows & ~found.aside)
    key = "layers/counts" if "layers" in root and "counts" in root["layers"] else "X"
    matrix, column = StoredRows(path, kind, key), source_column(obs, None, "cell_line")
    lines = np.full(len(rows), None, dtype=object) if column is None else as_texts(obs[column].iloc[rows]).to_numpy()
    rng = np.random.default_rng([seed, 11])
    of_line: dict[Any, Any] = {}
    for line in pd.unique(lines):
        mine = rows[lines == line]
        mine = np.sort(rng.choice(mine, min(len(mine), MOST_TEMPLATES), replace=False))
        parts = [_counts(take(matrix, piece), path, key) for piece in np.array_split(mine, -(-len(mine) // 500))]
        cells = sparse.vstack(parts, format="csr")
        of_line[line] = cells[np.asarray(cells.sum(axis=1)).ravel() > 0]
        if not of_line[line].shape[0]:
            raise InputError(f"{path}: no control cell of {line!r} has a count.")
    return Templates(path, tuple(map(str, var.index)), of_line)


def _counts(values: Any, path: Path, key: str) -> Any:
    if kind_of(values) != "counts":
        raise InputError(
            f"{path}: the values of its control cells in {key} are no counts (whole numbers), and the cells written "
            f"take their depth from them. Give the file with counts in X or in layers['counts']."
        )
    return sparse.csr_matrix(values.astype(np.int64))


def cells_like(templates: Any, share: Shares, rng: np.random.Generator) -> Any:
    """Cells with the depths of the templates whose counts sum to the shares of the genes.

    Parameters
    ----------
    templates : csr matrix of counts, shape (n_cells, n_genes)
    share : array, shape (n_genes,)
        Of each gene in all counts; sums to 1.
    rng
        Places the counts among the cells.

    Returns
    -------
    csr matrix of int64
        Row sums are those of ``templates``; the sum of a column is ``share`` x all counts, rounded by largest
        remainder.
    """
    by_gene = templates.tocsc()
    have = np.asarray(by_gene.sum(axis=0), dtype=np.int64).ravel()
    want = _rounded(share, int(have.sum()))
    gone = np.maximum(have - want, 0)
    cell, gene = _single_counts(by_gene, gone > 0)
    order = np.lexsort((rng.random(len(gene)), gene))
    first = np.searchsorted(gene, gene, side="left")  # genes come in order
    taken = order[np.arange(len(gene)) - first < gone[gene]]
    free = cell[taken]  # a place for each count taken out
    fresh = np.repeat(np.arange(len(want)), np.maximum(want - have, 0))
    rng.shuffle(fresh)
    return _moved(templates, free, gene[taken], fresh)


def _cells_drawn(templates: Any, share: Shares, usual: Shares, rng: np.random.Generator) -> Any:
    """As ``cells_like``, each cell on its own: a count of a gene that falls from its ``usual`` share is taken out with
    that probability, and its place goes to a gene that rises. The mean over cells is ``share`` in expectation."""
    kept = np.minimum(1.0, share / np.where(usual > 0, usual, 1.0))
    cell, gene = _single_counts(templates.tocsc(), (kept < 1) & (usual > 0))
    taken = rng.random(len(gene)) >= kept[gene]
    rise = np.maximum(share - usual, 0.0)
    if not taken.any() or rise.sum() <= 0:
        return templates
    fresh = rng.choice(len(rise), size=int(taken.sum()), p=rise / rise.sum())
    return _moved(templates, cell[taken], gene[taken], fresh)


def _moved(templates: Any, cells: Any, lost: Any, won: Any) -> Any:
    """One count of gene ``lost[i]`` in cell ``cells[i]`` becomes one of ``won[i]``."""
    change = np.concatenate([-np.ones(len(lost), np.int64), np.ones(len(won), np.int64)])
    at = np.concatenate([cells, cells]), np.concatenate([lost, won])
    out = (templates + sparse.coo_matrix((change, at), shape=templates.shape)).tocsr()
    out.eliminate_zeros()
    return out


def _rounded(share: Shares, total: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Whole numbers that sum to ``total``, as near to the shares as can be (largest remainder)."""
    exact = share * total
    out = np.floor(exact).astype(np.int64)
    short = total - int(out.sum())
    out[np.argsort(out - exact, kind="stable")[:short]] += 1
    return out


def _single_counts(by_gene: Any, chosen: Any) -> tuple[Any, Any]:
    """Cell and gene of every single count of the chosen genes, in the order of genes."""
    sizes = np.diff(by_gene.indptr)
    gene = np.repeat(np.arange(len(sizes)), sizes)
    kept = chosen[gene]
    times = by_gene.data[kept]
    return np.repeat(by_gene.indices[kept], times), np.repeat(gene[kept], times)


def _shares(profile: Any, genes: Mapping[str, int], templates: Templates, cells: Any) -> tuple[Shares, Shares]:
    """Share of every gene of the templates in the counts that a log1p profile predicts, and in the control cells.

    Genes that are not predicted keep the share they have in the control cells.
    """
    at = np.array([genes.get(g, -1) for g in templates.genes])
    known = at >= 0
    own = np.asarray(cells.sum(axis=0), dtype=np.float64).ravel()
    usual = own / own.sum()
    out = usual.copy()
    told = np.expm1(np.maximum(np.asarray(profile, dtype=np.float64)[at[known]], 0.0))
    out[known] = told / max(told.sum(), 1e-300) * (1.0 - out[~known].sum())
    return np.asarray(out / out.sum()), np.asarray(usual)


def write_cells(
    path: Path,
    profiles: pd.DataFrame,
    templates: Templates,
    *,
    per_target: int = 400,
    seed: int = 0,
    sampled: bool = False,
) -> Path:
    """An ``.h5ad`` of counts, ``per_target`` cells for each row of ``profiles``, without controls.

    Parameters
    ----------
    path : of the file.
    profiles : log1p of counts per a depth; columns are genes, index (perturbation, cell line).
    templates : control cells, whose depth and spread the cells take.
    per_target : cells of each row.
    seed : of cells and counts.
    sampled : draw every cell, so that their mean is the profile in expectation; else exactly.
    """
    import h5py
    from anndata.io import write_elem

    genes = {str(g): i for i, g in enumerate(profiles.columns)}
    if not set(genes) & set(templates.genes):
        raise InputError(
            f"{templates.path} and the predictions share no gene: {first_few(templates.genes, 3)} there, "
            f"{first_few(genes, 3)} here. Give control cells with genes of the same names."
        )
    with whole(path) as part, h5py.File(part, "w") as file:
        x = file.create_group("X")
        data, indices = (
            x.create_dataset(n, (0,), t, maxshape=(None,), chunks=(2**18,), compression="gzip", compression_opts=1)
            for n, t in (("data", "f4"), ("indices", "i4"))
        )
        ends: list[Any] = [np.zeros(1, np.int64)]
        for cells in track(
            _made(profiles, genes, templates, per_target=per_target, seed=seed, sampled=sampled),
            "writing cells",
            len(profiles),
        ):
            for array, new in ((data, cells.data), (indices, cells.indices)):
                array.resize(len(array) + len(new), axis=0)
                array[len(array) - len(new) :] = new
            ends.append(ends[-1][-1] + cells.indptr[1:].astype(np.int64))
        x.create_dataset("indptr", data=np.concatenate(ends))
        n = per_target * len(profiles)
        x.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([n, len(templates.genes)])}
        )
        index = profiles.index.repeat(per_target)
        said = {"target_gene": pd.Categorical(index.get_level_values(0).astype(str))}
        said["context"] = pd.Categorical(index.get_level_values(1).astype(str))
        write_elem(file, "obs", pd.DataFrame(said, index=[f"cell{i}" for i in range(n)]))
        write_elem(file, "var", pd.DataFrame(index=pd.Index(templates.genes, dtype=object)))
        for name in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            write_elem(file, name, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    return path


def _made(
    profiles: pd.DataFrame,
    genes: Mapping[str, int],
    templates: Templates,
    per_target: int,
    seed: int,
    sampled: bool,
) -> Iterator[Any]:
    for i, ((_, line), profile) in enumerate(zip(profiles.index, profiles.to_numpy(), strict=True)):
        rng, pool = np.random.default_rng([seed, i]), templates.line(str(line))
        again = (
            sampled or pool.shape[0] < per_target
        )  # all cells of a pool have its mean: they would not be independent
        chosen = pool[rng.choice(pool.shape[0], per_target, replace=again)]
        wanted, usual = _shares(profile, genes, templates, pool)
        yield _cells_drawn(chosen, wanted, usual, rng) if sampled else cells_like(chosen, wanted, rng)
