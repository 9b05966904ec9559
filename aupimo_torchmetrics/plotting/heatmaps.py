"""Pictures of where in an image its score comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics.plotting import _figures
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_heatmap", "plot_heatmaps"]

Photograph: TypeAlias = Tensor | NDArray[Any]
"""A photograph, of any dtype."""

HEAT_LABEL = "pixel AUPIMO (0 is transparent)"
"""What the colours of a heat map mean."""


def plot_heatmap(  # noqa: PLR0917  the axis comes last in every plot function
    image: Photograph,
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
        image: (H, W) or (1, H, W) grey photograph, or (3, H, W) in colour, which is drawn grey: a tensor or array of
            any dtype. Values outside [0, 1], as of bytes, of 16 bits or after a normalisation, are drawn from the
            darkest to the brightest.
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
        'image 1 · 1.00'

    """
    weights, title = _weights_and_title(image, anomaly_map, result, mask, index)
    is_new = ax is None
    fig, ax = _figures.figure_and_axis(ax, _figures.HEATMAP_SIZE)
    _draw_heatmap(ax, image, weights, mask, title)
    if is_new:
        _add_colorbar(fig, ax, ax)
    _figures.fit_titles([ax])
    return fig, ax


def plot_heatmaps(  # noqa: PLR0917  the figure comes last, as the axis does in every plot function
    images: Sequence[Photograph] | Photograph,
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
        captions: Titles of the n photographs. Titles are broken into lines, and made smaller, until they fit.
        fig: Figure to draw on, best with the layout `"constrained"`. None for a new one.

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
    given = {"anomaly_maps": anomaly_maps, "masks": masks, "indices": indices, "captions": captions}
    for name, values in given.items():
        if values is not None and len(values) != num_images:
            raise ValueError(
                f"Expected `{name}` to hold one item for each of {num_images} images, but got {len(values)}."
            )
    if num_images == 0:
        raise ValueError("Expected `images` to hold at least one image, but got none.")
    columns = []
    for column, (image, anomaly_map) in enumerate(zip(images, anomaly_maps, strict=True)):
        mask, index = None if masks is None else masks[column], None if indices is None else indices[column]
        columns.append((image, mask, *_weights_and_title(image, anomaly_map, result, mask, index)))
    if fig is None:
        fig = _figures.new_figure(_figures.heatmaps_size(num_images))
    axes: NDArray[Any] = np.asarray(fig.subplots(2, num_images, squeeze=False))
    for (plain_ax, heat_ax), (image, mask, weights, title) in zip(axes.T, columns, strict=True):
        _draw_photograph(plain_ax, image)
        _draw_heatmap(heat_ax, image, weights, mask, title)
    for plain_ax, caption in zip(axes[0], () if captions is None else captions, strict=False):
        plain_ax.set_title("\n".join(map(_figures.with_glyphs, caption.split("\n"))))
    _add_colorbar(fig, axes[1, 0], axes)
    _figures.fit_titles(axes.flat)
    return fig, axes


def _draw_heatmap(ax: Axes, image: Photograph, weights: Tensor, mask: Tensor | None, title: str) -> None:
    """Draw pixel weights (H, W) and the outline of a mask over a photograph."""
    _draw_photograph(ax, image)
    ax.imshow(weights.where(weights > 0, math.nan).numpy(), cmap=_figures.SCORE_COLORS, vmin=0, vmax=1)
    if mask is not None and bool((torch.as_tensor(mask, device="cpu") > 0).any()):
        outline = torch.as_tensor(mask, device="cpu").detach().reshape(weights.shape).float().numpy()
        ax.contour(outline, levels=[0.5], colors=_figures.MASK_COLOR, linewidths=1.2)
    ax.set_title(title)


def _add_colorbar(fig: Figure | SubFigure, heat_ax: Axes, axes: Any) -> None:
    """Draw the colour bar of a heat map right of all axes."""
    # Without `panchor`, narrow photographs would move to the bar, and their titles under it.
    fig.colorbar(heat_ax.images[-1], ax=axes, label=HEAT_LABEL, panchor=False)


def _draw_photograph(ax: Axes, image: Photograph) -> None:
    """Draw an image (H, W) or (C, H, W) in grey."""
    photograph = torch.as_tensor(image, device="cpu").detach().float().reshape(-1, *image.shape[-2:]).mean(0)
    values = photograph[photograph.isfinite()]
    darkest, brightest = map(float, values.aminmax()) if len(values) else (0.0, 1.0)
    levels = (0.0, 1.0) if darkest >= 0 and brightest <= 1 else (darkest, brightest)
    ax.imshow(photograph.numpy(), cmap="gray", vmin=levels[0], vmax=levels[1])
    ax.set_axis_off()


def _weights_and_title(
    image: Photograph, anomaly_map: Tensor, result: AUPIMOResult, mask: Tensor | None, index: int | None
) -> tuple[Tensor, str]:
    """Pixel weights (H, W) of an image, and its title; raise unless all that is given fits."""
    weights = result.pixel_aupimo(anomaly_map).cpu()
    _check_one_size(image, anomaly_map, mask)
    weights = weights.reshape(anomaly_map.shape[-2:])
    return weights, _heatmap_title(result, weights, mask, index)


def _heatmap_title(result: AUPIMOResult, weights: Tensor, mask: Tensor | None, index: int | None) -> str:
    """Score of an anomalous image, or share of false positives of a normal one with pixel weights (H, W)."""
    if index is not None and not 0 <= index < len(result.aupimos):
        raise ValueError(f"Expected `index` to be that of one of {len(result.aupimos)} images, but got {index}.")
    if index is None and mask is None:
        return ""
    if index is None:
        score = float(weights[torch.as_tensor(mask, device="cpu").detach().reshape(weights.shape) > 0].mean())
        title, normal = f"AUPIMO {score_text(score)}", "normal"
    else:
        score = float(result.aupimos[index])
        title, normal = _figures.titled(result, index, score_text(score)), _figures.titled(result, index, "normal")
    return f"{normal}\n{float((weights > 0).float().mean()):.2%} false positives" if math.isnan(score) else title


def _check_one_size(image: Photograph, anomaly_map: Tensor, mask: Tensor | None) -> None:
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
