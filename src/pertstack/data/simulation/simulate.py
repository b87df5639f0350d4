"""LINCS-like worlds with known truth: as an AnnData in memory, or streamed to an .h5ad of any size.

X holds treated profiles, layer ``control`` the control paired with each, layer ``effect`` the noise-free effect, so
that agreement with the truth can be scored. How a world is made is in ``world.py``; how the defaults were
chosen in ``docs/simulation.md``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, StorageError
from pertstack._base.files import storage_error
from pertstack._base.machine.progress import track
from pertstack.data.simulation.config import SimulationConfig
from pertstack.data.simulation.files import read_basal, read_design
from pertstack.data.simulation.layout import Layout, lay_out, make_layout
from pertstack.data.simulation.molecules import make_molecules
from pertstack.data.simulation.world import BLOCK, Float32, Truth, make_truth, sample_rows

LAYERS = ("control", "treated", "effect")


@dataclass(frozen=True)
class World:
    """A drawn study: who is measured where, what is true; profiles are made on request, block by block."""

    config: SimulationConfig
    layout: Layout
    truth: Truth
    line_names: tuple[str, ...]
    perturbation_names: tuple[str, ...]
    smiles: tuple[str, ...]
    gene_names: tuple[str, ...]

    @property
    def n_blocks(self) -> int:
        return -(-self.layout.n_samples // BLOCK)

    def block(self, i: int) -> tuple[Float32, Float32, Float32]:
        """(control, treated, effect) of one block of samples."""
        return sample_rows(self.truth, self.config, self.layout, block=i)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """Canonical metadata; index: sample ids."""
        layout, lines, perts = self.layout, np.array(self.line_names), np.array(self.perturbation_names)
        plates = np.array(layout.plate_names)
        table = pd.DataFrame(
            {
                "perturbation": perts[layout.perturbation],
                "cell_line": lines[layout.cell_line],
                "smiles": np.array(self.smiles, dtype=object)[layout.perturbation],
                "dose": layout.dose,
                "dose_unit": "uM",
                "log10_dose": np.log10(layout.dose),
                "time_h": layout.time_h,
                "plate": plates[layout.plate],
                "replicate": [f"X{r}" for r in layout.replicate],
                "control_id": self._control_ids(plates),
            }
        )
        table.index = pd.Index([f"s{i:06d}" for i in range(len(table))], name="sample_id", dtype=object)
        return table

    def _control_ids(self, plates: np.ndarray[Any, Any]) -> list[str]:
        layout, n = self.layout, self.config.controls_per_plate
        if self.config.pairing == "own":
            return [f"{plates[p]}:own{i:06d}" for i, p in enumerate(layout.plate)]
        if self.config.pairing == "matched":
            return [f"{plates[p]}:vehicle" for p in layout.control_well]
        return [f"{plates[w // n]}:V{w % n + 1}" for w in layout.control_well]

    @property
    def var(self) -> pd.DataFrame:
        index = pd.Index(self.gene_names, name="gene", dtype=object)
        return pd.DataFrame({"is_landmark": self.truth.landmark}, index=index)

    @property
    def uns(self) -> dict[str, Any]:
        """Targets (perturbation, gene), gene graph (gene_a, gene_b) and the choices of the simulation."""
        genes = np.array(self.gene_names)
        pairs = [
            (name, genes[g]) for name, ts in zip(self.perturbation_names, self.truth.targets, strict=True) for g in ts
        ]
        settings = {k: ("" if v is None else v) for k, v in self.config.to_json().items()}
        return {
            "targets": pd.DataFrame(pairs, columns=["perturbation", "gene"]),
            "graph": pd.DataFrame(genes[self.truth.edges], columns=["gene_a", "gene_b"]),
            "simulation": settings,
        }


def make_world(config: SimulationConfig) -> World:
    """Draw design, molecules and truth (from files if the configuration names them); profiles follow on request."""
    rng = np.random.default_rng([config.seed, 1])
    if config.design is not None:
        design = read_design(config, rng)
        lines, names, smiles, features = design.line_names, design.perturbation_names, design.smiles, design.features
    else:
        lines = tuple(f"LINE{i + 1:02d}" for i in range(config.cell_lines))
        molecules = make_molecules(config.perturbations, rng)
        width = max(3, len(str(config.perturbations)))
        names = tuple(f"cpd{i + 1:0{width}d}" for i in range(config.perturbations))
        smiles, features = molecules.smiles, molecules.parts
    if config.basal is not None:
        genes, basal, lines = read_basal(config, lines, rng)
    else:
        genes = tuple(f"GENE{i + 1:05d}" for i in range(config.genes))
        gene_mean = np.clip(8 + config.basal_sd * rng.normal(size=config.genes), 4, 14)
        basal = (gene_mean + config.line_sd * rng.normal(size=(len(lines), config.genes))).astype(np.float32)
    truth = make_truth(config, features, basal, rng=rng)
    if config.design is not None:
        layout = lay_out(design.conditions, config, rng, line_names=lines)
    else:
        layout = make_layout(config, rng, lines)
    return World(config, layout, truth, line_names=lines, perturbation_names=names, smiles=smiles, gene_names=genes)


def simulate(config: SimulationConfig | None = None) -> Any:
    """A simulated study as an ``anndata.AnnData``: X treated, layers control and effect, float32.

    The same configuration gives the same values on every machine with the same numpy. Needs 12 bytes per sample and
    gene; for more than fits in memory see ``simulate_to_file``.
    """
    import anndata as ad

    world = make_world(config or SimulationConfig())
    blocks = [world.block(i) for i in range(world.n_blocks)]
    control, treated, effect = (np.concatenate([b[k] for b in blocks]) for k in range(3))
    data = ad.AnnData(X=treated, obs=world.obs.copy(), var=world.var, layers={"control": control, "effect": effect})
    data.uns.update(world.uns)
    return data


def simulate_to_file(path: str | Path, config: SimulationConfig | None = None) -> Path:
    """Write a simulated study to an .h5ad, block by block, in bounded memory; whole or not at all.

    Raises
    ------
    InputError
        The name does not end in .h5ad, or the configuration cannot be simulated.
    StorageError
        The disk is full or not writable; whatever was at ``path`` before is still there.
    """
    path = Path(path)
    if path.suffix != ".h5ad":
        raise InputError(f"{path}: simulated data are written as .h5ad. Give a name that ends in .h5ad.")
    world = make_world(config or SimulationConfig())
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(name)
        _require_space(descriptor, 12 * world.layout.n_samples * len(world.gene_names))
        part.chmod(0o644)
        _write(world, part)
        part.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error
    except RuntimeError as error:  # HDF5 reports a full disk so when it closes the file
        raise StorageError(0, f"Cannot write {path}: {error}. Is the disk full?") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return path


def _require_space(descriptor: int, n_bytes: int) -> None:
    """Ask the disk for the room first: HDF5 takes a full disk badly (it may crash the process on its way out)."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, n_bytes)
            os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _write(world: World, path: Path) -> None:
    """Metadata by anndata, then the three matrices block by block."""
    import anndata as ad
    import h5py
    from anndata.io import write_elem

    shape = (world.layout.n_samples, len(world.gene_names))
    ad.AnnData(obs=world.obs.copy(), var=world.var, uns=world.uns).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        write_elem(file, "layers", {})
        targets = {"control": "layers/control", "treated": "X", "effect": "layers/effect"}
        sets = {name: file.create_dataset(key, shape, "f4", chunks=_chunk(shape)) for name, key in targets.items()}
        for dataset in sets.values():
            dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for i in track(range(world.n_blocks), "simulating"):
            for name, values in zip(LAYERS, world.block(i), strict=True):
                sets[name][i * BLOCK : i * BLOCK + len(values)] = values


def _chunk(shape: tuple[int, int]) -> tuple[int, int]:
    """Chunks of about 1 MB, whole rows."""
    return max(1, min(shape[0], 2**18 // max(1, shape[1]))), shape[1]
