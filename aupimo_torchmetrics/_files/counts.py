"""The file `counts.safetensors`: what is counted of each image, from which metrics of resampled images follow.

It lies beside `aupimos.safetensors`, which holds the same for AUPIMO. This module deals in plain values.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor

from aupimo_torchmetrics._engine.binning import PixelCounts
from aupimo_torchmetrics._files.results import MAX_REASON, as_bytes, check_texts, checked_settings, read_tensors
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics._settings import MetricName, check_fpr_limit

COUNTS_FILE = "counts.safetensors"
FORMAT = "aupimo-torchmetrics counts 1"
"""Name and version of the format, which the file holds."""
_SETTINGS = ("paths", "groups", "values", "protocols", "fpr_limit")
"""Metadata, each in JSON."""
_OF_IMAGES = {"is_anomalous": torch.bool, "aupimos": torch.float64, "image_scores": torch.float64}
"""Tensors (N,) of all images, and their dtypes."""
_OF_PIXELS = {
    "normal": torch.int32,
    "mask": torch.int32,
    "shares": torch.float64,
    "num_regions": torch.int32,
    "annotated_shares": torch.float64,
    "num_annotated": torch.int32,
    "is_single": torch.bool,
}
"""Tensors of `PixelCounts`, and their dtypes."""


class CountedImages(NamedTuple):
    """Metrics of N images beside AUPIMO, and what was counted of each image."""

    is_anomalous: Tensor
    """(N,) bool, class of each image."""
    aupimos: Tensor
    """(N,) float64, AUPIMO of each image: the counts belong to a result with the same scores and paths."""
    paths: list[str]
    groups: list[str] | None
    """Group of each image; None if images are not grouped."""
    pixels: PixelCounts | None
    """Counts of the pixels; None if no metric of pixels was asked for."""
    image_scores: Tensor | None
    """(N,) float64; None if no metric of images was asked for."""
    values: dict[str, float]
    """Metrics by name."""
    protocols: dict[str, str]
    """How each was computed, which has to be the same for two models."""
    fpr_limit: float


def write_counts(path: str | os.PathLike[str], counted: CountedImages) -> None:
    """Write counts; if that fails, no file is left half written."""
    tensors = {"is_anomalous": counted.is_anomalous, "aupimos": counted.aupimos}
    if counted.pixels is not None:
        tensors |= counted.pixels._asdict()
        for shares, number in (("shares", "num_regions"), ("annotated_shares", "num_annotated")):
            if not bool(tensors[number].any()):
                del tensors[shares]
    if counted.image_scores is not None:
        tensors["image_scores"] = counted.image_scores
    content = as_bytes(tensors, counted, FORMAT, _SETTINGS)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def read_counts(path: str | os.PathLike[str]) -> CountedImages:
    """Read counts.

    Raises:
        ValueError: If the file is not such a file, or what it holds does not fit together.
        OSError: If the file cannot be opened.

    """
    try:
        tensors, metadata = read_tensors(path)
        return _parse(tensors, checked_settings(tensors, metadata, FORMAT, _SETTINGS))
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"Expected {os.fspath(path)} to hold counts of images, but could not read it: "
            f"{type(error).__name__}: {str(error)[:MAX_REASON]}."
        ) from error


def _parse(tensors: dict[str, Tensor], settings: dict[str, Any]) -> CountedImages:
    """Take counts from the tensors and settings of a file; raise if they are not valid."""
    for name, tensor in tensors.items():
        if tensor.dtype != {**_OF_IMAGES, **_OF_PIXELS}[name]:
            raise ValueError(f"{name} is of dtype {tensor.dtype}")
    number = len(tensors["is_anomalous"])
    pixels = _parse_pixels(tensors, number) if "normal" in tensors else None
    if tensors["aupimos"].shape != (number,):
        raise ValueError(f"aupimos cannot be scores of {number} images")
    scores = tensors.get("image_scores")
    if scores is not None and (scores.shape != (number,) or bool(scores.isnan().any())):
        raise ValueError(f"image_scores cannot be scores of {number} images")
    paths, _ = (check_texts(name, settings[name], number) for name in ("paths", "groups"))
    values, protocols = settings["values"], settings["protocols"]
    if paths is None or not values.keys() == protocols.keys() <= {*get_args(MetricName)}:
        raise ValueError("it does not say of what it is")
    check_texts("protocols", list(protocols.values()))
    if not all(isinstance(value, float) and not (value < 0 or value > 1) for value in values.values()):
        raise ValueError("there are values outside of [0, 1]")
    check_fpr_limit(settings["fpr_limit"])
    settings["fpr_limit"] = float(settings["fpr_limit"])
    return CountedImages(tensors["is_anomalous"], tensors["aupimos"], pixels=pixels, image_scores=scores, **settings)


def _parse_pixels(tensors: dict[str, Tensor], number: int) -> PixelCounts:
    """Take counts of the pixels of a number of images; raise if they cannot be such."""
    for shares in ("shares", "annotated_shares"):
        tensors.setdefault(shares, torch.zeros_like(tensors["normal"], dtype=torch.float64))
    pixels = PixelCounts(**{name: tensors[name] for name in _OF_PIXELS})
    num_bins = len(pixels.is_single)
    for name, part in pixels._asdict().items():
        shape = (num_bins,) if name == "is_single" else (number,) if name.startswith("num") else (number, num_bins)
        if part.shape != shape or not bool((part >= 0).all()) or not bool(part.double().isfinite().all()):
            raise ValueError(f"{name} cannot be counts of {number} images")
    return pixels
