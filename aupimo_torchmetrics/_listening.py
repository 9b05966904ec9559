"""A metric tells its listeners what it has kept, so that nobody has to find out from batches, models or tensors.

Listeners are no state: a copy, a pickle or a checkpoint of a metric has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Maps
from aupimo_torchmetrics._list_states import ListStatesMetric

__all__ = ["BatchPart", "TellingMetric", "Update", "telling_at_the_end", "telling_of_part"]


class BatchPart(NamedTuple):
    """The images of a batch that one metric got, where others got the rest, as those of several categories do."""

    places: list[int]
    """Place in the batch of each of the images."""
    num_images: int
    """Number of images in the batch."""


_part: ContextVar[BatchPart | None] = ContextVar("_part", default=None)


@contextmanager
def telling_of_part(part: BatchPart) -> Iterator[None]:
    """Let metrics that are updated inside tell of which part of a batch their images are."""
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


_held: ContextVar[list[Callable[[], Any]] | None] = ContextVar("_held", default=None)


@contextmanager
def telling_at_the_end() -> Iterator[None]:
    """Let metrics that are updated inside tell their listeners when all of them have kept their images."""
    held: list[Callable[[], Any]] = []
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
    for tell in held:
        tell()


class Update(NamedTuple):
    """What a metric tells its listeners of one batch, after the batch was kept.

    `metric.listeners` is a list of functions, each of which is called with it. Copies, pickles and checkpoints of a
    metric have no listeners. Errors of a listener come out of `update`, which has kept the batch by then.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> metric = AUPIMO()
        >>> metric.listeners.append(lambda update: print(update.image_ids, update.indices))
        >>> metric.update(torch.randn(2, 64, 64), torch.zeros(2, 64, 64), image_ids=["a.png", "b.png"])
        ['a.png', 'b.png'] [0, 1]

    """

    preds: Maps
    """Anomaly maps as `update` got them; a listener copies what it wants to have later."""
    target: Maps
    """Masks as `update` got them."""
    image_ids: list[int] | list[str] | None
    """Id of each image, paths as texts; None if there are none."""
    indices: list[int | None]
    """Position of each image among those that the metric has kept on this process, in the order of the updates; None
    for an image that was not kept because every pixel is ignored. A first position of 0: the metric was empty before.
    """
    part: BatchPart | None = None
    """Which images of a batch these are, if others are of other categories; None if they are the batch."""


class TellingMetric(ListStatesMetric):
    """A metric that calls each function in the list `listeners` with an `Update` after it has kept a batch.

    `forward` tells of a batch once, when it is merged with those before. Errors of a listener are the caller's: the
    metric does not catch them, and has kept the batch. In a `MetricCollection` the first update reaches all metrics,
    and later ones the first metric of each of its `compute_groups`, which then speaks for the others.
    """

    if TYPE_CHECKING:  # TorchScript does not understand the annotations
        aupimo_num_kept: list[Tensor] | Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listeners: list[Callable[[Update], Any]] = []
        self._untold: tuple[Maps, Maps, Any, list[bool]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "listeners": [], "_untold": None}

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch as `update` does, and return what `compute` gives for this batch alone."""
        value = super().forward(*args, **kwargs)
        untold, self._untold = self._untold, None
        if untold is not None:
            self._tell(*untold)
        return value

    def _tell(self, preds: Maps, target: Maps, image_ids: Any, is_kept: list[bool]) -> None:
        """Tell the listeners of the batch that was kept last; in `forward` only when it is merged."""
        if self._is_scoring_batch:
            self._untold = preds, target, image_ids, is_kept
            return
        positions = count(sum(len(part) for part in self.aupimo_num_kept) - sum(is_kept))
        indices = [next(positions) if each else None for each in is_kept]
        if isinstance(image_ids, Tensor):
            image_ids = image_ids.tolist()
        update = Update(preds, target, image_ids, indices, _part.get())
        held = _held.get()
        for listener in [*self.listeners]:
            if held is None:
                listener(update)
            else:
                held.append(partial(listener, update))
