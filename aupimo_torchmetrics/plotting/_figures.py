"""Figures, sizes and colours that the pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SCORE_COLORS = "viridis"
"""Colour map of scores from 0 to 1."""

MASK_COLOR = "deeppink"
"""Outline of a mask: neither in the colour map nor in a grey photograph."""


def score_color(score: float) -> Any:
    """Colour of a score; the palest yellow, hard to see as a line on white, is left out."""
    from matplotlib import colormaps  # noqa: PLC0415

    return colormaps[SCORE_COLORS](0.9 * score)


def figure_and_axis(ax: Axes | None, size: tuple[float, float]) -> tuple[Any, Any]:
    """The figure of an axis and the axis, or new ones of a size in inches."""
    if ax is not None:
        return ax.get_figure(), ax
    fig = new_figure(size)
    return fig, fig.subplots()


def new_figure(size: tuple[float, float]) -> Any:
    """A new figure of a size in inches."""
    require("matplotlib", extra="plot", needed_by="Plot function")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt.figure(figsize=size, layout="constrained")
