"""Pictures of models compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from aupimo_torchmetrics._settings import ComparisonTest
from aupimo_torchmetrics.plotting import _figures
from aupimo_torchmetrics.statistics import ModelComparison, ModelRanking
from aupimo_torchmetrics.statistics.paired import confidence_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_confidence", "plot_ranks"]

GROUP_GAP = 0.02
"""Distance of the lines that join models, as a share of the width of the axis."""

HIGHEST_UNDER_WHITE = 0.435
"""Numbers are white in cells with a confidence up to this, and black in the brighter cells."""

TEST_NAMES: dict[ComparisonTest, str] = {"resampled": "resampled", "wilcoxon": "Wilcoxon test", "ttest": "t-test"}


def plot_ranks(ranking: ModelRanking, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Plot the average ranks of models over many data sets, and which of them cannot be told apart.

    This is a critical-difference diagram with a row for each model, the best at the top. A dot shows the average rank,
    and the bar around it is as long as the critical difference. Models whose bars overlap cannot be told apart; the
    thick lines on the right join them. Grey points are the ranks on single data sets; a larger point stands for more
    data sets.

    Args:
        ranking: Ranks, as `aupimo_torchmetrics.statistics.rank_models` returns them.
        ax: Axis to draw on. None for a new figure.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there is no model in the ranking.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import plot_ranks
        >>> from aupimo_torchmetrics.statistics import rank_models
        >>> low, high = (AUPIMOResult(torch.tensor([score]), (1e-5, 1e-4), (0.0, 1.0)) for score in (0.2, 0.7))
        >>> ranking = rank_models({"tile": {"old": low, "new": high}, "wood": {"old": low, "new": high}})
        >>> fig, ax = plot_ranks(ranking)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['new  1.00', 'old  2.00']

    """
    names, critical = ranking.order, ranking.critical_difference
    if not names:
        raise ValueError("Expected `ranking` to hold models, but got none.")
    fig, ax = _figures.figure_and_axis(ax, _figures.ranks_size(len(names)))
    for row, name in enumerate(names):
        rank = ranking.average_ranks[name]
        ax.plot([rank - critical / 2, rank + critical / 2], [row, row], color="0.85", linewidth=9, zorder=1)
        single_ranks, counts = np.unique([ranks[name] for ranks in ranking.ranks.values()], return_counts=True)
        sizes = 8 + 60 * counts / ranking.num_datasets
        ax.scatter(single_ranks, np.full(len(counts), row), s=sizes, color="0.55", zorder=2)
        ax.scatter(rank, row, s=60, color=_figures.score_color(1 - row / len(names)), edgecolor="black", zorder=3)
    _draw_groups(ax, ranking)
    ax.plot([1, 1 + critical], [-1, -1], color="black", linewidth=1.5, marker="|", markersize=8)
    ax.annotate(f"critical difference {critical:.2f}", (1, -1), (0, 6), textcoords="offset points", va="bottom")

    ax.set_yticks(
        range(len(names)), [f"{_figures.drawable(name)}  {ranking.average_ranks[name]:.2f}" for name in names]
    )
    ax.set_ylim(len(names) - 0.5, -2)
    ax.set_xticks(range(1, len(names) + 1))
    ax.set_xlim(0.6, max(len(names), 1 + critical) + 0.4)
    ax.set_xlabel(
        f"average rank over {ranking.num_datasets} data sets (1 is best)\n"
        "grey points: ranks on single data sets; models whose bars overlap\n"
        f"cannot be told apart (Nemenyi test, alpha {ranking.alpha:g})"
    )
    ax.grid(axis="x", color="0.93")
    ax.set_axisbelow(True)
    return fig, ax


def _draw_groups(ax: Axes, ranking: ModelRanking) -> None:
    """Draw a thick line right of the axis beside the rows of each group that cannot be told apart."""
    for column, group in enumerate(ranking.groups):
        first = ranking.order.index(group[0])
        ax.plot(
            [1.02 + GROUP_GAP * column] * 2,
            [first - 0.25, first + len(group) - 0.75],
            transform=ax.get_yaxis_transform(),
            clip_on=False,
            color="black",
            linewidth=4,
            solid_capstyle="butt",
        )


def plot_confidence(comparison: ModelComparison, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Plot how sure one may be that one model is better than another, of each two models.

    Numbers are rounded down, as in the table: 0.950 means 0.95 or more, and 1.000 that p is practically 0.

    Args:
        comparison: Confidences, as `aupimo_torchmetrics.statistics.compare_models` returns them.
        ax: Axis to draw on. None for a new figure.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there is no model in the comparison.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import plot_confidence
        >>> from aupimo_torchmetrics.statistics import compare_models
        >>> scores = torch.linspace(0, 0.9, 10)
        >>> old, new = (AUPIMOResult(each, (1e-5, 1e-4), (0.0, 1.0)) for each in (scores, scores + 0.1))
        >>> fig, ax = plot_confidence(compare_models({"old": old, "new": new}))
        >>> [text.get_text() for text in ax.texts]
        ['0.999', '0.000']

    """
    names = comparison.order
    if not names:
        raise ValueError("Expected `comparison` to hold models, but got none.")
    confidences = np.array([[comparison.confidence.get((row, column), math.nan) for column in names] for row in names])
    fig, ax = _figures.figure_and_axis(ax, _figures.confidence_size(len(names)))
    ax.imshow(confidences, cmap=_figures.SCORE_COLORS, vmin=0, vmax=1, aspect="auto")
    for (row, column), confidence in np.ndenumerate(confidences):
        if row != column:
            color = "black" if confidence > HIGHEST_UNDER_WHITE else "white"
            ax.text(column, row, confidence_text(confidence), ha="center", va="center", color=color, fontsize="small")

    labels = list(map(_figures.drawable, names))
    ax.set_yticks(range(len(names)), labels)
    ax.set_xticks(range(len(names)), labels, rotation=60, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    is_resampled, num_images = comparison.test == "resampled", comparison.num_images + comparison.num_normal
    where = "on other images of the kind" if is_resampled else "for these thresholds"
    images = f"{TEST_NAMES[comparison.test]}, {num_images} images"
    ax.set_xlabel(f"confidence that the row's model is {comparison.relation}\nthe column's {where}\n(1 - p, {images})")
    return fig, ax
