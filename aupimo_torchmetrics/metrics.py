"""The metrics `AUPIMO` and `PIMO`: their settings and what they return; the arithmetic is elsewhere.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.

## What is answered to which data

| data                                       | result                                                              |
|--------------------------------------------|---------------------------------------------------------------------|
| no image, no normal or no anomalous image  | NaN and a warning                                                   |
| fewer than `1 / L` normal pixels           | the score of the curve, interpolated below one pixel, and a warning |
| scores tied at the FPR bounds (saturated)  | the score of the curve, interpolated across the tie, and a warning  |
| constant maps                              | the score of chance, `(U - L) / log(U / L)`, and a warning          |
| infinite scores, outliers, a large offset  | the exact score: only the order of the scores counts                |
| half precision; float64 in a metric        | the exact score of the scores as rounded, the latter to float32     |
| NaN in a map                               | `ValueError` in `update`; what was collected before stays           |
| an image of ignored pixels only            | is skipped, with a warning                                          |
| normal scores that `normal_buffer` dropped | the exact score if certified, else a lower bound and a warning      |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor
from torchmetrics.utilities.data import _squeeze_if_scalar
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics import _settings as checks
from aupimo_torchmetrics._engine.kept import DEFAULT_NORMAL_BUFFER
from aupimo_torchmetrics._engine.sweep import mean_score
from aupimo_torchmetrics._listening import Update
from aupimo_torchmetrics._scoring import draw_curves
from aupimo_torchmetrics._settings import DEFAULT_FPR_BOUNDS, Reduction, SharedFPR
from aupimo_torchmetrics._states import PixelScoresMetric
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AUPIMO", "PIMO", "Update"]

if not _MATPLOTLIB_AVAILABLE:
    __doctest_skip__ = ["AUPIMO.plot", "PIMO.plot"]


class AUPIMO(PixelScoresMetric):
    """Compute AUPIMO, the Area Under the Per-IMage Overlap curve, of an anomaly detector's maps.

        AUPIMO_i = 1 / log(U / L) * integral from L to U of TPR_i(F) / F dF

    is the score of the anomalous image `i`: how much of its defect is found at thresholds so strict that normal images
    show (nearly) no false positive. `TPR_i` is the recall within the mask of the image. It is averaged over the
    thresholds whose shared FPR `F` lies between `L` and `U`, evenly in the logarithm of `F`. `F` is the mean false
    positive rate of the normal images (or the highest, see `shared_fpr`). An image is normal iff its mask is empty. A
    model without any skill scores `(U - L) / log(U / L)`, 3.9e-5 at the default bounds.

    What it takes, see `update`. `compute` returns a float32 `Tensor`: the mean score of the anomalous images, or with
    `reduction="none"` one score per image (N,), NaN for a normal image (torchmetrics squeezes that of a single image).
    `result` gives scores and thresholds by name. Images are in ascending order of their ids, or without ids in the
    order of the processes and of their updates. A few megabytes are kept. `forward` also scores each batch alone, which
    takes time and is often undefined: prefer `update`. An undefined score is NaN, an uncertain one is given, both with
    a warning; `aupimo_torchmetrics.metrics` lists the cases.

    Args:
        num_thresholds: None for the exact score, or how many thresholds to sample evenly between the lowest and the
            highest normal score. 300000 is the protocol of the paper and reproduces published scores.
        fpr_bounds: Bounds `(L, U)` of the shared FPR, `0 < L < U <= 1`. The default is that of the paper.
        reduction: `"mean"` for the mean over the anomalous images, `"none"` for one score per image.
        shared_fpr: `"mean"` of the FPRs of the normal images, whatever their sizes, or `"max"`, which is stricter.
        normal_buffer: How many of the highest normal scores to keep at least, or None to keep all of them. The default
            is exact at the default bounds for up to 655 million normal pixels in any order, and almost always for more;
            with `shared_fpr="max"` any buffer is.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. None if every pixel counts.
        validate_args: Whether to check maps and masks in `update`.
        kwargs: Settings of every metric, such as `sync_on_compute`, see `torchmetrics.Metric`.

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

    _settings: ClassVar[str] = "num_thresholds fpr_bounds reduction shared_fpr normal_buffer ignore_index"

    def __init__(
        self,
        num_thresholds: int | None = None,
        fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
        *,
        reduction: Reduction = "mean",
        shared_fpr: SharedFPR = "mean",
        normal_buffer: int | None = DEFAULT_NORMAL_BUFFER,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        checks.check_no_anomalib_settings(kwargs)
        num_thresholds = checks.check_num_thresholds(num_thresholds)
        bounds = checks.check_fpr_bounds(fpr_bounds)
        checks.check_choice("reduction", reduction, Reduction)
        checks.check_choice("shared_fpr", shared_fpr, SharedFPR)
        normal_buffer, ignore_index = checks.check_normal_buffer(normal_buffer), checks.check_ignore_index(ignore_index)
        super().__init__(num_thresholds, normal_buffer, bounds[1], ignore_index, validate_args, **kwargs)
        self.fpr_bounds = bounds
        self.reduction = reduction
        self.shared_fpr = shared_fpr
        self._result: AUPIMOResult | None = None

    def compute(self) -> Tensor:
        """Compute the mean score (), or with `reduction="none"` the score of each image (N,), in float32."""
        self._result = self._score()
        self._warn(self._result._known().reasons_of_scores)  # noqa: SLF001
        return self._value(self._result)

    def result(self) -> AUPIMOResult:
        """Return the scores of all images with all that is known of them.

        With several processes call it on every rank. It shares the cache of `compute`, so that nothing is computed or
        gathered twice. Of normal images alone it gives thresholds, without a warning that no image is anomalous.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> print(metric.result())  # doctest: +ELLIPSIS
            AUPIMO 1.0000 (chance 0.25), number of images: 2, 1 anomalous and 1 normal
            lowest, quartiles and highest score: 1.000 1.000 1.000 1.000 1.000
            thresholds: 8 at FPR 0.5, 15 at FPR 0.1
            AUPIMO, exact, shared FPR 0.1 to 0.5 (mean of per-image FPRs), aupimo-torchmetrics ...

        """
        if self._computed is None or self._result is None:
            with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
                self._result = self._score()
            scored = self._result._known()  # noqa: SLF001
            is_anomalous = scored.kept.is_anomalous
            if len(is_anomalous) and not bool(is_anomalous.any()):
                self._warn(scored.reasons_of_thresholds)  # `compute` is yet to say why there is no score
            else:
                self._warn(scored.reasons_of_scores)
                self._computed = _squeeze_if_scalar(self._value(self._result)) if self.compute_with_cache else None
        return self._result

    def _score(self) -> AUPIMOResult:
        """Score all images of the states."""
        return result_of(self._images(), self.fpr_bounds, self.num_thresholds, self.shared_fpr)

    def _value(self, result: AUPIMOResult) -> Tensor:
        """What `compute` returns of a result."""
        score = mean_score(result.aupimos) if self.reduction == "mean" else result.aupimos
        return score.to(self._score_dtype).to(self.device)

    def curves(self) -> PIMOResult:
        """Return the PIMO curves of all images around the FPR bounds; the same as `self.result().curves()`.

        With several processes call it on every rank.

        Returns:
            `thresholds` (K,), `shared_fpr` (K,) and `per_image_tprs` (N, K) in float32, at K = 1,000 thresholds whose
            shared FPRs are evenly spaced in log, see `AUPIMOResult.curves`.

        """
        return self.result().curves()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._result = None

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot the score, or several scores over steps; with `reduction="none"` the distribution of the scores.

        Args:
            val: What `forward` or `compute` returned, or a list of these, one per step. None for the score of this
                metric; with several processes then call it on every rank.
            ax: A matplotlib axis to draw on; None for a new figure.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If `val` is an empty list, or with `reduction="none"` if there is no image.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> fig, ax = AUPIMO().plot([torch.tensor(0.2), torch.tensor(0.5)])
            >>> fig, ax = AUPIMO(reduction="none").plot(torch.rand(10))

        """
        from aupimo_torchmetrics.plotting import plot_distribution  # noqa: PLC0415

        self._check_plotted(val)
        if self.reduction == "mean":
            axis = cast("Axes", self._plot(val, ax)[1])
            return axis.get_figure(), axis
        if val is None:
            return plot_distribution(self.result(), ax)
        results = {
            f"step {step}": AUPIMOResult(scores.reshape(-1), self.fpr_bounds, (math.nan, math.nan))
            for step, scores in enumerate([val] if isinstance(val, Tensor) else val)
        }
        return plot_distribution(results if len(results) > 1 else results["step 0"], ax, sort=False)


class PIMO(PixelScoresMetric):
    """Compute PIMO curves: the recall within each anomalous image's mask against the FPR on the normal images.

    `forward` and `update` take what `AUPIMO.update` takes. `forward` and `compute` return a `PIMOResult`, a named tuple
    of `thresholds` (K,), `shared_fpr` (K,) and `per_image_tprs` (N, K) in float32; all NaN, with a warning, if there is
    no normal image.

    The curves reach up to a shared FPR of 1, so every score of the normal images is kept, 4 bytes per pixel. If curves
    around the FPR bounds are enough, `AUPIMO.curves` draws them from a small part of that.

    Args:
        num_thresholds: How many thresholds K to sample evenly between the lowest and the highest normal score, at least
            2. None for 1,000 thresholds whose shared FPRs are evenly spaced in log, from that of one normal pixel to 1.
        shared_fpr: As in `AUPIMO`, and so are `ignore_index`, `validate_args` and `kwargs`.

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

    _settings: ClassVar[str] = "num_thresholds shared_fpr ignore_index"

    def __init__(
        self,
        num_thresholds: int | None = None,
        *,
        shared_fpr: SharedFPR = "mean",
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        num_thresholds = checks.check_num_thresholds(num_thresholds)
        ignore_index = checks.check_ignore_index(ignore_index)
        checks.check_choice("shared_fpr", shared_fpr, SharedFPR)
        super().__init__(num_thresholds, None, 1.0, ignore_index, validate_args, **kwargs)
        self.shared_fpr = shared_fpr

    def compute(self) -> PIMOResult:
        """Compute the curves of all images."""
        images = self._images()
        curves, warnings = draw_curves(images.kept, self.num_thresholds, self.shared_fpr)
        self._warn((*images.warnings, *warnings))
        return PIMOResult(*(part.to(self.device) for part in curves))

    def plot(
        self, val: PIMOResult | None = None, ax: _AX_TYPE | None = None, result: AUPIMOResult | None = None
    ) -> _PLOT_OUT_TYPE:
        """Plot the curves of some images from the worst to the best, and the mean curve.

        Args:
            val: What `forward` or `compute` returned. None for the curves of this metric; with several processes then
                call it on every rank.
            ax: A matplotlib axis to draw on; None for a new figure.
            result: Scores of the same images, as `AUPIMO.result` returns them. Then the FPR range is shaded, and the
                scores decide which images are drawn and in which colours.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If there is no image, or if curves and scores have different numbers of images.

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
