"""What the callback sees of one validation or test epoch: which batch updates which metric, and some of its images.

The maps that a step returns may be changed after the step by another callback: anomalib's post-processor normalises
them before its evaluator updates the metrics. The maps to draw are those that were scored. So a batch is looked at as
soon as a metric has been updated with it: at the end of the step, or else when the hooks of all callbacks are done,
which is when the next batch or the end of the epoch comes. At most one batch is held for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module

from aupimo_torchmetrics._engine.kept import NO_ID
from aupimo_torchmetrics.lightning._gallery import Gallery, Kept, picture_maker
from aupimo_torchmetrics.lightning._names import FoundMetric, find_metrics
from aupimo_torchmetrics.lightning._sources import HeatmapSource, Pictures, given_pictures, guessed_pictures
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["Epoch"]


class Epoch:
    """Follows the batches of an epoch.

    Args:
        module: The module with the metrics.
        source: Where images, maps and masks are. None to look for the usual names.
        num_heatmaps: How many images to draw for each metric, 0 to look at no image.
        indices: Indices in the epoch of the images to draw instead.
        is_check: Whether to keep no image, and only to see whether a source that was given fits.

    """

    def __init__(
        self,
        module: Module,
        source: HeatmapSource | None,
        num_heatmaps: int,
        indices: Sequence[int] | None,
        *,
        is_check: bool,
    ) -> None:
        self.module = module
        self.source = source
        self.is_check = is_check
        self.is_looking = num_heatmaps > 0 and not (is_check and source is None)
        metrics = find_metrics(module)
        self.loaders: dict[str, set[int]] = {name: set() for name in metrics}
        """Indices of the loaders whose batches updated each metric."""
        self.with_earlier_images: set[str] = set()
        """Names of the metrics that held images when the epoch began, and keep them."""
        self.num_images = 0
        """Number of images so far, on this process."""
        self.has_found_images = False
        self.problem = ""
        """Why images and maps that were only guessed cannot be drawn."""
        self._galleries = {name: Gallery(num_heatmaps, indices) for name in metrics}
        self._unclaimed = Gallery(num_heatmaps, indices)  # of batches that no metric was updated with
        self._at_start = _parts_of(metrics)
        self._before_batch = self._at_start
        self._loader: int | None = None  # of the batch that is not finished
        self._held: tuple[Any, Any] | None = None
        self._update_counts: dict[str, int] = {}
        self._seen: set[str] = set()
        self._batch_size = 0

    def start_batch(self, loader: int) -> None:
        """Finish the batch before, and count what the metrics hold."""
        self.finish_batch()
        metrics = {name: each for name, each in find_metrics(self.module).items() if name in self.loaders}
        self._loader = loader
        self._update_counts = {name: each.metric.update_count for name, each in metrics.items()}
        self._before_batch = _parts_of(metrics)

    def end_step(self, outputs: Any, batch: Any) -> None:
        """Look at the batch for the metrics that were updated in the step, and hold it for the others."""
        if not self.is_looking or self._loader is None:
            return
        metrics = find_metrics(self.module)
        updated = self._updated(metrics)
        try:
            if updated and self._look(outputs, batch, {name: metrics[name].metric for name in updated}):
                self._seen = updated
        except ValueError:  # another callback may still bring what the source names
            self._seen = set()
        if len(self._seen) < len(metrics):
            self._held = outputs, batch

    def finish_batch(self) -> None:
        """Look at the batch that is held, which all callbacks have had by now, and let it go."""
        if self._loader is None:
            return
        metrics = find_metrics(self.module)
        updated = self._updated(metrics)
        for name in updated:
            before = self._before_batch[name]
            if before and _are_same(before, self._at_start[name]):
                self.with_earlier_images.add(name)  # the first update since, without a reset
            self.loaders[name].add(self._loader)
        held, self._held = self._held, None
        if held is not None and (updated - self._seen or not updated):
            self._look(*held, {name: metrics[name].metric for name in updated - self._seen})
        sizes = (_num_images(_parts(metrics[name].metric)) - self._position(name) for name in updated)
        self.num_images += max(self._batch_size, *sizes, 0)
        self._loader, self._seen, self._batch_size = None, set(), 0

    def has_updated(self, name: str, metric: AUPIMO) -> bool:
        """Whether a metric holds something that it did not hold when the epoch began."""
        return not _are_same(_parts(metric), self._at_start.get(name, []))

    def pictures(self, name: str, metric: AUPIMO, result: AUPIMOResult) -> list[tuple[Kept, int | None]]:
        """Return the pictures to draw for a metric, each with its index in the result, or None if it is not known."""
        kept = (self._galleries[name] if self.loaders.get(name) else self._unclaimed).chosen()
        if not kept:
            return []
        ids = metric._ids_in_order()  # noqa: SLF001  of the same package
        is_whole = len(ids) == self.num_images
        indices = _indices_in(result)
        chosen = []
        for each in kept:
            position = each.image_index if each.position is None and is_whole else each.position
            if position is not None and position >= len(ids):  # the metric was reset in the epoch
                position = None
            if position is not None and indices is not None:
                position = indices.get(ids[position])
            chosen.append((each, position))
        return chosen

    def _updated(self, metrics: Mapping[str, FoundMetric]) -> set[str]:
        """Names of the metrics that were updated since the batch began, of those that were there by then."""
        before = self._update_counts
        return {name for name in before if name in metrics and metrics[name].metric.update_count > before[name]}

    def _look(self, outputs: Any, batch: Any, metrics: Mapping[str, AUPIMO]) -> bool:
        """Offer images to the galleries of the metrics; return whether there were any, or none were wanted."""
        ignored = {each.metric.ignore_index for each in find_metrics(self.module).values()} - {None}
        pictures = self._find(outputs, batch, [value for value in ignored if value is not None])
        if pictures is None:
            return self.source is not None
        if self.is_check:
            return True
        self.has_found_images = True
        images, _, masks = pictures
        self._batch_size = len(images)
        make_picture = picture_maker(pictures)
        for name, metric in metrics.items():
            position = self._place(name, metric, len(images))
            flags = _are_anomalous(masks, metric, position, len(images))
            self._galleries[name].offer(flags, make_picture, self.num_images, position)
        if not metrics:
            flags = _are_anomalous(masks, None, None, len(images))
            self._unclaimed.offer(flags, make_picture, self.num_images, None)
        return True

    def _find(self, outputs: Any, batch: Any, ignored: Sequence[int]) -> Pictures | None:
        """Images, maps and masks of a batch; what was only guessed never fails."""
        if self.source is not None:
            return given_pictures(self.source, outputs, batch, ignored)
        try:
            return guessed_pictures(outputs, batch, ignored)
        except Exception as error:  # noqa: BLE001  objects of other people are asked for attributes
            self.problem = f" {type(error).__name__}: {error}"
            return None

    def _place(self, name: str, metric: AUPIMO, num_images: int) -> int | None:
        """Position in the metric of the first image of the batch; None if the metric did not get all of its images."""
        position = self._position(name)
        return position if _num_images(_parts(metric)) - position == num_images else None

    def _position(self, name: str) -> int:
        """How many images a metric held before the batch."""
        return _num_images(self._before_batch.get(name, []))


def _parts_of(metrics: Mapping[str, FoundMetric]) -> dict[str, list[torch.Tensor]]:
    """What each metric holds of its images."""
    return {name: _parts(each.metric) for name, each in metrics.items()}


def _parts(metric: AUPIMO) -> list[torch.Tensor]:
    """What a metric holds of its images: tensors, of which each update, merge or reset makes others."""
    return [*metric.aupimo_num_kept]


def _are_same(parts: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether these are the very same tensors."""
    return len(parts) == len(others) and all(part is other for part, other in zip(parts, others, strict=True))


def _num_images(parts: Sequence[torch.Tensor]) -> int:
    """How many images these are of."""
    return sum(map(len, parts))


def _are_anomalous(
    masks: torch.Tensor | None, metric: AUPIMO | None, position: int | None, num_images: int
) -> list[bool]:
    """Whether each image is anomalous, by its mask or else by what the metric got; True if neither is known."""
    if masks is not None:
        return [bool(flag) for flag in (masks != 0).flatten(1).any(1).tolist()]
    if metric is None or position is None:
        return [True] * num_images
    known = torch.cat([part.reshape(-1) for part in metric.aupimo_is_anomalous])
    return [bool(flag) for flag in known[position : position + num_images].tolist()]


def _indices_in(result: AUPIMOResult) -> Mapping[str | int, int] | None:
    """Index of each image in a result by its id; None without ids, when images are in the order of the updates."""
    if result.paths is not None:
        return {path: index for index, path in enumerate(result.paths) if path}
    if result.image_ids is None:
        return None
    return {each: index for index, each in enumerate(result.image_ids.tolist()) if each != NO_ID}
