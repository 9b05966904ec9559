"""Named results: per-image scores with what explains them, PIMO curves, and the official JSON format.

Conventions: N images, K thresholds. Image classes are 0 for normal and 1 for anomalous. A normal image scores NaN.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics import _sweep
from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics._kept import NO_ID, PixelScores, distinct_images, on_float64_device
from aupimo_torchmetrics._regions import RegionScores, as_pixel_scores
from aupimo_torchmetrics._settings import SHARED_FPRS, check_choice, check_fpr_bounds
from aupimo_torchmetrics._version import __version__

SHARED_FPR_METRICS = {"mean": "mean-per-image-fpr", "max": "max-per-image-fpr"}
"""Names of the shared FPR in files; the official package writes and knows the first."""
MIN_SAMPLED_POINTS = 300
"""Fewer sampled thresholds between the bounds draw a warning, as in the official package."""
MAX_BOUND_ERROR = 0.01
"""Relative distance of a sampled from a wanted FPR bound that draws a warning, as in the official package."""


_CURVE_KEYS = ("threshs", "shared_fpr", "per_image_tprs")
"""Names of thresholds, shared FPR and TPRs in files of the official package."""
UNKNOWN = "unknown"
"""Number of thresholds of scores read from a file that does not say it."""

_Part = TypeVar("_Part")


class PIMOResult(NamedTuple):
    """PIMO curves of N images at K thresholds; tensors, or NumPy arrays if the maps were."""

    thresholds: Tensor
    """(K,) ascending anomaly scores."""
    shared_fpr: Tensor
    """(K,) element k is the mean (or, if asked for, the maximum) over the normal images of the share of their pixels at
    or above `thresholds[k]`."""
    per_image_tprs: Tensor
    """(N, K) element (i, k) is the share of the mask pixels of image i at or above `thresholds[k]`; NaN if normal."""

    def save(self, path: str | os.PathLike[str], shared_fpr: str = "mean") -> None:
        """Write the curves to a `.pt` file, under the names that the official package uses.

        Args:
            path: File to write. An existing file is replaced when the new one is complete.
            shared_fpr: What the FPRs of the normal images were summed up by, to be noted in the file.

        Raises:
            ValueError: If the shared FPR is not known.

        """
        check_choice("shared_fpr", shared_fpr, SHARED_FPRS)
        tensors = (torch.as_tensor(part).cpu() for part in self)
        content = {"shared_fpr_metric": SHARED_FPR_METRICS[shared_fpr], **dict(zip(_CURVE_KEYS, tensors, strict=True))}
        with replacing(path) as unfinished:
            torch.save(content, unfinished)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PIMOResult:
        """Read curves from a `.pt` file of this or of the official package; no code in it is run.

        Args:
            path: File to read.

        Returns:
            The curves, as tensors on the CPU.

        Raises:
            ValueError: If the file is not such a file, or what it holds does not fit together.
            OSError: If the file cannot be opened.

        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            curves = cls(*(content[key] for key in _CURVE_KEYS))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Expected `path` to be a file of PIMO curves, but could not read {os.fspath(path)}: {error!r}."
            ) from error
        if not all(isinstance(part, Tensor) and part.is_floating_point() for part in curves):
            raise ValueError(f"Expected {os.fspath(path)} to hold floating point tensors, but got something else.")
        num_thresholds = (len(curves.thresholds),) if curves.thresholds.ndim == 1 else ()
        if not curves.thresholds.shape == curves.shared_fpr.shape == curves.per_image_tprs.shape[1:] == num_thresholds:
            shapes = ", ".join(str(tuple(part.shape)) for part in curves)
            raise ValueError(f"Expected {os.fspath(path)} to hold curves (K,), (K,) and (N, K), but got {shapes}.")
        return curves


@dataclass(eq=False)
class AUPIMOResult:
    """Per-image AUPIMO scores and what is needed to explain, quote and reuse them.

    Attributes:
        aupimos: (N,) float64, element i is the score of image i, in [0, 1]; NaN for a normal image.
        fpr_bounds: Lower and upper bound of the shared FPR that the scores are averaged over.
        threshold_bounds: The thresholds at the upper and at the lower FPR bound, in the unit of the anomaly maps, lower
            threshold first.
        num_thresholds: Number of sampled thresholds, None for an exact score; `"unknown"` for scores from a file of the
            official package, which does not hold it.
        num_points: Number of sampled thresholds between the bounds, None for an exact score.
        shared_fpr: What the FPRs of the normal images are summed up by, `"mean"` or `"max"`.
        image_classes: (N,) int64, 0 for a normal and 1 for an anomalous image; None if they are not known.
        image_ids: (N,) int64 ids given with the images, -1 for an image without; None if there are none.
        paths: File of each image, None if not known.
        version: Version of this library that computed the scores, None if another program did.

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
    num_thresholds: int | str | None = None
    num_points: int | None = None
    shared_fpr: str = "mean"
    image_classes: Tensor | None = None
    image_ids: Tensor | None = None
    paths: list[str] | None = None
    version: str | None = __version__
    _levels: _sweep.NormalLevels | None = field(default=None, repr=False)
    _scoring: _sweep.Scoring | None = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        """Mean score of the anomalous images; NaN without one, or without a normal image."""
        return float(self.aupimos.nanmean())

    @property
    def chance(self) -> float:
        """Score of a model without any skill, whose TPR is everywhere its FPR: `(U - L) / log(U / L)`.

        With the maximum as shared FPR, constant maps score this, and other maps without skill less.
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

        That package takes no further keys, so what makes the scores quotable, `protocol` and the settings in it, goes
        to a second file beside it: `aupimos.settings.json` for `aupimos.json`.

        Args:
            path: File to write. An existing file is replaced when the new one is complete.

        """
        path = Path(path)
        # The official package refuses thresholds that are equal or undefined, and a number of less than two.
        lower_threshold, upper_threshold = self.threshold_bounds
        has_range = lower_threshold < upper_threshold
        content = {
            "shared_fpr_metric": SHARED_FPR_METRICS[self.shared_fpr],
            "fpr_lower_bound": self.fpr_bounds[0],
            "fpr_upper_bound": self.fpr_bounds[1],
            "num_threshs": self.num_points if (self.num_points or 0) >= 2 else None,
            "thresh_lower_bound": lower_threshold if has_range else None,
            "thresh_upper_bound": upper_threshold if has_range else None,
            "aupimos": self.aupimos.tolist(),
        }
        if self.paths is not None:
            content["paths"] = self.paths
        scores = json.dumps(content, indent=4)
        settings = {
            "protocol": self.protocol,
            "version": self.version,
            "num_thresholds": self.num_thresholds,
            "num_points": self.num_points,
            "threshold_bounds": self.threshold_bounds,
            "scores_sha256": _sha256(scores),
        }
        with replacing(path) as unfinished, replacing(_settings_path(path)) as unfinished_settings:
            unfinished.write_text(scores, encoding="utf-8")
            unfinished_settings.write_text(json.dumps(settings, indent=4), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AUPIMOResult:
        """Read scores from a JSON file of this or of the official package.

        Args:
            path: File to read. Settings are read from the file that :meth:`save` has written beside it, if it is there
                and belongs to these scores.

        Returns:
            A result with scores, bounds, paths and settings. The shared FPR is not in such a file: `threshold_at` and
            `pixel_aupimo` raise.

        Raises:
            ValueError: If the file is not such a JSON file, or what it holds does not fit together.
            OSError: If the file cannot be opened.

        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            result = _parse_scores(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            # Not the `repr`, which holds the whole file if that is not text.
            raise ValueError(
                f"Expected `path` to be a JSON file of AUPIMO scores, but could not read {path}: "
                f"{type(error).__name__}: {error}."
            ) from error
        settings_path = _settings_path(path)
        if not settings_path.is_file():
            return result
        try:
            settings = json.loads(settings_path.read_text(encoding="utf-8"))
            if settings["scores_sha256"] != _sha256(text):  # the scores were written anew by another program
                return result
            lower, upper = (float(bound) for bound in settings["threshold_bounds"])
            return replace(
                result,
                threshold_bounds=(lower, upper),
                num_thresholds=settings["num_thresholds"],
                num_points=settings["num_points"],
                version=settings["version"],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Expected {settings_path} to hold the settings of AUPIMO scores, but could not read it: {error}. "
                "The scores can be read without it: remove it."
            ) from error

    def _known(self, part: _Part | None) -> _Part:
        """Return a part that a result read from a file lacks."""
        if part is None:
            raise ValueError(
                "Expected a result with its shared FPR, but this one was loaded from a file, which holds scores only. "
                "Compute it from anomaly maps with `AUPIMO.result()`."
            )
        return part


def _settings_path(path: Path) -> Path:
    """Where the settings of a file of scores are: `aupimos.settings.json` for `aupimos.json`."""
    return path.with_name(f"{path.stem}.settings.json")


def _sha256(text: str) -> str:
    """Fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _parse_scores(content: Any) -> AUPIMOResult:
    """Make a result of what an official JSON file holds; raise what is wrong with it."""
    aupimos = torch.tensor(content["aupimos"], dtype=torch.float64)
    if aupimos.ndim != 1 or bool(((aupimos < 0) | (aupimos > 1)).any()):
        raise ValueError("`aupimos` are not scores in [0, 1]")
    shared_fprs = {name: shared_fpr for shared_fpr, name in SHARED_FPR_METRICS.items()}
    if content["shared_fpr_metric"] not in shared_fprs:
        raise ValueError(f"`shared_fpr_metric` is {content['shared_fpr_metric']!r}, not {' or '.join(shared_fprs)}")
    paths = content.get("paths")
    if paths is not None and not (isinstance(paths, list) and all(isinstance(each, str) for each in paths)):
        raise TypeError("`paths` are not texts")
    if paths is not None and len(paths) != len(aupimos):
        raise ValueError(f"there are {len(paths)} `paths` for {len(aupimos)} `aupimos`")
    bounds = [content.get(f"thresh_{end}_bound") for end in ("lower", "upper")]
    lower, upper = (math.nan if bound is None else float(bound) for bound in bounds)
    if lower > upper:
        raise ValueError(f"`thresh_lower_bound` {lower:g} is above `thresh_upper_bound` {upper:g}")
    return AUPIMOResult(
        aupimos=aupimos,
        fpr_bounds=check_fpr_bounds((content["fpr_lower_bound"], content["fpr_upper_bound"])),
        threshold_bounds=(lower, upper),
        num_thresholds=UNKNOWN,
        num_points=content.get("num_threshs"),
        shared_fpr=shared_fprs[content["shared_fpr_metric"]],
        image_classes=(~aupimos.isnan()).long(),
        paths=paths,
        version=None,
    )


def aupimo_result(
    kept: PixelScores, fpr_bounds: tuple[float, float], num_thresholds: int | None = None, shared_fpr: str = "mean"
) -> AUPIMOResult:
    """Score the images by what was kept of them; warn of what leaves a score undefined, or else uncertain."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    if num_thresholds is None:
        levels = _sweep.normal_levels(kept, fpr_bounds[1], shared_fpr)
        scoring, doubt = _score_exactly(kept, levels, fpr_bounds, shared_fpr)
    else:
        # The sampled threshold nearest to a bound may lie beyond it, by the bound itself at most. If all do, it is the
        # first of those with the lowest FPR: a mean rises with the next normal score, but a maximum may stay for long.
        down_to_fpr = 1.0 if shared_fpr == "max" else 2 * fpr_bounds[1]
        levels = _sweep.normal_levels(kept, down_to_fpr, shared_fpr)
        scoring, doubt = _score_by_samples(kept, levels, fpr_bounds, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "AUPIMO") or doubt)
    return AUPIMOResult(
        aupimos=_sweep.per_image_scores(kept, scoring.table),
        fpr_bounds=fpr_bounds,
        threshold_bounds=scoring.threshold_bounds,
        num_thresholds=num_thresholds,
        num_points=None if scoring.samples is None else scoring.samples.num_points,
        shared_fpr=shared_fpr,
        image_classes=kept.is_anomalous.long(),
        image_ids=kept.image_ids if bool((kept.image_ids != NO_ID).any()) else None,
        _levels=levels,
        _scoring=scoring,
    )


def pimo_result(kept: PixelScores, num_thresholds: int | None = None, shared_fpr: str = "mean") -> PIMOResult:
    """Draw the PIMO curves of all images, as far as normal scores were kept, in the dtype of the scores."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    levels = _sweep.normal_levels(kept, 1.0, shared_fpr)
    if num_thresholds is None:
        thresholds = _sweep.curve_thresholds(kept, levels, shared_fpr)
    else:
        thresholds = _sweep.sampled_thresholds(kept, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "PIMO") or _doubt_infinite(thresholds))
    fpr, tprs = _sweep.shared_fpr_at(levels, thresholds), _sweep.per_image_tprs(kept, thresholds)
    return PIMOResult(thresholds, fpr.to(thresholds), tprs.to(thresholds))


def aupro_scores(regions: RegionScores, fpr_limit: float) -> Tensor:
    """Score each region (R,) float64 by AUPRO; warn of what leaves the scores undefined."""
    num_regions = len(regions.region_sizes)
    if num_regions == 0 or len(regions.normal) == 0:
        missing = "region in the masks" if num_regions == 0 else "pixel outside of the masks"
        _warn(f"AUPRO is undefined (NaN): there is no {missing}. Add images that have one.")
        return regions.normal.new_full((max(1, num_regions),), math.nan, dtype=torch.float64)
    kept = on_float64_device(as_pixel_scores(regions))
    levels = _sweep.normal_levels(kept, fpr_limit, "mean")
    return _sweep.per_image_scores(kept, _sweep.area_table(levels, fpr_limit))[1:].to(regions.normal.device)


def _score_exactly(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: str
) -> tuple[_sweep.Scoring, str]:
    """Score by the closed form, and say what is uncertain about it."""
    if len(levels.scores) == 0:
        return _sweep.undefined_scoring(levels), ""
    incomplete = _doubt_incomplete(kept, levels, fpr_bounds, needed_fpr=fpr_bounds[1])
    scoring = _sweep.exact_scoring(levels, fpr_bounds, is_incomplete=bool(incomplete))
    return scoring, incomplete or _doubt_unresolved(levels, fpr_bounds, shared_fpr)


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


def _doubt_unresolved(levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: str) -> str:
    """Say if no threshold reaches a shared FPR that the integral needs."""
    lower, upper = fpr_bounds
    cause, remedy = "tied scores make", "more normal pixels"
    if shared_fpr == "max":  # more images would not help: a single one decides
        cause, remedy = "tied scores or small images make", f"normal images of {math.ceil(1 / lower)} pixels or more"
    lowest = float(levels.fpr[-1])
    if lowest > lower * (1 + 1e-9):
        fault = f"the lowest shared FPR above 0 of any threshold is {lowest:.3g}, the lower bound is {lower:g}"
    elif not bool(((levels.fpr >= lower) & (levels.fpr <= upper)).any()):
        below, above = float(levels.fpr[levels.fpr < lower].amax()), float(levels.fpr[levels.fpr > upper].amin())
        fault = f"no threshold lies between them, {cause} the shared FPR step from {below:.3g} to {above:.3g}"
    else:
        return ""
    return (
        f"The FPR bounds ({lower:g}, {upper:g}) cannot be resolved: {fault}. There the curve is interpolated. "
        f"Use {remedy}, larger `fpr_bounds`, or scores with fewer ties (no clamping, no half precision)."
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
