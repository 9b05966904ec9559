"""What the pictures share: sizes in inches, colours, markers, names of images, and new figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_SIZE = (7.5, 5.5)
HEATMAP_SIZE = (4.5, 4.0)
DEMO_SIZE = (13.0, 5.2)
"""Curves beside three heat maps."""

SCORE_COLORS = "viridis"
"""Colour map of scores from 0 to 1."""

BRIGHTEST = 0.9
"""Point of the colour map for a score of 1. The palest yellow beyond it can hardly be seen on white."""

MASK_COLOR = "deeppink"
"""Outline of a mask: neither in the colour map nor in a grey photograph."""

MARKERS = "os^Dv*Pp"
"""Shapes on curves, which tell curves apart that have nearly the same colour."""

MAX_NAME_LENGTH = 26
"""Characters of a path in a picture, as many as fit above a heat map."""


def distribution_size(num_models: int = 1) -> tuple[float, float]:
    """Size of a picture of the distributions of models."""
    return 7.5, 1.8 + 0.6 * num_models


def heatmaps_size(num_images: int) -> tuple[float, float]:
    """Size of a picture of images and their heat maps."""
    return 2.2 * num_images + 1, 4.6


def ranks_size(num_models: int) -> tuple[float, float]:
    """Size of a picture of ranks."""
    return 7.5, 2.2 + 0.3 * num_models


def confidence_size(num_models: int) -> tuple[float, float]:
    """Size of a picture of the confidences of each model against each."""
    return 4.8 + 0.38 * num_models, 2.4 + 0.36 * num_models


def score_color(score: float) -> tuple[float, float, float, float]:
    """Colour of a score as red, green, blue and opacity."""
    from matplotlib import colormaps  # noqa: PLC0415

    return colormaps[SCORE_COLORS](BRIGHTEST * score)


def image_name(result: AUPIMOResult | None, index: int) -> str:
    """Name of an image in a picture: the end of its path, such as `scratch/005.png`, or without paths `image 5`."""
    if result is None or not (result.paths and result.paths[index]):
        return f"image {index}"
    *folders, name = re.split(r"[\\/]+", result.paths[index])
    name_in_folder = "/".join([*folders[-1:], name])
    if len(name_in_folder) <= MAX_NAME_LENGTH:
        return name_in_folder
    return name if len(name) <= MAX_NAME_LENGTH else f"...{name[3 - MAX_NAME_LENGTH :]}"


def figure_and_axis(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The figure that holds an axis and the axis, or new ones of a size."""
    if ax is None:
        fig = new_figure(size)
        return fig, fig.subplots()
    return cast("Figure", ax.get_figure(root=True)), ax


def new_figure(size: tuple[float, float]) -> Figure:
    """A new figure of a size, which pyplot shows and closes."""
    require("matplotlib", extra="plot", needed_by="Plot function")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt.figure(figsize=size, layout="constrained")


def figure_without_pyplot(size: tuple[float, float]) -> Figure:
    """A new figure of a size to write to a file: it needs no display, and nobody has to close it."""
    require("matplotlib", extra="plot", needed_by="Plot function")
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=size, layout="constrained")
