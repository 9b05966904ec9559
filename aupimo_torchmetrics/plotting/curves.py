"""Pictures of PIMO curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics.plotting import _figures
from aupimo_torchmetrics.plotting.representatives import representative_images
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.statistics._ties import merge_equal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_pimo_curves"]

NUM_CHOSEN_CURVES = 5
"""How many curves are drawn if the caller gives neither images nor scores."""

LEGEND_WIDTH = 48
"""Characters in a line of a legend of two columns."""

NUM_MARKERS = 12
"""How many markers a curve has."""

LOWEST_FPR = 1e-5
"""Where the axis of the shared FPR begins if no curve and no bound says it."""


def plot_pimo_curves(
    curves: PIMOResult,
    result: AUPIMOResult | None = None,
    images: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Plot PIMO curves: how much of a defect is found against how many normal pixels are falsely called anomalous.

    With a result, the range of the shared FPR that AUPIMO averages over is shaded, and a curve has the colour of its
    image's score. Without, it has the colour of the mean TPR of the curve. Images are named by the paths of the result,
    or else by their index.

    Args:
        curves: Curves of N images, as `aupimo_torchmetrics.AUPIMO.curves` returns and `aupimo_torchmetrics.PIMO`
            computes them.
        result: Scores of the same images, as `aupimo_torchmetrics.AUPIMO.result` returns them.
        images: Indices, from 0 to N - 1, of the anomalous images whose curves to draw. None for those that stand for
            the distribution of the scores (`aupimo_torchmetrics.statistics.per_image_statistics`), or without a result
            for five images from the worst to the best, evenly spread in rank.
        ax: Axis to draw on. None for a new figure.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there are no images or thresholds, if curves and scores are of different numbers of images, if
            `images` is empty, or if one of the images is not there or is normal.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> from aupimo_torchmetrics.plotting import plot_pimo_curves
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
        >>> metric.update(maps, masks)
        >>> fig, ax = plot_pimo_curves(metric.curves(), metric.result())

    """
    shared_fpr, tprs = (torch.as_tensor(part, device="cpu") for part in (curves.shared_fpr, curves.per_image_tprs))
    if tprs.numel() == 0:
        raise ValueError(f"Expected `curves` to hold the TPRs (N, K) of images, but got shape {tuple(tprs.shape)}.")
    scores = tprs.mean(1) if result is None else result.aupimos.cpu()
    chosen = _chosen_curves(scores, tprs, result, images)
    fig, ax = _figures.figure_and_axis(ax, _figures.CURVES_SIZE)
    has_fpr = shared_fpr > 0  # a log axis cannot show 0
    shared_fpr, tprs = shared_fpr[has_fpr], tprs[:, has_fpr]

    if result is not None:
        lower, upper = result.fpr_bounds
        ax.axvspan(lower, upper, color="0.88", label=f"AUPIMO averages here: FPR {lower:g} to {upper:g}")
    step = max(1, len(shared_fpr) // NUM_MARKERS)
    for number, (index, role) in enumerate(chosen.items()):
        ax.plot(
            shared_fpr.numpy(),
            tprs[index].numpy(),
            color=_figures.score_color(float(scores[index])),
            linewidth=1.8,
            marker=_figures.MARKERS[number % len(_figures.MARKERS)],
            markevery=(number * step // len(chosen), step),
            label=_curve_label(result, index, role, float(scores[index])),
        )
    is_anomalous = ~scores.isnan()
    mean_label = f"mean of {int(is_anomalous.sum())} images"
    mean_label += "" if result is None else f": AUPIMO {_figures.mean_text(result)}"
    mean_tpr = tprs[is_anomalous].mean(0)
    ax.plot(shared_fpr.numpy(), mean_tpr.numpy(), color="black", linewidth=2.2, linestyle="--", label=mean_label)
    _draw_chance(ax, shared_fpr, result)
    _label_curves(ax, result)
    return fig, ax


def _label_curves(ax: Axes, result: AUPIMOResult | None) -> None:
    """Scale and label the axes, and draw the legend."""
    ax.set_xscale("log")
    ax.set_ylim(-0.02, 1.02)
    is_max = result is not None and result.shared_fpr == "max"
    whose = "the worst normal image's" if is_max else "the normal images'"
    ax.set_xlabel(f"shared FPR: share of {whose} pixels falsely called anomalous")
    ax.set_ylabel("per-image TPR: share of the defect found")
    # Curves may run anywhere within the axis, so the legend stands below it.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize="small", frameon=False)


def _draw_chance(ax: Axes, shared_fpr: Tensor, result: AUPIMOResult | None) -> None:
    """Draw the curve of a model without skill, over the range of the shared FPRs (K,) and of the bounds."""
    ends = shared_fpr[:0] if result is None else shared_fpr.new_tensor(result.fpr_bounds)
    ends = torch.cat([shared_fpr, ends])
    lowest, highest = (float(ends.min()), float(ends.max())) if len(ends) else (LOWEST_FPR, 1.0)
    diagonal = np.logspace(math.log10(lowest), math.log10(highest), 100)
    label = "chance (TPR = FPR)" + ("" if result is None else f": AUPIMO {result.chance:.2g}")
    ax.plot(diagonal, diagonal, color="0.45", linestyle=":", label=label)
    ax.set_xlim(lowest, highest)


def _curve_label(result: AUPIMOResult | None, index: int, role: str, score: float) -> str:
    """Name an image, its score if there is a result, and what it stands for, in lines that fit the legend."""
    name = _figures.titled(result, index, *([] if result is None else [score_text(score)]))
    return _figures.in_lines(f"{name} ({role})" if role else name, LEGEND_WIDTH)


def _chosen_curves(
    scores: Tensor, tprs: Tensor, result: AUPIMOResult | None, images: Sequence[int] | None
) -> dict[int, str]:
    """Indices of the images to draw and what each stands for, worst first, of scores (N,) and curves (N, K)."""
    if len(scores) != len(tprs):
        raise ValueError(
            f"Expected `curves` and `result` to be of the same images, but got {len(tprs)} and {len(scores)} images."
        )
    anomalous = np.flatnonzero(~scores.isnan().numpy())
    by_score = anomalous[merge_equal(scores.double().numpy()[anomalous]).argsort(kind="stable")].tolist()
    if images is not None:
        wrong = [index for index in images if index not in by_score]
        if wrong or len(images) == 0:
            raise ValueError(
                f"Expected `images` to hold at least one index of an anomalous image among {len(scores)}, but got "
                f"{wrong[0] if wrong else 'none'}. A normal image has no curve."
            )
        return dict.fromkeys(sorted(images, key=by_score.index), "")
    if result is not None:
        return representative_images(result)
    shares = [step / (NUM_CHOSEN_CURVES - 1) for step in range(NUM_CHOSEN_CURVES)] if by_score else []
    return dict.fromkeys((by_score[round((len(by_score) - 1) * share)] for share in shares), "")
