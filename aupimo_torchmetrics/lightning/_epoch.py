"""What the metrics of a module say in one epoch, and some of their images.

Maps, masks, ids and positions are what a metric says that it kept. Only the photographs are looked up, in the batch
in which it was updated: when it says so, as other callbacks may change the batch before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module

from aupimo_torchmetrics.lightning._gallery import Gallery, Picture, Shown, make_picture
from aupimo_torchmetrics.lightning._images import ImageSource, OtherImagesError, find_images
from aupimo_torchmetrics.lightning._names import FoundMetric, find_metrics
from aupimo_torchmetrics.metrics import AUPIMO, PIMO, Update
from aupimo_torchmetrics.results import AUPIMOResult


@dataclass
class Heard:
    """What one metric has said in an epoch, on this process."""

    gallery: Gallery
    num_images: int = 0
    num_earlier: int | None = None
    """Images that the metric held when the epoch began, and keeps; None if that is not known yet."""
    loaders: set[int] = field(default_factory=set)
    """Indices of the loaders with whose batches it was updated."""


@dataclass(eq=False, repr=False)
class Epoch:
    """Listens to the metrics of a module."""

    source: ImageSource | None
    """Where in a batch the photographs are. None for the usual places."""
    num_heatmaps: int
    """How many images to draw for each metric, 0 for none."""
    indices: Sequence[int] | None
    """Indices in the epoch of the images to draw instead."""
    is_check: bool
    """Whether to look up the photographs of the next update, drawn or not."""
    scored: dict[str, AUPIMOResult] = field(default_factory=dict)
    """Results by attribute."""
    with_shares: set[str] = field(default_factory=set)
    """Attributes whose shares are logged."""
    problem: str = ""
    """Why there are no photographs of some images."""
    _heard: dict[int, Heard] = field(default_factory=dict)  # by the `id` of the metric, whose hash changes with states
    _listeners: list[tuple[AUPIMO | PIMO, Callable[[Update], None]]] = field(default_factory=list)
    _module: Any = None
    _batch: Any = None
    _loader: int | None = None
    _images: tuple[Update, Sequence[Tensor | None]] | None = None
    _error: Exception | None = None

    def listen(self, module: Module) -> None:
        """Listen to all metrics in a module that are not listened to yet."""
        self._module = module
        for metric in [found.metric for found in find_metrics(module).values() if id(found.metric) not in self._heard]:
            self._heard[id(metric)] = Heard(Gallery(self.num_heatmaps, self.indices))
            listener = partial(self._listen_to, metric)
            metric.listeners.append(listener)
            self._listeners.append((metric, listener))

    def start_batch(self, module: Module, batch: Any, loader: int) -> None:
        """Hold a batch in place of the one before; raise if that had no photographs where the user says they are."""
        if self._batch is None:  # the first: other hooks may have made metrics since
            self.listen(module)
        self.end_batches()
        self._batch, self._loader = batch, loader

    def end_batches(self) -> None:
        """Let the last batch go; raise if it had no photographs where the user says they are."""
        self._batch, self._loader, self._images = None, None, None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """Listen no more."""
        for metric, listener in self._listeners:
            metric.listeners[:] = [each for each in metric.listeners if each is not listener]
        self._listeners, self._batch, self._images = [], None, None  # listeners, which hold the epoch, are a cycle

    def heard_of(self, found: FoundMetric) -> Heard | None:
        """What was said of a metric; None if it is not known, as it was made in a step."""
        return self._heard.get(id(found.speaker))

    def pictures(self, found: FoundMetric, result: AUPIMOResult) -> list[Shown]:
        """Return the pictures to draw for a metric, each with its index in the result."""
        heard = self.heard_of(found)
        ids: Any = result.paths or (None if result.image_ids is None else result.image_ids.tolist())
        indices = {each: index for index, each in enumerate(range(len(result.aupimos)) if ids is None else ids)}
        chosen = [] if heard is None else heard.gallery.chosen()
        known = [(each, indices.get(each.position if ids is None else each.image_id)) for each in chosen]
        return [(picture, index) for picture, index in known if index is not None]

    def _listen_to(self, metric: AUPIMO | PIMO, update: Update) -> None:
        """Hear what a metric says; no error leaves, as this is called in a step."""
        try:
            self._hear(metric, update)
        except Exception as error:  # noqa: BLE001  objects of other people are asked for photographs
            self.problem = self.problem or f"{type(error).__name__}: {error}"
            if self.source is not None and not isinstance(error, OtherImagesError):
                self._error = error

    def _hear(self, metric: AUPIMO | PIMO, update: Update) -> None:
        """Note what a metric says, and keep some of its images."""
        heard = self._heard[id(metric)]
        kept = [position for position in update.indices if position is not None]
        if kept and kept[0] == 0:  # it was empty before, so what was kept earlier is of no result
            heard.gallery.kept = []
        if kept and (kept[0] == 0 or heard.num_earlier is None):
            heard.num_earlier = kept[0]
        start, heard.num_images = heard.num_images, heard.num_images + len(update.indices)
        if self._loader is not None:
            heard.loaders.add(self._loader)
        if self.is_check:
            self._find(update)
            self.is_check = False
        if self.num_heatmaps > 0 and kept:
            # the part that was added last ends with the images of this update that were kept
            are_anomalous = metric.aupimo_is_anomalous[-1][-len(kept) :].tolist()
            for place, position in enumerate(update.indices):
                if position is not None:
                    make = partial(self._picture, update, place)
                    heard.gallery.offer(start + place, are_anomalous[position - kept[0]], make)

    def _picture(self, update: Update, place: int) -> Picture | None:
        """Make a picture of an image of an update."""
        return make_picture(update, place, self._find(update)[place])

    def _find(self, update: Update) -> Sequence[Tensor | None]:
        """Photographs of an update, looked up once."""
        if self._images is None or self._images[0] is not update:
            in_hook = getattr(self._module, "_current_fx_name", None) or ""
            if self._batch is None or in_hook.endswith("epoch_end"):  # that of a callback that comes before
                raise OtherImagesError("A metric was updated outside of a batch.")
            self._images = update, find_images(self.source, self._batch, update)
        return self._images[1]
