"""A mask is taken as it is if, seen on black, it is black and one other colour; a rule of the user settles the rest."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_sets import Write, array, tiff
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.evaluate import BadDataError
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask

DEFECT = np.zeros((32, 40), dtype=bool)
DEFECT[5:20, 8:25] = True
BYTES = DEFECT.astype(np.uint8)
GREY = 255 * BYTES
COLOUR = np.dstack([GREY, GREY, GREY])
RED = np.dstack([GREY, 0 * GREY, 0 * GREY])


def read(*paths: Path, has_classes: bool = False, **rule: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read the masks of one image as one, and which pixels do not count."""
    mask, ignored = read_mask(paths, MaskRule(**rule), has_classes=has_classes)
    return mask.numpy(), None if ignored is None else ignored.numpy()


def wide_pgm(pixels: NDArray[Any]) -> Write:
    """Write a PGM of 16 bits, which old versions of Pillow read but do not write."""
    head = f"P5 {pixels.shape[1]} {pixels.shape[0]} 65535\n".encode()
    return lambda path: path.write_bytes(head + pixels.astype(">u2").tobytes())


def picture(pixels: NDArray[Any], **options: Any) -> Write:
    """Write an image of Pillow."""
    return lambda path: Image.fromarray(pixels).save(path, **options)


def read_written(folder: Path, written: Sequence[Write], **rule: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Write the masks of one image as `0.png`, `1.png` and so on, and read them together."""
    paths = [folder / f"{number}.png" for number in range(len(written))]
    for path, write in zip(paths, written, strict=True):
        write(path)
    return read(*paths, **rule)


def palette(indices: NDArray[Any], *colours: tuple[int, int, int], **options: Any) -> Write:
    """Write an image with a palette."""

    def write(path: Path) -> None:
        image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
        image.putpalette([level for colour in colours for level in colour])
        image.save(path, **options)

    return write


def with_ignored(pixels: NDArray[Any], value: int) -> NDArray[Any]:
    """Label the first row."""
    labelled = pixels.copy()
    labelled[0] = value
    return labelled


def with_classes(first: int = 1, second: int = 2) -> NDArray[Any]:
    """Two types of defects."""
    classes = first * BYTES
    classes[5:9][DEFECT[5:9]] = second
    return classes


def through_jpeg(pixels: NDArray[Any]) -> NDArray[Any]:
    """Compress with loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def resized(pixels: NDArray[Any]) -> NDArray[Any]:
    """Make half as large and as large as before, with grey edges."""
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize((20, 16), bilinear).resize((40, 32), bilinear))


def fax(path: Path) -> None:
    """Write a fax, in which 0 is white."""
    Image.fromarray(~DEFECT).save(path, compression="group4")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["PhotometricInterpretation"].overwrite(0)


TURNED = Image.Exif()
TURNED[274] = 3
FRAMES = {"save_all": True, "append_images": [Image.fromarray(GREY // 2)]}
CLEAR: dict[str, tuple[str, Write]] = {
    "0 and 255": (".png", picture(GREY)),
    "0 and 1": (".png", picture(BYTES)),
    "one bit": (".png", picture(DEFECT)),
    "one bit, TIFF": (".tif", picture(DEFECT)),
    "one bit, fax": (".tif", picture(DEFECT, compression="group4")),
    "fax, white is 0": (".tif", fax),
    "BMP": (".bmp", picture(GREY)),
    "GIF": (".gif", picture(GREY)),
    "PBM": (".pbm", picture(DEFECT)),
    "PGM": (".PGM", picture(7 * BYTES)),
    "PGM, 16 bits": (".pgm", wide_pgm(BYTES.astype(np.uint16) * 65535)),
    "WebP without loss": (".webp", picture(COLOUR, lossless=True)),
    "JPEG without a trace": (".jpg", picture(255 * np.kron(BYTES, np.ones((8, 8), np.uint8)), quality=100)),
    "16 bits": (".png", picture(BYTES.astype(np.uint16) * 65535)),
    "16 bits, TIFF, big-endian": (".tiff", tiff(300 * BYTES.astype(np.uint16), byteorder=">")),
    "signed, big-endian, deflated": (".tiff", tiff(300 * BYTES.astype(np.int16), byteorder=">", compression="zlib")),
    "float16": (".tif", tiff(BYTES.astype(np.float16))),
    "float32": (".tif", tiff(BYTES.astype(np.float32) / 2)),
    "ink": (".tif", lambda path: Image.fromarray(COLOUR).convert("CMYK").save(path)),
    "colours that are grey": (".png", picture(COLOUR)),
    "black and red": (".png", picture(RED)),
    "transparency of no pixel": (".png", picture(GREY, transparency=9)),
    "NumPy": (".npy", array(BYTES)),
    "NumPy, bool": (".npy", array(DEFECT)),
    "palette of white and black": (".png", palette(1 - BYTES, (255, 255, 255), (0, 0, 0))),
    "palette with a transparent ground": (".png", palette(BYTES, (9, 9, 9), (255, 0, 0), transparency=0)),
    "mask in the transparency": (".png", picture(np.dstack([COLOUR | 255, GREY]))),
    "transparent ground": (".png", picture(np.dstack([COLOUR, GREY]))),
    "half transparent defect": (".png", picture(np.dstack([RED | RED[..., ::-1], GREY // 2]))),
    "transparent value": (".png", picture(GREY, transparency=0)),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_clear_masks(tmp_path: Path, kind: str) -> None:
    """A file of 0 and one other value is a mask as it is, in each format and mode."""
    suffix, write = CLEAR[kind]
    write(tmp_path / f"mask{suffix}")
    mask, ignored = read(tmp_path / f"mask{suffix}")
    scale = mask.shape[0] // DEFECT.shape[0]
    assert np.array_equal(mask, np.kron(DEFECT, np.ones((scale, scale), bool)))
    assert ignored is None


ONE_VALUE = [(0, np.uint8, False), (1, np.uint8, True), (255, np.uint8, True), (65535, np.uint16, True)]
ONE_VALUE += [(7, np.uint8, None), (255, np.uint16, None), (2, np.float32, None), (-1, np.int16, None)]


@pytest.mark.parametrize(("value", "dtype", "is_defect"), ONE_VALUE)
def test_masks_of_one_value(tmp_path: Path, value: int, dtype: Any, is_defect: bool | None) -> None:
    """A file of one value is empty if it is 0, all defect if it is 1 or the largest of its type, and else refused."""
    path = tmp_path / "mask.npy"
    np.save(path, np.full((3, 4), value, dtype))
    if is_defect is None:
        with pytest.raises(BadDataError, match=rf"holds {value} \(100.00%\); `mask_threshold` says"):
            read(path)
    else:
        assert (read(path)[0] == is_defect).all()
    assert read(path, threshold=value - 1)[0].all()
    assert not read(path, threshold=value)[0].any()


WHITE_LABEL, GREY_LABEL = with_ignored(GREY, 255), with_ignored(GREY, 128)
TWO_GREYS = with_ignored(127 + 128 * BYTES, 0)
CLASSES = palette(with_classes(), (0, 0, 0), (128, 0, 0), (0, 128, 0))
UNCLEAR: dict[str, tuple[str, Write, str, dict[str, Any]]] = {
    "JPEG": (".png", picture(through_jpeg(GREY)), r"0 \(\d.*%\), .*, 255 \(.*%\), and others", {"threshold": 127}),
    "JPEG of red": (".jpg", picture(RED, quality=95, subsampling=0), r"\(0, 0, 0\) .* others", {"threshold": 127}),
    "float edges": (".tif", tiff(resized(GREY).astype(np.float32) / 255), "0 ", {"threshold": 0.5}),
    "16-bit edges": (".png", picture(resized(GREY).astype(np.uint16) * 257), "0 ", {"threshold": 32767}),
    "label": (".png", picture(with_ignored(BYTES, 255)), r"0 \(76.95%\), 1 .*, 255 \(3.12%\)", {"ignore_index": 255}),
    "grey label": (".png", picture(GREY_LABEL), "128 .*, 255 ", {"ignore_index": 128}),
    "transparent label": (".png", picture(np.dstack([WHITE_LABEL] * 3 + [GREY_LABEL])), "128 ", {"ignore_index": 128}),
    "negative label": (".tif", tiff(with_ignored(BYTES.astype(np.int16), -1)), "-1 .*, 0 .*, 1 ", {"ignore_index": -1}),
    "classes": (".png", picture(with_classes()), "0 .*, 1 .*, 2 ", {"threshold": 0}),
    "classes of a palette": (".png", CLASSES, r"\(0, 0, 0\) .*, \(0, 128, 0\) .*, \(128, 0, 0\) ", {"threshold": 0}),
    "two greys without 0": (".png", picture(127 + 128 * BYTES), "127 .*, 255 ", {"threshold": 127}),
    "two greys beside 0": (".png", picture(TWO_GREYS), "127 .*, 255 ", {"threshold": 127, "ignore_index": 0}),
}
"""Suffix, file, a part of the values that the reason lists, and a rule that settles it."""


@pytest.mark.parametrize("kind", UNCLEAR)
def test_a_rule_settles_unclear_masks(tmp_path: Path, kind: str) -> None:
    """An unclear mask is refused with its values, their shares and both settings; a rule of these gives the defect."""
    suffix, write, values, rule = UNCLEAR[kind]
    path = tmp_path / f"mask{suffix}"
    write(path)
    advice = "; `mask_threshold` says which are a defect, `ignore_index` which do not count"
    with pytest.raises(BadDataError, match=f"holds .*{values}.*{advice}") as caught:
        read(path)
    assert caught.value.bad_file.path == str(path)
    mask, ignored = read(path, **rule)
    is_noisy = "JPEG" in kind or "edges" in kind
    assert (mask != DEFECT).sum() <= 20 * is_noisy
    assert (ignored is not None) == ("ignore_index" in rule)


REFUSED: dict[str, tuple[str, Write, str]] = {
    "red on white": (".png", palette(BYTES, (255, 255, 255), (255, 0, 0)), "and no black"),
    "red alone": (".png", picture(RED | np.uint8([[[255, 0, 0]]])), r"holds \(255, 0, 0\) \(100.00%\), and no black"),
    "black by its palette": (".png", palette(BYTES, (0, 0, 0), (0, 0, 0)), "black as a whole, though"),
    "black with a mask in the transparency": (".png", picture(np.dstack([0 * COLOUR, GREY])), "black as a whole"),
    "transparent as a whole": (".png", picture(np.dstack([COLOUR, 0 * GREY])), "black as a whole"),
    "transparent defect": (".png", picture(GREY, transparency=255), "black as a whole"),
    "white is 0, one bit": (".tif", tiff(DEFECT, photometric="miniswhite"), "0 is white by its tags"),
    "two pages": (".tif", tiff(np.stack([GREY, GREY]), photometric="minisblack"), "several images in one file"),
    "two frames": (".png", picture(GREY, **FRAMES), "several images in one file"),
    "NaN": (".tif", tiff(np.where(DEFECT, np.nan, 0).astype(np.float32)), "NaN, infinite or no numbers"),
    "turned": (".png", picture(GREY, exif=TURNED), "turned by EXIF"),
    "colours of 16 bits": (".tif", tiff(COLOUR.astype(np.uint16), photometric="rgb"), r"\(32, 40, 3\) is no mask"),
    "three axes": (".npy", array(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\) is no mask"),
    "texts": (".npy", array(np.array([["a", "b"]])), "dtype <U1 that are"),
    "objects": (".npy", lambda path: np.save(path, BYTES.astype(object), allow_pickle=True), "[Oo]bject"),
    "no image": (".png", lambda path: path.write_bytes(b"no image"), "cannot identify image file"),
    "cut off": (".png", lambda path: (picture(GREY)(path), path.write_bytes(path.read_bytes()[:60])), "truncated"),
}
"""Suffix, file and a part of the reason."""


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_that_no_rule_settles(tmp_path: Path, kind: str) -> None:
    """Where the values alone are not the mask, no rule makes one of them, and none is named."""
    suffix, write, reason = REFUSED[kind]
    write(tmp_path / f"mask{suffix}")
    for rule in ({}, {"threshold": 0}, {"ignore_index": 255}):
        with pytest.raises(BadDataError, match=reason) as caught:
            read(tmp_path / f"mask{suffix}", **rule)
        assert "mask_threshold" not in str(caught.value)


def test_ignored_pixels_are_no_defect(tmp_path: Path) -> None:
    """Pixels of the ignored value are given back, and are no defect though they lie above a threshold."""
    path = tmp_path / "mask.png"
    picture(with_ignored(with_classes(), 255))(path)
    with pytest.raises(BadDataError, match=r"holds 0 \(79.44%\), 1 .*, 2 \(\S*%\); `mask_threshold`"):
        read(path, ignore_index=255)
    mask, ignored = read(path, ignore_index=255, threshold=0)
    assert np.array_equal(mask, DEFECT)
    assert np.array_equal(ignored, with_ignored(0 * BYTES, 1).astype(bool))


def test_an_ignored_grey_among_colours(tmp_path: Path) -> None:
    """In colour, a pixel is ignored if all its channels are of the value: white, not red; if none is, all count."""
    for pixels, num_ignored in ((with_ignored(RED, 255), 40), (RED, 0)):
        mask, ignored = read_written(tmp_path, [picture(pixels)], ignore_index=255)
        assert np.array_equal(mask, DEFECT)
        assert num_ignored == (0 if ignored is None else ignored.sum())


@pytest.mark.parametrize("values", [(1, 2), (254, 255), (3, 255)])
def test_classes_that_a_layout_knows(tmp_path: Path, values: tuple[int, int]) -> None:
    """Where the layout says that masks hold classes, each value but 0 is a defect, or what lies above a threshold."""
    written = [picture(with_classes(*values))]
    assert np.array_equal(read_written(tmp_path, written, has_classes=True)[0], DEFECT)
    above, _ = read_written(tmp_path, written, has_classes=True, threshold=values[0])
    assert np.array_equal(above, with_classes() == 2)


def test_what_is_no_mask_by_its_context(tmp_path: Path) -> None:
    """Many values are noise, also where masks hold classes; and an image of which no pixel counts has no score."""
    with pytest.raises(BadDataError, match="and others"):
        read_written(tmp_path, [picture(through_jpeg(with_classes(254, 255)))], has_classes=True)
    with pytest.raises(BadDataError, match="no pixel counts: all are of `ignore_index=255`"):
        read_written(tmp_path, [picture(GREY | 255)], ignore_index=255)


def test_a_white_that_is_transparent_everywhere(tmp_path: Path) -> None:
    """One bit a pixel, all white and all transparent, is an empty mask."""
    assert not read_written(tmp_path, [picture(DEFECT | True, transparency=255)])[0].any()


def test_union_of_masks(tmp_path: Path) -> None:
    """A pixel is a defect if it is one in any mask, and does not count if it is ignored in one and no defect."""
    rows = [255, 255, 9, 0, 0, 0], [0, 9, 9, 255, 0, 0]
    mask, ignored = read_written(tmp_path, [picture(np.uint8([row])) for row in rows], ignore_index=9)
    assert mask.tolist() == [[True, True, False, True, False, False]]
    assert ignored.tolist() == [[False, False, True, False, False, False]]


MIXED: dict[str, tuple[Write, Write, str]] = {
    "1 and 255": (picture(BYTES), picture(GREY), r"its defect is 255, but that of .*0\.png is 1; `mask_t"),
    "255 and 1": (picture(GREY), picture(BYTES), r"its defect is 1, but that of .*0\.png is 255; `mask_"),
    "colours": (picture(RED), picture(RED[..., ::-1].copy()), r"its defect is \(0, 0, 255\)"),
    "several sizes": (picture(GREY), picture(GREY[1:]), "masks of several sizes"),
    "one that is none": (picture(GREY), picture(BYTES + 1), "holds 1 "),
}


@pytest.mark.parametrize("kind", MIXED)
def test_masks_that_belong_together_agree(tmp_path: Path, kind: str) -> None:
    """Masks have one size; if the defect is 1 in one file and 255 in another, `mask_threshold=0` settles it.

    The reason stands beside the path of the file that it is about.
    """
    *written, reason = MIXED[kind]
    with pytest.raises(BadDataError, match=reason) as caught:
        read_written(tmp_path, written)
    assert caught.value.bad_file.path == str(tmp_path / ("0.png" if kind == "several sizes" else "1.png"))
    if "its defect" in reason:
        assert np.array_equal(read_written(tmp_path, written, has_classes=True)[0], DEFECT)
        assert np.array_equal(read_written(tmp_path, written, threshold=0)[0], DEFECT)


def test_white_is_one_value_in_all_types(tmp_path: Path) -> None:
    """One bit, 8 bits, 16 bits, grey, colour and palette may stand side by side where the defect is white."""
    np.save(tmp_path / "white.npy", DEFECT)
    written = [picture(GREY), picture(DEFECT), picture(BYTES.astype(np.uint16) * 65535), picture(COLOUR)]
    written += [palette(BYTES, (0, 0, 0), (255, 255, 255)), picture(0 * GREY)]
    for number, write in enumerate(written):
        write(tmp_path / f"{number}.png")
    assert np.array_equal(read(*tmp_path.iterdir())[0], DEFECT)
