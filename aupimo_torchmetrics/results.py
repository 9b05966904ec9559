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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from aupimo_torchmetrics._engine import sweep as _sweep
from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics._settings import SharedFPR, check_choice, check_fpr_bounds
from aupimo_torchmetrics._untrusted import load_tensors
from aupimo_torchmetrics._version import __version__

SHARED_FPR_METRICS: dict[SharedFPR, str] = {"mean": "mean-per-image-fpr", "max": "max-per-image-fpr"}
"""Names of the shared FPR in files; the official package writes and knows the first."""


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

    def save(self, path: str | os.PathLike[str], shared_fpr: SharedFPR = "mean") -> None:
        """Write the curves to a `.pt` file, under the names that the official package uses.

        Args:
            path: File to write. An existing file is replaced when the new one is complete.
            shared_fpr: What the FPRs of the normal images were summed up by, to be noted in the file.

        Raises:
            ValueError: If the shared FPR is not known.

        """
        check_choice("shared_fpr", shared_fpr, SharedFPR)
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
            content = load_tensors(path)
            curves = cls(*(content[key] for key in _CURVE_KEYS))
        except OSError:
            raise
        except Exception as error:  # of hostile files torch raises all kinds of errors
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
    shared_fpr: SharedFPR = "mean"
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
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
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
                num_thresholds=_checked_setting(settings, "num_thresholds"),
                num_points=_checked_setting(settings, "num_points"),
                version=_checked_setting(settings, "version"),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
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


_SETTING_TYPES = {
    "num_threshs": (int, type(None)),
    "num_thresholds": (int, str, type(None)),
    "num_points": (int, type(None)),
    "version": (str, type(None)),
}
"""What is read of files by these names may be; a text is an unknown number of thresholds."""


def _checked_setting(content: dict[str, Any], name: str) -> Any:
    """Return a setting read from a file, or raise if it is not what it may be."""
    if type(content[name]) not in _SETTING_TYPES[name]:
        raise TypeError(f"`{name}` is of type {type(content[name]).__name__}")
    return content[name]


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
        num_points=_checked_setting({"num_threshs": None, **content}, "num_threshs"),
        shared_fpr=shared_fprs[content["shared_fpr_metric"]],
        image_classes=(~aupimos.isnan()).long(),
        paths=paths,
        version=None,
    )
