"""Regions of an annotation, as MVTec LOCO has them, and how much of each has to be found.

Each value but 0 in a mask file is a region of its own, and regions may overlap. The nearest `defects_config.json` in a
folder above the mask says for each value (`pixel_value`) how much of the region has to be found: `saturation_threshold`
pixels, or with `relative_saturation` that share of the region.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.limits import refusing
from aupimo_torchmetrics.evaluate.bad_files import naming
from aupimo_torchmetrics.evaluate.masks import read_pixels

__all__ = ["read_regions"]

CONFIG = "defects_config.json"


def read_regions(paths: Sequence[Path], ignored: Tensor | None) -> list[tuple[Tensor, int]]:
    """Read the regions in the mask files of an image, without the pixels (H, W) that do not count.

    Returns:
        Each region (H, W) bool, none of them empty, with its saturation area in pixels.

    Raises:
        BadFileError: If a mask cannot be read or has colours, there is no `defects_config.json` above it, or that does
            not know one of its values.

    """
    regions = []
    for path in paths:
        with naming(str(path)), refusing():
            values, saturations = read_pixels(path), _saturations(path)
            if values.ndim != 2:
                raise BadDataError(f"colours; {CONFIG} knows numbers only")
            counting = values if ignored is None else values * ~ignored.numpy()
            for value in np.unique(counting[counting != 0]).tolist():
                if value not in saturations:
                    raise BadDataError(f"the value {value:g}, which {CONFIG} does not know; it has {[*saturations]}")
                region = torch.from_numpy(counting == value)
                threshold, is_relative = saturations[value]
                area = int(threshold * int(region.sum()) if is_relative else threshold)
                regions.append((region, max(1, area)))
    return regions


def _saturations(mask: Path) -> Mapping[float, tuple[float, bool]]:
    """Saturation threshold by value, and whether it is a share of the region, of the nearest file above a mask."""
    file = next((folder / CONFIG for folder in mask.absolute().parents if (folder / CONFIG).is_file()), None)
    if file is None:
        raise BadDataError(f"no {CONFIG} in a folder above it, which says how much of a region has to be found")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        found = {
            float(row["pixel_value"]): (float(row["saturation_threshold"]), bool(row["relative_saturation"]))
            for row in rows
        }
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadDataError(f"{file} is no list of pixel_value, saturation_threshold, relative_saturation") from error
    if not all(0 < threshold < math.inf and (threshold <= 1 or not share) for threshold, share in found.values()):
        raise BadDataError(f"{file} has a saturation_threshold that is not above 0, or a share above 1")
    return found
