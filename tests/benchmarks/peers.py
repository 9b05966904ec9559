"""Other ways to compute AUPIMO, and what they are measured against, each as a function of all batches.

A peer that is not installed is None. Peers get tensors of all images, as they ask for.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import BinaryAUROC
from workloads import Batch

OFFICIAL_THRESHOLDS = 300_000

Peer = Callable[[Sequence[Batch]], object]


def _pairs(batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps and masks of tensors, and of the items of lists."""
    for maps, masks in batches:
        if isinstance(maps, Tensor) and isinstance(masks, Tensor):
            yield maps, masks
        else:
            yield from zip(maps, masks, strict=True)


def read_once(batches: Sequence[Batch]) -> None:
    """Read all maps and masks as fast as memory is."""
    for maps, masks in _pairs(batches):
        maps.amax()
        masks.view(-1)[: masks.numel() // 8 * 8].view(torch.int64).amax()


def torchmetrics_auroc(batches: Sequence[Batch]) -> Tensor:
    """Exact AUROC of all pixels by torchmetrics."""
    metric = BinaryAUROC(thresholds=None, validate_args=False)
    for maps, masks in batches:
        metric.update(torch.as_tensor(maps).float().sigmoid(), torch.as_tensor(masks).long())
    return metric.compute()


def official(num_thresholds: int, fpr_bounds: tuple[float, float] = (1e-5, 1e-4)) -> Callable[..., Any] | None:
    """AUPIMO by the official package, https://github.com/jpcbertoldo/aupimo, which compiles its loop with numba."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201  the package asks NumPy 2 for a name of NumPy 1
    try:
        from aupimo import aupimo_scores  # noqa: PLC0415
    except ImportError:
        return None
    logging.getLogger("aupimo").setLevel(logging.ERROR)  # it warns by the log, too

    def score(batches: Sequence[Batch]) -> Any:
        maps, masks = (torch.cat(list(each)) for each in zip(*batches, strict=True))
        return aupimo_scores(maps, masks, fpr_bounds=fpr_bounds, num_threshs=num_thresholds)[1]

    return _quiet(score)


def _anomalib() -> Peer | None:
    """AUPIMO by anomalib's port, which loops in Python."""
    if importlib.util.find_spec("anomalib") is None:
        return None
    from anomalib.metrics.pimo.pimo import _AUPIMO  # noqa: PLC0415

    def score(batches: Sequence[Batch]) -> Tensor:
        metric = _AUPIMO(num_thresholds=OFFICIAL_THRESHOLDS, fpr_bounds=(1e-5, 1e-4), return_average=False)
        for maps, masks in batches:
            metric.update(maps, masks)
        return metric.compute()[1].aupimos

    return _quiet(score)


def _quiet(peer: Callable[..., Any]) -> Callable[..., Any]:
    """A peer without its warnings."""

    def score(batches: Sequence[Batch]) -> Any:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            return peer(batches)

    return score


PEERS: dict[str, Peer | None] = {
    "torchmetrics AUROC": torchmetrics_auroc,
    "official aupimo": official(OFFICIAL_THRESHOLDS),
    "anomalib AUPIMO": _anomalib(),
}
"""What can be measured here, by name."""
