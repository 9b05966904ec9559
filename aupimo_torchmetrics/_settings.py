"""Check the settings that the metrics and the functions share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from aupimo_torchmetrics._errors import SettingError

DEFAULT_FPR_BOUNDS = (1e-5, 1e-4)
"""Bounds of the shared FPR in the paper: from 1 in 100,000 to 1 in 10,000 normal pixels are called anomalous."""

DEFAULT_FPR_LIMIT = 0.3
"""Upper limit of the FPR of AUPRO in the evaluation of MVTec AD."""

Reduction: TypeAlias = Literal["mean", "none"]
"""The mean over the anomalous images (or regions), or one score for each."""

SharedFPR: TypeAlias = Literal["mean", "max"]
"""How one shared FPR is made of the FPRs of the normal images: their mean, or their maximum, which is stricter."""

MetricName: TypeAlias = Literal[
    "aupimo", "auroc", "aupr", "f1_max", "aupro", "au_spro", "image_auroc", "image_aupr", "image_f1_max"
]
"""Metrics that can be computed from saved maps: of anomalous images, of all pixels, and of images by one score each."""

Layout: TypeAlias = Literal[
    "auto",
    "mvtec",
    "mvtec_ad_2",
    "mvtec_3d",
    "loco",
    "visa",
    "btad",
    "ksdd2",
    "real_iad",
    "bmad",
    "images_and_masks",
    "anomalib_folder",
    "folder",
]
"""Layouts of data sets on disk; `"auto"` finds out which of the others it is."""

RowsBy: TypeAlias = Literal["category", "defect"]
"""Rows of the table of an evaluation: categories, or types of defects below their categories."""

PairedTestName: TypeAlias = Literal["wilcoxon", "ttest"]
"""Paired tests of the scores of images, for the thresholds that these images have."""

ComparisonTest: TypeAlias = Literal["resampled", "wilcoxon", "ttest"]
"""The same, and the difference on resampled images, whose thresholds vary with them."""

Alternative: TypeAlias = Literal["greater", "less", "two-sided"]
"""Alternative hypothesis of a paired test: the first model is better, worse, or different."""

MatchedBy: TypeAlias = Literal["path", "image id", "position"]
"""What says which scores of several models are of the same image."""

Outliers: TypeAlias = Literal["none", "low", "high", "both"]
"""Which outliers of a distribution to list."""

PictureFormat: TypeAlias = Literal["png", "svg", "pdf"]
"""Formats of the pictures that are written."""

Texture: TypeAlias = Literal["brick", "grass", "gravel"]
"""Photographs that come with every installation of scikit-image."""

MAX_NUM_BINS = 2**24
"""Most bins of a histogram of scores, 128 MiB for each state: as many as float32 numbers from 1 to 4."""

TIE_TOLERANCE = 1e-3
"""The Wilcoxon test treats scores that differ by at most this as equal, as in the official package."""


_ANOMALIB_SETTINGS = ("return_average", "force", "strict", "fields", "prefix")
"""Settings that the metric of anomalib has, and this one has not."""


def check_no_anomalib_settings(settings: Mapping[str, Any]) -> None:
    """Raise if one of the settings is known from anomalib's metric, with what there is here."""
    for name in filter(settings.__contains__, _ANOMALIB_SETTINGS):
        raise ValueError(
            f"Unexpected keyword arguments: `{name}` is a setting of anomalib's metric, which is "
            "`aupimo_torchmetrics.anomalib.AUPIMO` here. This one takes maps and masks by `update`, is named where it "
            "is logged, answers every score, uncertain ones with a warning, and has `reduction` in place of "
            "`return_average`; `metric.result()` has the scores of all images and their mean."
        )


def check_fpr_bounds(fpr_bounds: Sequence[float]) -> tuple[float, float]:
    """Return the bounds as a pair of floats; raise unless 0 < lower < upper <= 1."""
    if not isinstance(fpr_bounds, Sequence) or isinstance(fpr_bounds, str):
        raise TypeError(
            f"Expected `fpr_bounds` to be a pair of numbers (lower, upper), but got {type(fpr_bounds).__name__}."
        )
    if len(fpr_bounds) != 2:
        raise SettingError(f"Expected `fpr_bounds` to be a pair (lower, upper), but got {len(fpr_bounds)} values.")
    for bound in fpr_bounds:
        if not isinstance(bound, Real) or isinstance(bound, bool):
            raise TypeError(f"Expected `fpr_bounds` to hold two numbers, but got a {type(bound).__name__}.")
    lower, upper = map(float, fpr_bounds)
    if not (0 < lower < upper <= 1 and math.isfinite(upper / lower)):
        order = "; they are in reverse order" if lower > upper else ""
        raise SettingError(
            f"Expected `fpr_bounds` to satisfy 0 < lower < upper <= 1, but got ({lower:g}, {upper:g}){order}. "
            f"The paper uses {DEFAULT_FPR_BOUNDS}."
        )
    return lower, upper


def check_fpr_limit(fpr_limit: float, name: str = "fpr_limit") -> None:
    """Raise unless the limit is a number in (0, 1]."""
    if not isinstance(fpr_limit, Real) or isinstance(fpr_limit, bool):
        raise TypeError(f"Expected `{name}` to be a number, but got {type(fpr_limit).__name__}.")
    if not 0 < fpr_limit <= 1:
        raise SettingError(
            f"Expected `{name}` to be in (0, 1], but got {fpr_limit:g}. MVTec AD uses {DEFAULT_FPR_LIMIT}."
        )


def check_image_score(image_score: str) -> float:
    """Return the share of the highest pixels whose mean is the score of an image: 0, for the highest alone, to 1.

    Raises:
        SettingError: If it is none of `"max"`, `"mean"` and a share such as `"top_1%"`.

    """
    found = re.fullmatch(r"top_(\d+(?:\.\d+)?)%", str(image_score))
    share = {"max": 0.0, "mean": 1.0}.get(image_score, float(found[1]) / 100 if found else math.nan)
    if not 0 <= share <= 1 or (found and share == 0):
        raise SettingError(
            f"Expected `image_score` to be 'max', 'mean' or a share as 'top_1%', but got {image_score!r}."
        )
    return share


def _check_integer(name: str, value: int | None, lowest: int, limits: str, remedy: str) -> int | None:
    """Return a setting as an `int`; raise unless it is None or an integer from the lowest one to 2**63 - 1."""
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be None or an integer, but got {type(value).__name__}. {remedy}")
    if not lowest <= value < 2**63:
        raise SettingError(f"Expected `{name}` to be None or {limits}, but got {value}. {remedy}")
    return int(value)


def check_num_thresholds(num_thresholds: int | None) -> int | None:
    """Return the number as an `int`; raise unless it is None or an integer of at least 2."""
    remedy = "None gives the exact score, 300000 the protocol of the paper."
    return _check_integer("num_thresholds", num_thresholds, 2, "at least 2", remedy)


def check_num_bins(num_bins: int | None) -> int | None:
    """Return the number as an `int`; raise unless it is None or a power of two from 2 to 2**24."""
    limits = "a power of two from 2 to 2**24"
    remedy = "None gives the exact value, 2**18 bins are enough for most scores."
    number = _check_integer("num_bins", num_bins, 2, limits, remedy)
    if number is not None and (number > MAX_NUM_BINS or number.bit_count() != 1):
        raise SettingError(f"Expected `num_bins` to be None or {limits}, but got {number}. {remedy}")
    return number


def check_normal_buffer(normal_buffer: int | None) -> int | None:
    """Return the number as an `int`; raise unless it is None or an integer from 1 to 2**63 - 1."""
    remedy = "None keeps every normal score."
    return _check_integer("normal_buffer", normal_buffer, 1, "from 1 to 2**63 - 1", remedy)


def check_ignore_index(ignore_index: int | None) -> int | None:
    """Return the value as an `int`; raise unless it is None or a 64-bit integer other than 0 and 1."""
    limits = "an integer of 64 bits other than 0 and 1"
    remedy = "In the target 0 is normal and 1 anomalous; the pixels that do not count have another value, often 255."
    number = _check_integer("ignore_index", ignore_index, -(2**63), limits, remedy)
    if number in {0, 1}:
        raise ValueError(f"Expected `ignore_index` to be None or {limits}, but got {number}. {remedy}")
    return number


def check_choice(name: str, value: str, choice: Any) -> None:
    """Raise unless the value of the parameter `name` is one of those that the `Literal` type `choice` lists."""
    choices = get_args(choice)
    if value not in choices:
        raise SettingError(f"Expected `{name}` to be {' or '.join(map(repr, choices))}, but got {value!r}.")
