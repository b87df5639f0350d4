"""STRING as it is distributed: protein ids in protein.links, gene names in protein.info, scores from 0 to 1000."""

from __future__ import annotations

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, MissingFileError
from pertstack.data import build_side
from pertstack.data.side.gene_names import names_beside

GENES = tuple(f"GENE{i}" for i in range(12))
OBS = pd.DataFrame({"perturbation": ["a", "b"], "cell_line": ["X", "X"]}, index=["s0", "s1"])
LINKS, INFO = "9606.protein.links.v12.0.txt.gz", "9606.protein.info.v12.0.txt.gz"


def protein(i: int) -> str:
    return f"9606.ENSP{i:011d}"


@pytest.fixture
def string(tmp_path: Path) -> tuple[Path, Path, dict[frozenset[str], int]]:
    """Links (every edge in both directions, as STRING has it) and info of 15 proteins, 12 of them in the study."""
    rng = np.random.default_rng(0)
    score = {frozenset(p): int(rng.integers(150, 1000)) for p in combinations(range(15), 2) if rng.random() < 0.5}
    lines = [f"{protein(a)} {protein(b)} {s}" for p, s in score.items() for a, b in (sorted(p), sorted(p)[::-1])]
    with gzip.open(tmp_path / LINKS, "wt") as stream:
        stream.write("protein1 protein2 combined_score\n" + "\n".join(lines) + "\n")
    with gzip.open(tmp_path / INFO, "wt") as stream:
        stream.write("#string_protein_id\tpreferred_name\tprotein_size\tannotation\n")
        for i in range(15):
            said = '"Unclosed quote, commas; and semicolons' if i == 3 else "Kinase, 40S; probable"
            stream.write(f"{protein(i)}\tGENE{i}\t{100 + i}\t{said}\n")
    named = {frozenset(f"GENE{i}" for i in p): s for p, s in score.items() if max(p) < 12}
    assert len(named) > 20
    return tmp_path / LINKS, tmp_path / INFO, named


def edges(**options) -> set[frozenset[str]]:
    side, _ = build_side(OBS, GENES, **options)
    assert side.graph is not None
    return {frozenset(side.graph.gene_names[i] for i in edge) for edge in side.graph.edges}


@pytest.mark.parametrize("threshold", [None, 400, 700, 900])
def test_links_and_info_give_the_graph_of_gene_names_at_a_threshold(string, threshold):
    links, info, named = string
    expected = {pair for pair, score in named.items() if threshold is None or score >= threshold}
    assert expected and edges(graph=links, graph_names=info, graph_min_score=threshold) == expected


def test_info_beside_the_links_is_taken_by_itself_and_only_of_the_same_version(string):
    links, info, named = string
    assert names_beside(links) == info and edges(graph=links) == set(named)
    info.rename(info.with_name("9606.protein.info.v11.5.txt.gz"))
    assert names_beside(links) is None
    with pytest.raises(InputError, match=r"ENSP.*GENE0.*--graph-names"):
        build_side(OBS, GENES, graph=links)


@pytest.mark.parametrize("kind", ["links.full", "links.detailed", "physical.links"])
def test_the_other_link_files_of_string_find_their_info_too(string, kind):
    links, info, _ = string
    assert names_beside(links.with_name(f"9606.protein.{kind}.v12.0.txt")) == info


def test_any_table_of_two_columns_translates(string, tmp_path):
    links, info, named = string
    info.unlink()
    table = pd.DataFrame({"gene_symbol": GENES, "protein_id": [protein(i) for i in range(12)]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert edges(graph=links, graph_names=tmp_path / "mine.csv") == set(named)


def test_an_id_with_two_genes_of_the_study_stands_for_both_and_aliases_of_others_for_none(string, tmp_path):
    links, _, named = string
    lines = [f"{protein(i)}\t{name}\tEnsembl" for i in range(12) for name in (f"GENE{i}", f"OLD{i}")]
    lines[2] = f"{protein(1)}\tGENE0\tEnsembl"  # protein 1 is GENE0 as well, and no longer GENE1
    (tmp_path / "aliases.txt").write_text("#string_protein_id\talias\tsource\n" + "\n".join([*lines, lines[4]]) + "\n")
    swap = {frozenset("GENE0" if g == "GENE1" else g for g in pair) for pair in named}
    assert edges(graph=links, graph_names=tmp_path / "aliases.txt") == {pair for pair in swap if len(pair) == 2}


def test_what_does_not_fit_is_refused_with_the_values(string, tmp_path):
    links, _, _ = string
    with pytest.raises(InputError, match=r"none of .* edges has combined_score >= 1200 .*0 to 1000"):
        build_side(OBS, GENES, graph=links, graph_min_score=1200)
    with pytest.raises(InputError, match=r"none of the names .*GENE0.* is a gene of the study.*ENSG1"):
        build_side(OBS, ("ENSG1", "ENSG2"), graph=links)
    (tmp_path / "one.txt").write_text("#string_protein_id\n")
    with pytest.raises(InputError, match=r"one\.txt"):
        build_side(OBS, GENES, graph=links, graph_names=tmp_path / "one.txt")
    with pytest.raises(MissingFileError, match=r"nowhere\.tsv"):
        build_side(OBS, GENES, graph=links, graph_names=tmp_path / "nowhere.tsv")
