"""Maps and masks that can be read, but change scores or are doubtful as a whole, are scored with a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import write_example
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.evaluate import CategoryScores, evaluate

SIZE = (64, 64)
BOUNDS = (1e-3, 1e-2)
Scores = NDArray[np.float64]
Mask = NDArray[np.uint8]
Change = Callable[[Scores], NDArray[np.generic]]


def unchanged(scores: Scores) -> Scores:
    """Scores as they are."""
    return scores


def write(
    folder: Path,
    change: Change = unchanged,
    *,
    image_size: tuple[int, int] = SIZE,
    change_mask: Callable[[int, Mask], Mask] = lambda _, mask: mask,
    num_images: Sequence[int] = (4, 4),
    category: str = ".",
) -> None:
    """Write normal and anomalous images with masks and maps."""
    random = np.random.default_rng(0)
    for defect, number_of in zip(("good", "crack"), num_images, strict=True):
        for number in range(number_of):
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[10:20, 10:20] = 255 * (defect == "crack")
            scores = random.normal(size=SIZE) + 2.5 * (mask > 0)
            mask = change_mask(number, mask) if defect == "crack" else mask
            write_example(
                folder, f"{category}/test/{defect}/{number}", change(scores), mask, suffix=".npy", size=image_size
            )


def score(folder: Path, **settings: Any) -> CategoryScores:
    """Score the maps of the only category."""
    (scores,) = evaluate(folder / "maps", folder / "data", fpr_bounds=BOUNDS, **settings).categories
    return scores


def warned(scores: CategoryScores, part: str) -> list[str]:
    """Warnings that hold a text."""
    return [text for text in scores.warnings if part in text]


MERGED: dict[str, tuple[Change, bool]] = {
    "offset": (lambda scores: scores + 1e7, True),
    "integers": (lambda scores: (10 * scores + 1e8).astype(np.int64), True),
    "sigmoid": (lambda scores: 1 / (1 + np.exp(-scores - 14)), True),
    "plain": (unchanged, False),
    "float32 with ties": (lambda scores: (scores + 1e7).astype(np.float32), False),
}


@pytest.mark.parametrize("kind", MERGED)
def test_scores_that_rounding_makes_equal(tmp_path: Path, kind: str) -> None:
    """Maps of float64 or of integers whose scores are tied in float32, and not in their files, are named."""
    change, is_told = MERGED[kind]
    write(tmp_path, change)
    texts = warned(score(tmp_path), "cannot tell apart")
    assert len(texts) == is_told
    assert all(text.startswith("8 maps, such as test/crack/0.npy, hold scores that float32") for text in texts)


def test_masks_smaller_than_images(tmp_path: Path) -> None:
    """Images with and without a mask are then scored in two sizes; either advice leads to one score without warning."""
    write(tmp_path, image_size=(256, 256))
    in_two_sizes = score(tmp_path)
    (text,) = warned(in_two_sizes, "another size")
    assert text.startswith("Masks, such as that of test/crack/0.png, are of another size than their images")
    unresized = score(tmp_path, resize=False)
    write(tmp_path / "right")
    right = score(tmp_path / "right")
    assert unresized.result.mean == right.result.mean != in_two_sizes.result.mean
    for mask in (tmp_path / "data/ground_truth/crack").iterdir():
        Image.open(mask).resize((256, 256), Image.Resampling.NEAREST).save(mask)
    assert not [text for scores in (unresized, right, score(tmp_path)) for text in warned(scores, "another size")]


def scaled(scores: Scores, offset: float = 0.0) -> Scores:
    """Scale from the lowest and highest score to 0 and 1."""
    return (scores - scores.min()) / (scores.max() - scores.min() + offset)


RANGES: dict[str, tuple[Change, str]] = {
    "as many do it": (lambda scores: scaled(scores, 1e-8), "from 0 to 1:"),
    "from -1": (lambda scores: 2 * scaled(scores) - 1, "from -1 to 1:"),
    "8 bits": (lambda scores: np.round(255 * scaled(scores)).astype(np.uint8), "from 0 to 255:"),
    "sigmoid": (lambda scores: 1 / (1 + np.exp(-scores)), ""),
    "clamped at one end": (lambda scores: scores.clip(0, None), ""),
    "constant": (lambda scores: 0 * scores, ""),
}
"""Maps, and what is said of their range."""


@pytest.mark.parametrize("kind", RANGES)
def test_maps_of_one_range(tmp_path: Path, kind: str) -> None:
    """If each of several maps has the same lowest and the same highest score, a warning says so."""
    change, ends = RANGES[kind]
    write(tmp_path, lambda scores: change(scores[:32, :32]))
    texts = warned(score(tmp_path), "reach exactly")
    assert len(texts) == bool(ends)
    assert all(text.startswith(f"All 8 maps reach exactly {ends}") for text in texts)


def test_doubts_are_those_of_a_category(tmp_path: Path) -> None:
    """Maps scaled one by one, and inverted masks, are named in their category only; one map alone says nothing."""
    write(tmp_path, category="plain")
    write(tmp_path, scaled, category="scaled")
    write(tmp_path, change_mask=lambda _, mask: 255 - mask, category="inverted")
    write(tmp_path, scaled, num_images=(0, 1), category="single")
    categories = evaluate(tmp_path / "maps", tmp_path / "data", fpr_bounds=BOUNDS).categories
    doubts = {each.category: [*warned(each, "reach exactly"), *warned(each, "more than half")] for each in categories}
    assert {name: len(texts) for name, texts in doubts.items()} == {"inverted": 1, "plain": 0, "scaled": 1, "single": 0}


def half(num_rows: int) -> Mask:
    """Make a mask of some of 64 rows."""
    return np.repeat(np.uint8([255, 0]), [num_rows, 64 - num_rows])[:, None] * np.ones(SIZE, np.uint8)


INVERTED: dict[str, tuple[Callable[[int, Mask], Mask], bool]] = {
    "inverted": (lambda _, mask: 255 - mask, True),
    "more than half": (lambda *_: half(33), True),
    "half": (lambda *_: half(32), False),
    "inverted but one": (lambda number, mask: 255 - mask if number else mask, False),
}


@pytest.mark.parametrize("kind", INVERTED)
def test_masks_that_cover_most_of_their_images(tmp_path: Path, kind: str) -> None:
    """If each mask of a defect covers more than half of its image, a warning says so; the score is as it is."""
    change, is_doubtful = INVERTED[kind]
    write(tmp_path, change_mask=change)
    scores = score(tmp_path)
    assert len(warned(scores, "more than half")) == is_doubtful
    assert kind != "inverted" or 0 <= scores.result.mean < 0.1


def test_pixels_that_do_not_count_are_no_part_of_an_image(tmp_path: Path) -> None:
    """A mask covers most of an image if it covers most of the pixels that count."""
    labelled = np.where(half(40) > 0, np.uint8(7), half(64) * (np.arange(64) < 40))
    write(tmp_path, change_mask=lambda *_: labelled)
    assert warned(score(tmp_path, ignore_index=7), "more than half of its image")
