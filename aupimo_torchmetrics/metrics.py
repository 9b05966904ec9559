"""The metrics `AUPIMO` and `PIMO`: settings and answers, no arithmetic.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics._engine.kept import DEFAULT_NORMAL_BUFFER
from aupimo_torchmetrics._engine.sweep import mean_score
from aupimo_torchmetrics._scoring import draw_curves
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    Reduction,
    SharedFPR,
    check_choice,
    check_fpr_bounds,
    check_normal_buffer,
    check_num_thresholds,
)
from aupimo_torchmetrics._states import PixelScoresMetric
from aupimo_torchmetrics._warnings import warn
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AUPIMO", "PIMO"]

if not _MATPLOTLIB_AVAILABLE:
    __doctest_skip__ = ["AUPIMO.plot", "PIMO.plot"]


class AUPIMO(PixelScoresMetric):
    r"""Compute AUPIMO, the Area Under the Per-IMage Overlap curve, of an anomaly detector's maps.

    .. math::
        \text{AUPIMO}_i = \frac{1}{\log(U/L)} \int_L^U \text{TPR}_i(F = z) \, \frac{dz}{z}

    is the recall within the mask of the anomalous image `i`, averaged over the thresholds at which the shared FPR `F`,
    the mean false positive rate of the normal images (or the largest, see `shared_fpr`), lies between `L` and `U`,
    evenly in its logarithm: how much of a defect is found at thresholds so strict that normal images show (nearly) no
    false positive. An image is normal iff its mask is empty. A model without any skill scores `(U - L) / log(U / L)`,
    3.9e-5 at the default bounds.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``preds`` (:class:`~torch.Tensor`): anomaly maps (N, H, W) or (N, 1, H, W) of dtype float16, bfloat16, float32 or
      float64, or a list of N maps (H, W) of any sizes. The higher a score, the more anomalous the pixel. Scores are
      used as they are, without sigmoid, clamping or rescaling; float64 scores are rounded to float32.
    - ``target`` (:class:`~torch.Tensor`): masks in the same form and of the same shape, bool, integer or floating,
      holding only 0 (normal) and 1 (anomalous).
    - ``image_ids`` (optional): one id for each image, unique in the data set: integers of at least 0 (a list or
      :class:`~torch.Tensor`), or a list of texts such as file paths, which are then the ``paths`` of the result. Images
      with one id count once, as a ``DistributedSampler`` repeats images to fill up ranks, and scores come back in the
      order of the ids, texts in their own order. If images with one id differ, the first counts, and a warning says so.

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
        shared_fpr: ``"mean"``: every normal image counts the same, whatever its size. ``"max"``: the normal image with
            the most false positives counts, which is stricter.
        normal_buffer: How many of the highest normal scores to keep at least, or None to keep all of them. The default
            makes scores exact in any order of the data for up to 655 million normal pixels at the default bounds, and
            practically always beyond. With ``shared_fpr="max"`` any number does.
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
        reduction: Reduction = "mean",
        shared_fpr: SharedFPR = "mean",
        normal_buffer: int | None = DEFAULT_NORMAL_BUFFER,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_thresholds(num_thresholds)
        bounds = check_fpr_bounds(fpr_bounds)
        check_choice("reduction", reduction, Reduction)
        check_choice("shared_fpr", shared_fpr, SharedFPR)
        check_normal_buffer(normal_buffer)
        super().__init__(normal_buffer, bounds[1], validate_args, **kwargs)
        self.num_thresholds = num_thresholds
        self.fpr_bounds = bounds
        self.reduction = reduction
        self.shared_fpr = shared_fpr
        self._result: AUPIMOResult | None = None

    def compute(self) -> Tensor:
        """Compute the mean score, or the score of each image."""
        self._result = result_of(self._images(), self.fpr_bounds, self.num_thresholds, self.shared_fpr)
        warn(self._result.warnings)
        scores = self._result.aupimos
        score = mean_score(scores) if self.reduction == "mean" else scores
        return score.to(torch.float32).to(self.device)

    def result(self) -> AUPIMOResult:
        """Return the scores of all images with what explains them; under several processes call it on every rank.

        It shares the work, the gathering and the cache of ``compute``.
        """
        self.compute()
        return cast("AUPIMOResult", self._result)

    def curves(self) -> PIMOResult:
        """Return the PIMO curves of all images around the FPR bounds, `self.result().curves()`.

        Under several processes call it on every rank.

        Returns:
            `thresholds` (K,), `shared_fpr` (K,) and `per_image_tprs` (N, K) in float32, at 1,000 thresholds whose
            shared FPRs lie evenly in log, as :meth:`AUPIMOResult.curves` says.

        """
        return self.result().curves()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._result = None

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot the score, one score a step, or with ``reduction="none"`` the distribution of the images' scores.

        Args:
            val: A result of ``forward`` or ``compute``, or a list of these, one a step. The own score if None; under
                several processes call it on every rank then.
            ax: A matplotlib axis to add the plot to.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If `val` is an empty list.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> fig, ax = AUPIMO().plot([torch.tensor(0.2), torch.tensor(0.5)])
            >>> fig, ax = AUPIMO(reduction="none").plot(torch.rand(10))

        """
        from aupimo_torchmetrics.plotting import plot_distribution  # noqa: PLC0415

        if isinstance(val, Sequence) and len(val) == 0:
            raise ValueError("Expected `val` to hold at least one value, but got none. Without it the own is plotted.")
        if self.reduction == "mean":
            axis = cast("Axes", self._plot(val, ax)[1])
            return axis.get_figure(), axis
        if val is None:
            return plot_distribution(self.result(), ax)
        steps = {f"step {step}": scores for step, scores in enumerate([val] if isinstance(val, Tensor) else val)}
        results = {
            name: AUPIMOResult(scores.reshape(-1), self.fpr_bounds, (math.nan, math.nan))
            for name, scores in steps.items()
        }
        return plot_distribution(results if len(results) > 1 else results["step 0"], ax, sort=False)


class PIMO(PixelScoresMetric):
    """Compute PIMO curves: the recall within each anomalous image's mask against the FPR on the normal images.

    As input to ``forward`` and ``update`` the metric accepts what :class:`AUPIMO` accepts. As output of ``forward`` and
    ``compute`` it returns a :class:`PIMOResult`, a named tuple of ``thresholds`` (K,), ``shared_fpr`` (K,) and
    ``per_image_tprs`` (N, K) in float32; all NaN, with a warning, if there is no normal image.

    The curves run up to a shared FPR of 1, so every score of the normal images is kept, 4 bytes a pixel. Where the
    score is enough, :class:`AUPIMO` keeps a small part of that.

    Args:
        num_thresholds: How many thresholds K to sample evenly between the lowest and the highest normal score, at least
            2. None for 1,000 thresholds whose shared FPRs lie evenly in log between that of one normal pixel and 1.
        shared_fpr: ``"mean"``: every normal image counts the same, whatever its size. ``"max"``: the normal image with
            the most false positives counts, which is stricter.
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
        shared_fpr: SharedFPR = "mean",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_thresholds(num_thresholds)
        check_choice("shared_fpr", shared_fpr, SharedFPR)
        super().__init__(None, 1.0, validate_args, **kwargs)
        self.num_thresholds = num_thresholds
        self.shared_fpr = shared_fpr

    def compute(self) -> PIMOResult:
        """Compute the curves of all images."""
        images = self._images()
        curves, warnings = draw_curves(images.kept, self.num_thresholds, self.shared_fpr)
        warn((*images.warnings, *warnings))
        return PIMOResult(*(part.to(self.device) for part in curves))

    def plot(
        self, val: PIMOResult | None = None, ax: _AX_TYPE | None = None, result: AUPIMOResult | None = None
    ) -> _PLOT_OUT_TYPE:
        """Plot the curves of some images from the worst to the best, and their mean.

        Args:
            val: A result of ``forward`` or ``compute``. The own curves if None; under several processes call it on
                every rank then.
            ax: A matplotlib axis to add the plot to.
            result: Scores of the same images, as :meth:`AUPIMO.result` returns them: their FPR range is shaded, and
                they say which images are drawn, in which colours.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If curves and scores are of different numbers of images.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import PIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = PIMO()
            >>> metric.update(maps, masks)
            >>> fig, ax = metric.plot()

        """
        from aupimo_torchmetrics.plotting import plot_pimo_curves  # noqa: PLC0415

        return plot_pimo_curves(self.compute() if val is None else val, result, ax=ax)
