"""A Lightning callback that shows where a logged AUPIMO comes from, in TensorBoard and other loggers.

Conventions: the name of what is logged starts with the stage and the metric's attribute, as `val/aupimo/curves` for
`self.aupimo`. With several processes every rank takes part in the gathering of scores, and rank 0 draws and logs. Only
public hooks and methods of Lightning are used.

This module needs the extras `lightning` and `plot`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics import Metric, MetricCollection, MetricTracker

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, figure_without_pyplot, heatmaps_size
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AUPIMOCallback"]

IMAGE_KEYS = ("image", "images")
MAP_KEYS = ("anomaly_map", "anomaly_maps", "maps", "preds")
MASK_KEYS = ("mask", "masks", "gt_mask", "gt_masks", "target", "targets")
"""Usual names of images, maps and masks in what a step returns and in its batch."""

Pictures: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""Images (N, C, H, W), anomaly maps (N, H, W) or (N, 1, H, W), and masks of the shape of the maps, or None."""
HeatmapSource: TypeAlias = Callable[[Any, Any], Pictures | None] | tuple[str, str, str]
"""A function of what a step returns and of its batch, or the names of images, maps and masks in one of these."""


class AUPIMOCallback(Callback):
    """Log what explains the AUPIMO of an epoch: distribution, curves and heat maps of the images.

    At the end of each validation and test epoch, for each :class:`~aupimo_torchmetrics.AUPIMO` of the LightningModule
    that was updated in it (here `self.aupimo`, in a validation):

    - `val/aupimo/share_at_0`: share of the anomalous images with a score of exactly 0 (nothing of the defect is found),
    - `val/aupimo/share_at_1`: share with a score of exactly 1 (the whole defect is found at every threshold); both are
      scalars for any logger, `ModelCheckpoint` and `EarlyStopping`,
    - `val/aupimo/scores`: histogram of the scores (TensorBoard),
    - `val/aupimo/distribution`: box plot of the scores, with a point for each image,
    - `val/aupimo/curves`: PIMO curves of the images nearest to the statistics of the box plot,
    - `val/aupimo/heatmaps`: a few images, and where in them the score comes from.

    Figures go to TensorBoard and to loggers with a method `log_image`, such as that of Weights & Biases. Other loggers
    get only the scalars. Nothing is logged in Lightning's sanity check, and no figure if the score is undefined. Log
    the score itself with `self.log("val/aupimo", self.aupimo)` as usual; it is computed only once.

    Heat maps need images and anomaly maps. The callback looks for them in what the step returns, then in its batch.
    Both may be dictionaries or objects with the usual names, as in
    `return {"image": images, "anomaly_map": maps, "mask": masks}`. If the batch is a tuple or a list, its first tensor
    is taken for the images, and the first other one with the shape of the maps and only 0 and 1 in it for the masks.
    By default anomalous images are drawn, spread evenly over those that rank 0 sees. They are the same in each epoch if
    the data is not shuffled. At most twice as many as are drawn are held in memory.

    Args:
        metric: Name of the metric's attribute, such as `"aupimo"`, or `"metrics.aupimo"` in a collection. None for all.
        every_n_epochs: Draw and log in every n-th epoch of a fit. Separate validation and test runs always draw.
        heatmap_source: Where to find images, maps and masks. Three names, such as `("image", "anomaly_map", "mask")`;
            or a function of what the step returns and of its batch. It returns images (N, C, H, W), maps and masks
            (N, H, W) or (N, 1, H, W), or None if nothing of the batch is to be drawn; the masks may be None. None for
            the usual names.
        num_heatmaps: How many heat maps to draw, 0 for none.
        heatmap_images: Which images to draw instead: their indices in the epoch (on rank 0), from 0. All of them are
            drawn, unless `num_heatmaps` is 0.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If a number is out of its range. When an epoch starts: if the module has no such metric. After a
            batch: if `heatmap_source` finds no images or no maps in it, or if their shapes do not fit together.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from aupimo_torchmetrics.lightning import AUPIMOCallback
        >>> trainer = Trainer(callbacks=[AUPIMOCallback(every_n_epochs=5)], accelerator="cpu", logger=False)

    """

    def __init__(
        self,
        metric: str | None = None,
        *,
        every_n_epochs: int = 1,
        heatmap_source: HeatmapSource | None = None,
        num_heatmaps: int = 4,
        heatmap_images: Sequence[int] | None = None,
    ) -> None:
        require("matplotlib", extra="plot", needed_by="AUPIMOCallback")
        for name, value, lowest in (("every_n_epochs", every_n_epochs, 1), ("num_heatmaps", num_heatmaps, 0)):
            if value < lowest:
                raise ValueError(f"Expected `{name}` to be at least {lowest}, but got {value}.")
        self.metric = metric
        self.every_n_epochs = every_n_epochs
        self.heatmap_source = heatmap_source
        self.num_heatmaps = num_heatmaps
        self.heatmap_images = heatmap_images
        self._gallery: _Gallery | None = None
        self._ignored: set[int] = set()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if there is no metric; start to collect images if heat maps will be drawn."""
        metrics = _metrics_by_name(pl_module, self.metric).values()
        self._ignored = {metric.ignore_index for metric in metrics if metric.ignore_index is not None}
        self._gallery = None
        if self._is_due(trainer) and trainer.is_global_zero and self.num_heatmaps:
            self._gallery = _Gallery(self.num_heatmaps, self.heatmap_images)

    def on_validation_batch_end(  # noqa: PLR0917  Lightning's signature
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep a few images with their maps."""
        if self._gallery is None:
            return
        pictures = _pictures(self.heatmap_source, outputs, batch, self._ignored)
        if pictures is not None:
            self._gallery.offer(*pictures)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log each metric that was updated in this epoch: scalars, histogram and figures, on all ranks alike."""
        gallery, self._gallery = self._gallery, None
        if not self._is_due(trainer):
            return
        for name, metric in _metrics_by_name(pl_module, self.metric).items():
            # A rank without a batch must take part in the gathering, too.
            if not trainer.strategy.reduce_boolean_decision(metric.update_called, all=False):
                continue
            tag = f"{'test' if trainer.testing else 'val'}/{name.replace('.', '/')}"
            result = metric.result()
            shares = {f"{tag}/share_at_{score}": _share_at(result, score) for score in (0, 1)}
            # All ranks have the same values. `sync_dist` only avoids Lightning's warning.
            pl_module.log_dict(shares, sync_dist=trainer.world_size > 1)
            if trainer.is_global_zero and _has_scores(result):
                _log_pictures(trainer, tag, result, gallery)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether to log this epoch."""
        is_own_run = trainer.state.fn != TrainerFn.FITTING
        return not trainer.sanity_checking and (is_own_run or (trainer.current_epoch + 1) % self.every_n_epochs == 0)


class _Picture(NamedTuple):
    """One image with its map, on the CPU."""

    image_index: int
    """Index of the image in the epoch, on this rank."""
    image: Tensor
    """(C, H, W), resized to the size of the map."""
    anomaly_map: Tensor
    """(H, W)."""
    mask: Tensor | None
    """(H, W) bool."""


class _Gallery:
    """Collects a few images of an epoch, spread evenly, without knowing how many there will be."""

    def __init__(self, size: int, indices: Sequence[int] | None) -> None:
        self.size = size
        self.indices = None if indices is None else set(indices)
        self.kept: list[_Picture] = []
        self._num_seen = 0
        self._num_candidates = 0
        self._stride = 1

    def offer(self, images: Tensor, anomaly_maps: Tensor, masks: Tensor | None) -> None:
        """Keep some of the images (N, C, H, W), with maps and masks (N, H, W) or (N, 1, H, W)."""
        size = anomaly_maps.shape[-2:]
        is_anomalous = [True] * len(images) if masks is None else (masks != 0).flatten(1).any(1).tolist()
        for i, image in enumerate(images):
            if self._wants(self._num_seen, is_anomalous[i]):
                anomaly_map = anomaly_maps[i].reshape(size).detach().cpu().clone()
                if not bool(anomaly_map.isnan().any()):  # possible with `validate_args=False`, and cannot be drawn
                    resized = interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
                    mask = None if masks is None else (masks[i].reshape(size) != 0).cpu()
                    self.kept.append(_Picture(self._num_seen, resized.detach().cpu(), anomaly_map, mask))
            self._num_seen += 1
            if self.indices is None and len(self.kept) > 2 * self.size:
                self.kept = self.kept[::2]  # from now on, keep only every other of the images to come, too
                self._stride *= 2

    def pictures(self) -> list[_Picture]:
        """Return the images to draw."""
        if self.indices is not None or len(self.kept) <= self.size:
            return self.kept
        steps = np.linspace(0, len(self.kept) - 1, self.size).round().astype(int)
        return [self.kept[step] for step in steps]

    def _wants(self, index: int, is_anomalous: bool) -> bool:
        """Whether to keep the image of this index."""
        if self.indices is not None:
            return index in self.indices
        if not is_anomalous:
            return False
        self._num_candidates += 1
        return (self._num_candidates - 1) % self._stride == 0


def _metrics_by_name(pl_module: LightningModule, name: str | None) -> dict[str, AUPIMO]:
    """Metrics of the module by the names of their attributes, or only that of the name; raise if there is none."""
    found = dict(_find_metrics(pl_module))
    if name is None and found:
        return found
    if name in found:
        return {name: found[name]}
    asked = "an AUPIMO metric" if name is None else f"the AUPIMO metric {name!r}"
    raise ValueError(
        f"Expected {type(pl_module).__name__} to hold {asked}, but got {', '.join(found) or 'none'}. "
        "Assign it to an attribute, `self.aupimo = AUPIMO()`, in `__init__` or `configure_model`."
    )


def _find_metrics(module: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, AUPIMO]]:
    """Names and metrics in a module and in its collections, without the copies inside of wrapper metrics."""
    children = module.named_children()
    if isinstance(module, MetricCollection):
        children = iter(module.items(keep_base=True, copy_state=False))  # `items` also updates grouped states
    for name, child in children:
        if isinstance(child, AUPIMO):
            yield prefix + name, child
        elif isinstance(child, MetricCollection) or not isinstance(child, (Metric, MetricTracker)):
            yield from _find_metrics(child, f"{prefix}{name}.")


def _has_scores(result: AUPIMOResult) -> bool:
    """Whether any image has a score."""
    return not bool(result.aupimos.isnan().all())


def _share_at(result: AUPIMOResult, score: int) -> Tensor:
    """Share of the anomalous images with exactly this score; NaN if there is none."""
    scores = result.aupimos[~result.aupimos.isnan()]
    return (scores == score).float().mean()


def _pictures(source: HeatmapSource | None, outputs: Any, batch: Any, ignored: Collection[int] = ()) -> Pictures | None:
    """Images, maps and masks of a batch, without the mask values that are ignored; None if there are none."""
    if callable(source):
        pictures = source(outputs, batch)
        return None if pictures is None else _checked(*pictures, ignored)
    names = [IMAGE_KEYS, MAP_KEYS, MASK_KEYS] if source is None else [(name,) for name in source]
    images, maps, masks = (_look_up(keys, outputs, batch) for keys in names)
    if source is None and isinstance(batch, (tuple, list)):
        tensors = [part for part in batch if isinstance(part, Tensor)]
        images = tensors[0] if images is None and tensors else images
        if masks is None:
            masks = next((part for part in tensors[1:] if _may_be_masks(part, maps, ignored)), None)
    if images is None or maps is None:
        if source is None:
            return None
        raise ValueError(
            f"Expected `heatmap_source` {source} to name images and anomaly maps in what the step returns or in its "
            f"batch, but found {'no maps' if maps is None else 'no images'}."
        )
    return _checked(images, maps, masks, ignored)


def _look_up(keys: tuple[str, ...], *sources: Any) -> Tensor | None:
    """The first tensor that a dictionary or an object holds under one of the names."""
    for source in sources:
        for key in keys:
            value = source.get(key) if isinstance(source, Mapping) else getattr(source, key, None)
            if isinstance(value, Tensor):
                return value
    return None


def _fits(masks: Tensor, maps: Tensor) -> bool:
    """Whether the shape of a tensor is that of masks for the maps."""
    return masks.numel() == maps.numel() and masks.shape[-2:] == maps.shape[-2:]


def _may_be_masks(tensor: Tensor, maps: Tensor | None, ignored: Collection[int]) -> bool:
    """Whether a tensor without a name has the shape of masks for the maps, and holds only 0, 1 and ignored values."""
    if maps is None or not _fits(tensor, maps):
        return False
    return bool(_is_any_of(tensor, [0, 1, *ignored]).all())


def _checked(images: Tensor, maps: Tensor, masks: Tensor | None, ignored: Collection[int]) -> Pictures:
    """Return images, maps and masks, with 0 for values that are ignored; raise unless these can be drawn together."""
    is_map = maps.ndim in {3, 4} and maps.numel() == len(maps) * maps.shape[-2:].numel()
    if images.ndim != 4 or not is_map or len(images) != len(maps) or (masks is not None and not _fits(masks, maps)):
        raise ValueError(
            "Expected images (N, C, H, W), anomaly maps (N, H, W) or (N, 1, H, W), and masks of the same size for heat "
            f"maps, but got {tuple(images.shape)}, {tuple(maps.shape)} and "
            f"{None if masks is None else tuple(masks.shape)}. Say where they are with `heatmap_source`."
        )
    if masks is not None and ignored:
        masks = masks.masked_fill(_is_any_of(masks, ignored), 0)
    return images, maps, masks


def _is_any_of(tensor: Tensor, values: Collection[int]) -> Tensor:
    """Whether each number of a tensor is one of the values: bool of its shape."""
    return torch.stack([tensor == value for value in values]).any(0)


def _log_pictures(trainer: Trainer, tag: str, result: AUPIMOResult, gallery: _Gallery | None) -> None:
    """Log the histogram and the figures of a metric."""
    scores = result.aupimos[~result.aupimos.isnan()].cpu()
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(f"{tag}/scores", scores, trainer.global_step)
    if not any(isinstance(logger, TensorBoardLogger) or hasattr(logger, "log_image") for logger in trainer.loggers):
        return
    figure = figure_without_pyplot(distribution_size())
    plot_distribution(result, figure.subplots())
    _log_figure(trainer, f"{tag}/distribution", figure)
    figure = figure_without_pyplot(CURVES_SIZE)
    plot_pimo_curves(result.curves(), result, ax=figure.subplots())
    _log_figure(trainer, f"{tag}/curves", figure)
    pictures = [] if gallery is None else gallery.pictures()
    if not pictures:
        if gallery is not None:
            rank_zero_info(
                "AUPIMOCallback found no images and anomaly maps to draw heat maps of. Return them from the step, "
                '`return {"image": images, "anomaly_map": maps, "mask": masks}`, or set `heatmap_source`.'
            )
        return
    figure = figure_without_pyplot(heatmaps_size(len(pictures)))
    indices, images, maps, masks = zip(*pictures, strict=True)
    known_masks = None if any(mask is None for mask in masks) else cast("list[Tensor]", masks)
    plot_heatmaps(images, maps, result, known_masks, captions=[f"image {index}" for index in indices], fig=figure)
    _log_figure(trainer, f"{tag}/heatmaps", figure)


def _log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Give a figure to each logger that accepts figures or images."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, trainer.global_step)
        elif hasattr(logger, "log_image"):
            logger.log_image(tag, [_as_array(figure)], step=trainer.global_step)


def _as_array(figure: Figure) -> NDArray[np.uint8]:
    """Pixels of a figure (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has no types for its methods
    canvas.draw()
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)
    return np.ascontiguousarray(pixels[..., :3])
