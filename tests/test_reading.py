"""A map and its mask are read as one pair: of one size, in agreement with each other and with the table or folder."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from aupimo_torchmetrics.evaluate import BadFilesError, CategoryScores, evaluate
from aupimo_torchmetrics.evaluate.photographs import read_image
from aupimo_torchmetrics.evaluate.reading import resized

INF, MAX = math.inf, torch.finfo(torch.float32).max
Size = tuple[int, int]
SIZE = (6, 4)


class Row(NamedTuple):
    """A row of a table, with files of these sizes."""

    mask: int | None = None
    """Value of the four pixels of the defect in the file of the mask, which is 0 elsewhere; None without a file."""
    map_size: Size = SIZE
    size: Size | None = None
    """Of the image; None if there is no file."""
    orientation: int = 1
    """Of the image, by EXIF."""
    cells: Mapping[str, str] = {}
    """Other columns."""


def write_rows(folder: Path, rows: Sequence[Row]) -> pd.DataFrame:
    """Write maps, masks and images, and return the table of them; the images are `i/0.jpg`, `i/1.jpg`, and so on."""
    random, table = np.random.default_rng(0), []
    for kind in "imk":
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        files = {"image": folder / f"i/{number}.jpg", "map": folder / f"m/{number}.npy"}
        np.save(files["map"], random.normal(size=row.map_size))
        if row.mask is not None:
            files["mask"] = folder / f"k/{number}.png"
            pixels = np.zeros(SIZE, np.uint8)
            pixels[1:3, 1:3] = row.mask
            Image.fromarray(pixels).save(files["mask"])
        if row.size is not None:
            exif = Image.Exif()
            exif[274] = row.orientation
            Image.new("L", row.size[::-1]).save(files["image"], exif=exif)
        table.append({"mask": None, "name": str(number), **files, **row.cells})
    return pd.DataFrame(table)


def score(folder: Path, *rows: Row, **settings: Any) -> CategoryScores:
    """Score rows of one category; there is always a normal image and an anomalous one besides, the last two."""
    both = [Row(cells={"label": "0"}), Row(255)]
    (scores,) = evaluate(table=write_rows(folder, [*rows, *both]), fpr_bounds=(0.1, 0.9), **settings).categories
    return scores


def refused(folder: Path, *rows: Row, **settings: Any) -> dict[int, str]:
    """Return the reasons for which rows are refused, by number."""
    try:
        score(folder, *rows, **settings)
    except BadFilesError as error:
        return {int(re.findall(r"\d+", path)[-1]): reason for path, reason in error.bad_files}
    return {}


def test_masks_of_a_category_agree(tmp_path: Path) -> None:
    """One value has to be the defect in all masks of a category; a threshold, or a label to ignore, settles it."""
    rows = [Row(1, cells={"category": "a"}), Row(1, cells={"category": "b"}), Row(255, cells={"category": "a"})]
    table = write_rows(tmp_path, rows)
    assert len(evaluate(table=table.iloc[[1, 2]]).categories) == 2
    assert [each.num_anomalous for each in evaluate(table=table, mask_threshold=0).categories] == [2, 1]
    message = r"2\.png: its defect is 255, but that of .*0\.png is 1; `mask_threshold`"
    for ignore_index in (None, 7):
        with pytest.raises(BadFilesError, match=message):
            evaluate(table=table, ignore_index=ignore_index)
    first, _ = evaluate(table=table, ignore_index=255).categories
    assert (first.num_anomalous, first.num_normal, first.images[1]["num_pixels"]) == (1, 1, 20)
    with pytest.raises(BadFilesError, match=r"an image with a defect, but its mask .* is empty by `mask_threshold`"):
        evaluate(table=table.assign(label="1"), ignore_index=255)


EMPTY, FULL, ABSENT = 0, 255, None
NORMAL, ANOMALOUS = "normal", "anomalous"
EMPTY_MASK, MASK_OF_NORMAL = "its mask .*is empty$", "a normal image, but 4 pixels of its mask"
NO_MASK = "there is no mask"

SAID: list[tuple[dict[str, str], int | None, str]] = [
    ({}, ABSENT, NORMAL),
    ({}, EMPTY, NORMAL),
    ({}, FULL, ANOMALOUS),
    ({"defect": "OK"}, FULL, MASK_OF_NORMAL),
    ({"defect": "normal/bright"}, EMPTY, NORMAL),
    *(({"defect": "uneven"}, mask, answer) for mask, answer in ((ABSENT, NO_MASK), (FULL, ANOMALOUS))),
    *(({"defect": defect}, EMPTY, EMPTY_MASK) for defect in ("uneven", "not good", "1")),
    ({"label": "0"}, ABSENT, NORMAL),
    ({"label": "normal"}, FULL, MASK_OF_NORMAL),
    ({"label": "1"}, ABSENT, NO_MASK),
    ({"label": "0", "defect": "uneven"}, EMPTY, NORMAL),
    ({"label": "1", "defect": "good"}, EMPTY, EMPTY_MASK),
    *(({"label": "mask", "defect": "part1"}, mask, answer) for mask, answer in ((ABSENT, NO_MASK), (EMPTY, NORMAL))),
    ({"label": "mask", "defect": "good"}, FULL, ANOMALOUS),
    ({"label": "", "defect": "uneven"}, EMPTY, EMPTY_MASK),
]
"""What a row says, its mask, and how it is counted, or why it is refused."""


@pytest.mark.parametrize(("cells", "mask", "answer"), SAID)
def test_what_a_row_says_and_its_mask(tmp_path: Path, cells: dict[str, str], mask: int | None, answer: str) -> None:
    """A row whose label, or else whose defect, contradicts its mask is refused; the label is asked first."""
    row = Row(mask, cells=cells)
    if answer in {NORMAL, ANOMALOUS}:
        scores = score(tmp_path, row)
        counts = (2, 1) if answer == NORMAL else (1, 2)
        assert (scores.images[0]["path"], scores.num_normal, scores.num_anomalous) == ("0", *counts)
    else:
        ((number, reason),) = refused(tmp_path, row).items()
        assert number == 0
        assert re.search(answer, reason)


def test_empty_by_a_rule(tmp_path: Path) -> None:
    """A mask that only a threshold makes empty is refused, with the threshold."""
    reasons = refused(tmp_path, Row(1, cells={"defect": "uneven"}), mask_threshold=127)
    assert re.search(r"an image with a defect, but its mask .*0\.png is empty by `mask_threshold` and `", reasons[0])


TURNED = [(6, (4, 6), (4, 6)), (6, (2, 3), (4, 6)), (6, (6, 4), (6, 4)), (6, (3, 3), (6, 4)), (1, (3, 3), (6, 4))]
"""Orientation by EXIF, size of the map, and that of the mask."""


@pytest.mark.parametrize(("orientation", "map_size", "size"), TURNED)
def test_normal_images_that_exif_turns(tmp_path: Path, orientation: int, map_size: Size, size: Size) -> None:
    """The mask of a normal image is as its map is: turned if the map is, and only if EXIF turns the image."""
    scores = score(tmp_path, Row(None, map_size, SIZE, orientation))
    assert scores.images[0]["num_pixels"] == SIZE[0] * SIZE[1]
    assert scores.resized == ({(map_size, size)} if map_size != size else set())


@pytest.mark.parametrize(("map_size", "resize"), [(SIZE[::-1], True), ((2, 3), False), ((8, 12), True)])
def test_maps_that_are_turned(tmp_path: Path, map_size: tuple[int, int], resize: bool) -> None:
    """A map with the proportions of the turned image, of any size, is not stretched to fit, with a mask or without."""
    rows = [Row(None, map_size, SIZE, 3), Row(255, map_size), Row(255, map_size, SIZE, 8), Row(255, SIZE, SIZE, 8)]
    reasons = refused(tmp_path, *rows, resize=resize)
    assert list(reasons) == [0, 1, 2][not resize :]  # without resizing nothing asks for the size of an image
    for number, reason in reasons.items():
        its = f"its {'mask' if number else 'image'} (6, 4)"
        assert reason.startswith(f"turned by a quarter: the map is {map_size}, {its}. Please save all upright")


IMAGE_SIZES = [(64, 80), (60, 64), (33, 97)]
ROUNDINGS: list[Callable[[float], int]] = [math.floor, math.ceil, round]


def grids(size: tuple[int, int], strides: Sequence[float]) -> list[tuple[int, int]]:
    """Sizes of maps that come from an image by a stride, with sides rounded in any way."""
    ways = itertools.product(ROUNDINGS, ROUNDINGS, strides)
    return sorted({(up(size[0] / stride), over(size[1] / stride)) for up, over, stride in ways})


def test_maps_of_grids_are_refused_if_they_are_turned_only(tmp_path: Path) -> None:
    """Upright maps of any stride and rounding are read; turned ones are refused unless some stride makes them upright.

    The strides are tried one by one: a side is rounded to a neighbour of its quotient.
    """
    strides = [0.5, 1, 1.5, 3, 3.5, 4, 7, 11, 16, 32]
    many = np.geomspace(0.1, 1000, 40_000)
    upright, turned = [], []
    for size in IMAGE_SIZES:
        upright += [Row(None, each, size) for each in grids(size, strides) if min(each) > 0]
        for height, width in grids(size[::-1], strides):
            fits = (abs(height - size[0] / many) < 1) & (abs(width - size[1] / many) < 1)
            if min(height, width) > 0:
                (upright if fits.any() else turned).append(Row(None, (height, width), size))
    assert len(upright) > 60
    assert len(turned) > 50
    assert refused(tmp_path / "upright", *upright) == {}
    assert sorted(refused(tmp_path / "turned", *turned)) == list(range(len(turned)))


@pytest.mark.parametrize("size", [(9, 5), (3, 2), (7, 8), (12, 16)])
def test_resized_infinite_scores(size: tuple[int, int]) -> None:
    """What is resized from infinite scores is what ever larger scores come to, and never NaN."""
    random = np.random.default_rng(1)
    scores = torch.from_numpy(random.integers(-4, 5, (6, 8)).astype(np.float32))
    for infinite in (INF, -INF):
        scores[torch.from_numpy(random.random((6, 8)) < 0.15)] = infinite
    enlarged = resized(scores, size).double()
    finite = [scores.double().nan_to_num(posinf=large, neginf=-large)[None, None] for large in (1e6, 1e8)]
    large, larger = (torch.nn.functional.interpolate(each, size, mode="bilinear")[0, 0] for each in finite)
    grows = (larger - large).abs() > 1e6
    assert torch.equal(enlarged.isinf(), grows)
    assert torch.equal(enlarged[grows].sign(), large[grows].sign())
    torch.testing.assert_close(enlarged[~grows], large[~grows], rtol=0, atol=1e-3)  # the limit rounds at 1e8


def test_infinite_scores_weigh_nothing_where_pixels_meet() -> None:
    """A pixel that an infinite score has no weight in keeps its number, however large the map is."""
    scores = torch.zeros(3, 1001)
    scores[1, ::2] = INF
    assert resized(scores, (9, 3003))[1::3, 1::3].equal(scores)
    assert resized(torch.tensor([[INF, -INF]]), (1, 4)).tolist() == [[INF, INF, -INF, -INF]]


def test_large_scores_do_not_overflow() -> None:
    """What lies between finite scores is finite, and small scores of the same map keep their digits."""
    signs = torch.tensor([1.0, -1.0]).repeat(4, 3) * MAX
    for size in ((5, 7), (2, 3), (50, 70)):
        assert resized(torch.full((4, 6), MAX), size).equal(torch.full(size, MAX))
        assert resized(signs, size).isfinite().all()
    assert resized(torch.tensor([[1.0, 2.0, MAX, MAX]]), (1, 8))[0, :3].tolist() == [1.0, 1.25, 1.75]


RAMP = np.linspace(0, 1, 24).reshape(SIZE)
"""What each photograph of a wide range comes to."""

PHOTOGRAPHS: dict[str, tuple[str, Any, Any]] = {
    "8 bits": (".png", np.full(SIZE, 51, np.uint8), 0.2),
    "16 bits": (".png", (RAMP * 60000).astype(np.uint16), RAMP),
    "10 of 16 bits, offset": (".tif", (RAMP * 1023 + 3000).astype(np.uint16), RAMP),
    "16 bits, big-endian": (".tif", (RAMP * 4095).astype(">u2"), RAMP),
    "16 bits, signed": (".tiff", (RAMP * 4095 - 2000).astype(np.int16), RAMP),
    "float32": (".tif", (RAMP * 1e-9).astype(np.float32), RAMP),
    "float64, NaN": (".tif", np.where(RAMP[2, 2] == RAMP, np.nan, RAMP * 7), np.where(RAMP[2, 2] == RAMP, 0.5, RAMP)),
    "float32, infinite": (".tif", np.where(RAMP == 1, INF, RAMP).astype(np.float32), (RAMP * 23 / 22).clip(0, 1)),
    "nothing but NaN": (".tif", np.full(SIZE, np.nan, np.float32), 0.5),
    "float32, constant": (".tif", np.full(SIZE, -3, np.float32), 0.5),
    "RGB of 16 bits": (".tif", np.dstack([(RAMP * 4095).astype(np.uint16)] * 3), RAMP),
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_photographs_are_drawn_by_their_range(tmp_path: Path, kind: str) -> None:
    """8 bits are parts of 255; wider numbers are scaled from their lowest to their highest; what is unknown is grey."""
    suffix, pixels, expected = PHOTOGRAPHS[kind]
    path = tmp_path / f"000{suffix}"
    if suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    drawn = read_image(path)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (1, *SIZE)
    assert np.allclose(drawn[0], expected, rtol=0, atol=2e-3)  # 10 bits
