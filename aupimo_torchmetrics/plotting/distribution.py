"""Pictures of the distribution of scores, of one model or of several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics.plotting import _figures
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics import bootstrap_interval
from aupimo_torchmetrics.statistics._ties import best_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_distribution"]

POINT_SPREAD = 0.26
"""Half the height over which the points of a distribution are spread; boxes are 1 apart."""

GOLDEN_RATIO = (1 + 5**0.5) / 2


def plot_distribution(
    results: AUPIMOResult | Mapping[str, AUPIMOResult],
    ax: Axes | None = None,
    *,
    sort: bool = True,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Figure, Axes]:
    """Plot how the scores of the images are distributed, of one model or of several side by side.

    A box reaches from the first to the third quartile, its line is the median and the diamond the mean, in its 95 %
    interval; whiskers end at the last score within 1.5 interquartile ranges. Each point is an anomalous image.

    Args:
        results: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them, or several of them by name.
        ax: Axis to draw on. None for a new figure.
        sort: Whether models stand in the order of their means, the best at the top, or in the order in which they are
            given. A model without any score stands last.
        intervals: Interval of each mean by name. None for those of
            `aupimo_torchmetrics.statistics.bootstrap_interval`.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `results` is neither a result nor a mapping of results.
        ValueError: If there is no result, or a result of no images.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import plot_distribution
        >>> old, new = (AUPIMOResult(torch.rand(9) ** power, (1e-5, 1e-4), (0.0, 1.0)) for power in (2, 1))
        >>> fig, ax = plot_distribution({"old": old, "new": new})

    """
    named = _named(results)
    names = _best_first(named) if sort else list(named)
    fig, ax = _figures.figure_and_axis(ax, _figures.distribution_size(len(names)))

    if intervals is None:
        intervals = {name: bootstrap_interval(named[name]) for name in names}
    labels = []
    for row, name in enumerate(names):
        scores = _figures.known_scores(named[name])
        if len(scores):
            _draw_distribution(ax, np.sort(scores), row)
            ax.plot(intervals[name], [row, row], color="black", linewidth=3, zorder=4)
        labels.append(_distribution_label(_figures.drawable(name), named[name], intervals[name]))
    ax.set_yticks(range(len(names)), labels)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(
        "AUPIMO of an image (0: nothing of its defect is found, 1: all of it)\n"
        "box: quartiles, line: median, point: an image\n"
        "diamond: mean, thick line: its 95 % interval"
    )
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    return fig, ax


def _named(results: AUPIMOResult | Mapping[str, AUPIMOResult]) -> Mapping[str, AUPIMOResult]:
    """Results by name, of which a single one has none; raise if there is nothing to draw."""
    named = {"": results} if isinstance(results, AUPIMOResult) else results
    if not named:
        raise ValueError("Expected `results` to hold at least one result, but got none.")
    if not isinstance(named, Mapping):
        raise TypeError(f"Expected `results` to be a result or a mapping of results, but got {type(named).__name__}.")
    for name, result in named.items():
        if len(result.aupimos) == 0:
            raise ValueError(f"Expected `results` to hold images, but got a result of none{name and f' of {name!r}'}.")
    return named


def _best_first(results: Mapping[str, AUPIMOResult]) -> list[str]:
    """Names of results in descending order of their means; undefined means come last."""
    means = {name: result.mean for name, result in results.items()}
    defined = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    return [*best_first(defined), *(name for name in means if name not in defined)]


def _draw_distribution(ax: Axes, scores: NDArray[np.float64], row: int) -> None:
    """Draw box and points of sorted scores (n,) without NaN in a row."""
    ax.boxplot(
        scores,
        positions=[row],
        orientation="horizontal",
        widths=2 * POINT_SPREAD + 0.1,
        showmeans=True,
        showfliers=False,  # each score is drawn as a point
        patch_artist=True,
        boxprops={"facecolor": "0.93", "edgecolor": "0.4"},
        whiskerprops={"color": "0.4"},
        capprops={"color": "0.4"},
        medianprops={"color": "black", "linewidth": 2},
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 7, "zorder": 5},
    )
    # Multiples of the golden ratio spread points evenly over the height, and always in the same way.
    offsets = POINT_SPREAD * (2 * (np.arange(len(scores)) * GOLDEN_RATIO % 1) - 1)
    ax.scatter(scores, row + offsets, s=18, c=[_figures.score_color(score) for score in scores], zorder=3, alpha=0.9)


def _distribution_label(name: str, result: AUPIMOResult, interval: tuple[float, float]) -> str:
    """Name, mean and quartiles of a result in lines."""
    scores = _figures.known_scores(result)
    if len(scores) == 0:
        return f"{name}\nundefined".strip()
    quartiles = " ".join(map(score_text, np.percentile(scores, [25, 50, 75])))
    low, high = interval
    within = "" if math.isnan(low + high) else f", {score_text(low)} to {score_text(high)}"
    mean = f"mean {_figures.mean_text(result)}{within} ({len(scores)} image{'s' if len(scores) > 1 else ''})"
    return f"{name}\n{mean}\nquartiles {quartiles}".strip()
