"""Data sets with maps on disk, as `aupimo evaluate` takes them, and results, as `aupimo compare` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult

SIZE = (20, 24)
TWO = {"bottle": {"good": 3, "crack": 2, "hole": 2}, "screw": {"good": 3, "scratch": 2}}
"""Two categories, and how many images there are of each type of defect, or of `good`."""


Size = tuple[int, int]
Write = Callable[[Path], Any]
"""Writes a file."""


def tiff(values: Any, **options: Any) -> Write:
    """Write a TIFF file of tifffile."""
    return lambda path: tifffile.imwrite(path, values, **options)


def array(values: Any) -> Write:
    """Write a NumPy file."""
    return lambda path: np.save(path, values)


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, scores: NDArray[Any]) -> None:
    """Write a map in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, scores)
    elif path.suffix == ".tiff":
        tifffile.imwrite(path, scores)
    else:
        Image.fromarray(scores).save(path)


def write_example(
    folder: Path, key: str, scores: NDArray[Any], mask: NDArray[Any], *, suffix: str = ".tiff", size: Size | None = None
) -> None:
    """Write a map to `maps`, and to `data` its mask if it is not empty, and an image as large or of another size."""
    write_map(folder / f"maps/{key}{suffix}", scores)
    write_image(folder / f"data/{key}.png", np.full((*(size or mask.shape), 3), 90, dtype=np.uint8))
    if mask.any():
        write_image(folder / f"data/{key.replace('test/', 'ground_truth/')}_mask.png", mask)


def write_set(
    folder: Path,
    categories: Mapping[str, Mapping[str, int]] = TWO,
    suffix: str = ".tiff",
    size: Size = SIZE,
) -> tuple[Path, Path]:
    """Write a data set in the layout of MVTec AD and a map for each image; return the folders of maps and of data."""
    random = np.random.default_rng(0)
    for category, types in categories.items():
        for defect, number in [(defect, number) for defect, count in types.items() for number in range(count)]:
            mask = np.zeros(size, dtype=np.uint8)
            if defect != "good":
                mask[4 : 9 + number, 5:12] = 255
            scores = random.normal(size=size) + (0.8 + 0.4 * number) * (mask > 0)
            write_example(
                folder, f"{category}/test/{defect}/{number:03}", scores.astype(np.float32), mask, suffix=suffix
            )
    return folder / "maps", folder / "data"


def write_rows(folder: Path, maps: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]], **columns: Any) -> Path:
    """Write images as rows of a table, with maps, masks of those that are not empty, and other columns."""
    folder.mkdir(exist_ok=True)
    numbers = range(len(maps))
    for number, scores, mask in zip(numbers, maps, masks, strict=True):
        write_map(folder / f"{number}.tiff", scores)
        if mask.any():
            write_image(folder / f"{number}.png", mask)
    rows = {
        "image": [f"{number}.jpg" for number in numbers],
        "mask": [f"{number}.png" if masks[number].any() else "" for number in numbers],
        "map": [f"{number}.tiff" for number in numbers],
    }
    pd.DataFrame({**rows, **columns}).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def write_result(
    path: Path, scores: Sequence[float], fpr_bounds: tuple[float, float] = (1e-5, 1e-4), **facts: Any
) -> Path:
    """Write scores to a result file in a folder that is made if need be, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    AUPIMOResult(torch.tensor(scores, dtype=torch.float64), fpr_bounds, (0.0, 1.0), **facts).save(path)
    return path


def strict_json(text: str) -> Any:
    """Read JSON that holds no NaN and no infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
