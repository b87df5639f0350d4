"""One palette for figures and page, and the step that turns a figure into SVG that follows light and dark.

Figures are drawn in the light palette (Okabe-Ito colours, told apart by colour-blind eyes; shapes say the same again).
In the page every colour becomes a CSS variable, so the same drawing reads well on a dark background and in print.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from matplotlib import rc_context
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from pertstack._base.shown import shown

LABEL = 60
"""Characters of one word of a figure's text."""
INK, MUTED, GRID, PAPER = "#1d2126", "#5d6671", "#d8dce2", "#fefefd"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#b0669a"
VARIABLES: dict[str, str] = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
}
KIND_STYLE: dict[str, tuple[str, str]] = {
    "combiner": (ORANGE, "D"),
    "base": (BLUE, "o"),
    "reference": (MUTED, "s"),
    "ceiling": (PURPLE, "^"),
}
"""Colour and marker by kind of row."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pertstack",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,
}


def figure_style() -> Any:
    """Context in which our figures are made; nothing global is touched."""
    return rc_context(rc=cast(Any, _STYLE))


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """The figure as inline SVG: transparent, colours as CSS variables. Same figure, same text: no dates, fixed salt.

    Parameters
    ----------
    figure : drawn with the palette's colours.
    name : makes ids unique on a page.
    alt : text that stands in for the picture.
    """
    buffer = io.StringIO()
    with figure_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page writes its texts in the reader's fonts
        _show_harmlessly(figure)
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None, "Creator": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for colour, variable in VARIABLES.items():
        text = re.sub(re.escape(colour), f"var(--{variable})", text, flags=re.I)
    text = re.sub(r"font: ([^;\"]*?)'[^\"]*?(?=[;\"])", r"font: \1inherit", text)
    text = re.sub(r'font: ([0-9a-z ]*?)([0-9.]+)px [^;"]*', r"font-size: \2px; \1font-family: inherit", text)
    text = text.replace("bold font-family", "font-weight: 700; font-family")
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(alt)}" ', 1)


def _show_harmlessly(figure: Figure) -> None:
    """Every text of a figure without control characters and of bearable length; a ``$`` in a name is a ``$``."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            written = axis.get_major_formatter()
            if isinstance(written, FixedFormatter | FuncFormatter | StrCategoryFormatter):
                axis.set_major_formatter(FuncFormatter(partial(_shown_by, written)))
    for label in figure.findobj(Text):
        label.set_text(shown(label.get_text(), longest=LABEL))


def _shown_by(written: Callable[[float, int | None], str], x: float, pos: int | None) -> str:
    return shown(written(x, pos), longest=LABEL)


def _attribute(text: str) -> str:
    return shown(text).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
