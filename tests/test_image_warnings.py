"""Maps and masks that can be read, but change scores, come with a warning whose advice is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.evaluate import CategoryScores, evaluate

SIZE = (64, 64)
BOUNDS = (1e-3, 1e-2)
Scores = NDArray[np.float64]


def write(folder: Path, change: Callable[[Scores], NDArray[np.generic]], image_size: tuple[int, int] = SIZE) -> None:
    """Write four normal and four anomalous images with masks and maps."""
    random = np.random.default_rng(0)
    for defect in ("good", "crack"):
        for number in range(4):
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[10:20, 10:20] = 255 if defect == "crack" else 0
            scores = random.normal(size=SIZE) + 2.5 * (mask > 0)
            for name in ("maps", "data/test", "data/ground_truth"):
                (folder / name / defect).mkdir(parents=True, exist_ok=True)
            np.save(folder / f"maps/{defect}/{number}.npy", change(scores))
            Image.new("L", image_size[::-1]).save(folder / f"data/test/{defect}/{number}.png")
            if defect == "crack":
                Image.fromarray(mask).save(folder / f"data/ground_truth/{defect}/{number}_mask.png")


def score(folder: Path, *, resize: bool = True) -> CategoryScores:
    """Score the maps."""
    (scores,) = evaluate(folder / "maps", folder / "data", fpr_bounds=BOUNDS, resize=resize).categories
    return scores


MERGING: dict[str, Callable[[Scores], NDArray[np.generic]]] = {
    "offset": lambda scores: scores + 1e7,
    "integers": lambda scores: (10 * scores + 1e8).astype(np.int64),
    "sigmoid": lambda scores: 1 / (1 + np.exp(-scores - 14)),
}
KEEPING: dict[str, Callable[[Scores], NDArray[np.generic]]] = {
    "plain": lambda scores: scores,
    "small": lambda scores: 1e-30 * scores,
    "small offset": lambda scores: scores + 10,
    "sigmoid": lambda scores: 1 / (1 + np.exp(-scores)),
    "few integers": lambda scores: np.round(scores).astype(np.int64) + 10**6,
    "float32 with ties": lambda scores: (scores + 1e7).astype(np.float32),
}


@pytest.mark.parametrize("kind", MERGING)
def test_scores_that_rounding_makes_equal(tmp_path: Path, kind: str) -> None:
    """Maps of float64 or of integers whose scores are tied in float32 are named, with the numbers."""
    write(tmp_path, MERGING[kind])
    text = score(tmp_path).warnings[0]
    assert text.startswith("8 maps hold scores that float32, in which scores are kept, cannot tell apart: ")
    assert "Please subtract a large offset, save scores before a sigmoid" in text


@pytest.mark.parametrize("kind", KEEPING)
def test_scores_that_stay_different(tmp_path: Path, kind: str) -> None:
    """Maps whose scores differ in float32 as they do in the file need no warning."""
    write(tmp_path, KEEPING[kind])
    assert not [text for text in score(tmp_path).warnings if "cannot tell apart" in text]


def test_masks_smaller_than_images(tmp_path: Path) -> None:
    """Images with and without a mask are then scored in two sizes; either advice leads to one score without warning."""
    write(tmp_path, lambda scores: scores, image_size=(256, 256))
    in_two_sizes = score(tmp_path)
    (text,) = [text for text in in_two_sizes.warnings if "another size" in text]
    assert (
        "4 masks are of another size than their images, such as test/crack/0.png ((256, 256), its mask (64, 64))"
        in text
    )
    unresized = score(tmp_path, resize=False)
    write(tmp_path / "right", lambda scores: scores)
    right = score(tmp_path / "right")
    assert unresized.result.mean == right.result.mean != in_two_sizes.result.mean
    for mask in (tmp_path / "data/ground_truth/crack").iterdir():
        Image.open(mask).resize((256, 256), Image.Resampling.NEAREST).save(mask)
    for scores in (unresized, right, score(tmp_path)):
        assert not [text for text in scores.warnings if "another size" in text]
