"""Data sets with maps on disk, as `aupimo evaluate` takes them, and results, as `aupimo compare` does."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult

BOUNDS = (1e-2, 1e-1)
"""FPR bounds that few small images resolve."""
COMMAND = "evaluate --fpr-bounds 1e-2 1e-1"
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


class Known(NamedTuple):
    """An image of a data set, as it was written."""

    category: str
    path: str
    scores: NDArray[np.float32]
    mask: NDArray[np.uint8]


def draw_scores(random: np.random.Generator, is_defect: NDArray[Any], number: int) -> NDArray[Any]:
    """Draw a map in which a defect scores higher, the more so the higher its number."""
    return (random.normal(size=is_defect.shape) + (0.8 + 0.4 * number) * is_defect).astype(np.float32)


def write_known(
    folder: Path,
    categories: Mapping[str, Mapping[str, int]],
    sizes: Mapping[str, Size],
    draw: Callable[[np.random.Generator, NDArray[Any], int], NDArray[Any]] = draw_scores,
    ignored: int = 0,
) -> tuple[Path, Path, list[Known]]:
    """Write a data set in the layout of MVTec AD and a map for each image; return folders of maps and data, and images.

    `ignored` pixels of each mask are 128.
    """
    random, known = np.random.default_rng(0), []
    for category, types in categories.items():
        for defect, number in [(defect, number) for defect, count in types.items() for number in range(count)]:
            mask = np.zeros(sizes[category], dtype=np.uint8)
            if defect != "good":
                mask[4 : 9 + number, 5:12] = 255
                mask.reshape(-1)[random.choice(mask.size, ignored, replace=False)] = 128
            scores, key = draw(random, mask == 255, number), f"{category}/test/{defect}/{number:03}"
            write_example(folder, key, scores, mask)
            known.append(Known(category, f"{key}.png", scores.astype(np.float32), mask))
    return folder / "maps", folder / "data", known


def write_set(folder: Path, categories: Mapping[str, Mapping[str, int]] = TWO, size: Size = SIZE) -> tuple[Path, Path]:
    """Write a data set of one size; return the folders of maps and of data."""
    return write_known(folder, categories, dict.fromkeys(categories, size))[:2]


def normal_scores(known: list[Known], category: str) -> NDArray[np.float32]:
    """Maps (N, H, W) of the normal images of a category."""
    return np.stack([each.scores for each in known if each.path.startswith(f"{category}/test/good")])


def lowest_scores(normal: NDArray[np.float32], fprs: list[float]) -> list[float]:
    """The lowest normal score that at most each share of the normal pixels reach."""
    shares = {float(score): float((normal >= score).mean()) for score in normal.ravel()}
    return [min(score for score, share in shares.items() if share <= fpr) for fpr in fprs]


def make_data(
    num_normal: int, num_anomalous: int, digits: int, seed: int = 0, size: Size = (14, 17)
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Maps and masks of images, the normal ones first, with an effect of each image, rounded to some digits."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(num_normal + num_anomalous):
        mask = np.zeros(size, dtype=bool)
        if number >= num_normal:
            mask[2 : 4 + number % 7, 3:9] = mask[-1, -2:] = True
        scores = random.normal(size=size) + 0.3 * random.normal() + mask * (1 + random.normal())
        maps.append(scores.round(digits).astype(np.float32))
        masks.append(mask)
    return maps, masks


def write_rows(folder: Path, maps: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]], **columns: Any) -> Path:
    """Write images as rows of a table, with maps, masks of those that are not empty, and other columns."""
    folder.mkdir(parents=True, exist_ok=True)
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
