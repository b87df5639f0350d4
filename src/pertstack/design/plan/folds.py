"""The fold plan: who is held out when, written out sample by sample and only ever appended to.

A plan is made once, before anything is fitted. Roles (development or held-out test) first, folds second, both from a
keyed hash of the group, so whole groups move together and nothing in the data steers them. Whether the data agree with
the plan is checked by ``check_plan.py``; which models were fitted on what is ``provenance.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.design.blocks import SUPPORT, Block, Role
from pertstack.design.plan.assign import Rule, place_groups, role_threshold, salt_of
from pertstack.design.plan.files import check_digests, read_plan, write_plan
from pertstack.design.plan.groups import apart, check_sample_ids, group_ids, parts_of_groups, question
from pertstack.design.plan.newcomers import places_of_new, with_support
from pertstack.design.plan.rows import FORMAT, counts_of_parts, digest_of, make_rows, places_of
from pertstack.design.plan.table import load_table, read_table


@dataclass(frozen=True, eq=False)
class FoldPlan:
    """Role and fold of every sample. ``table`` is in plan order; do not write into it (``save`` would notice).

    ``segment`` counts the batches in which samples came: 0 when the plan was made, 1 for the first extension, ...
    ``test_share`` is None for a plan read from a table, where no rule says where a new group would go.
    """

    table: pd.DataFrame  # sample_id, group, role, fold (Int64, <NA> for test), segment
    group_by: str
    n_folds: int
    rule: Rule
    seed: int = 0
    salt: str = ""
    test_share: float | None = None
    digests: tuple[str, ...] = ()  # of the plan after each batch; the last is the plan's own

    @classmethod
    def make(
        cls,
        obs: pd.DataFrame,
        group_by: str = "perturbation",
        *,
        n_folds: int = 3,
        test_share: float = 0.2,
        seed: int = 0,
        salt: str | None = None,
        support: pd.Series[bool] | None = None,
    ) -> FoldPlan:
        """Plan for the samples of a table. The same groups and seed give the same plan, in any row order.

        Parameters
        ----------
        obs : index = sample ids; columns as ``group_by`` needs.
        group_by : what is held out whole; see ``group_ids``.
        n_folds : two or more.
        test_share : of the groups, from 0 to below 1.
        seed : gives the salt.
        salt : of the hashes; None for that of the seed.
        support : per sample, whether it is always fitted on and never scored (neither fold nor test); None for none.

        Raises
        ------
        InputError
            Missing or repeated sample ids, samples without a group, fewer than two groups per fold.
        """
        groups = group_ids(obs, group_by)
        salt = salt_of(seed) if salt is None else salt
        scored = groups if support is None else groups[~support.to_numpy(dtype=bool)]
        places, rule = place_groups(
            scored,
            parts=parts_of_groups(obs, scored) if apart(group_by) else None,
            salt=salt,
            n_folds=n_folds,
            test_share=test_share,
        )
        table = make_rows(scored, places, segment=0)
        if support is not None and len(scored) < len(groups):
            rest = groups[support.to_numpy(dtype=bool)]
            table = pd.concat([table, make_rows(rest, dict.fromkeys(rest, SUPPORT), segment=0)])
            table = table.set_index("sample_id").loc[groups.index.astype(str)].rename_axis("sample_id").reset_index()
        return cls(table, group_by, n_folds, rule=rule, seed=seed, salt=salt, test_share=test_share)._with_digest()

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        obs: pd.DataFrame | None = None,
        group_by: str | None = None,
        *,
        n_folds: int | None = None,
        seed: int = 0,
        support: pd.Series[bool] | None = None,
    ) -> FoldPlan:
        """Plan from an explicit table; see ``table.read_table``.

        Parameters
        ----------
        table : columns sample_id, and fold or role or both.
        obs : samples that the table must place; None for those it names.
        group_by : what whole groups are; None for perturbations, or the table's groups of perturbations.
        n_folds : only with a table that has no folds, whose development groups are then hashed; None for 3.
        seed : of the fits.
        support : as in ``make``; development rows become support, and a row that the table puts into the test cannot.

        Raises
        ------
        InputError
            The table cannot be a plan of these samples.
        """
        if support is not None:
            table = with_support(table, support)
        read, group_by, n_folds = read_table(table, obs, group_by, n_folds=n_folds, salt=salt_of(seed))
        return cls(read, group_by, n_folds, rule="table", seed=seed, salt=salt_of(seed))._with_digest()

    @classmethod
    def from_file(
        cls,
        path: Path,
        obs: pd.DataFrame | None = None,
        group_by: str | None = None,
        *,
        n_folds: int | None = None,
        seed: int = 0,
        support: pd.Series[bool] | None = None,
    ) -> FoldPlan:
        """Plan from an explicit table in a file.

        Parameters
        ----------
        path : parquet, CSV or TSV.
        obs, group_by, n_folds, seed, support : as in ``from_table``.

        Raises
        ------
        InputError
            The table cannot be a plan of these samples.
        """
        table = load_table(Path(path))
        try:
            return cls.from_table(table, obs, group_by, n_folds=n_folds, seed=seed, support=support)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def extend(self, obs: pd.DataFrame) -> FoldPlan:
        """The plan with the samples of ``obs`` that it does not know yet; every known sample stays where it is.

        A new sample of a known group goes with its group. A new group goes by its hash alone, even if the first
        groups were dealt, so that the answer does not depend on how many batches the samples came in.

        Raises
        ------
        InputError
            A known sample comes back with another group; or the plan came from a table and a group is new to it, or is
            itself split between folds.
        """
        groups = group_ids(obs, self.group_by)
        known = self.groups
        shared = groups.index.intersection(known.index)
        moved = shared[groups.loc[shared].to_numpy() != known.loc[shared].to_numpy()]
        if len(moved):
            raise InputError(
                f"{len(moved):,} samples of the plan come back with another {self.group_by}: {first_few(moved)}. "
                "Their fold was drawn for the old value, so the change could put one group on both sides. Give "
                "changed samples new ids, or make a new study."
            )
        new = groups.loc[~groups.index.isin(known.index)]
        if new.empty:
            return self
        places = places_of_new(
            new, self.table, self.group_by, test_share=self.test_share, salt=self.salt, n_folds=self.n_folds
        )
        table = pd.concat([self.table, make_rows(new, places, segment=len(self.digests))], ignore_index=True)
        return replace(self, table=table)._with_digest()

    @property
    def digest(self) -> str:
        """Digest of the assignments: group, role and fold by sample id, in no order; not of any file."""
        return self.digests[-1]

    def accepts(self, digest: str) -> bool:
        """Whether a digest is this plan's or that of the plan before an extension: what was held out then still is."""
        return digest in self.digests

    @cached_property
    def groups(self) -> pd.Series[str]:
        """Group by sample id."""
        return self.table.set_index("sample_id")["group"]

    @property
    def question(self) -> str:
        """What a held-out score of this plan answers."""
        return question(self.group_by)

    def sample_ids(self, role: Role | None = None, fold: int | None = None, *, outside: int | None = None) -> list[str]:
        """Sample ids in plan order; all that meet every condition given.

        Parameters
        ----------
        role : "development", "test" or "support".
        fold : in this fold.
        outside : development outside this fold: what a fit may see.
        """
        keep = pd.Series(True, index=self.table.index)
        if role is not None:
            keep &= self.table["role"] == role
        if fold is not None:
            keep &= (self.table["fold"] == fold).fillna(False).astype(bool)
        if outside is not None:
            keep &= (self.table["role"] == "development") & (self.table["fold"] != outside).fillna(False).astype(bool)
        return [str(s) for s in self.table.loc[keep, "sample_id"]]

    def blocks(self, obs: pd.DataFrame) -> dict[Block, list[str]]:
        """Sample ids of every block (cell line × fold, or cell line × test), in plan order; blocks in their fixed
        order.

        ``obs`` (index = sample ids, column ``cell_line``) must hold the samples of the plan, no more and no fewer.
        """
        check_sample_ids(obs)
        ids = pd.Index(self.table["sample_id"])
        lost, extra = ids.difference(obs.index), obs.index.difference(ids)
        if len(lost) or len(extra):
            raise InputError(
                f"Plan and samples differ: {len(lost):,} samples of the plan are not in the data ({first_few(lost)}), "
                f"{len(extra):,} of the data not in the plan ({first_few(extra)}). Extend the plan with the new "
                "samples; bring lost ones back, since a fold plan only grows."
            )
        line = obs["cell_line"].reindex(ids)
        if line.isna().any():
            raise InputError(f"{int(line.isna().sum()):,} samples have no cell_line: {first_few(ids[line.isna()])}.")
        found: dict[Block, list[str]] = {}
        keys = zip(line.astype(str), places_of(self.table), self.table["segment"], strict=True)
        for sample_id, (cell_line, place, segment) in zip(ids.astype(str), keys, strict=True):
            found.setdefault(Block(cell_line, place, int(segment)), []).append(sample_id)
        return dict(sorted(found.items()))

    def describe(self) -> dict[str, Any]:
        """The plan in plain JSON: question, rule, and samples and groups of every part."""
        return {
            "question": self.question,
            "group_by": self.group_by,
            "rule": self.rule,
            "n_folds": self.n_folds,
            "n_samples": len(self.table),
            "n_groups": int(self.table["group"].nunique()),
            "seed": self.seed,
            "test_share": self.test_share,
            "digest": self.digest,
            "batches": len(self.digests),
            "parts": counts_of_parts(self.table, self.n_folds),
        }

    def save(self, folder: Path) -> None:
        """Write ``folds.parquet`` and ``plan.json``; only over nothing, the same plan, or a plan this one extends."""
        check_digests(self.table, self.digests, self.group_by, n_folds=self.n_folds, where="the plan in memory")
        share = self.test_share
        facts = {
            "format": FORMAT,
            "digest": self.digest,
            "digests": list(self.digests),
            "group_by": self.group_by,
            "question": self.question,
            "n_folds": self.n_folds,
            "rule": self.rule,
            "seed": self.seed,
            "salt": self.salt,
            "test_share": share,
            "n_samples": len(self.table),
            "thresholds": None,
        }
        if share is not None:
            edges = [str((f << 64) // self.n_folds) for f in range(1, self.n_folds)]
            facts["thresholds"] = {"role": str(role_threshold(share)), "fold": edges}
        write_plan(Path(folder), self.table, facts)

    @classmethod
    def load(cls, folder: Path) -> FoldPlan:
        """Read a plan and verify that its rows are the ones that were written."""
        table, facts = read_plan(Path(folder))
        return cls(
            table,
            facts["group_by"],
            facts["n_folds"],
            rule=facts["rule"],
            seed=facts["seed"],
            salt=facts["salt"],
            test_share=facts["test_share"],
            digests=tuple(facts["digests"]),
        )

    def _with_digest(self) -> FoldPlan:
        return replace(self, digests=(*self.digests, digest_of(self.table, self.group_by, self.n_folds)))
