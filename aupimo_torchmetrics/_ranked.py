"""What the metrics share that are functions of ranks: of the scores of pixels, or of images."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.inputs import SLICE_SIZE, Group, Maps, checked_groups
from aupimo_torchmetrics._engine.ranking import Formula, Ranks
from aupimo_torchmetrics._list_states import ListStatesMetric, as_before_if_they_fail
from aupimo_torchmetrics._settings import check_ignore_index
from aupimo_torchmetrics._warnings import ignored_images, warn
from aupimo_torchmetrics.results import PixelResult

__all__ = ["RankedMetric", "ranks_of"]


class RankedMetric(ListStatesMetric):
    """A metric that is a formula of the ranks of anomalous scores among normal ones."""

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, ignore_index: int | None, validate_args: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = check_ignore_index(ignore_index)
        self.validate_args = validate_args
        self._result: PixelResult | None = None

    def update(self, preds: Maps, target: Maps) -> None:
        """Add a batch of anomaly maps and masks, as `AUPIMO.update` takes them.

        Args:
            preds: Anomaly maps (N, H, W).
            target: Masks (N, H, W).

        Raises:
            TypeError: If maps or masks are of the wrong type or dtype.
            ValueError: If shapes, devices or numbers of images do not fit, a map holds NaN, or a mask holds anything
                but 0 and 1. Nothing of the batch is kept.

        """
        with as_before_if_they_fail([self]):
            groups = checked_groups(
                preds, target, validate_args=self.validate_args, ignore_index=self.ignore_index, dtype=self._score_dtype
            )
            num_ignored = self._keep(groups)
            if num_ignored:
                warn([ignored_images(type(self).__name__, num_ignored, self.ignore_index)])

    def _keep(self, groups: Iterable[tuple[Group, torch.Size]]) -> int:
        """Keep the scores of a batch, slice by slice; return the number of images whose every pixel is ignored."""
        raise NotImplementedError

    def _append(self, *parts: Tensor) -> None:
        """Add a part to each list state, in their order."""
        self._begin_if_on_meta(parts[0].device)
        for name, part in zip(self._list_dtypes, parts, strict=True):
            getattr(self, name).append(part.to(self.device))
            join_small_parts(getattr(self, name))

    def _begin_if_on_meta(self, device: torch.device) -> None:
        """Begin on the device of the maps, if the metric was built on the device "meta", which keeps no values."""
        if self.aupimo_config.is_meta:
            self._begin_on(device, self._score_dtype)

    def compute(self) -> Tensor:
        """Compute the value () in float32; of a histogram a value between the certain bounds."""
        self._result = self._score()
        self._warn(self._result.warnings)
        return torch.tensor(self._result.value, dtype=self._score_dtype, device=self.device)

    def result(self) -> PixelResult:
        """Return the value with all that is known of it; for F1-max the threshold.

        With several processes call it on every rank. It calls `compute` and shares its cache.
        """
        self.compute()
        return self._result  # type: ignore[return-value]

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._result = None

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot a value, or several values over steps.

        Args:
            val: What `forward` or `compute` returned, or a list of these, one per step. None for the value of this
                metric; with several processes then call it on every rank.
            ax: A matplotlib axis to draw on; None for a new figure.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If `val` is an empty list.

        """
        self._check_plotted(val)
        return self._plot(val, ax)

    def _score(self) -> PixelResult:
        """Score by the ranks of the states; NaN with the reason where they are not defined."""
        ranks = self._ranks()
        if not ranks.is_defined:
            return PixelResult(math.nan, (math.nan, math.nan), warnings=(self._reason(ranks),))
        return self._of_ranks(ranks)

    def _of_ranks(self, ranks: Ranks) -> PixelResult:
        """Score by ranks that are defined."""
        formula = self._formula()
        value = float(formula.value(ranks))
        threshold = math.nan if formula.threshold is None else formula.threshold(ranks)
        return PixelResult(value, (value, value), threshold)

    def _ranks(self) -> Ranks:
        """Ranks of the states."""
        raise NotImplementedError

    def _reason(self, ranks: Ranks) -> str:
        """Why ranks are not defined."""
        raise NotImplementedError

    def _formula(self) -> Formula:
        """How the metric follows from ranks."""
        raise NotImplementedError

    def _settle(self, name: str) -> None:  # noqa: ARG002  there are no ids to check
        for state in self._lists():
            join_small_parts(getattr(self, state))


_latest: list[tuple[tuple[weakref.ref[Tensor], ...], int, Ranks]] = []
"""The ranks that were computed last, as long as all tensors live that they were computed from; or nothing.

The members of a compute group hold the same tensors, so that the first one ranks for all of them. An update, a reset, a
merge or a gathering makes other tensors, of which nothing is remembered.
"""


def ranks_of(normal_parts: list[Tensor], mask_parts: list[Tensor]) -> Ranks:
    """Rank the mask scores among the normal scores, unless that was done last."""
    parts = (*normal_parts, *mask_parts)
    for refs, num_normal_parts, ranks in [*_latest]:  # a copy: another thread may replace it at any moment
        is_alike = len(parts) == len(refs) and len(normal_parts) == num_normal_parts
        if is_alike and all(ref() is part for ref, part in zip(refs, parts, strict=True)):
            return ranks
    ranks = ranking.rank(normal_parts, mask_parts)
    refs = tuple(weakref.ref(part, lambda _: _latest.clear()) for part in parts)
    _latest[:] = [(refs, len(normal_parts), ranks)]
    return ranks


def join_small_parts(parts: list[Tensor]) -> None:
    """Join the last parts of a list while they are small and the last is as large as the one before.

    So each score is copied few times, and no update walks a long list, however many small updates there are.
    """
    while len(parts) > 1:
        last, before = parts[-1], parts[-2]
        is_alike = last.dtype == before.dtype and last.device == before.device
        if not is_alike or len(before) > len(last) or len(before) + len(last) > SLICE_SIZE:
            return
        parts[-2:] = [torch.cat([before, last])]
