"""The results: per-image scores with all that is known of them, PIMO curves, and operating points.

Conventions: N images, K thresholds. Image classes are 0 for normal and 1 for anomalous. A normal image scores NaN.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

import math
import os
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics._engine import decision, sweep
from aupimo_torchmetrics._engine.kept import NO_ID, with_ids
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import results as _result_files
from aupimo_torchmetrics._files.results import UNKNOWN, SavedResult
from aupimo_torchmetrics._scoring import Images, ScoredImages, draw_curves, score_images
from aupimo_torchmetrics._settings import SharedFPR, check_choice
from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics._warnings import few_carry, unknown_rates

if TYPE_CHECKING:
    import pandas as pd

if find_spec("pandas") is None:
    __doctest_skip__ = ["AUPIMOResult.to_dataframe"]

__all__ = ["AUPIMOResult", "OperatingPoint", "PIMOResult", "PixelResult"]


@dataclass(frozen=True)
class PixelResult:
    """A metric of all pixels, or of images, with what is known of it.

    Attributes:
        value: The value, in [0, 1]; NaN if it is undefined.
        bounds: The exact value lies between these two. Both are the value unless it comes from a histogram.
        threshold: The lowest threshold that reaches the value, in the unit of the anomaly maps; NaN for other metrics
            than F1-max, or if the value is undefined.
        warnings: Texts that say why the value is undefined or uncertain. Empty if there are none.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PixelF1Max
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1] = True
        >>> metric = PixelF1Max()
        >>> metric.update(maps, masks)
        >>> metric.result()
        PixelResult(value=1.0, bounds=(1.0, 1.0), threshold=16.0, warnings=())

    """

    value: float
    bounds: tuple[float, float]
    threshold: float = math.nan
    warnings: tuple[str, ...] = ()


class PIMOResult(NamedTuple):
    """PIMO curves of N images at K thresholds: tensors, or NumPy arrays if the maps were NumPy arrays.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PIMO, PIMOResult
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = PIMO(num_thresholds=4)
        >>> metric.update(maps, masks)
        >>> thresholds, shared_fpr, per_image_tprs = metric.compute()
        >>> thresholds, shared_fpr
        (tensor([ 0.,  5., 10., 15.]), tensor([1.0000, 0.6875, 0.3750, 0.0625]))

    """

    thresholds: Tensor
    """(K,) ascending, in the unit of the anomaly maps."""
    shared_fpr: Tensor
    """(K,) element k is the shared FPR of `thresholds[k]`: the mean over the normal images (or the maximum, with
    `shared_fpr="max"`) of the share of their pixels at or above `thresholds[k]`."""
    per_image_tprs: Tensor
    """(N, K) element (i, k) is the share of the mask pixels of image i at or above `thresholds[k]`; NaN for a normal
    image."""

    def save(self, path: str | os.PathLike[str], shared_fpr: SharedFPR = "mean") -> None:
        """Write the curves to a `.pt` file, under the names that the official package uses.

        Args:
            path: File `.pt` to write, in a folder that is made if need be. An existing file is replaced only when the
                new one is complete.
            shared_fpr: How the shared FPR was computed, `"mean"` or `"max"`; the file says which.

        Raises:
            ValueError: If `shared_fpr` is neither `"mean"` nor `"max"`, or if `path` does not end in `.pt` or `.pth`.
            OSError: If the file cannot be written.

        Example:
            >>> import tempfile, torch
            >>> from aupimo_torchmetrics import PIMOResult
            >>> curves = PIMOResult(torch.tensor([0.2, 0.6]), torch.tensor([1.0, 0.1]), torch.tensor([[1.0, 0.5]]))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     curves.save(f"{folder}/curves.pt")
            ...     loaded = PIMOResult.load(f"{folder}/curves.pt")
            >>> loaded.per_image_tprs
            tensor([[1.0000, 0.5000]])

        """
        check_choice("shared_fpr", shared_fpr, SharedFPR)
        parts = (torch.as_tensor(part, device="cpu") for part in self)
        _result_files.write_curves(path, parts, shared_fpr)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PIMOResult":
        """Read curves from a `.pt` file of this or of the official package; code in the file is never run.

        Args:
            path: File to read.

        Returns:
            The curves, as tensors on the CPU.

        Raises:
            ValueError: If the file does not hold curves, if it has changed since it was written, if their shapes do not
                fit together, or if the installed torch is older than 2.6, with which no `.pt` file is read.
            OSError: If the file cannot be opened.

        Example:
            >>> import tempfile, torch
            >>> from aupimo_torchmetrics import PIMOResult
            >>> curves = PIMOResult(torch.tensor([0.2, 0.6]), torch.tensor([1.0, 0.1]), torch.tensor([[1.0, 0.5]]))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     curves.save(f"{folder}/curves.pt")
            ...     PIMOResult.load(f"{folder}/curves.pt").thresholds
            tensor([0.2000, 0.6000])

        """
        return cls(*_result_files.read_curves(path))


class OperatingPoint(NamedTuple):
    """What one threshold does: how much of each defect it finds, and on how many normal images it raises an alarm.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
        >>> metric.update(maps, masks)
        >>> print(metric.result().operating_point(fpr=0.25))  # doctest: +NORMALIZE_WHITESPACE
        threshold 12 at shared FPR 0.25 (nan to nan): mean TPR 1.000, alarms on 100.0% of the normal and 100.0% of the
        anomalous images

    """

    threshold: float
    """In the unit of the anomaly maps; pixels with at least this score are called anomalous."""
    shared_fpr: float
    """Shared FPR of the threshold; NaN if there is no normal image, or if it is not known."""
    shared_fpr_interval: tuple[float, float]
    """95 % interval of the shared FPR, by 1,000 resamples of the normal images with one seed (expanded percentiles). It
    says how much another set of normal images may differ; with fewer than 50 of them it is too narrow."""
    per_image_tprs: Tensor
    """(N,) float64, element i is the share of the mask pixels of image i that are called anomalous; NaN for a normal
    image, or if it is not known."""
    share_of_normal_images_with_alarm: float
    """Share of the normal images with at least one pixel that is called anomalous; NaN if there is no normal image."""
    share_of_anomalous_images_with_alarm: float
    """Share of the anomalous images with at least one such pixel, in the mask or not; NaN if there is none."""
    warnings: tuple[str, ...] = ()
    """Why rates are not known, and whether the shared FPR rests on few images; empty if neither is so."""

    def __str__(self) -> str:
        """Show all in one line, with the mean of the TPRs."""
        low, high = self.shared_fpr_interval
        return (
            f"threshold {self.threshold:.6g} at shared FPR {self.shared_fpr:.3g} ({low:.3g} to {high:.3g}): mean TPR "
            f"{float(self.per_image_tprs.nanmean()):.3f}, alarms on {self.share_of_normal_images_with_alarm:.1%} of "
            f"the normal and {self.share_of_anomalous_images_with_alarm:.1%} of the anomalous images"
        )

    def __repr__(self) -> str:
        """Show the same: a tensor of many images is not what one wants to read."""
        return str(self)


@dataclass(frozen=True, eq=False, repr=False)
class AUPIMOResult:
    """Per-image AUPIMO scores and all that is known of them.

    A result is frozen. `dataclasses.replace(result, paths=...)` makes a changed copy.

    Attributes:
        aupimos: (N,) float64, element i is the score of image i, in [0, 1]; NaN for a normal image.
        fpr_bounds: Lower and upper bound `(L, U)` of the shared FPR, over which the scores are averaged.
        threshold_bounds: The threshold at `U` and the threshold at `L`, in the unit of the anomaly maps; so the lower
            threshold comes first. NaN if there is none, or if it is not known.
        num_thresholds: Number of sampled thresholds. None for exact scores; `"unknown"` for scores from a file of the
            official package, which does not hold it.
        num_points: Number of sampled thresholds between the bounds. None for exact scores, or if it is not known.
        shared_fpr: How the FPRs of the normal images make one shared FPR: by their `"mean"` or by their `"max"`.
        image_classes: (N,) int64, element i is 0 if image i is normal and 1 if it is anomalous; None if not known.
        image_ids: (N,) int64, element i is the integer id of image i, -1 if it has none; None if no image has one.
        paths: N texts, element i is the file of image i or the text that was given as its id, empty if it has neither;
            None if no image has one.
        version: Version of this library that computed the scores; None if another program did.
        mask_sizes: (N,) int64, element i is the number of mask pixels of image i, 0 if it is normal; None if not known.
        warnings: Texts that say why scores or thresholds are undefined or uncertain, and whether few normal images
            carry the FPR at the upper bound. Those that concern what was asked for were also given as warnings, but not
            the last. Empty if there are none.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
        >>> metric.update(maps, masks)
        >>> result = metric.result()
        >>> result.aupimos
        tensor([nan, 1.], dtype=torch.float64)
        >>> result.threshold_bounds
        (8.0, 15.0)
        >>> result.mean, round(result.chance, 3)
        (1.0, 0.249)
        >>> print(result.protocol)  # doctest: +ELLIPSIS
        AUPIMO, exact, shared FPR 0.1 to 0.5 (mean of per-image FPRs), aupimo-torchmetrics ...

    """

    aupimos: Tensor
    fpr_bounds: tuple[float, float]
    threshold_bounds: tuple[float, float]
    num_thresholds: int | str | None = None
    num_points: int | None = None
    shared_fpr: SharedFPR = "mean"
    image_classes: Tensor | None = None
    image_ids: Tensor | None = None
    paths: list[str] | None = None
    version: str | None = __version__
    mask_sizes: Tensor | None = None
    warnings: tuple[str, ...] = ()
    _scoring: ScoredImages | None = field(default=None)

    @property
    def mean(self) -> float:
        """Mean score of the anomalous images; NaN if there is none, or if there is no normal image."""
        return float(sweep.mean_score(self.aupimos))

    @property
    def chance(self) -> float:
        """Score of a model without any skill, whose TPR equals its FPR at every threshold: `(U - L) / log(U / L)`.

        With `shared_fpr="max"` only constant maps score this much; other maps without skill score less.
        """
        lower, upper = self.fpr_bounds
        return (upper - lower) / math.log(upper / lower)

    @property
    def protocol(self) -> str:
        """One line with the settings, to quote beside a score."""
        lower, upper = self.fpr_bounds
        mode = "exact" if self.num_thresholds is None else f"{self.num_thresholds} thresholds"
        if self.num_thresholds == UNKNOWN:
            mode = "unknown number of thresholds"
        shared_by = "maximum" if self.shared_fpr == "max" else "mean"
        software = "unknown software" if self.version is None else f"aupimo-torchmetrics {self.version}"
        return f"AUPIMO, {mode}, shared FPR {lower:g} to {upper:g} ({shared_by} of per-image FPRs), {software}"

    def threshold_at(self, fpr: float) -> float:
        """Return the threshold for a shared FPR, in the unit of the anomaly maps.

        Args:
            fpr: Shared FPR in (0, U], where U is the upper bound of `fpr_bounds`.

        Returns:
            The smallest normal score whose shared FPR, as a threshold, is at most `fpr`. If there is none, the next
            float above the highest normal score. With `num_thresholds`, the sampled threshold whose shared FPR is
            nearest to `fpr`. NaN if there is no normal image, if the threshold is not known, or if every threshold has
            a larger shared FPR, because too many normal scores are +inf.

        Raises:
            ValueError: If `fpr` is outside (0, U], or the result was loaded from a file that holds only scores.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> metric.result().threshold_at(0.25)  # 4 of the 16 normal pixels have a score of 12 or more
            12.0

        """
        if not 0 < fpr <= self.fpr_bounds[1]:
            raise ValueError(
                f"Expected `fpr` to be in (0, {self.fpr_bounds[1]:g}], but got {fpr}. "
                "Thresholds are known up to the upper bound of `fpr_bounds`: construct the metric with a larger one."
            )
        scored = self._known()
        samples = scored.scoring.samples
        if samples is not None:
            return samples.threshold_at(fpr)
        if len(scored.levels.scores) == 0 or self.num_thresholds is not None:
            return math.nan
        return float(sweep.known_thresholds_at(scored.levels, scored.levels.fpr.new_tensor([fpr]), self.shared_fpr))

    def curves(self) -> PIMOResult:
        """Draw the PIMO curves of all images around the FPR bounds.

        They reach from the shared FPR of one normal pixel to that of the lowest normal score that was kept. For whole
        curves use `aupimo_torchmetrics.PIMO`, which keeps every normal score.

        Returns:
            `thresholds` (K,), `shared_fpr` (K,) and `per_image_tprs` (N, K) in the dtype of the scores that were kept,
            at K = 1,000 thresholds whose shared FPRs are evenly spaced in log. All NaN if there is no normal image.

        Raises:
            ValueError: If the result was loaded from a file that holds only scores.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> curves = metric.result().curves()
            >>> curves.thresholds.shape, curves.shared_fpr.shape, curves.per_image_tprs.shape
            (torch.Size([1000]), torch.Size([1000]), torch.Size([2, 1000]))
            >>> float(curves.shared_fpr.min())  # that of one of the 16 normal pixels
            0.0625

        """
        return PIMOResult(*draw_curves(self._known().kept, None, self.shared_fpr)[0])

    def operating_point(self, *, fpr: float | None = None, threshold: float | None = None) -> OperatingPoint:
        """Say what one threshold does. Give either the threshold or a shared FPR.

        Args:
            fpr: Shared FPR in (0, U], for which the threshold is that of `threshold_at`.
            threshold: The threshold, in the unit of the anomaly maps.

        Returns:
            The threshold, its shared FPR with an interval, the share of each image's mask that it finds, and the shares
            of the images with an alarm. The shared FPR may be lower than `fpr`, because scores may be tied. All NaN if
            there is no threshold for `fpr`, or if it is not known. At a `threshold` so low that scores above it were
            not kept, FPR and TPRs are NaN, with the reason among its `warnings`; alarms are known at any threshold.

        Raises:
            ValueError: If not exactly one of `fpr` and `threshold` is given, `fpr` is outside (0, U], `threshold` is
                NaN, or the result was loaded from a file that holds only scores.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> point = metric.result().operating_point(threshold=14.0)
            >>> point.shared_fpr, point.per_image_tprs.tolist(), point.share_of_normal_images_with_alarm
            (0.125, [nan, 1.0], 1.0)

        """
        if (fpr is None) == (threshold is None):
            raise ValueError("Expected exactly one of `fpr` and `threshold`, but got both or neither.")
        scored = self._known()
        if fpr is not None:
            threshold = self.threshold_at(fpr)
        elif threshold is None or math.isnan(threshold):
            raise ValueError("Expected `threshold` to be a number, but got NaN.")
        kept, threshold = scored.kept, float(threshold)
        unknown = unknown_rates(float(kept.floor)) if threshold < float(kept.floor) else ""
        reasons = tuple(filter(None, [unknown, few_carry(kept, threshold, self.shared_fpr)]))
        return OperatingPoint(threshold, *decision.rates_at(kept, threshold, self.shared_fpr), reasons)

    @property
    def max_scores(self) -> Tensor | None:
        """(N,) highest score of each image, of the pixels that are not ignored; None if it is not known."""
        highest = None if self._scoring is None else self._scoring.kept.max_scores
        return None if highest is None or bool(highest.isnan().any()) else highest

    def alarm_threshold(self, share: float) -> float:
        """Return a threshold at which a new normal image raises an alarm with a probability of at most `share`.

        An image raises an alarm iff any of its pixels reaches the threshold. The guarantee holds whatever the scores
        are, for a new image that could as well have been one of these (split conformal prediction). It is that of one
        new image and of the choice of these normal images together.

        Args:
            share: Probability in (0, 1).

        Returns:
            The next float above the `ceil((1 - share) * (n + 1))`-th smallest of the highest scores of the n normal
            images, in the unit of the anomaly maps. NaN if that score is +inf.

        Raises:
            ValueError: If `share` is outside (0, 1), if there are fewer than `1 / share - 1` normal images, or if the
                highest scores are not known, as in files of an earlier version.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps = torch.arange(32.0).view(2, 4, 4)
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, torch.zeros(2, 4, 4, dtype=torch.bool))  # highest scores 15 and 31
            >>> round(metric.result().alarm_threshold(0.4), 3)  # two images are just enough
            31.0

        """
        if not 0 < share < 1:
            raise ValueError(f"Expected `share` to be in (0, 1), but got {share}.")
        share, kept = float(share), self._known().kept
        highest = kept.max_scores[~kept.is_anomalous]
        needed = decision.num_images_needed(share)
        if len(highest) < needed:
            raise ValueError(
                f"Expected {needed} normal images or more for `share={share:g}`, but got {len(highest)}: a threshold "
                "that fewer images promise does not exist. Give more normal images, or a larger `share`."
            )
        if bool(highest.isnan().any()):
            raise ValueError("Expected the highest scores of the images, but the file of an earlier version has none.")
        return decision.alarm_threshold(highest, share)

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table with one row per image.

        Returns:
            Columns `index` (0 to N - 1), `path`, `image_id`, `is_anomalous`, `mask_pixels`, `aupimo`, `tpr_at_lower`
            and `tpr_at_upper`. The last two are the share of the mask that is found at the lower and at the upper FPR
            bound. What is not known is missing (`None`, `NA` or NaN).

        Raises:
            ModuleNotFoundError: If pandas is not installed.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks, image_ids=["good/0.png", "scratch/0.png"])
            >>> table = metric.result().to_dataframe()
            >>> table[["path", "mask_pixels", "aupimo"]].values.tolist()
            [['good/0.png', 0, nan], ['scratch/0.png', 4, 1.0]]

        """
        require("pandas", extra="table", needed_by="AUPIMOResult.to_dataframe")
        import pandas as pd  # noqa: PLC0415

        num_images = len(self.aupimos)
        upper_threshold, lower_threshold = self.threshold_bounds
        columns = {
            "index": pd.Series(range(num_images), dtype="int64"),
            "path": pd.Series([path or None for path in self.paths or [""] * num_images], dtype="object"),
            "image_id": _nullable(pd, self.image_ids, "Int64", num_images, missing=NO_ID),
            "is_anomalous": _nullable(pd, self.image_classes, "boolean", num_images),
            "mask_pixels": _nullable(pd, self.mask_sizes, "Int64", num_images),
            "aupimo": self.aupimos.cpu().numpy(),
            "tpr_at_lower": self._tprs_at(lower_threshold).cpu().numpy(),
            "tpr_at_upper": self._tprs_at(upper_threshold).cpu().numpy(),
        }
        return pd.DataFrame(columns)

    def __str__(self) -> str:
        """Show mean, distribution, thresholds, settings and warnings in a few lines."""
        scores = self.aupimos[~self.aupimos.isnan()].double()
        images = f"number of images: {len(self.aupimos)}"
        if self.image_classes is not None:
            num_anomalous = int(self.image_classes.sum())
            images = f"{images}, {num_anomalous} anomalous and {len(self.aupimos) - num_anomalous} normal"
        lines = [f"AUPIMO {score_text(self.mean, 4)} (chance {self.chance:.2g}), {images}"]
        if len(scores):
            quartiles = torch.quantile(scores, scores.new_tensor([0, 0.25, 0.5, 0.75, 1])).tolist()
            texts = " ".join(score_text(value, 3) for value in quartiles)
            lines.append(f"lowest, quartiles and highest score: {texts}")
        (lower, upper), (at_upper, at_lower) = self.fpr_bounds, self.threshold_bounds
        lines.append(f"thresholds: {at_upper:.6g} at FPR {upper:g}, {at_lower:.6g} at FPR {lower:g}")
        return "\n".join([*lines, self.protocol, *(f"warning: {text}" for text in self.warnings)])

    def __repr__(self) -> str:
        """Show mean, number of images and settings in one line."""
        return f"<AUPIMOResult {score_text(self.mean, 4)} of {len(self.aupimos)} images: {self.protocol}>"

    def pixel_aupimo(self, anomaly_map: Tensor) -> Tensor:
        """Show where a score comes from: the share of the log-FPR range in which each pixel is called anomalous.

        The AUPIMO of an anomalous image is the mean of this over its mask pixels. With `num_thresholds` the score may
        be a little larger than the mean, because the share of a pixel may exceed 1 there and is clamped to 1.

        Args:
            anomaly_map: Floating point tensor of any shape, in the unit of the maps that were scored.

        Returns:
            Tensor of the shape and on the device of the map. An element is 1 if the pixel is called anomalous at every
            threshold between the FPR bounds, 0 if at none. float64 for a float64 map, float32 otherwise. All NaN if
            there was no normal image.

        Raises:
            TypeError: If the map is not a floating point tensor.
            ValueError: If the map holds NaN, or the result was loaded from a file that holds only scores.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMO
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> metric.result().pixel_aupimo(torch.tensor([[7.5, 12.5, 20.0]]))
            tensor([[0.0000, 0.6094, 1.0000]])

        """
        if not (isinstance(anomaly_map, Tensor) and anomaly_map.is_floating_point()):
            kind = anomaly_map.dtype if isinstance(anomaly_map, Tensor) else type(anomaly_map).__name__
            raise TypeError(f"Expected `anomaly_map` to be a floating point tensor, but got {kind}.")
        if bool(anomaly_map.isnan().any()):
            raise ValueError("Expected `anomaly_map` to hold no NaN, but got some.")
        table = self._known().table
        dtype = torch.float64 if anomaly_map.dtype == torch.float64 else torch.float32
        shares = table.look_up(anomaly_map.detach().to(table.scores).contiguous()).clamp(0, 1)
        return shares.to(dtype).to(anomaly_map.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to two files, from which `load` restores it exactly.

        `aupimos.json` holds the scores in the format of the official package, which can read it. That format accepts no
        other keys. So a second file beside it, `aupimos.safetensors`, holds the settings and what was kept of the
        images, a few megabytes.

        Args:
            path: File to write, `aupimos.json` or `aupimos.safetensors`, or another name with one of these endings. The
                other file is written beside it, in a folder that is made if need be. Existing files are replaced only
                when the new ones are complete.

        Raises:
            ValueError: If there is not one path, id, class or mask size for each score, as far as they are known, or if
                `path` ends otherwise.
            OSError: If a file cannot be written.

        Example:
            >>> import tempfile, torch
            >>> from aupimo_torchmetrics import AUPIMO, AUPIMOResult
            >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
            >>> masks[1, 0] = True
            >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5))
            >>> metric.update(maps, masks)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     metric.result().save(f"{folder}/aupimos.json")
            ...     loaded = AUPIMOResult.load(f"{folder}/aupimos.json")
            >>> loaded.aupimos, loaded.threshold_at(0.25)
            (tensor([nan, 1.], dtype=torch.float64), 12.0)

        """
        for name in ("paths", "image_classes", "image_ids", "mask_sizes"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.aupimos):
                raise ValueError(
                    f"Expected `{name}` to hold one for each of {len(self.aupimos)} scores, but got {len(values)}."
                )
        kept = None if self._scoring is None else with_ids(self._scoring.kept, self.image_ids)
        fields = {name: getattr(self, name) for name in SavedResult._fields if name != "kept"}
        _result_files.write_result(path, SavedResult(**fields, kept=kept))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AUPIMOResult":
        """Read what `save` wrote, or scores of the official package.

        Args:
            path: File `aupimos.json` or `aupimos.safetensors`.

        Returns:
            The result as it was saved, on the CPU. From a JSON file without `aupimos.safetensors` beside it, as the
            official package writes it, a result with scores, bounds and paths only: `threshold_at`, `operating_point`,
            `curves` and `pixel_aupimo` then raise a `ValueError`. The same, with a warning, if the two files do not
            belong together.

        Raises:
            ValueError: If a file does not hold a result, or its content is inconsistent.
            OSError: If a file cannot be opened.

        Example:
            >>> import tempfile, torch
            >>> from aupimo_torchmetrics import AUPIMOResult
            >>> result = AUPIMOResult(torch.tensor([0.25, 0.75]), (1e-5, 1e-4), (0.5, 0.6), paths=["a.png", "b.png"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result.save(f"{folder}/aupimos.json")
            ...     loaded = AUPIMOResult.load(f"{folder}/aupimos.json")
            >>> loaded.mean, loaded.paths
            (0.5, ['a.png', 'b.png'])

        """
        details_path = _result_files.tensors_path(path)
        if details_path == Path(path):
            return _from_saved(_result_files.read_details(path))
        scores = _result_files.read_scores(path)
        if details_path.is_file():
            details = _result_files.read_details(details_path)
            if _result_files.belong_together(scores, details):
                return _from_saved(details)
            rank_zero_warn(
                f"AUPIMO scores are read from {os.fspath(path)} without {details_path}, which belongs to other scores. "
                "Remove it, or save both anew.",
                UserWarning,
            )
        return _from_saved(scores)

    def _tprs_at(self, threshold: float) -> Tensor:
        """(N,) float64, share of each mask at or above a threshold; NaN if it is not known."""
        if self._scoring is None or math.isnan(threshold):
            return torch.full_like(self.aupimos, math.nan, dtype=torch.float64)
        return sweep.per_image_tprs(self._scoring.kept, self._scoring.kept.floor.new_tensor([threshold]))[:, 0]

    def _known(self) -> ScoredImages:
        """The scored images; raise if the result was loaded from a file that holds only scores."""
        if self._scoring is None:
            raise ValueError(
                "Expected a result that knows its normal scores, but this one was loaded from a file that holds "
                "per-image scores only. Compute it from anomaly maps with `AUPIMO.result()`, or load it together with "
                "the file `aupimos.safetensors` that `AUPIMOResult.save` writes."
            )
        return self._scoring


def result_of(
    images: Images, fpr_bounds: tuple[float, float], num_thresholds: int | None, shared_fpr: SharedFPR
) -> AUPIMOResult:
    """Score distinct images and make a result of them."""
    scored = score_images(images, fpr_bounds, num_thresholds, shared_fpr)
    kept, threshold_bounds, samples = scored.kept, scored.scoring.threshold_bounds, scored.scoring.samples
    few = few_carry(kept, threshold_bounds[0], shared_fpr)
    return AUPIMOResult(
        aupimos=scored.aupimos,
        fpr_bounds=fpr_bounds,
        threshold_bounds=threshold_bounds,
        num_thresholds=num_thresholds,
        num_points=None if samples is None or math.isnan(threshold_bounds[0]) else samples.num_points,
        shared_fpr=shared_fpr,
        image_classes=kept.is_anomalous.long(),
        image_ids=kept.image_ids if bool((kept.image_ids != NO_ID).any()) else None,
        paths=images.paths,
        mask_sizes=torch.where(kept.is_anomalous, kept.num_pixels, 0),
        warnings=tuple(filter(None, [*scored.of_ids, *scored.undefined, *scored.uncertain, few])),
        _scoring=scored,
    )


def _from_saved(saved: SavedResult) -> AUPIMOResult:
    """Make a result of what a file holds of it."""
    fields = saved._asdict()
    kept = fields.pop("kept")
    if kept is None:
        return AUPIMOResult(**fields)
    result = result_of(Images(kept, saved.paths, ()), saved.fpr_bounds, fields["num_thresholds"], saved.shared_fpr)
    return replace(result, aupimos=saved.aupimos, version=saved.version, warnings=saved.warnings)


def load_scores(path: str | os.PathLike[str]) -> AUPIMOResult:
    """Read no more than the scores of a saved result, and how it was scored, which a comparison of models needs."""
    if _result_files.tensors_path(path) == Path(path):
        return AUPIMOResult.load(path)
    return _from_saved(_result_files.with_scoring(_result_files.read_scores(path), path))


def _nullable(pd: Any, values: Tensor | None, dtype: str, num_images: int, missing: int | None = None) -> Any:
    """Return a pandas column of values (N,), with NA for those equal to `missing`; all NA if there are no values."""
    if values is None:
        return pd.Series([pd.NA] * num_images, dtype=dtype)
    column = pd.Series(values.cpu().numpy()).astype(dtype)
    return column if missing is None else column.mask(column == missing)
