"""Pictures of the scores of one model or of several: distributions, PIMO curves and heat maps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics.plotting._figures import (
    CURVES_SIZE,
    HEATMAP_SIZE,
    MARKERS,
    MASK_COLOR,
    MAX_NAME_LENGTH,
    SCORE_COLORS,
    distribution_size,
    drawable,
    figure_and_axis,
    heatmaps_size,
    image_name,
    new_figure,
    score_color,
)
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.statistics import ImageStatistic, per_image_statistics
from aupimo_torchmetrics.statistics._ties import merge_equal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_distribution", "plot_heatmap", "plot_heatmaps", "plot_pimo_curves", "representative_images"]

HEAT_LABEL = "pixel AUPIMO (0 is transparent)"
"""What the colours of a heat map mean."""

NUM_CHOSEN_CURVES = 5
"""How many curves are drawn if the caller gives neither images nor scores."""

LEGEND_WIDTH = 60
"""Characters in a line of a legend of two columns."""

NUM_MARKERS = 12
"""How many markers a curve has."""

POINT_SPREAD = 0.26
"""Half the height over which the points of a distribution are spread; boxes are 1 apart."""

GOLDEN_RATIO = (1 + 5**0.5) / 2

LOWEST_FPR = 1e-5
"""Where the axis of the shared FPR begins if no curve and no bound says it."""


def plot_distribution(
    results: AUPIMOResult | Mapping[str, AUPIMOResult], ax: Axes | None = None, *, sort: bool = True
) -> tuple[Figure, Axes]:
    """Plot how the scores of the images are distributed, of one model or of several side by side.

    A box reaches from the first to the third quartile, its line is the median and the diamond the mean; whiskers end at
    the last score within 1.5 interquartile ranges. Each point is an anomalous image.

    Args:
        results: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them, or several of them by name.
        ax: Axis to draw on. None for a new figure.
        sort: Whether models stand in the order of their means, the best at the top, or in the order in which they are
            given. A model without any score stands last.

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
    fig, ax = figure_and_axis(ax, distribution_size(len(names)))

    for row, name in enumerate(names):
        scores = _known_scores(named[name])
        if len(scores):
            _draw_distribution(ax, np.sort(scores), row)
    ax.set_yticks(range(len(names)), [_distribution_label(drawable(name), named[name]) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(
        "AUPIMO of an image (0: nothing of its defect is found, 1: all of it)\n"
        "box: quartiles, line: median, diamond: mean, point: an image"
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
    defined = [name for name, mean in means.items() if not math.isnan(mean)]
    by_mean = np.argsort(-merge_equal(np.array([means[name] for name in defined])), kind="stable")
    return [defined[position] for position in by_mean] + [name for name in means if name not in defined]


def _known_scores(result: AUPIMOResult) -> NDArray[np.float64]:
    """Scores (n,) of the anomalous images."""
    scores = result.aupimos.double().cpu().numpy()
    return np.asarray(scores[~np.isnan(scores)])


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
    ax.scatter(scores, row + offsets, s=18, c=[score_color(score) for score in scores], zorder=3, alpha=0.9)


def _distribution_label(name: str, result: AUPIMOResult) -> str:
    """Name, mean and quartiles of a result in lines."""
    scores = _known_scores(result)
    if len(scores) == 0:
        return f"{name}\nundefined".strip()
    first, median, third = np.percentile(scores, [25, 50, 75])
    mean = f"mean {result.mean:.2f} ({len(scores)} image{'s' if len(scores) > 1 else ''})"
    return f"{name}\n{mean}\nquartiles {first:.2f} {median:.2f} {third:.2f}".strip()


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
    shared_fpr, tprs = torch.as_tensor(curves.shared_fpr).cpu(), torch.as_tensor(curves.per_image_tprs).cpu()
    if tprs.numel() == 0:
        raise ValueError(f"Expected `curves` to hold the TPRs (N, K) of images, but got shape {tuple(tprs.shape)}.")
    scores = tprs.mean(1) if result is None else result.aupimos.cpu()
    chosen = _chosen_curves(scores, tprs, result, images)
    fig, ax = figure_and_axis(ax, CURVES_SIZE)
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
            color=score_color(float(scores[index])),
            linewidth=1.8,
            marker=MARKERS[number % len(MARKERS)],
            markevery=(number * step // len(chosen), step),
            label=_curve_label(result, index, role, float(scores[index])),
        )
    is_anomalous = ~scores.isnan()
    mean_label = f"mean of {int(is_anomalous.sum())} images" + _score_text(result, float(scores.nanmean()))
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
    role = role and f" ({role})"
    if result is None or result.paths is None:
        label = f"{drawable(image_name(result, index))}{role}{_score_text(result, score)}"
    else:
        label = f"{_name_and_score(result, index, score)}{role}"
    return "\n".join(textwrap.wrap(label, LEGEND_WIDTH, break_long_words=False))


def _name_and_score(result: AUPIMOResult, index: int, score: float) -> str:
    """Title of an image with a score, as `scratch/005 · 0.73`, or without paths `image 5: AUPIMO 0.73`."""
    separator = ": AUPIMO " if result.paths is None else " · "
    return f"{drawable(image_name(result, index))}{separator}{score:.2f}"


def _score_text(result: AUPIMOResult | None, score: float) -> str:
    """What a label says of a score."""
    return "" if result is None else f": AUPIMO {score:.2f}"


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
        return dict.fromkeys(sorted(_checked_images(images, by_score, len(scores)), key=by_score.index), "")
    if result is not None:
        return representative_images(result)
    last = len(by_score) - 1
    ranks = {round(last * step / (NUM_CHOSEN_CURVES - 1)) for step in range(NUM_CHOSEN_CURVES) if last >= 0}
    return dict.fromkeys([by_score[rank] for rank in sorted(ranks)], "")


def _checked_images(images: Sequence[int], anomalous: list[int], num_images: int) -> Sequence[int]:
    """The indices that the caller gave; raise if there are none, or one is not that of an anomalous image."""
    if len(images) == 0:
        raise ValueError("Expected `images` to hold at least one index, but got none.")
    for index in images:
        if index not in anomalous:
            raise ValueError(
                f"Expected `images` to hold indices of anomalous images among {num_images}, but got {index}. "
                "A normal image has no curve."
            )
    return images


def representative_images(result: AUPIMOResult) -> dict[int, str]:
    """Choose the images nearest to the statistics of a box plot of the scores.

    Args:
        result: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them.

    Returns:
        The names of the statistics that an image stands for, joined by commas, by the index of the image, worst first.
        Of images with equal scores only one is there, and its text says so: `one of 12 images that score 0.00`. Empty
        if no image has a score.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import representative_images
        >>> representative_images(AUPIMOResult(torch.tensor([0.75, 0.25]), (1e-5, 1e-4), (0.0, 1.0)))
        {1: 'low whisker, first quartile', 0: 'median, mean, third quartile, high whisker'}

    """
    is_scored = ~result.aupimos.isnan().cpu().numpy()
    merged = merge_equal(_known_scores(result))
    score_of = dict(zip(np.flatnonzero(is_scored).tolist(), merged.tolist(), strict=True))
    by_score: dict[float, list[ImageStatistic]] = {}
    for statistic in per_image_statistics(result):
        by_score.setdefault(score_of[statistic.image], []).append(statistic)
    roles = {}
    for score, statistics in by_score.items():
        names = ", ".join(statistic.name for statistic in statistics)
        is_one_image = len({statistic.image for statistic in statistics}) == 1
        alike = "" if is_one_image else f"; one of {int((merged == score).sum())} images that score {score:.2f}"
        roles[statistics[0].image] = names + alike
    return roles


def plot_heatmap(  # noqa: PLR0917  the axis comes last in every plot function
    image: Tensor,
    anomaly_map: Tensor,
    result: AUPIMOResult,
    mask: Tensor | None = None,
    index: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Plot where the score of one image comes from, over its photograph.

    The colour of a pixel is its `AUPIMOResult.pixel_aupimo`: the share of the thresholds between the FPR bounds that
    call it anomalous. It is 1 for pixels that all of them find, and pixels that none of them finds are transparent. The
    mean in the mask is the score of the image. In a normal image the coloured pixels are the false positives at the
    upper FPR bound.

    Args:
        image: (H, W) or (1, H, W) grey photograph, or (3, H, W) in colour, which is drawn grey. Values outside [0, 1],
            as of bytes or after a normalisation, are drawn from the darkest to the brightest.
        anomaly_map: (H, W) or (1, H, W) floating, in the unit of the maps that were scored.
        result: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them.
        mask: (H, W) or (1, H, W) bool or 0 and 1, whose outline is drawn. None for no outline.
        index: Index of the image, for a title with its path (or else its index) and its score. Without it the title
            has only the score, computed from map and mask. Without index and mask there is no title.
        ax: Axis to draw on. None for a new figure, with a colour bar.

    Returns:
        Figure and axis.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If the map is not a floating tensor.
        ValueError: If image, map and mask are not of one size or have no pixel, if the map holds NaN, if `index` is not
            that of an image, or if the result was loaded from a file that holds only scores.

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
    weights = result.pixel_aupimo(anomaly_map).cpu()
    _check_one_size(image, anomaly_map, mask)
    weights = weights.reshape(anomaly_map.shape[-2:])
    title = _heatmap_title(result, weights, mask, index)
    is_new = ax is None
    fig, ax = figure_and_axis(ax, HEATMAP_SIZE)
    _draw_photograph(ax, image)
    heat = ax.imshow(weights.where(weights > 0, math.nan).numpy(), cmap=SCORE_COLORS, vmin=0, vmax=1)
    if mask is not None and bool(mask.any()):
        outline = mask.detach().cpu().reshape(mask.shape[-2:]).float().numpy()
        ax.contour(outline, levels=[0.5], colors=MASK_COLOR, linewidths=1.2)
    ax.set_title(title, fontsize="medium")
    if is_new:
        fig.colorbar(heat, ax=ax, label=HEAT_LABEL)
    return fig, ax


def plot_heatmaps(  # noqa: PLR0917  the figure comes last, as the axis does in every plot function
    images: Sequence[Tensor] | Tensor,
    anomaly_maps: Sequence[Tensor] | Tensor,
    result: AUPIMOResult,
    masks: Sequence[Tensor] | Tensor | None = None,
    indices: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    fig: Figure | SubFigure | None = None,
) -> tuple[Figure | SubFigure, NDArray[Any]]:
    """Plot the photographs of some images, and below each the heat map that `plot_heatmap` draws.

    Args:
        images: n photographs as of `plot_heatmap`, which may differ in size.
        anomaly_maps: Their n maps.
        result: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them.
        masks: Their n masks. None for no outlines.
        indices: Their n indices, for the titles of the heat maps.
        captions: Titles of the n photographs.
        fig: Figure to draw on. None for a new one.

    Returns:
        Figure and axes (2, n).

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If a map is not a floating tensor.
        ValueError: If there is no image, if there is not the same number of each, and where `plot_heatmap` raises it.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> from aupimo_torchmetrics.plotting import plot_heatmaps
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
        >>> metric.update(maps, masks)
        >>> fig, axes = plot_heatmaps(maps / 32, maps, metric.result(), masks)
        >>> axes.shape
        (2, 2)

    """
    num_images = len(images)
    for name, values in (
        ("anomaly_maps", anomaly_maps),
        ("masks", masks),
        ("indices", indices),
        ("captions", captions),
    ):
        if values is not None and len(values) != num_images:
            raise ValueError(
                f"Expected `{name}` to hold one item for each of {num_images} images, but got {len(values)}."
            )
    if num_images == 0:
        raise ValueError("Expected `images` to hold at least one image, but got none.")
    if fig is None:
        fig = new_figure(heatmaps_size(num_images))
    axes: NDArray[Any] = np.asarray(fig.subplots(2, num_images, squeeze=False))
    for column, (image, anomaly_map) in enumerate(zip(images, anomaly_maps, strict=True)):
        plain_ax, heat_ax = axes[:, column]
        _draw_photograph(plain_ax, image)
        plain_ax.set_title("" if captions is None else captions[column], fontsize="medium")
        mask = None if masks is None else masks[column]
        plot_heatmap(image, anomaly_map, result, mask, None if indices is None else indices[column], heat_ax)
    fig.colorbar(axes[1, 0].images[-1], ax=axes, label=HEAT_LABEL)
    return fig, axes


def _draw_photograph(ax: Axes, image: Tensor) -> None:
    """Draw an image (H, W) or (C, H, W) in grey."""
    photograph = image.detach().cpu().float().reshape(-1, *image.shape[-2:]).mean(0)
    darkest, brightest = float(photograph.min()), float(photograph.max())
    levels = (0.0, 1.0) if darkest >= 0 and brightest <= 1 else (darkest, brightest)
    ax.imshow(photograph.numpy(), cmap="gray", vmin=levels[0], vmax=levels[1])
    ax.set_axis_off()


def _heatmap_title(result: AUPIMOResult, weights: Tensor, mask: Tensor | None, index: int | None) -> str:
    """Score of an anomalous image, or share of false positives of a normal one with pixel weights (H, W)."""
    if index is None and mask is None:
        return ""
    if index is None:
        is_masked = torch.as_tensor(mask).detach().cpu().reshape(weights.shape) > 0
        score = float(weights[is_masked].mean())
        title, normal = f"AUPIMO {score:.2f}", "normal"
    else:
        if not 0 <= index < len(result.aupimos):
            raise ValueError(f"Expected `index` to be that of one of {len(result.aupimos)} images, but got {index}.")
        score = float(result.aupimos[index])
        title = _name_and_score(result, index, score)
        title = title if len(title) <= MAX_NAME_LENGTH else title.replace(" · ", "\n")
        normal = f"{drawable(image_name(result, index))}{': ' if result.paths is None else ' · '}normal"
    return f"{normal}\n{float((weights > 0).float().mean()):.2%} false positives" if math.isnan(score) else title


def _check_one_size(image: Tensor, anomaly_map: Tensor, mask: Tensor | None) -> None:
    """Raise unless photograph, map and mask have the same height and width, and one map is given."""
    size = anomaly_map.shape[-2:]
    if anomaly_map.numel() != math.prod(size):
        raise ValueError(f"Expected `anomaly_map` to be of shape (H, W), but got {tuple(anomaly_map.shape)}.")
    if anomaly_map.numel() == 0:
        raise ValueError(f"Expected `anomaly_map` to hold pixels, but got none: its shape is {tuple(size)}.")
    for name, other in (("image", image), ("mask", mask)):
        if other is not None and other.shape[-2:] != size:
            raise ValueError(
                f"Expected `{name}` and `anomaly_map` to be of one height and width, "
                f"but got {tuple(other.shape)} and {tuple(anomaly_map.shape)}."
            )
