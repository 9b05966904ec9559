"""Maps are read as the numbers that their files hold, from files, sets and folders; what is not clear is refused."""

import argparse
import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from data_sets import Write, array, tiff
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics._files import limits
from aupimo_torchmetrics.evaluate import BadDataError, open_maps

PATHS = ["bottle/test/good/000.png", "bottle/test/dirt/001.png", "bottle/test/dirt/😀 0.png"]
SCORES = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
TENSORS = torch.from_numpy(SCORES)
MASK = np.zeros((5, 7), np.uint8)


def tensors(content: Any) -> Write:
    """Write a file of `torch.save`."""
    return lambda path: torch.save(content, path)


def archive(**arrays: Any) -> Write:
    """Write a NumPy archive."""

    def write(path: Path) -> None:
        with path.open("wb") as file:  # NumPy adds a suffix in lower case
            np.savez_compressed(file, **arrays)

    return write


def read_all(path: Path, **settings: Any) -> dict[str, NDArray[Any]]:
    """Read all maps by their names, the last one first."""
    maps = open_maps(path, **settings)
    read = {index: maps.read(index).numpy() for index in reversed(range(len(maps.names)))}
    return {name: read[index] for index, name in enumerate(maps.names)}


SETS: dict[str, tuple[str, Write]] = {
    "official": ("asmaps.pt", tensors({"asmaps": TENSORS, "paths": PATHS})),
    "with a channel": ("asmaps.pt", tensors({"asmaps": TENSORS[:, None], "paths": tuple(PATHS)})),
    "other names": ("m.pth", tensors({"anomaly_maps": TENSORS, "image_paths": PATHS, "masks": TENSORS})),
    "by path": ("m.pt", tensors({**dict(zip(PATHS, TENSORS, strict=True)), "threshold": torch.tensor(0.5)})),
    "by path, gradients": ("m.pt", tensors({name: each[None].requires_grad_() for name, each in zip(PATHS, TENSORS)})),  # noqa: B905
    "archive": ("m.npz", archive(maps=SCORES, paths=PATHS)),
    "archive by path": ("m.npz", archive(**dict(zip(PATHS, SCORES, strict=True)))),
    "archive of more": ("m.NPZ", archive(scores=SCORES[0, 0], asmaps=SCORES, masks=SCORES > 1, names=np.array(PATHS))),
    "archive, channels last": ("m.npz", archive(arr_0=SCORES[..., None], files=PATHS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A set that says which image each map is of is read, given itself or in a folder; its size has no limit."""
    name, write = SETS[kind]
    write(tmp_path / name)
    monkeypatch.setattr(limits, "MAX_PIXELS", SCORES[0].size)
    for path in (tmp_path / name, tmp_path):
        read = read_all(path)
        assert list(read) == PATHS
        assert np.array_equal(list(read.values()), SCORES)


def test_maps_by_path_may_differ_in_size(tmp_path: Path) -> None:
    """In a dictionary each map has a size of its own, and paths may be those of Windows."""
    torch.save({"good\\0.png": TENSORS[0], "a.png": TENSORS[1][:3]}, tmp_path / "m.pt")
    assert {name: each.shape for name, each in read_all(tmp_path).items()} == {"good\\0.png": (5, 7), "a.png": (3, 7)}


SINGLE: dict[str, tuple[str, Write]] = {
    "channel last": ("0.npy", array(SCORES[0][..., None])),
    "two axes more": ("0.pt", tensors(TENSORS[:1, None])),
    "big-endian": ("0.npy", array(SCORES[0].astype(">f4"))),
    "of one pixel": ("0.npy", array(SCORES[0, :1, :1])),
    "Fortran order": ("0.npz", archive(arr_0=np.asfortranarray(SCORES[0]))),
    "by its name": ("0.npz", archive(anomaly_map=SCORES[:1], image=SCORES, other=SCORES[1], label=1)),
    "any name beside a mask": ("0.pt", tensors({"heat": TENSORS[0], "gt": TENSORS[1], "label": 1, "path": "0.pt"})),
    "the floating one": ("0.npz", archive(heat=SCORES[0], classes=MASK, valid=MASK > 0, image=SCORES)),
    "the only one of the shape": ("0.pt", tensors({"heat": TENSORS[0], "image": TENSORS, "features": TENSORS[None]})),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_single_maps(tmp_path: Path, kind: str) -> None:
    """A file of one map is named by itself, with the folders that say which image it is of."""
    name, write = SINGLE[kind]
    write_all(tmp_path, {f"crack/{name}": write})
    ((read_name, read),) = read_all(tmp_path).items()
    assert read_name == (name if kind == "any name beside a mask" else f"crack/{name}")
    assert np.array_equal(read, SCORES[0, :1, :1] if kind == "of one pixel" else SCORES[0])


def write_all(folder: Path, files: dict[str, Write]) -> None:
    """Write files into a folder."""
    for name, write in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)


def test_sets_beside_each_other(tmp_path: Path) -> None:
    """A folder may hold a set for each category, as the official package leaves them, and single maps too."""
    write_all(tmp_path, {"bottle/asmaps.pt": SETS["official"][1], "zipper/000.npy": array(SCORES[1])})
    read = read_all(tmp_path)
    assert list(read) == [*PATHS, "zipper/000.npy"]
    assert open_maps(tmp_path).files == [*["bottle/asmaps.pt"] * 3, "zipper/000.npy"]
    assert np.array_equal(read["zipper/000.npy"], SCORES[1])


def test_results_beside_maps(tmp_path: Path) -> None:
    """Curves and pictures of an earlier evaluation are no maps, wherever its results lie."""
    files: dict[str, Write] = {"curves.npy": array(SCORES[0]), "curves.png": Image.new("L", (7, 5)).save}
    files |= {"curves.pt": tensors({"per_image_tprs": torch.zeros(3, 5)}), "aupimos.json": Path.touch}
    write_all(tmp_path / "scores/bottle/aupimo", files)
    write_all(tmp_path, {"000.npy": array(SCORES[0])})
    assert open_maps(tmp_path).names == ["000.npy"]
    (tmp_path / "scores/bottle/aupimo/aupimos.json").unlink()
    assert len(open_maps(tmp_path).names) == 4


@pytest.mark.parametrize("suffix", ["tiff", ".TIFF", "_map.tiff"])
def test_map_suffix(tmp_path: Path, suffix: str) -> None:
    """Only files with the ending, in any case, are maps; if there is none, the error says so."""
    names = ("000_map.tiff", "001_map.TIFF", "000.npy", "000.png", "002_map.tif")
    write_all(tmp_path, dict.fromkeys(names, Path.touch))
    assert open_maps(tmp_path, suffix).names == ["000_map.tiff", "001_map.TIFF"]
    with pytest.raises(BadDataError, match=r"to hold maps \(\.npz\), but found none\.$"):
        open_maps(tmp_path, ".npz")


TIFF_TYPES = {
    "uint8": (SCORES[0] * 40 + 128).clip(0, 255).astype(np.uint8),
    "uint16": (SCORES[0] * 9000 + 30_000).clip(0, 65535).astype(np.uint16),
    "int16": (SCORES[0] * 9000).astype(np.int16),
    "int32": (SCORES[0] * 1e8).astype(np.int32),
    "float32": SCORES[0],
}


COMPRESSED = [(dtype, "tiff_lzw", 2) for dtype in TIFF_TYPES]
COMPRESSED += [("uint8", "packbits", 1), ("uint16", "tiff_lzw", 1)]
COMPRESSED += [("float32", "tiff_lzw", 3), ("float32", "tiff_adobe_deflate", 3)]


@pytest.mark.parametrize(("dtype", "compression", "predictor"), COMPRESSED)
def test_compressed_tiff(tmp_path: Path, dtype: str, compression: str, predictor: int) -> None:
    """LZW, which OpenCV writes, and predictors are read to the last bit, with imagecodecs installed or not."""
    tags = {317: predictor} if predictor > 1 else {}
    Image.fromarray(TIFF_TYPES[dtype]).save(tmp_path / "000.tiff", compression=compression, tiffinfo=tags)
    assert np.array_equal(read_all(tmp_path)["000.tiff"], TIFF_TYPES[dtype])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [*TIFF_TYPES, "int8", "uint32", "float16", "float64"])
def test_tiff_that_needs_no_codecs(tmp_path: Path, dtype: str, order: str) -> None:
    """Uncompressed and deflated TIFF of all types and both orders of bytes is read to the last bit."""
    values = (np.abs(SCORES[0] * 20) if "u" in dtype else SCORES[0] * 20).astype(dtype)
    for name, compression in (("0.tiff", None), ("1.tiff", "zlib")):
        tifffile.imwrite(tmp_path / name, values, compression=compression, byteorder=order)
    assert np.array_equal(list(read_all(tmp_path).values()), [values, values])


@pytest.mark.parametrize("kind", [">f4", ">i2", "<u4", "<i1", "<f8", "<f2"])
def test_tiff_that_needs_codecs(tmp_path: Path, kind: str) -> None:
    """What neither tifffile nor Pillow reads right is refused, not read wrong; without imagecodecs that is named."""
    path = tmp_path / "000.tiff"
    tifffile.imwrite(path, np.zeros((5, 7), kind[1:]), byteorder=kind[0], metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(5)  # says that it is LZW
    with pytest.raises(BadDataError, match="LZW"):
        read_all(tmp_path)


GREY = Image.fromarray(TIFF_TYPES["uint8"])
TURNED = Image.Exif()
TURNED[274] = 6
UNCLEAR: dict[str, tuple[str, Write, str]] = {
    "fewer paths": ("m.npz", archive(maps=SCORES, paths=PATHS[:2]), r"\(3, 5, 7\) is no map .* with 2 `paths`"),
    "no paths": ("m.npy", array(SCORES), r"\(3, 5, 7\) is no map \(H, W\), nor a set with 0 `paths`"),
    "two arrays": ("m.npz", archive(a=SCORES, b=SCORES, paths=PATHS), r"holds a \(3, 5, 7\), b .*: please call"),
    "two maps": ("m.pt", tensors({"heat": TENSORS[0], "more": TENSORS[1]}), r"heat \(5, 7\), more .* by the path of"),
    "two names": ("m.npz", archive(map=SCORES[0], anomaly_map=SCORES[0]), "please call the maps `asmaps`"),
    "numbers as keys": ("m.pt", tensors(dict(enumerate(TENSORS))), r"holds 0 \(5, 7\), 1"),
    "only a mask": ("m.pt", tensors({"mask": TENSORS[0], "label": 1}), r"holds mask \(5, 7\), label int"),
    "checkpoint": ("m.pt", tensors({"state_dict": {"weight": TENSORS[0]}, "epoch": 3}), "holds state_dict dict"),
    "arguments": ("m.pth", tensors({"arguments": argparse.Namespace(lr=1)}), r"it holds `argparse\.Namespace`"),
    "broken": ("m.pt", lambda path: path.write_bytes(b"no tensors"), "broken"),
    "objects": ("m.npz", archive(a=np.array([[None]])), "objects of Python"),
    "paths that are objects": ("m.npz", archive(maps=SCORES, paths=np.array(PATHS, object)), "objects of Python"),
    "paths that are numbers": ("m.npz", archive(maps=SCORES, paths=np.arange(3)), "`paths` is not a list of texts"),
    "list of maps": ("m.pt", tensors({"asmaps": list(TENSORS), "paths": PATHS}), "holds asmaps list, paths list"),
    "NumPy in torch": ("m.pt", tensors({PATHS[0]: SCORES[0]}), "it holds `numpy"),
    "no archive": ("m.npz", lambda path: path.write_bytes(b"PK\3\4 nothing"), "zip"),
    "bool": ("m.pt", tensors({"asmaps": TENSORS > 0, "paths": PATHS}), r"dtype torch\.bool"),
    "sparse": ("m.pt", tensors({"asmaps": TENSORS.to_sparse(), "paths": PATHS}), "sparse|broken"),
    "palette": ("m.tif", lambda path: Image.fromarray(TIFF_TYPES["uint8"]).quantize(9).save(path), "by a palette"),
    "white is 0": ("m.tif", tiff(SCORES[0], photometric="miniswhite"), "0 is white"),
    "turned": ("m.tif", tiff(SCORES[0], extratags=[(274, "H", 1, 6, True)]), "turned by EXIF or a tag"),
    "colours": ("m.tif", tiff(np.zeros((5, 7, 3), np.uint8), photometric="rgb"), "no map"),
    "pages": ("m.tif", tiff(SCORES, photometric="minisblack"), r"an array of shape \(3, 5, 7\) is no map"),
    "cut": ("m.tif", lambda path: (tiff(SCORES[0])(path), path.write_bytes(path.read_bytes()[:-9])), "read"),
    "no page": ("m.tif", lambda path: path.write_bytes(b"II*\0\x08\0\0\0"), "no page"),
    "turned PNG": ("m.png", lambda path: GREY.save(path, exif=TURNED), "turned by EXIF"),
    "frames": ("m.png", lambda path: GREY.save(path, save_all=True, append_images=[Image.new("L", (7, 5))]), "several"),
    "coloured PNG": ("m.png", Image.new("RGB", (7, 5)).save, "an image of mode RGB is no map"),
    "no PNG": ("m.png", lambda path: path.write_bytes(b"\x89PNG"), "cannot identify image file"),
    "truth values": ("m.npy", array([[True, False]]), "dtype torch.bool"),
    "complex": ("m.npy", array([[1j, 0]]), "dtype torch.complex128"),
    "texts": ("m.npy", array([["a", "b"]]), "ndarray of type numpy.str_"),
    "no pixel": ("m.npy", array(np.zeros((0, 2))), "is no map"),
    "NaN": ("m.npy", array([[np.nan, 0]]), "NaN in the map"),
    **{f"{each}": ("m.npy", array([each]), "beyond float32") for each in ([1e300, 0], [-1e39, np.inf], [1e-50, 1e-60])},
}  # fmt: skip
"""Files that are no map, of which it is not clear what are the maps, or of which programs read different numbers."""


@pytest.mark.parametrize("kind", UNCLEAR)
def test_files_that_are_not_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """They are refused, alone and as a bad map among others, which are read; no library prints anything.

    What would be another number in float32 is refused; the rounding of float32 is not.
    """
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that does not ask for logs
    name, write, reason = UNCLEAR[kind]
    write(tmp_path / name)
    with pytest.raises(BadDataError, match=reason):
        read_all(tmp_path / name)
    np.save(tmp_path / "0.npy", SCORES[0])
    maps = open_maps(tmp_path)
    assert (maps.names[0], maps.read(0).shape) == ("0.npy", (5, 7))
    with pytest.raises(BadDataError, match=reason):
        maps.read(1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_integers_are_exact(tmp_path: Path, dtype: Any) -> None:
    """Integers are the same numbers as maps, as far as float64 holds them: to 53 bits."""
    values = np.array([[np.iinfo(dtype).max if np.dtype(dtype).itemsize < 8 else 2**53, 1], [2, 3]], dtype)
    write_all(tmp_path, {"0.npy": array(values), "1.pt": tensors(torch.from_numpy(values))})
    assert [read.tolist() for read in read_all(tmp_path).values()] == [values.tolist()] * 2


def test_float64_within_float32(tmp_path: Path) -> None:
    """Infinite scores, zeros, and small scores beside larger ones are scores like others."""
    values = [[[np.inf, -np.inf, 0.0, 1e-60, 1.0, 3e38]], [[0.0, 0.0]]]
    write_all(tmp_path, {f"{index}.npy": array(each) for index, each in enumerate(values)})
    assert [read.tolist() for read in read_all(tmp_path).values()] == values


def write_head(path: Path, name: str) -> None:
    """Write the head of a large array into an archive."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (LARGE, LARGE)})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.npy", head.getvalue())


def write_tags(path: Path) -> None:
    """Write a TIFF that declares more pixels than it has."""
    tifffile.imwrite(path, TIFF_TYPES["uint8"], metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[name].overwrite(LARGE)


LARGE = 2**14
TOO_LARGE: dict[str, Write] = {
    "0.npy": lambda path: np.lib.format.open_memmap(path, "w+", np.uint8, (LARGE, LARGE)),
    "0.npz": lambda path: write_head(path, "map"),
    "1.npz": lambda path: write_head(path, "good/0.png"),
    "0.pt": tensors(torch.zeros(1, dtype=torch.uint8).expand(LARGE, LARGE)),
    "1.pt": tensors({"good/0.png": torch.zeros(1, dtype=torch.uint8).expand(LARGE, LARGE)}),
    "0.tiff": write_tags,
    "0.png": Image.new("1", (LARGE, LARGE)).save,
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_maps_that_are_too_large(tmp_path: Path, name: str) -> None:
    """The size that a file declares is compared with the limit before its pixels are read."""
    TOO_LARGE[name](tmp_path / name)
    with pytest.raises(BadDataError, match=r"too large: 16384 x 16384, at most \d+,\d+,\d+|exceeds limit"):
        read_all(tmp_path)
