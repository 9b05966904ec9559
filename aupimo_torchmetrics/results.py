"""Named results: per-image scores with what explains them, PIMO curves, and the official JSON format.

Conventions: N images, K thresholds. Image classes are 0 for normal and 1 for anomalous. A normal image scores NaN.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics import _sweep
from aupimo_torchmetrics._kept import NO_ID, PixelScores, distinct_images, on_float64_device
from aupimo_torchmetrics._version import __version__

OFFICIAL_SHARED_FPR_METRIC = "mean-per-image-fpr"
MIN_SAMPLED_POINTS = 300
"""Fewer sampled thresholds between the bounds draw a warning, as in the official package."""
MAX_BOUND_ERROR = 0.01
"""Relative distance of a sampled from a wanted FPR bound that draws a warning, as in the official package."""


_Part = TypeVar("_Part")


class PIMOResult(NamedTuple):
    """PIMO curves of N images at K thresholds; tensors, or NumPy arrays if the maps were."""

    thresholds: Tensor
    """(K,) ascending anomaly scores."""
    shared_fpr: Tensor
    """(K,) element k is the mean over the normal images of the share of their pixels at or above `thresholds[k]`."""
    per_image_tprs: Tensor
    """(N, K) element (i, k) is the share of the mask pixels of image i at or above `thresholds[k]`; NaN if normal."""


@dataclass(eq=False)
class AUPIMOResult:
    """Per-image AUPIMO scores and what is needed to explain, quote and reuse them.

    Attributes:
        aupimos: (N,) float64, element i is the score of image i, in [0, 1]; NaN for a normal image.
        fpr_bounds: Lower and upper bound of the shared FPR that the scores are averaged over.
        threshold_bounds: The thresholds at the upper and at the lower FPR bound, in the unit of the anomaly maps, lower
            threshold first.
        num_thresholds: Number of sampled thresholds, None for an exact score.
        num_points: Number of sampled thresholds between the bounds, None for an exact score.
        image_classes: (N,) int64, 0 for a normal and 1 for an anomalous image; None if they are not known.
        image_ids: (N,) int64 ids given with the images, -1 for an image without; None if there are none.
        paths: File of each image, None if not known.

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

    """

    aupimos: Tensor
    fpr_bounds: tuple[float, float]
    threshold_bounds: tuple[float, float]
    num_thresholds: int | None = None
    num_points: int | None = None
    image_classes: Tensor | None = None
    image_ids: Tensor | None = None
    paths: list[str] | None = None
    _levels: _sweep.NormalLevels | None = field(default=None, repr=False)
    _scoring: _sweep.Scoring | None = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        """Mean score of the anomalous images; NaN without one, or without a normal image."""
        return float(self.aupimos.nanmean())

    @property
    def chance(self) -> float:
        """Score of a model without any skill, whose TPR is everywhere its FPR: `(U - L) / log(U / L)`."""
        lower, upper = self.fpr_bounds
        return (upper - lower) / math.log(upper / lower)

    @property
    def protocol(self) -> str:
        """One line with the settings, to quote beside a score."""
        lower, upper = self.fpr_bounds
        mode = "exact" if self.num_thresholds is None else f"{self.num_thresholds} thresholds"
        return (
            f"AUPIMO, {mode}, shared FPR {lower:g} to {upper:g} (mean of per-image FPRs), "
            f"aupimo-torchmetrics {__version__}"
        )

    def threshold_at(self, fpr: float) -> float:
        """Return the threshold for a shared FPR, in the unit of the anomaly maps.

        Args:
            fpr: Shared FPR in (0, U], where U is the upper bound of `fpr_bounds`.

        Returns:
            The smallest normal score at or above which the shared FPR is at most `fpr`, or the next float above the
            highest normal score where ties allow none. With `num_thresholds` the sampled threshold whose shared FPR is
            nearest to `fpr`. NaN if there is no normal image.

        Raises:
            ValueError: If `fpr` is outside (0, U], or if the result was loaded from a file, which holds scores only.

        """
        if not 0 < fpr <= self.fpr_bounds[1]:
            raise ValueError(
                f"Expected `fpr` to be in (0, {self.fpr_bounds[1]:g}], but got {fpr}. "
                "Thresholds are known up to the upper bound of `fpr_bounds`: construct the metric with a larger one."
            )
        levels, scoring = self._known(self._levels), self._known(self._scoring)
        if math.isnan(self.threshold_bounds[0]):
            return math.nan
        if scoring.samples is not None:
            return float(scoring.samples.thresholds[_sweep.nearest_fpr(scoring.samples.fpr, fpr)])
        return float(_sweep.thresholds_at(levels, levels.fpr.new_tensor([fpr])))

    def pixel_aupimo(self, anomaly_map: Tensor) -> Tensor:
        """Show where a score comes from: the share of the log-FPR range in which each pixel is called anomalous.

        The AUPIMO of an anomalous image is the mean of this over its mask pixels. (With `num_thresholds` it may exceed
        the mean a little, as there the trapezoids of a pixel may add up to more than 1 and are cut off.)

        Args:
            anomaly_map: Floating tensor of any shape, in the unit of the maps that were scored.

        Returns:
            Tensor of the shape and on the device of the map, in [0, 1]; float64 for a float64 map, float32 otherwise.
            NaN if there was no normal image.

        Raises:
            TypeError: If the map is not a floating tensor.
            ValueError: If there is a NaN in it, or if the result was loaded from a file, which holds scores only.

        """
        if not (isinstance(anomaly_map, Tensor) and anomaly_map.is_floating_point()):
            kind = anomaly_map.dtype if isinstance(anomaly_map, Tensor) else type(anomaly_map).__name__
            raise TypeError(f"Expected `anomaly_map` to be a floating point tensor, but got {kind}.")
        if bool(anomaly_map.isnan().any()):
            raise ValueError("Expected `anomaly_map` to hold no NaN, but got some.")
        table = self._known(self._scoring).table
        dtype = torch.float64 if anomaly_map.dtype == torch.float64 else torch.float32
        shares = table.look_up(anomaly_map.detach().to(table.scores).contiguous()).clamp(0, 1)
        return shares.to(dtype).to(anomaly_map.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the scores to a JSON file that the official package reads; not a number is written as `NaN`.

        Args:
            path: File to write. An existing file is replaced when the new one is complete.

        """
        lower_threshold, upper_threshold = (None if math.isnan(bound) else bound for bound in self.threshold_bounds)
        content = {
            "shared_fpr_metric": OFFICIAL_SHARED_FPR_METRIC,
            "fpr_lower_bound": self.fpr_bounds[0],
            "fpr_upper_bound": self.fpr_bounds[1],
            "num_threshs": self.num_points,
            "thresh_lower_bound": lower_threshold,
            "thresh_upper_bound": upper_threshold,
            "aupimos": self.aupimos.tolist(),
        }
        if self.paths is not None:
            content["paths"] = self.paths
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            unfinished.write_text(json.dumps(content, indent=4), encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AUPIMOResult:
        """Read scores from a JSON file of this or of the official package.

        Args:
            path: File to read.

        Returns:
            A result with scores, bounds and paths. How many thresholds were sampled is not in such a file, nor is the
            shared FPR: `num_thresholds` is None, and `threshold_at` and `pixel_aupimo` raise.

        Raises:
            ValueError: If the file is not such a JSON file.

        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            aupimos = torch.tensor(content["aupimos"], dtype=torch.float64).reshape(-1)
            bounds = [content.get(f"thresh_{end}_bound") for end in ("lower", "upper")]
            paths = content.get("paths")
            if paths is not None and len(paths) != len(aupimos):
                raise ValueError(f"{len(paths)} paths of {len(aupimos)} images")  # noqa: TRY301
            return cls(
                aupimos=aupimos,
                fpr_bounds=(float(content["fpr_lower_bound"]), float(content["fpr_upper_bound"])),
                threshold_bounds=tuple(math.nan if bound is None else float(bound) for bound in bounds),  # type: ignore[arg-type]
                num_points=content.get("num_threshs"),
                image_classes=(~aupimos.isnan()).long(),
                paths=paths,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Not the `repr`, which holds the whole file if that is not text.
            raise ValueError(
                f"Expected `path` to be a JSON file of AUPIMO scores, but could not read {os.fspath(path)}: "
                f"{type(error).__name__}: {error}."
            ) from error

    def _known(self, part: _Part | None) -> _Part:
        """Return a part that a result read from a file lacks."""
        if part is None:
            raise ValueError(
                "Expected a result with its shared FPR, but this one was loaded from a file, which holds scores only. "
                "Compute it from anomaly maps with `AUPIMO.result()`."
            )
        return part


def aupimo_result(
    kept: PixelScores, fpr_bounds: tuple[float, float], num_thresholds: int | None = None
) -> AUPIMOResult:
    """Score the images by what was kept of them; warn of what leaves a score undefined, or else uncertain."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    if num_thresholds is None:
        levels = _sweep.normal_levels(kept, down_to_fpr=fpr_bounds[1])
        scoring, doubt = _score_exactly(kept, levels, fpr_bounds)
    else:
        # The sampled threshold nearest to a bound may lie beyond it, by the bound itself at most.
        levels = _sweep.normal_levels(kept, down_to_fpr=2 * fpr_bounds[1])
        scoring, doubt = _score_by_samples(kept, levels, fpr_bounds, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "AUPIMO") or doubt)
    return AUPIMOResult(
        aupimos=_sweep.per_image_scores(kept, scoring.table),
        fpr_bounds=fpr_bounds,
        threshold_bounds=scoring.threshold_bounds,
        num_thresholds=num_thresholds,
        num_points=None if scoring.samples is None else scoring.samples.num_points,
        image_classes=kept.is_anomalous.long(),
        image_ids=kept.image_ids if bool((kept.image_ids != NO_ID).any()) else None,
        _levels=levels,
        _scoring=scoring,
    )


def pimo_result(kept: PixelScores, num_thresholds: int | None = None) -> PIMOResult:
    """Draw the PIMO curves of all images, as far as normal scores were kept, in the dtype of the scores."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    levels = _sweep.normal_levels(kept, down_to_fpr=1.0)
    if num_thresholds is None:
        thresholds = _sweep.curve_thresholds(kept, levels)
    else:
        thresholds = _sweep.sampled_thresholds(kept, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "PIMO") or _doubt_infinite(thresholds))
    shared_fpr = _sweep.shared_fpr_at(levels, thresholds).to(thresholds)
    return PIMOResult(thresholds, shared_fpr, _sweep.per_image_tprs(kept, thresholds).to(thresholds))


def _score_exactly(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float]
) -> tuple[_sweep.Scoring, str]:
    """Score by the closed form, and say what is uncertain about it."""
    if len(levels.scores) == 0:
        return _sweep.undefined_scoring(levels), ""
    incomplete = _doubt_incomplete(kept, levels, fpr_bounds, needed_fpr=fpr_bounds[1])
    scoring = _sweep.exact_scoring(levels, fpr_bounds, is_incomplete=bool(incomplete))
    return scoring, incomplete or _doubt_unresolved(levels, fpr_bounds)


def _score_by_samples(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], num_thresholds: int
) -> tuple[_sweep.Scoring, str]:
    """Score by the paper's protocol, and say what is uncertain about it."""
    thresholds = _sweep.sampled_thresholds(kept, num_thresholds)
    if bool(thresholds.isnan().any()):
        return _sweep.undefined_scoring(levels), _doubt_infinite(thresholds)
    scoring, samples = _sweep.sampled_scoring(levels, thresholds, fpr_bounds)
    incomplete = _doubt_incomplete(kept, levels, fpr_bounds, needed_fpr=2 * fpr_bounds[1])
    return scoring, incomplete or _doubt_samples(samples, fpr_bounds)


def _warn(*messages: str) -> None:
    """Warn of everything that there is something to say about."""
    for message in filter(None, messages):
        rank_zero_warn(message, UserWarning)


def _without_repeats(kept: PixelScores) -> tuple[PixelScores, str]:
    """Count images with one id once, and say if some ids have several contents."""
    kept, num_conflicts = distinct_images(kept)
    if not num_conflicts:
        return kept, ""
    return kept, (
        f"Images with different content were given under the same id, for {num_conflicts} of the `image_ids`; only "
        "the first image of each id counts. Ids must be unique in the whole data set, not in a batch."
    )


def _why_undefined(kept: PixelScores, name: str) -> str:
    """Say which class of images is missing, so that every score is NaN."""
    num_images, num_anomalous = len(kept.is_anomalous), int(kept.is_anomalous.sum())
    if num_images == 0:
        return (
            f"{name} is undefined (NaN): there is no image. "
            "Call `update` with normal and anomalous images before `compute`."
        )
    if num_anomalous == num_images:
        return (
            f"{name} is undefined (NaN): none of the {num_images} images is normal, and false positives are counted on "
            "normal images. Add images whose masks are empty."
        )
    if num_anomalous == 0:
        return (
            f"{name} is undefined (NaN): none of the {num_images} images is anomalous. "
            "Add images whose masks are not empty."
        )
    return ""


def _doubt_infinite(thresholds: Tensor) -> str:
    """Say if thresholds could not be sampled because a normal score is infinite."""
    if not bool(thresholds.isnan().any()):
        return ""
    return (
        "The result is undefined (NaN): `num_thresholds` samples thresholds between the lowest and the highest normal "
        "score, and one of these is infinite. Use `num_thresholds=None`, or find the cause of the infinite score."
    )


def _doubt_incomplete(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], needed_fpr: float
) -> str:
    """Say if normal scores that matter are not among those that were kept."""
    lowest_fpr = float(levels.fpr[0])
    if bool(kept.floor == -math.inf) or lowest_fpr >= needed_fpr:
        return ""
    missing = min(1.0, math.log(needed_fpr / lowest_fpr) / math.log(fpr_bounds[1] / fpr_bounds[0]))
    return (
        f"AUPIMO is a lower bound: the normal scores that were kept reach a shared FPR of {lowest_fpr:.3g} only, but "
        f"{needed_fpr:.3g} is needed. A score may be up to {missing:.3g} larger. "
        "Increase `normal_buffer`, or set it to None to keep every normal score."
    )


def _doubt_unresolved(levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float]) -> str:
    """Say if no threshold reaches a shared FPR that the integral needs."""
    lower, upper = fpr_bounds
    lowest = float(levels.fpr[-1])
    if lowest > lower * (1 + 1e-9):
        fault = f"the lowest shared FPR above 0 of any threshold is {lowest:.3g}, the lower bound is {lower:g}"
    elif not bool(((levels.fpr >= lower) & (levels.fpr <= upper)).any()):
        below, above = float(levels.fpr[levels.fpr < lower].amax()), float(levels.fpr[levels.fpr > upper].amin())
        fault = f"no threshold lies between them, tied scores make the shared FPR step from {below:.3g} to {above:.3g}"
    else:
        return ""
    return (
        f"The FPR bounds ({lower:g}, {upper:g}) cannot be resolved: {fault}. There the curve is interpolated. "
        "Use more normal pixels, larger `fpr_bounds`, or scores with fewer ties (no clamping, no half precision)."
    )


def _doubt_samples(samples: _sweep.Samples, fpr_bounds: tuple[float, float]) -> str:
    """Say, where the official package warns or fails, that thresholds are few or miss the FPR bounds."""
    reached = float(samples.fpr[samples.last]), float(samples.fpr[samples.first])
    missed = [
        f"{got:.3g} for {wanted:g}"
        for wanted, got in zip(fpr_bounds, reached, strict=True)
        if abs(got - wanted) > MAX_BOUND_ERROR * wanted
    ]
    faults = [f"the thresholds nearest to the FPR bounds reach {' and '.join(missed)}"] if missed else []
    if samples.num_points < MIN_SAMPLED_POINTS:
        faults.append(f"only {samples.num_points} thresholds lie between the FPR bounds")
    if not faults:
        return ""
    return (
        f"AUPIMO may be inaccurate: {', and '.join(faults)}. "
        "Increase `num_thresholds`, or set it to None for the exact score."
    )
