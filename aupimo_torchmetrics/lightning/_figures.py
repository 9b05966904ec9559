"""Figures of one result, drawn for the small cards in which loggers show them.

A card of TensorBoard is 300 pixels wide until one clicks on it. So the size of the text follows from the width of the
figure, and labels are short. A figure has more pixels than its card, and is sharp when enlarged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from aupimo_torchmetrics.lightning._gallery import Shown
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import figure_without_pyplot, in_lines
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CARD_WIDTH = 300
"""Width of a small card in pixels."""
TEXT_SIZE = 9.5
"""Size of the text in pixels of the card."""
FIGURE_WIDTH = 5.0
"""Inches."""
PIXELS_PER_INCH = 160
POINTS_PER_INCH = 72
LABEL_LENGTH = 52
"""Characters of a line of a legend."""
HEATMAPS_IN_A_ROW = 4


def draw_distribution(result: AUPIMOResult) -> Figure:
    """Draw the box plot of the scores, with a point for each image."""
    with _card(2.4) as figure:
        axis = plot_distribution(result, figure.subplots())[1]
        axis.set_title(axis.get_yticklabels()[0].get_text(), fontsize="medium")  # there it takes no width
        axis.set_yticks([])
        axis.set_xlabel("AUPIMO of an image (diamond: mean)")
    return figure


def draw_curves(result: AUPIMOResult) -> Figure:
    """Draw the PIMO curves of the images that stand for the distribution."""
    with _card(5.4) as figure:
        axis = plot_pimo_curves(result.curves(), result, ax=figure.subplots())[1]
        axis.set_xlabel("shared FPR")
        axis.set_ylabel("per-image TPR")
        handles, labels = axis.get_legend_handles_labels()
        labels = [in_lines(label, LABEL_LENGTH) for label in labels]
        axis.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.45, -0.2), fontsize="small", frameon=False)
    return figure


def draw_heatmaps(result: AUPIMOResult, pictures: Sequence[Shown]) -> Figure:
    """Draw images and, below each, where in it its score comes from.

    Args:
        result: Scores of all images.
        pictures: What to draw, each with its index in the result.

    """
    num_rows = math.ceil(len(pictures) / HEATMAPS_IN_A_ROW)
    starts = [len(pictures) * row // num_rows for row in range(num_rows + 1)]
    rows = [pictures[start:end] for start, end in pairwise(starts)]
    heights = [0.9 + 2 * 3.9 / max(2, len(row)) for row in rows]
    with _card(sum(heights)) as figure:
        parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)
        for (part,), row in zip(parts, rows, strict=True):
            images, maps, masks = zip(*((each.image, each.anomaly_map, each.mask) for each, _ in row), strict=True)
            plot_heatmaps(images, maps, result, masks, [index for _, index in row], fig=part)
    return figure


@contextmanager
def _card(height: float) -> Iterator[Figure]:
    """Make a figure of a height in inches, in which text has its size when the figure has the width of a card."""
    from matplotlib import rc_context  # noqa: PLC0415

    with rc_context({"font.size": TEXT_SIZE * POINTS_PER_INCH * FIGURE_WIDTH / CARD_WIDTH}):
        figure = figure_without_pyplot((FIGURE_WIDTH, height))
        figure.set_dpi(PIXELS_PER_INCH)
        yield figure
