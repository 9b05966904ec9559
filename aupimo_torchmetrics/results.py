"""Named results: per-image scores with what explains them, PIMO curves, and the official JSON format.

Conventions: N images, K thresholds. Image classes are 0 for normal and 1 for anomalous. A normal image scores NaN.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics import _result_files
from aupimo_torchmetrics._engine import sweep
from aupimo_torchmetrics._engine.kept import NO_ID
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._result_files import UNKNOWN
from aupimo_torchmetrics._scoring import Images, ScoredImages, draw_curves, score_images
from aupimo_torchmetrics._settings import SharedFPR, check_choice
from aupimo_torchmetrics._version import __version__

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AUPIMOResult", "OperatingPoint", "PIMOResult"]

NUM_SHOWN_WARNINGS = 3
"""Warnings that a printed result shows in full."""


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
        _result_files.write_curves(path, (torch.as_tensor(part).cpu() for part in self), shared_fpr)

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
        return cls(*_result_files.read_curves(path))


class OperatingPoint(NamedTuple):
    """What one threshold does: how much of each defect it finds, and how many normal images it stops."""

    threshold: float
    """Pixels with at least this score are called anomalous, in the unit of the anomaly maps."""
    shared_fpr: float
    """Shared FPR of the threshold; NaN without normal images."""
    per_image_tprs: Tensor
    """(N,) float64, share of the mask pixels of each image that are called anomalous; NaN for a normal image."""
    share_of_normal_images_with_alarm: float
    """Share of the normal images of which any pixel is called anomalous; NaN without normal images."""


@dataclass(frozen=True, eq=False, repr=False)
class AUPIMOResult:
    """Per-image AUPIMO scores and all that is known of them, to explain, quote and reuse them.

    It is frozen; `dataclasses.replace(result, paths=...)` gives one with other names of the images.

    Attributes:
        aupimos: (N,) float64, element i is the score of image i, in [0, 1]; NaN for a normal image.
        fpr_bounds: Lower and upper bound of the shared FPR that the scores are averaged over.
        threshold_bounds: The thresholds at the upper and at the lower FPR bound, in the unit of the anomaly maps, lower
            threshold first. NaN where there is none, or where it is not known.
        num_thresholds: Number of sampled thresholds, None for an exact score; `"unknown"` for scores from a file of the
            official package, which does not hold it.
        num_points: Number of sampled thresholds between the bounds, None for an exact score, or where not known.
        shared_fpr: What the FPRs of the normal images are summed up by, `"mean"` or `"max"`.
        image_classes: (N,) int64, 0 for a normal and 1 for an anomalous image; None if they are not known.
        image_ids: (N,) int64 ids given with the images, -1 for an image without; None if there are none.
        paths: File of each image, or the text that was given as its id, empty for an image without; None if there are
            none.
        version: Version of this library that computed the scores, None if another program did.
        mask_sizes: (N,) int64 mask pixels of each image, 0 for a normal one; None if they are not known.
        warnings: What leaves a score undefined or uncertain; the texts that were warned of when it was computed.

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
    mask_sizes: Tensor | None = None
    warnings: tuple[str, ...] = ()
    _scoring: ScoredImages | None = field(default=None)

    @property
    def mean(self) -> float:
        """Mean score of the anomalous images; NaN without one, or without a normal image."""
        return float(sweep.mean_score(self.aupimos))

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
            nearest to `fpr`. NaN if there is no normal image, or if that threshold is not known.

        Raises:
            ValueError: If `fpr` is outside (0, U], or the result was loaded from a file of scores alone.

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
        if len(scored.levels.scores) == 0 or math.isnan(self.threshold_bounds[0]):
            return math.nan
        return float(sweep.thresholds_at(scored.levels, scored.levels.fpr.new_tensor([fpr])))

    def curves(self) -> PIMOResult:
        """Draw the PIMO curves of all images around the FPR bounds.

        They reach from the shared FPR of one normal pixel to that of the lowest normal score that was kept, ten times
        the upper bound or more. Whole curves are what :class:`~aupimo_torchmetrics.PIMO` is for, which keeps every
        normal score.

        Returns:
            `thresholds` (K,), `shared_fpr` (K,) and `per_image_tprs` (N, K) in the dtype of the scores that were kept,
            at 1,000 thresholds whose shared FPRs lie evenly in log. All NaN without a normal image.

        Raises:
            ValueError: If the result was loaded from a file of scores alone.

        """
        return PIMOResult(*draw_curves(self._known().kept, None, self.shared_fpr)[0])

    def operating_point(self, *, fpr: float | None = None, threshold: float | None = None) -> OperatingPoint:
        """Say what one threshold does, given by itself or by its shared FPR.

        Args:
            fpr: Shared FPR in (0, U] of the threshold, as for :meth:`threshold_at`.
            threshold: The threshold, in the unit of the anomaly maps.

        Returns:
            The threshold, its shared FPR, the share of each image's mask that it finds, and the share of the normal
            images that it stops.

        Raises:
            ValueError: If not exactly one of `fpr` and `threshold` is given, `fpr` is outside (0, U], `threshold` is
                NaN or so low that normal scores above it were not kept, or the result was loaded from a file of scores
                alone.

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
        if threshold is None:
            threshold = self.threshold_at(fpr or 0.0)
        elif math.isnan(threshold):
            raise ValueError("Expected `threshold` to be a number, but got NaN.")
        if threshold < float(scored.kept.floor):
            raise ValueError(
                f"Expected `threshold` to be {float(scored.kept.floor):g} or more, but got {threshold:g}: normal "
                "scores below that were not kept. Construct the metric with `normal_buffer=None` to keep them."
            )
        return OperatingPoint(threshold, *sweep.rates_at(scored.kept, threshold, self.shared_fpr))

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with one row an image.

        Returns:
            Columns `index` (0 to N - 1), `path`, `image_id`, `is_anomalous`, `mask_pixels`, `aupimo`, `tpr_at_lower`
            and `tpr_at_upper`, the share of the mask that is found at the lower and at the upper FPR bound. What is not
            known is missing (`None`, `NA` or NaN).

        Raises:
            ModuleNotFoundError: If pandas is not installed.

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
        num_normal = "" if self.image_classes is None else f", {int((self.image_classes == 0).sum())} normal ones"
        lines = [f"AUPIMO {self.mean:.4f} (chance {self.chance:.2g}): {len(scores)} images with a score{num_normal}"]
        if len(scores):
            quartiles = torch.quantile(scores, scores.new_tensor([0, 0.25, 0.5, 0.75, 1])).tolist()
            lines.append("lowest, quartiles and highest score: " + " ".join(f"{value:.3f}" for value in quartiles))
        lines.append("thresholds at the FPR bounds: {:.6g} and {:.6g}".format(*self.threshold_bounds))
        lines.append(self.protocol)
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Show mean, number of images and settings in one line."""
        return f"<AUPIMOResult {self.mean:.4f} of {len(self.aupimos)} images: {self.protocol}>"

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
            ValueError: If there is a NaN in it, or the result was loaded from a file of scores alone.

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
        """Write the result to two files, from which :meth:`load` gives it back, to the last bit.

        `aupimos.json` holds the scores in the format of the official package, which reads it; not a number is written
        as `NaN`. That format takes no further keys, so what was kept of the images, a few megabytes, and the settings
        go to a second file beside it, `aupimos.safetensors`.

        Args:
            path: File to write, of either name; the other lies beside it. Existing files are replaced when the new
                ones are complete.

        """
        scores = _result_files.Scores(
            aupimos=self.aupimos.cpu(),
            fpr_bounds=self.fpr_bounds,
            threshold_bounds=self.threshold_bounds,
            num_points=self.num_points,
            shared_fpr=self.shared_fpr,
            paths=self.paths,
        )
        known = {"image_classes": self.image_classes, "image_ids": self.image_ids, "mask_sizes": self.mask_sizes}
        details = _result_files.Details(
            scores=scores,
            kept=None if self._scoring is None else self._scoring.kept,
            known={name: each for name, each in known.items() if self._scoring is None and each is not None},
            num_thresholds=self.num_thresholds,
            version=self.version,
            warnings=self.warnings,
        )
        _result_files.write_result(path, details)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AUPIMOResult:
        """Read what :meth:`save` wrote, or scores of the official package.

        Args:
            path: File `aupimos.json` or `aupimos.safetensors`.

        Returns:
            The result as it was saved. Of a JSON file without the other file beside it, as the official package writes
            it, scores, bounds and paths; its shared FPR is not known, and what follows from it raises a ValueError.

        Raises:
            ValueError: If a file is not such a file, or what it holds does not fit together.
            OSError: If the file cannot be opened.

        """
        details_path = _result_files.tensors_path(path)
        if details_path == Path(path):
            return _from_details(_result_files.read_details(path))
        scores = _result_files.read_scores(path)
        if details_path.is_file():
            details = _result_files.read_details(details_path)
            if _result_files.belong_together(scores, details):
                return _from_details(details)
            rank_zero_warn(
                f"AUPIMO scores are read from {os.fspath(path)} without {details_path}, which belongs to other scores. "
                "Remove it, or save both anew.",
                UserWarning,
            )
        return _from_scores(scores)

    def _tprs_at(self, threshold: float) -> Tensor:
        """(N,) float64 share of each mask at or above a threshold, NaN where it is not known."""
        if self._scoring is None or math.isnan(threshold):
            return torch.full_like(self.aupimos, math.nan, dtype=torch.float64)
        return sweep.per_image_tprs(self._scoring.kept, self._scoring.kept.scores.new_tensor([threshold]))[:, 0]

    def _known(self) -> ScoredImages:
        """What was kept of the images, which a result lacks that was read from a file of scores alone."""
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
    """Score distinct images."""
    scored = score_images(images.kept, fpr_bounds, num_thresholds, shared_fpr)
    return _from_scored(
        scored,
        fpr_bounds=fpr_bounds,
        num_thresholds=num_thresholds,
        shared_fpr=shared_fpr,
        paths=images.paths,
        warnings=(*images.warnings, *scored.warnings),
    )


def _from_scored(scored: ScoredImages, **settings: Any) -> AUPIMOResult:
    """Make a result of scored images, and of what these do not hold."""
    kept, scoring = scored.kept, scored.scoring
    is_first_known = scoring.samples is not None and not math.isnan(scoring.threshold_bounds[0])
    return AUPIMOResult(
        aupimos=settings.pop("aupimos", scored.aupimos),
        threshold_bounds=scoring.threshold_bounds,
        num_points=scoring.samples.num_points if scoring.samples is not None and is_first_known else None,
        image_classes=kept.is_anomalous.long(),
        image_ids=kept.image_ids if bool((kept.image_ids != NO_ID).any()) else None,
        mask_sizes=torch.where(kept.is_anomalous, kept.num_pixels, 0),
        _scoring=scored,
        **settings,
    )


def _from_details(details: _result_files.Details) -> AUPIMOResult:
    """Make a result of all that was saved of it."""
    scores, version, warnings = details.scores, details.version, details.warnings
    if details.kept is None:
        return AUPIMOResult(
            **scores._asdict(),
            num_thresholds=details.num_thresholds,
            version=version,
            warnings=warnings,
            image_classes=details.known.get("image_classes"),
            image_ids=details.known.get("image_ids"),
            mask_sizes=details.known.get("mask_sizes"),
        )
    num_thresholds = details.num_thresholds if isinstance(details.num_thresholds, int) else None
    return _from_scored(
        score_images(details.kept, scores.fpr_bounds, num_thresholds, scores.shared_fpr),
        aupimos=scores.aupimos,
        fpr_bounds=scores.fpr_bounds,
        num_thresholds=num_thresholds,
        shared_fpr=scores.shared_fpr,
        paths=scores.paths,
        version=version,
        warnings=warnings,
    )


def load_scores(path: str | os.PathLike[str]) -> AUPIMOResult:
    """Read the per-image scores of a file `aupimos.json` alone, which is all that models are compared by."""
    return _from_scores(_result_files.read_scores(path))


def _from_scores(scores: _result_files.Scores) -> AUPIMOResult:
    """Make a result of scores without anything else."""
    return AUPIMOResult(
        **scores._asdict(),
        num_thresholds=UNKNOWN,
        image_classes=(~scores.aupimos.isnan()).long(),
        version=None,
    )


def _nullable(pd: Any, values: Tensor | None, dtype: str, num_images: int, missing: int | None = None) -> Any:
    """Return a column of pandas of values (N,), with NA where there are none or where they are `missing`."""
    if values is None:
        return pd.Series([pd.NA] * num_images, dtype=dtype)
    column = pd.Series(values.cpu().numpy()).astype(dtype)
    return column if missing is None else column.mask(column == missing)
