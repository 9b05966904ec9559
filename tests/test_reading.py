"""A map and its mask are read as one pair: of one size, in agreement with each other and with the folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aupimo_torchmetrics.evaluate.bad_files import BadFileError

Image = pytest.importorskip("PIL.Image")
layouts = pytest.importorskip("aupimo_torchmetrics.evaluate.data.layouts")
map_files = pytest.importorskip("aupimo_torchmetrics.evaluate.maps.open")
masks = pytest.importorskip("aupimo_torchmetrics.evaluate.masks")
pairing = pytest.importorskip("aupimo_torchmetrics.evaluate.pairing")
reading = pytest.importorskip("aupimo_torchmetrics.evaluate.reading")

INF, MAX = math.inf, torch.finfo(torch.float32).max
SIZE = (6, 4)


def maps_of(*scores: Any) -> Any:
    """Maps that lie in memory."""
    tensors = [torch.as_tensor(each) for each in scores]
    return map_files.MapFiles([f"{index:03}.npy" for index in range(len(tensors))], tensors.__getitem__)


def write_mask(path: Path, value: int = 255, size: tuple[int, int] = SIZE) -> Path:
    """Write a mask with a defect of some value."""
    pixels = np.zeros(size, np.uint8)
    pixels[1:3, 1:3] = value
    Image.fromarray(pixels).save(path)
    return path


def pair_of(
    mask: Sequence[Path] = (), index: int = 0, category: str = "bottle", path: Path | None = None, **more: Any
) -> Any:
    """Pair an image, which has a defect if it has a mask, with the map of an index."""
    has_defect = more.pop("has_defect", bool(mask))
    name = f"{category}/test/dirt/{index:03}.png"
    image = layouts.LabelledImage(name, category, path, tuple(mask), has_defect, **more)
    return pairing.Pair(image, index, f"{index:03}.npy")


def test_masks_of_a_category_agree(tmp_path: Path) -> None:
    """The first mask of a category says which value is a defect, also when it is read again; others are of theirs."""
    ones, whites = write_mask(tmp_path / "1.png", 1), write_mask(tmp_path / "255.png", 255)
    maps = maps_of(torch.zeros(SIZE), torch.zeros(SIZE))
    reader = reading.PairReader(maps, True)
    for _ in range(2):
        assert reader.read(pair_of([ones])).mask.sum() == 4
        with pytest.raises(BadFileError, match=r"255\.png: its defect is 255, but that of .*1\.png is 1"):
            reader.read(pair_of([whites], 1))
        assert reader.read(pair_of([whites], category="screw")).mask.sum() == 4
    for rule in (masks.MaskRule(threshold=0), masks.MaskRule(ignore_index=7)):
        reader = reading.PairReader(maps, True, rule)
        reader.read(pair_of([ones]))
        if rule.threshold == 0:
            assert reader.read(pair_of([whites], 1)).mask.sum() == 4
        else:
            with pytest.raises(BadFileError, match="its defect is 255"):
                reader.read(pair_of([whites], 1))


def test_an_ignored_value_settles_a_mixed_category(tmp_path: Path) -> None:
    """With 255 as a label of pixels that do not count, a mask of nothing else is empty, and named."""
    ones, whites = write_mask(tmp_path / "1.png", 1), write_mask(tmp_path / "255.png", 255)
    reader = reading.PairReader(maps_of(torch.zeros(SIZE)), True, masks.MaskRule(ignore_index=255))
    assert reader.read(pair_of([ones])).ignored is None
    with pytest.raises(BadFileError, match="is empty without pixels of `ignore_index=255`"):
        reader.read(pair_of([whites]))
    loaded = reader.read(pair_of([whites], has_defect=None))
    assert loaded.ignored.sum() == 4
    assert not loaded.mask.any()


@pytest.mark.parametrize(
    ("value", "has_defect", "rule", "reason"),
    [
        (0, True, {}, r"an image with a defect, but its mask .*mask\.png is empty"),
        (1, True, {"threshold": 127}, "has no value above `mask_threshold=127`"),
        (255, False, {}, r"a normal image, but 4 pixels of its mask .*mask\.png are a defect"),
    ],
)
def test_folders_and_masks_that_contradict_each_other(
    tmp_path: Path, value: int, has_defect: bool, rule: dict[str, Any], reason: str
) -> None:
    """An image whose folder says another thing than its mask is named, with the mask."""
    mask = write_mask(tmp_path / "mask.png", value)
    reader = reading.PairReader(maps_of(torch.zeros(SIZE)), True, masks.MaskRule(**rule))
    with pytest.raises(BadFileError, match=reason) as caught:
        reader.read(pair_of([mask], has_defect=has_defect))
    assert caught.value.bad_file.path == "bottle/test/dirt/000.png"


@pytest.mark.parametrize("has_defect", [False, None])
def test_empty_masks_of_normal_images(tmp_path: Path, has_defect: bool | None) -> None:
    """An empty mask of an image that may be normal makes it normal, of the size of the mask."""
    mask = write_mask(tmp_path / "mask.png", 0)
    loaded = reading.PairReader(maps_of(torch.zeros(3, 2)), True).read(pair_of([mask], has_defect=has_defect))
    assert loaded.mask.shape == loaded.anomaly_map.shape == SIZE
    assert not loaded.mask.any()


def write_turned(path: Path, orientation: int, size: tuple[int, int]) -> Path:
    """Write an image that EXIF turns."""
    image = Image.new("RGB", size[::-1])
    exif = image.getexif()
    exif[274] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("orientation", "map_size", "expected"),
    [
        (6, (4, 6), (4, 6)),
        (6, (2, 3), (4, 6)),
        (6, (6, 4), (6, 4)),
        (6, (3, 3), (6, 4)),
        (1, (3, 3), (6, 4)),
        (3, (3, 2), (6, 4)),
    ],
)
def test_normal_images_that_exif_turns(
    tmp_path: Path, orientation: int, map_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The mask of a normal image is as its map is: turned if the map is, and only if EXIF turns the image."""
    path = write_turned(tmp_path / "000.jpg", orientation, SIZE)
    loaded = reading.PairReader(maps_of(torch.zeros(map_size)), True).read(pair_of(path=path))
    assert loaded.mask.shape == loaded.anomaly_map.shape == expected


@pytest.mark.parametrize("orientation", [1, 3])
@pytest.mark.parametrize("map_size", [SIZE[::-1], (2, 3), (8, 12)])
def test_maps_that_are_turned(tmp_path: Path, orientation: int, map_size: tuple[int, int]) -> None:
    """A map with the proportions of the turned image, of any size, is not stretched to fit, with a mask or without."""
    path = write_turned(tmp_path / "000.jpg", orientation, SIZE)
    reader = reading.PairReader(maps_of(torch.zeros(map_size)), True)
    for pair in (
        pair_of(path=path),
        pair_of([write_mask(tmp_path / "mask.png")]),
        pair_of([write_mask(tmp_path / "m.png")], path=path),
    ):
        with pytest.raises(BadFileError, match=r"turned by a quarter: the map is .*, but its image \(6, 4\)"):
            reader.read(pair)


def test_masks_of_images_that_exif_turns(tmp_path: Path) -> None:
    """If EXIF turns an image, and its map is turned and its mask is not, the pair is refused."""
    mask = write_mask(tmp_path / "mask.png")
    turned, plain = write_turned(tmp_path / "0.jpg", 8, SIZE), write_turned(tmp_path / "1.jpg", 1, SIZE)
    reader = reading.PairReader(maps_of(torch.zeros(SIZE[::-1]), torch.zeros(SIZE)), True)
    with pytest.raises(BadFileError, match=r"turned by its EXIF orientation: its map is \(4, 6\), its mask \(6, 4\)"):
        reader.read(pair_of([mask], path=turned))
    assert reader.read(pair_of([mask], 1, path=plain)).mask.any()
    assert reader.read(pair_of([mask], 1, path=turned)).mask.any()


def test_masks_that_are_turned(tmp_path: Path) -> None:
    """A mask whose height and width are exchanged against its image is not stretched to fit."""
    mask = write_mask(tmp_path / "mask.png", size=SIZE[::-1])
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "0.png")
    reader = reading.PairReader(maps_of(torch.zeros(SIZE)), True)
    with pytest.raises(BadFileError, match=r"its mask .*mask\.png is \(4, 6\), but the image \(6, 4\)"):
        reader.read(pair_of([mask], path=tmp_path / "0.png"))


def limit(scores: NDArray[Any], size: tuple[int, int], large: float) -> torch.Tensor:
    """Resize with large numbers in place of infinite ones."""
    finite = torch.as_tensor(np.nan_to_num(scores, posinf=large, neginf=-large), dtype=torch.float64)
    return torch.nn.functional.interpolate(finite[None, None], size, mode="bilinear")[0, 0]


@pytest.mark.parametrize("size", [(9, 5), (3, 2), (7, 8), (12, 16)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_resized_infinite_scores(size: tuple[int, int], dtype: torch.dtype) -> None:
    """What is resized from infinite scores is what ever larger scores come to, and never NaN."""
    random = np.random.default_rng(1)
    scores = random.integers(-4, 5, (6, 8)).astype(float)
    scores[random.random((6, 8)) < 0.15] = INF
    scores[random.random((6, 8)) < 0.15] = -INF
    resized = reading.resized(torch.as_tensor(scores, dtype=dtype), size).double()
    large, larger = limit(scores, size, 1e6), limit(scores, size, 1e8)
    grows = (larger - large).abs() > 1e6
    assert torch.equal(resized.isinf(), grows)
    assert torch.equal(resized[grows].sign(), large[grows].sign())
    torch.testing.assert_close(resized[~grows], large[~grows], rtol=0, atol=1e-3)  # the limit rounds at 1e8


def test_only_neighbours_of_infinite_scores_are_infinite() -> None:
    """A pixel that an infinite score has no weight in keeps its number, though 0 times infinity is none."""
    scores = torch.zeros(4, 4)
    scores[0, 0] = INF
    assert reading.resized(scores, (4, 8)).isinf().sum() == 3
    assert not reading.resized(scores, (4, 8)).isnan().any()
    assert reading.resized(torch.full((2, 2), -INF), (3, 5)).equal(torch.full((3, 5), -INF))
    assert reading.resized(torch.tensor([[INF, -INF]]), (1, 4)).tolist() == [[INF, INF, -INF, -INF]]


def test_infinite_scores_weigh_nothing_where_pixels_meet() -> None:
    """In the middle of each pixel of a map enlarged threefold its own score counts, however large the map is."""
    scores = torch.zeros(3, 1001)
    scores[1, ::2] = INF
    resized = reading.resized(scores, (9, 3003))
    assert resized[1::3, 1::3].equal(scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_large_scores_do_not_overflow(dtype: torch.dtype) -> None:
    """What lies between finite scores is finite."""
    largest = torch.finfo(dtype).max
    for size in ((5, 7), (2, 3), (50, 70)):
        between = reading.resized(torch.full((4, 6), largest, dtype=dtype), size)
        torch.testing.assert_close(between.double(), torch.full(size, largest, dtype=torch.float64), rtol=1e-6, atol=0)
        assert between.isfinite().all()
        signs = torch.tensor([1.0, -1.0]).repeat(4, 3).to(dtype) * largest
        assert reading.resized(signs, size).isfinite().all()


def test_float64_maps_beyond_the_half_of_float32() -> None:
    """Large and small scores of one map keep their digits."""
    scores = torch.tensor([[1.0, 2.0, MAX, MAX]])
    assert reading.resized(scores, (1, 8))[0, :3].tolist() == [1.0, 1.25, 1.75]


def test_nan_after_resizing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a map become NaN when it is resized, its file is named."""
    monkeypatch.setattr(
        reading, "interpolate", lambda images, size, **_: torch.full((*images.shape[:2], *size), torch.nan)
    )
    mask = write_mask(tmp_path / "mask.png")
    with pytest.raises(BadFileError, match=r"000\.npy: NaN in the map after it was resized to \(6, 4\)"):
        reading.PairReader(maps_of(torch.zeros(3, 2)), True).read(pair_of([mask]))


def test_size_that_must_agree(tmp_path: Path) -> None:
    """With `resize=False` a map of another size than its mask is named, though the mask has ignored pixels."""
    mask = write_mask(tmp_path / "mask.png")
    reader = reading.PairReader(maps_of(torch.zeros(3, 2)), False)
    with pytest.raises(BadFileError, match=r"the map is \(3, 2\), its mask \(6, 4\); without `resize=False`"):
        reader.read(pair_of([mask]))
