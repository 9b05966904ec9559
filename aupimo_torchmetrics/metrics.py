"""The metrics `AUPIMO` and `PIMO`: states and torchmetrics wiring, no arithmetic.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics._inputs import ImageIds, Maps, keep_scores
from aupimo_torchmetrics._kept import DEFAULT_NORMAL_BUFFER, PixelScores, prune_scores
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    check_choice,
    check_fpr_bounds,
    check_normal_buffer,
    check_num_thresholds,
)
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult, aupimo_result, pimo_result

if not _MATPLOTLIB_AVAILABLE:
    __doctest_skip__ = ["AUPIMO.plot"]

_STATE_PREFIX = "aupimo_"


class _PixelScoresMetric(Metric):
    """Keep of the images seen so far the scores that a result can depend on.

    Every state is 1-D or 0-d and of one dtype fixed here, whatever the inputs are, so that ranks with other sizes of
    images, with uneven numbers of updates or with no data at all gather alike.
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = None
    full_state_update: bool = False

    if TYPE_CHECKING:  # TorchScript would trip over the annotations
        aupimo_scores: list[Tensor] | Tensor
        aupimo_num_kept: list[Tensor] | Tensor
        aupimo_num_pixels: list[Tensor] | Tensor
        aupimo_is_anomalous: list[Tensor] | Tensor
        aupimo_image_ids: list[Tensor] | Tensor
        aupimo_floor: Tensor
        aupimo_normal_min: Tensor
        aupimo_config: Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {
        "aupimo_scores": torch.float32,
        "aupimo_num_kept": torch.int64,
        "aupimo_num_pixels": torch.int64,
        "aupimo_is_anomalous": torch.bool,
        "aupimo_image_ids": torch.int64,
    }

    def __init__(self, normal_buffer: int | None, upper_fpr: float, validate_args: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normal_buffer = normal_buffer
        self.validate_args = validate_args
        self._upper_fpr = upper_fpr
        for name in self._list_dtypes:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("aupimo_floor", default=torch.tensor(-math.inf, dtype=torch.float32), dist_reduce_fx="max")
        self.add_state("aupimo_normal_min", default=torch.tensor(math.inf, dtype=torch.float32), dist_reduce_fx="min")
        self.add_state("aupimo_config", default=_fingerprint(normal_buffer, upper_fpr), dist_reduce_fx="max")

    def update(self, preds: Maps, target: Maps, image_ids: ImageIds | None = None) -> None:
        """Add a batch of anomaly maps and masks."""
        kept = keep_scores(
            preds,
            target,
            image_ids,
            floor=self.aupimo_floor,
            normal_buffer=self.normal_buffer,
            upper_fpr=self._upper_fpr,
            validate_args=self.validate_args,
        )
        for name in self._list_dtypes:
            getattr(self, name).append(getattr(kept, name.removeprefix(_STATE_PREFIX)).to(self.device))
        self.aupimo_floor = torch.maximum(self.aupimo_floor, kept.floor.to(self.device))
        self.aupimo_normal_min = torch.minimum(self.aupimo_normal_min, kept.normal_min.to(self.device))
        self._prune_when_outgrown()

    def reset(self) -> None:
        """Forget all images."""
        for name in self._list_dtypes:
            setattr(self, name, [])  # the base class would also empty the lists that somebody else holds
        super().reset()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric of this kind and of the same settings, before the own ones.

        Raises:
            ValueError: If a state is missing, or if the other metric keeps its scores by other settings.

        """
        state: Any = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if isinstance(state, dict):
            missing = [name for name in self._defaults if name not in state]
            if missing:
                raise ValueError(
                    f"Expected `incoming_state` to hold every state of the metric, but {missing} is missing."
                )
            self._check_config(state["aupimo_config"], "incoming_state")
        super().merge_state(incoming_state)
        self._update_count = max(1, self._update_count)

    def _check_config(self, config: Tensor, name: str) -> None:
        """Raise unless scores kept with this fingerprint are those that this metric keeps."""
        if not torch.equal(config.to(self.device), self.aupimo_config):
            raise ValueError(
                f"Expected `{name}` to come from a metric with the same `normal_buffer` and upper FPR bound, "
                "but got one with other settings, which has kept other scores."
            )

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states(incoming_state)
        self._computed = None
        self._prune_when_outgrown()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        has_states = prefix + "aupimo_config" in state_dict
        if has_states:
            self._check_config(state_dict[prefix + "aupimo_config"], "state_dict")
        super()._load_from_state_dict(state_dict, prefix, *args)
        if has_states:
            for name in self._list_dtypes:
                setattr(self, name, list(getattr(self, name)))  # not the list that the caller holds
            self._computed = None
            self._update_count = max(1, self._update_count)

    def _kept(self) -> PixelScores:
        """All states as tensors on one device: with `compute_on_cpu` what came in earlier lies on the CPU."""
        device = self.aupimo_scores[0].device if len(self.aupimo_scores) else self.device
        lists = {}
        for name, dtype in self._list_dtypes.items():
            state = getattr(self, name)
            parts = [state] if isinstance(state, Tensor) else state
            nothing = torch.empty(0, dtype=dtype, device=device)
            lists[name.removeprefix(_STATE_PREFIX)] = dim_zero_cat([nothing, *(part.to(device) for part in parts)])
        return PixelScores(**lists, floor=self.aupimo_floor.to(device), normal_min=self.aupimo_normal_min.to(device))

    def _prune_when_outgrown(self) -> None:
        """Prune when more has come in than the last pruning left, so that all prunings cost little more than one."""
        if self.normal_buffer is None:
            return
        sizes = [len(scores) for scores in self.aupimo_scores]
        if sum(sizes[1:]) > max(2 * self.normal_buffer, sum(sizes[:1])):
            self._compact()

    def _compact(self) -> None:
        """Replace each list state by one tensor, without the normal scores that no result depends on any more."""
        kept = self._kept()
        if self.normal_buffer is not None:
            kept = prune_scores(kept, self.normal_buffer, self._upper_fpr)
        for name in self._list_dtypes:
            setattr(self, name, [getattr(kept, name.removeprefix(_STATE_PREFIX)).to(self.device)])
        self.aupimo_floor = kept.floor.to(self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A rank without data must send tensors of the same dtype as the others, or the process aborts. What is local is
        # restored after the sync. With `compute_on_cpu` the lists lie where NCCL cannot reach them.
        self._compact()
        super()._sync_dist(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        # Counts and scores keep their dtype whatever dtype the module gets: only a move between devices reaches them.
        probes = [torch.zeros(1, dtype=dtype, device=self.device) for dtype in (torch.float32, torch.int64)]
        if all(fn(probe).dtype == probe.dtype for probe in probes):
            return super()._apply(fn, exclude_state)
        this = super()._apply(fn, [*self._defaults])
        for name, default in self._defaults.items():
            state = getattr(self, name)
            if isinstance(default, Tensor):
                self._defaults[name] = default.to(self.device)
            moved = state.to(self.device) if isinstance(state, Tensor) else [part.to(self.device) for part in state]
            setattr(self, name, moved)
        self._computed = None
        return this


def _fingerprint(normal_buffer: int | None, upper_fpr: float) -> Tensor:
    """(8,) int64 code of what `update` depends on: only metrics that keep the same scores may share a compute group.

    The code is in 16-bit pieces because torchmetrics compares states with a relative tolerance of 1e-5.
    """
    settings = struct.pack("<qd", -1, 0.0) if normal_buffer is None else struct.pack("<qd", normal_buffer, upper_fpr)
    return torch.tensor(struct.unpack("<8H", settings), dtype=torch.int64)


class AUPIMO(_PixelScoresMetric):
    r"""Compute AUPIMO, the Area Under the Per-IMage Overlap curve, of an anomaly detector's maps.

    .. math::
        \text{AUPIMO}_i = \frac{1}{\log(U/L)} \int_L^U \text{TPR}_i(F = z) \, \frac{dz}{z}

    is the recall within the mask of the anomalous image `i`, averaged over the thresholds at which the shared FPR `F`,
    the mean false positive rate of the normal images, lies between `L` and `U`, evenly in its logarithm: how much of a
    defect is found at thresholds so strict that normal images show (nearly) no false positive. An image is normal iff
    its mask is empty. A model without any skill scores `(U - L) / log(U / L)`, 3.9e-5 at the default bounds.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``preds`` (:class:`~torch.Tensor`): anomaly maps (N, H, W) or (N, 1, H, W) of dtype float16, bfloat16, float32 or
      float64, or a list of N maps (H, W) of any sizes. The higher a score, the more anomalous the pixel. Scores are
      used as they are, without sigmoid, clamping or rescaling; float64 scores are rounded to float32.
    - ``target`` (:class:`~torch.Tensor`): masks in the same form and of the same shape, bool, integer or floating,
      holding only 0 (normal) and 1 (anomalous).
    - ``image_ids`` (:class:`~torch.Tensor`, optional): one integer of at least 0 for each image, unique in the data
      set. Images with one id count once, as a ``DistributedSampler`` repeats images to fill up ranks, and scores come
      back in the order of the ids. If images with one id differ, the first counts, and a warning says so.

    As output of ``forward`` and ``compute`` the metric returns a float32 :class:`~torch.Tensor`: the mean score of the
    anomalous images, or with ``reduction="none"`` one score an image (N,), NaN for a normal one (of a single image the
    score has the shape (), as torchmetrics squeezes it). :meth:`result` gives scores and thresholds by name.

    Without image ids the order is that of the updates; under several processes that of the ranks, then of the updates.

    ``update`` raises a ``TypeError`` or ``ValueError`` if maps, masks or ids are not of this form, before it keeps
    anything. What is kept is a few megabytes: the scores in the masks, and the highest scores of the normal images.
    ``forward`` also scores each batch on its own, which takes time and is mostly undefined; call ``update``.

    ==========================================  ======================================================================
    Data                                        Result
    ==========================================  ======================================================================
    no image, no normal or no anomalous image   NaN and a warning
    fewer than ``1 / L`` normal pixels          the score of the curve interpolated below 1 pixel, and a warning
    scores tied so that no threshold reaches    the score of the curve interpolated over the tie, and a warning; of
    the FPR bounds (saturated, constant maps)   constant maps the score of chance, ``(U - L) / log(U / L)``
    infinite scores, outliers, a large offset   the exact score: only the order of the scores counts
    half precision                              the exact score of the rounded scores
    NaN in a map                                ``ValueError`` in ``update``; what was collected before stays
    normal scores that matter outgrow           a lower bound and a warning, unless the score is certified to be
    ``normal_buffer``                           exact in spite of it
    ==========================================  ======================================================================

    Args:
        num_thresholds: None for the exact score, or how many thresholds to sample evenly between the lowest and the
            highest normal score, at least 2. 300000 is the protocol of the paper and reproduces published scores.
        fpr_bounds: Bounds `(L, U)` of the shared FPR, `0 < L < U <= 1`. The default is that of the paper.
        reduction: ``"mean"`` for the mean over the anomalous images, ``"none"`` for one score an image.
        shared_fpr: ``"mean"``: every normal image counts the same, whatever its size.
        normal_buffer: How many of the highest normal scores to keep at least, or None to keep all of them. The default
            makes scores exact in any order of the data for up to 655 million normal pixels at the default bounds, and
            practically always beyond.
        validate_args: Whether to check maps and masks in ``update``.
        kwargs: Additional keyword arguments, see :ref:`Metric kwargs` of torchmetrics.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> _ = torch.manual_seed(0)
        >>> masks = torch.zeros(8, 256, 256, dtype=torch.bool)
        >>> masks[4:, 100:120, 100:120] = True
        >>> maps = torch.randn(8, 256, 256) + 4 * masks
        >>> metric = AUPIMO()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.4941)

    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    plot_legend_name: str = "Image"

    def __init__(
        self,
        num_thresholds: int | None = None,
        fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
        *,
        reduction: str = "mean",
        shared_fpr: str = "mean",
        normal_buffer: int | None = DEFAULT_NORMAL_BUFFER,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_thresholds(num_thresholds)
        bounds = check_fpr_bounds(fpr_bounds)
        check_choice("reduction", reduction, ("mean", "none"))
        check_choice("shared_fpr", shared_fpr, ("mean",))
        check_normal_buffer(normal_buffer)
        super().__init__(normal_buffer, bounds[1], validate_args, **kwargs)
        self.num_thresholds = num_thresholds
        self.fpr_bounds = bounds
        self.reduction = reduction
        self.shared_fpr = shared_fpr
        self._result: AUPIMOResult | None = None

    def compute(self) -> Tensor:
        """Compute the mean score, or the score of each image."""
        self._result = aupimo_result(self._kept(), self.fpr_bounds, self.num_thresholds)
        scores = self._result.aupimos
        score = scores.nanmean() if self.reduction == "mean" else scores
        return score.to(torch.float32).to(self.device)

    def result(self) -> AUPIMOResult:
        """Return the scores of all images with what explains them; under several processes call it on every rank.

        It shares the work, the gathering and the cache of ``compute``.
        """
        self.compute()
        return cast("AUPIMOResult", self._result)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._result = None

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot a single or multiple values from the metric.

        Args:
            val: A result of ``forward`` or ``compute``, or a list of these, one a step. ``compute`` is called if None.
            ax: A matplotlib axis to add the plot to.

        Returns:
            Figure and axis; the figure is None if an axis was given.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> metric = AUPIMO()
            >>> fig, ax = metric.plot([torch.tensor(0.2), torch.tensor(0.5)])

        """
        return self._plot(val, ax)


class PIMO(_PixelScoresMetric):
    """Compute PIMO curves: the recall within each anomalous image's mask against the FPR on the normal images.

    As input to ``forward`` and ``update`` the metric accepts what :class:`AUPIMO` accepts. As output of ``forward`` and
    ``compute`` it returns a :class:`PIMOResult`, a named tuple of ``thresholds`` (K,), ``shared_fpr`` (K,) and
    ``per_image_tprs`` (N, K) in float32; all NaN, with a warning, if there is no normal image.

    The curves run up to a shared FPR of 1, so every score of the normal images is kept, 4 bytes a pixel. Where the
    score is enough, :class:`AUPIMO` keeps a small part of that.

    Args:
        num_thresholds: How many thresholds K to sample evenly between the lowest and the highest normal score, at least
            2. None for 1,000 thresholds whose shared FPRs lie evenly in log between that of one normal pixel and 1.
        shared_fpr: ``"mean"``: every normal image counts the same, whatever its size.
        validate_args: Whether to check maps and masks in ``update``.
        kwargs: Additional keyword arguments, see :ref:`Metric kwargs` of torchmetrics.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PIMO
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = PIMO(num_thresholds=4)
        >>> metric.update(maps - 8 * masks, masks)
        >>> metric.compute().per_image_tprs
        tensor([[   nan,    nan,    nan,    nan],
                [1.0000, 1.0000, 0.5000, 0.0000]])

    """

    def __init__(
        self,
        num_thresholds: int | None = None,
        *,
        shared_fpr: str = "mean",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_thresholds(num_thresholds)
        check_choice("shared_fpr", shared_fpr, ("mean",))
        super().__init__(None, 1.0, validate_args, **kwargs)
        self.num_thresholds = num_thresholds
        self.shared_fpr = shared_fpr

    def compute(self) -> PIMOResult:
        """Compute the curves of all images."""
        curves = pimo_result(self._kept(), self.num_thresholds)
        return PIMOResult(*(part.to(self.device) for part in curves))
