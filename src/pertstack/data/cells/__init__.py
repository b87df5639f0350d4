"""Cells: told from samples, summed to pseudobulk samples in one pass over the file, exactly.

The sums can be used alone, on arrays: ``GroupSums.empty(...)``, ``add`` the cells of a part, ``merge`` the parts,
``profile`` and ``standard_error``.
"""

from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.entries import Rows
from pertstack.data.cells.profiles import Profiles, profile, standard_error
from pertstack.data.cells.sums import GroupSums

__all__ = ["CellChoice", "GroupSums", "Profiles", "Rows", "profile", "standard_error"]
