"""Side information gathered for a study: structures, the user's own matrix, perturbed genes, targets, gene graph.

Whatever is missing is marked and counted in a finding. Reading the files is handled by ``data/side/files.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.damage import damage_named
from pertstack.data.labels import look_up, one_spelling
from pertstack.data.side.edges import edges_of_table, read_edges
from pertstack.data.side.files import read_features, read_targets, targets_of
from pertstack.data.side.gene_names import StudyGenes
from pertstack.data.side.side import FeatureKind, GeneGraph, PerturbationFeatures, SideInformation
from pertstack.data.side.structures import has_rdkit, morgan_features
from pertstack.data.side.targets import genes_of


def build_side(
    obs: pd.DataFrame,
    gene_names: Iterable[str],
    *,
    features: str | Path | None = None,
    targets: str | Path | None = None,
    graph: str | Path | None = None,
    graph_min_score: float | None = None,
    graph_names: str | Path | None = None,
    uns: Mapping[str, Any] | None = None,
    other: Mapping[str, str] | None = None,
) -> tuple[SideInformation, list[Finding]]:
    """All that can be known of the perturbations in ``obs``, and what is missing.

    Parameters
    ----------
    obs
        Canonical metadata (``DataFile.obs``).
    gene_names
        Genes of the study; the graph and the targets are brought to them.
    features
        A matrix keyed by perturbation: parquet or CSV (column ``perturbation`` or the first one), or npz
        (``perturbations``, ``matrix``).
    targets
        Perturbation -> target genes: CSV (``perturbation``, ``gene``; several genes may share a cell, split by ``;``,
        ``|``, ``,``, ``/`` or ``+``) or JSON.
    graph
        Gene-gene edges: a table with two gene columns and perhaps a score (STRING, BioGRID, plain edge lists).
    graph_min_score
        Keep edges whose score column is at least this.
    graph_names
        Protein id and gene name of each node, if the edges hold ids (STRING's ``protein.info``; taken by itself when
        it is beside ``protein.links``).
    uns
        ``DataFile.uns``: ``targets`` and ``graph`` are taken from it if no file is given.
    other
        Second name of a gene -> its name in the study.

    Raises
    ------
    InputError
        A file cannot be read, or shares no perturbation or gene with the study.
    """
    genes = tuple(str(g) for g in gene_names)
    names = tuple(sorted({str(p) for p in obs["perturbation"]}))
    uns = uns or {}
    kinds: dict[FeatureKind, PerturbationFeatures] = {}
    findings: list[Finding] = []
    if features is not None:
        with damage_named(features):
            kinds["user"] = _user(Path(features), names, findings)
    structures = _structures(obs, names, findings)
    if structures is not None:
        kinds["structure"] = structures
    perturbed = _perturbed_genes(obs, names, StudyGenes(genes, other), findings)
    if perturbed is not None:
        kinds["genes"] = perturbed
    with damage_named(targets or "uns['targets']"):
        table = read_targets(Path(targets)) if targets is not None else targets_of(uns.get("targets"), "uns['targets']")
    if table:
        found = _targets(
            table,
            names,
            StudyGenes(genes, other),
            where=str(targets or "uns['targets']"),
            findings=findings,
            asked=targets is not None,
        )
        if found is not None:
            kinds["targets"] = found
    in_graph = StudyGenes(genes, other)
    with damage_named(graph or "uns['graph']"):
        edges = (
            read_edges(Path(graph), in_graph, graph_min_score, names=None if graph_names is None else Path(graph_names))
            if graph is not None
            else edges_of_table(uns.get("graph"), in_graph, None)
        )
    findings += in_graph.findings(str(graph or "uns['graph']"))
    return SideInformation(kinds, _graph(edges, genes, findings) if edges is not None else None), findings


def _multi_hot(
    kind: FeatureKind, table: Mapping[str, Iterable[str]], names: tuple[str, ...], columns: tuple[str, ...]
) -> PerturbationFeatures:
    """1 where a perturbation has a gene; a perturbation without any of the columns is unknown."""
    at = {gene: i for i, gene in enumerate(columns)}
    matrix = np.zeros((len(names), len(columns)), dtype=np.float32)
    for i, name in enumerate(names):
        hits = [at[g] for g in table.get(name, ()) if g in at]
        matrix[i, hits] = 1
    return PerturbationFeatures(
        kind, names, columns, matrix=matrix, known=np.asarray(matrix.any(axis=1), dtype=np.bool_)
    )


def _user(path: Path, names: tuple[str, ...], findings: list[Finding]) -> PerturbationFeatures:
    table = read_features(path)
    there = look_up(names, table.index)
    _refuse_two_rows(path, table)
    if not there:
        raise InputError(
            f"{path}: none of the {len(names):,} perturbations of the study is in it. The study has "
            f"{first_few(names, 3)}, the file "
            f"{first_few(table.index[:3])}. Key the file by the names in the study's perturbation column."
        )
    matrix = np.zeros((len(names), table.shape[1]), dtype=np.float32)
    known = np.array([n in there for n in names])
    matrix[known] = table.loc[[there[n] for n in names if n in there]].to_numpy(dtype=np.float32)
    broken = known & ~np.isfinite(matrix).all(axis=1)
    known = np.logical_and(known, ~broken)
    matrix[~known] = 0
    lacking = [n for n, k in zip(names, known, strict=True) if not k]
    if lacking:
        findings.append(
            Finding(
                "warning",
                "features_missing",
                f"{path.name} has no usable features for {len(lacking):,} of {len(names):,} perturbations "
                f"({int(broken.sum()):,} of them with "
                f"missing or infinite values): {first_few(lacking)}. They are marked unknown.",
                count=len(lacking),
                examples=tuple(lacking[:10]),
                where=str(path),
            )
        )
    return PerturbationFeatures("user", names, tuple(str(c) for c in table.columns), matrix=matrix, known=known)


def _refuse_two_rows(path: Path, table: pd.DataFrame) -> None:
    """Refuse features that give one perturbation two different rows, under two spellings such as A+B and B+A."""
    same = one_spelling(table.index)
    for old, new in same.items():
        if new in table.index and not np.array_equal(table.loc[old], table.loc[new], equal_nan=True):
            raise InputError(
                f"{path}: {old!r} and {new!r} are one perturbation, and their features differ. Keep one row of it."
            )


def _structures(obs: pd.DataFrame, names: tuple[str, ...], findings: list[Finding]) -> PerturbationFeatures | None:
    if "smiles" not in obs:
        return None
    if not has_rdkit():
        findings.append(
            Finding(
                "warning",
                "no_rdkit",
                (
                    "SMILES are known, but rdkit is not installed, so there are no fingerprints and models that read "
                    "structures are not available. "
                    "Install it with: pip install 'pertstack[lincs]'"
                ),
            )
        )
        return None
    known = (
        obs[["perturbation", "smiles"]].dropna().astype(str).drop_duplicates().sort_values(["perturbation", "smiles"])
    )
    first = known.groupby("perturbation", sort=True)["smiles"].first()
    found, unreadable = morgan_features({name: first.get(name) for name in names})
    if unreadable:  # missing ones are told by data/checks/metadata.py
        findings.append(
            Finding(
                "warning",
                "smiles_unreadable",
                f"{len(unreadable):,} of {len(names):,} perturbations have a SMILES that rdkit cannot parse: "
                f"{first_few(unreadable)}. Their structure is unknown to the models; nothing is put in its place.",
                count=len(unreadable),
                examples=tuple(unreadable[:10]),
            )
        )
    return found if found.known.any() else None


def _perturbed_genes(
    obs: pd.DataFrame, names: tuple[str, ...], genes: StudyGenes, findings: list[Finding]
) -> PerturbationFeatures | None:
    """Multi-hot of perturbed genes, from columns gene_a, gene_b, ... where present, else from names such as ``A+B``.

    Names in other capitals, or second names, are read only where half of the perturbations are genes then: a drug may
    be called like a gene.
    """
    measured = set(genes.names)
    table: dict[str, tuple[str, ...]] = {}
    columns = [c for c in ("gene_a", "gene_b", "gene_c") if c in obs]
    if columns:
        for name, *parts in obs[["perturbation", *columns]].drop_duplicates().itertuples(index=False):
            words = [str(p).strip() for p in parts if isinstance(p, str) and p.strip()]
            table[str(name)] = _as_own(tuple(g for g in words if genes_of(g)), genes)
    else:
        read = {name: genes_of(name) for name in names}
        pairs = {n: tuple(dict.fromkeys(n.split("_"))) for n in names if len(read[n]) == 1 and "_" in n}
        read |= {n: parts for n, parts in pairs.items() if None not in genes.found(parts)}  # A_B of two genes
        hits = [any(genes.found(parts)) for parts in read.values()]
        if 2 * sum(hits) >= len(hits):
            read = {n: _as_own(parts, genes) for n, parts in read.items()}
        table = {n: parts for n, parts in read.items() if any(g in measured for g in parts)}
    findings += genes.findings("The perturbations")
    every = tuple(sorted({g for parts in table.values() for g in parts}))
    if not any(g in measured for g in every):
        return None
    return _multi_hot("genes", table, names, every)


def _as_own(named: tuple[str, ...], genes: StudyGenes) -> tuple[str, ...]:
    """Genes by the study's names, others as they are, each once."""
    return tuple(dict.fromkeys(own or name for name, own in zip(named, genes.taken(named), strict=True)))


def _targets(
    table: Mapping[str, tuple[str, ...]],
    names: tuple[str, ...],
    genes: StudyGenes,
    where: str,
    findings: list[Finding],
    *,
    asked: bool,
) -> PerturbationFeatures | None:
    measured = set(genes.names)
    found = look_up([*names, *table], names)
    spelled: dict[str, dict[str, None]] = {}
    for name, targets in table.items():
        own = _as_own(targets, genes) if found.get(name, name) in names else targets
        spelled.setdefault(found.get(name, name), {}).update(dict.fromkeys(own))
    table = {name: tuple(targets) for name, targets in spelled.items()}
    findings += genes.findings(where)
    hit = [n for n in names if measured & set(table.get(n, ()))]
    if not hit:
        message = (
            f"{where}: no perturbation of the study has a target among its {len(genes.names):,} genes. The study has "
            f"perturbations "
            f"{first_few(names, 3)} and genes {first_few(genes.names, 3)}; the targets name {first_few(table, 3)} with "
            f"genes {first_few(next(iter(table.values()), ()), 3)}. Use the same names in both."
        )
        if asked:
            raise InputError(message)
        findings.append(Finding("warning", "targets_unusable", message, len(names), where=where))
        return None
    columns = tuple(sorted({g for n in hit for g in table[n]} & measured))
    lacking = [n for n in names if n not in set(hit)]
    if lacking:
        findings.append(
            Finding(
                "warning",
                "targets_missing",
                f"{len(lacking):,} of {len(names):,} perturbations have no target among the study's genes: "
                f"{first_few(lacking)}. Models that "
                f"need targets see them as unknown.",
                count=len(lacking),
                examples=tuple(lacking[:10]),
                where=where,
            )
        )
    return _multi_hot("targets", table, names, columns)


def _graph(
    edges: tuple[np.ndarray[Any, np.dtype[np.int64]], int], genes: tuple[str, ...], findings: list[Finding]
) -> GeneGraph:
    pairs, dropped = edges
    touched = np.zeros(len(genes), dtype=bool)
    touched[pairs.ravel()] = True
    alone = [g for g, t in zip(genes, touched, strict=True) if not t]
    if alone or dropped:
        findings.append(
            Finding(
                "note",
                "graph_partial",
                f"The gene graph has {len(pairs):,} edges between genes of the study; {dropped:,} edges to other genes "
                f"were left out, and {len(alone):,} of {len(genes):,} genes have no edge.",
                count=len(alone),
                examples=tuple(alone[:10]),
            )
        )
    return GeneGraph(genes, pairs)
