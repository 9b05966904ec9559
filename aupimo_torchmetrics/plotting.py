"""Pictures of results: PIMO curves, and the heat map that shows where a score comes from.

Conventions: a function takes results and, if the picture belongs into a larger one, the axis to draw on; it returns
figure and axis, and shows and closes nothing. matplotlib is imported where it is used. Colours are of the viridis map,
which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE

from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORE_COLORS = "viridis"
"""Colour map of scores from 0 to 1."""
MASK_COLOR = "deeppink"
"""Outline of a mask: neither in the colour map nor in a grey photograph."""
NUM_CHOSEN_CURVES = 5
"""How many curves are drawn of images that the caller does not choose."""


def plot_pimo_curves(
    curves: PIMOResult, result: AUPIMOResult, images: Sequence[int] | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Plot PIMO curves: how much of a defect is found against how many normal pixels are falsely called anomalous.

    The range of the shared FPR that AUPIMO averages over is shaded, and a curve has the colour of its image's score.

    Args:
        curves: Curves of N images, as :class:`~aupimo_torchmetrics.PIMO` computes them.
        result: Scores of the same images, as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        images: Places, from 0 to N - 1, of the anomalous images whose curves to draw. None for five images from the
            worst to the best score, evenly spread in rank.
        ax: Axis to draw on. None for a new figure.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If curves and scores are of different numbers of images, or an image is not there or is normal.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO, PIMO
        >>> from aupimo_torchmetrics.plotting import plot_pimo_curves
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> aupimo, pimo = AUPIMO(fpr_bounds=(0.1, 0.5)), PIMO()
        >>> aupimo.update(maps, masks)
        >>> pimo.update(maps, masks)
        >>> fig, ax = plot_pimo_curves(pimo.compute(), aupimo.result())

    """
    shared_fpr, tprs = torch.as_tensor(curves.shared_fpr).cpu(), torch.as_tensor(curves.per_image_tprs).cpu()
    scores = result.aupimos.cpu()
    images = _chosen_images(scores, tprs, images)
    fig, ax = _figure_and_axis(ax, (7.5, 5.5))
    # A log axis has no place for an FPR of 0.
    has_fpr = shared_fpr > 0
    shared_fpr, tprs = shared_fpr[has_fpr], tprs[:, has_fpr]

    lower, upper = result.fpr_bounds
    ax.axvspan(lower, upper, color="0.88", label=f"AUPIMO averages here: FPR {lower:g} to {upper:g}")
    for image in images:
        score = float(scores[image])
        label = f"image {image}: AUPIMO {score:.2f}"
        ax.plot(shared_fpr.numpy(), tprs[image].numpy(), color=_score_color(score), linewidth=1.8, label=label)
    is_anomalous = ~scores.isnan()
    mean_label = f"mean of {int(is_anomalous.sum())} images: AUPIMO {result.mean:.2f}"
    mean_tpr = tprs[is_anomalous].mean(0)
    ax.plot(shared_fpr.numpy(), mean_tpr.numpy(), color="black", linewidth=2.2, linestyle="--", label=mean_label)
    lowest = float(torch.cat([shared_fpr, shared_fpr.new_tensor([lower])]).min())
    diagonal = torch.logspace(math.log10(lowest), 0, 100).numpy()
    ax.plot(diagonal, diagonal, color="0.45", linestyle=":", label=f"chance (TPR = FPR): AUPIMO {result.chance:.2g}")

    ax.set_xscale("log")
    ax.set_xlim(float(diagonal[0]), 1)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("shared FPR: share of the normal images' pixels falsely called anomalous")
    ax.set_ylabel("per-image TPR: share of the defect found")
    # Curves may run anywhere within the axis, so the legend stands below it.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize="small", frameon=False)
    return fig, ax


def plot_heatmap(  # noqa: PLR0917  the axis comes last in every plot function
    image: Tensor,
    anomaly_map: Tensor,
    result: AUPIMOResult,
    mask: Tensor | None = None,
    index: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Plot where the score of one image comes from, over its photograph.

    A pixel is coloured by its share of the score, `AUPIMOResult.pixel_aupimo`: it is transparent where the pixel is
    found by no threshold between the FPR bounds, and 1 where it is found by all. The mean in the mask is the score.

    Args:
        image: (H, W) or (1, H, W) grey photograph in [0, 1], or (3, H, W) in colour, which is drawn grey.
        anomaly_map: (H, W) or (1, H, W) floating, in the unit of the maps that were scored.
        result: Scores as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        mask: (H, W) or (1, H, W) bool, whose outline is drawn. None for no outline.
        index: Place of the image in the scores, for the title. None for no title.
        ax: Axis to draw on. None for a new figure, with a colour bar.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If the map is not a floating tensor.
        ValueError: If the map holds NaN, or if the result was loaded from a file, which holds scores only.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> from aupimo_torchmetrics.plotting import plot_heatmap
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
        >>> metric.update(maps, masks)
        >>> fig, ax = plot_heatmap(maps[1] / 32, maps[1], metric.result(), masks[1], index=1)
        >>> ax.get_title()
        'image 1: AUPIMO 1.00'

    """
    weights = result.pixel_aupimo(anomaly_map).cpu().reshape(anomaly_map.shape[-2:])
    is_new = ax is None
    fig, ax = _figure_and_axis(ax, (4.5, 4))
    photograph = image.detach().cpu().float().reshape(-1, *image.shape[-2:]).mean(0)
    ax.imshow(photograph.numpy(), cmap="gray", vmin=0, vmax=1)
    heat = ax.imshow(weights.where(weights > 0, math.nan).numpy(), cmap=SCORE_COLORS, vmin=0, vmax=1)
    if mask is not None and bool(mask.any()):
        outline = mask.cpu().reshape(mask.shape[-2:]).float().numpy()
        ax.contour(outline, levels=[0.5], colors=MASK_COLOR, linewidths=1.2)
    ax.set_axis_off()
    if index is not None:
        ax.set_title(_heatmap_title(index, float(result.aupimos[index]), weights), fontsize="medium")
    if is_new:
        fig.colorbar(heat, ax=ax, label=HEAT_LABEL)
    return fig, ax


HEAT_LABEL = "pixel AUPIMO (0 is transparent)"
"""What the colours of a heat map mean."""


def _heatmap_title(index: int, score: float, weights: Tensor) -> str:
    """Score of an anomalous image, share of false positives of a normal one with pixel weights (H, W)."""
    if math.isnan(score):
        return f"image {index}: normal, {float((weights > 0).float().mean()):.2%} false positives"
    return f"image {index}: AUPIMO {score:.2f}"


def _chosen_images(scores: Tensor, tprs: Tensor, images: Sequence[int] | None) -> list[int]:
    """Places of the images to draw, worst first, of scores (N,) and curves (N, K)."""
    if len(scores) != len(tprs):
        raise ValueError(
            f"Expected `curves` and `result` to be of the same images, but got {len(tprs)} and {len(scores)} images."
        )
    by_score = [int(place) for place in scores.argsort(stable=True) if not math.isnan(scores[place])]
    if images is None:
        last = len(by_score) - 1
        ranks = {round(last * step / (NUM_CHOSEN_CURVES - 1)) for step in range(NUM_CHOSEN_CURVES) if last >= 0}
        return [by_score[rank] for rank in sorted(ranks)]
    for image in images:
        if image not in by_score:
            raise ValueError(
                f"Expected `images` to hold places of anomalous images among {len(scores)}, but got {image}. "
                "A normal image has no curve."
            )
    return sorted(images, key=by_score.index)


def _score_color(score: float) -> Any:
    """Colour of a score; the palest yellow, hard to see as a line on white, is left out."""
    from matplotlib import colormaps  # noqa: PLC0415

    return colormaps[SCORE_COLORS](0.9 * score)


def _figure_and_axis(ax: Axes | None, size: tuple[float, float]) -> tuple[Any, Any]:
    """The figure of an axis and the axis, or new ones of a size in inches."""
    if not _MATPLOTLIB_AVAILABLE:
        raise ModuleNotFoundError(
            "Plot function expects `matplotlib` to be installed. Please install with `pip install matplotlib`"
        )
    if ax is not None:
        return ax.get_figure(), ax
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt.subplots(figsize=size, layout="constrained")
