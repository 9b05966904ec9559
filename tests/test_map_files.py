"""Maps are read as the numbers that their files hold, from files, sets and folders; what is not clear is refused."""

from __future__ import annotations

import argparse
import io
import logging
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aupimo_torchmetrics import _files

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
evaluate = pytest.importorskip("aupimo_torchmetrics.evaluate")

PATHS = ["bottle/test/good/000.png", "bottle/test/dirt/001.png", "bottle/test/dirt/😀 0.png"]
SCORES = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
TENSORS = torch.from_numpy(SCORES)
MASK = np.zeros((5, 7), np.uint8)

Write = Callable[[Path], Any]


def tensors(content: Any) -> Write:
    """Write a file of `torch.save`."""
    return lambda path: torch.save(content, path)


def archive(**arrays: Any) -> Write:
    """Write a NumPy archive."""

    def write(path: Path) -> None:
        with path.open("wb") as file:  # NumPy adds a suffix in lower case
            np.savez_compressed(file, **arrays)

    return write


def array(values: Any, lines: list[str] | None = None) -> Write:
    """Write a NumPy file, and the paths of images one a line beside it."""

    def write(path: Path) -> None:
        np.save(path, values)
        if lines is not None:
            path.with_suffix(".txt").write_text("\ufeff" + "\r\n".join([*lines, "", ""]), encoding="utf-8")

    return write


def disguised(suffix: str, write: Write) -> Write:
    """Write a file of another kind than its name says."""

    def write_renamed(path: Path) -> None:
        write(path.with_suffix(suffix))
        path.with_suffix(suffix).rename(path)

    return write_renamed


def quantized(path: Path) -> None:
    """Write maps whose numbers are indices."""
    maps = torch.quantize_per_tensor(TENSORS, 0.1, 0, torch.quint8)
    torch.save({"asmaps": maps, "paths": PATHS}, path)


def tiff(values: Any, **options: Any) -> Write:
    """Write a TIFF file."""
    return lambda path: tifffile.imwrite(path, values, **options)


def read_all(path: Path, **settings: Any) -> dict[str, NDArray[Any]]:
    """Read all maps by their names, the last one first, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = evaluate.open_maps(path, **settings)
        read = {index: maps.read(index).numpy() for index in reversed(range(len(maps.names)))}
        return {name: read[index] for index, name in enumerate(maps.names)}


SETS: dict[str, tuple[str, Write]] = {
    "official": ("asmaps.pt", tensors({"asmaps": TENSORS, "paths": PATHS})),
    "with a channel": ("asmaps.pt", tensors({"asmaps": TENSORS[:, None], "paths": tuple(PATHS)})),
    "with a gradient": ("asmaps.pt", tensors({"asmaps": torch.nn.Parameter(TENSORS), "paths": PATHS})),
    "other names": ("m.pth", tensors({"anomaly_maps": TENSORS, "image_paths": PATHS, "masks": TENSORS})),
    "any name": ("m.pt", tensors({"heat": TENSORS, "paths": PATHS, "masks": TENSORS, "label": torch.zeros(3)})),
    "by path": ("m.pt", tensors({**dict(zip(PATHS, TENSORS, strict=True)), "threshold": torch.tensor(0.5)})),
    "by path, gradients": ("m.pt", tensors({name: each[None].requires_grad_() for name, each in zip(PATHS, TENSORS)})),  # noqa: B905
    "archive": ("m.npz", archive(maps=SCORES, paths=PATHS)),
    "archive by path": ("m.npz", archive(**dict(zip(PATHS, SCORES, strict=True)))),
    "archive of more": ("m.NPZ", archive(scores=SCORES[0, 0], asmaps=SCORES, masks=SCORES > 1, names=np.array(PATHS))),
    "archive, channels last": ("m.npz", archive(arr_0=SCORES[..., None], files=PATHS)),
    "array": ("m.npy", array(SCORES, PATHS)),
    "array with a channel": ("m.npy", array(SCORES[:, None], PATHS)),
    "big-endian in Fortran order": ("m.npy", array(np.asfortranarray(SCORES.astype(">f4")), PATHS)),
    "tensor": ("m.pt", lambda path: (array(SCORES, PATHS)(path.with_suffix(".npy")), tensors(TENSORS)(path))),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("is_in_folder", [False, True])
def test_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_in_folder: bool) -> None:
    """A set that says which image each map is of is read, given itself or in a folder; its size has no limit."""
    name, write = SETS[kind]
    write(tmp_path / name)
    if kind == "tensor":
        (tmp_path / "m.npy").unlink()
    monkeypatch.setattr(_files.limits, "MAX_PIXELS", SCORES[0].size)
    read = read_all(tmp_path if is_in_folder else tmp_path / name)
    assert list(read) == PATHS
    assert np.array_equal(list(read.values()), SCORES)


def test_maps_by_path_may_differ_in_size(tmp_path: Path) -> None:
    """In a dictionary each map has a size of its own, and paths may be those of Windows."""
    torch.save({"good\\0.png": TENSORS[0], "a.png": TENSORS[1][:3]}, tmp_path / "m.pt")
    assert {name: each.shape for name, each in read_all(tmp_path).items()} == {"good\\0.png": (5, 7), "a.png": (3, 7)}


SINGLE: dict[str, tuple[str, Write]] = {
    "one axis more": ("0.npy", array(SCORES[:1])),
    "channel last": ("0.npy", array(SCORES[0][..., None])),
    "two axes more": ("0.pt", tensors(TENSORS[:1, None])),
    "Fortran order": ("0.npz", archive(arr_0=np.asfortranarray(SCORES[0]))),
    "by its name": ("0.npz", archive(anomaly_map=SCORES[:1], image=SCORES, other=SCORES[1], label=1)),
    "any name beside a mask": ("0.pt", tensors({"heat": TENSORS[0], "gt": TENSORS[1], "label": 1, "path": "0.pt"})),
    "any name in an archive": ("0.npz", archive(heat=SCORES[0], Mask=MASK, label=1, score=np.zeros((1, 1)))),
    "the floating one": ("0.npz", archive(heat=SCORES[0], classes=MASK, valid=MASK > 0, image=SCORES)),
    "the only one of the shape": ("0.pt", tensors({"heat": TENSORS[0], "image": TENSORS, "features": TENSORS[None]})),
    "boxes beside it": ("0.npy", array(SCORES[0], ["0 0.5 0.5 0.1 0.1"])),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_single_maps(tmp_path: Path, kind: str) -> None:
    """A file of one map is named by itself, with the folders that say which image it is of."""
    name, write = SINGLE[kind]
    (tmp_path / "crack").mkdir()
    write(tmp_path / "crack" / name)
    expected = name if kind == "any name beside a mask" else f"crack/{name}"
    ((read_name, read),) = read_all(tmp_path).items()
    assert read_name == expected
    assert np.array_equal(read, SCORES[0])


UNCLEAR: dict[str, tuple[str, Write, str]] = {
    "fewer paths": ("m.npz", archive(maps=SCORES, paths=PATHS[:2]), r"shape \(3, 5, 7\) is not 2 maps"),
    "fewer lines": ("m.npy", array(SCORES, PATHS[1:]), r"shape \(3, 5, 7\) is not 2 maps"),
    "no paths": ("m.npy", array(SCORES), r"\(3, 5, 7\) is no map \(H, W\); several maps hold the paths .* m\.txt"),
    "no paths, torch": ("m.pt", tensors(TENSORS), r"\(3, 5, 7\) is no map \(H, W\); several maps hold the paths"),
    "no text": ("m.npy", lambda path: (array(SCORES)(path), path.with_suffix(".txt").write_bytes(b"\xff")), "utf-8"),
    "two arrays": ("m.npz", archive(a=SCORES, b=SCORES, paths=PATHS), "'a', 'b' may all be the maps"),
    "two maps": ("m.pt", tensors({"heat": TENSORS[0], "more": TENSORS[1]}), "'heat', 'more' may all be the maps"),
    "two names": ("m.npz", archive(map=SCORES[0], anomaly_map=SCORES[0]), "'map', 'anomaly_map' may all be the maps"),
    "names without a suffix": ("m.pt", tensors({"000": TENSORS[0], "001": TENSORS[1]}), "'000', '001' may all be"),
    "numbers as keys": ("m.pt", tensors(dict(enumerate(TENSORS))), "no array of maps among texts"),
    "more than paths": ("m.npz", archive(**{"a/0.png": SCORES[0], "heat": SCORES[0]}), "'heat' beside maps"),
    "colours by path": ("m.npz", archive(**{"a/0.png": SCORES}), r"\(3, 5, 7\) is no map"),
    "two lists": ("m.npz", archive(maps=SCORES, paths=PATHS, names=PATHS), "'paths', 'names' may all be the paths"),
    "one axis": ("m.npz", archive(maps=SCORES[0, 0], paths=PATHS), r"'maps' of type \w+ and shape \(7,\) is no array"),
    "only a mask": ("m.pt", tensors({"mask": TENSORS[0], "label": 1}), "no array of maps among 'mask', 'label'"),
    "only weights": ("m.pt", tensors({"fc.weight": TENSORS[0]}), "no array of maps"),
    "paths that are objects": ("m.npz", archive(maps=SCORES, paths=np.array(PATHS, object)), "`paths` holds objects"),
    "paths that are numbers": ("m.npz", archive(maps=SCORES, paths=np.arange(3)), "`paths` is not a list of texts"),
    "three channels": ("m.npz", archive(maps=np.zeros((3, 3, 5, 7)), paths=PATHS), "is not 3 maps"),
    "list of maps": ("m.pt", tensors({"asmaps": list(TENSORS), "paths": PATHS}), "'asmaps' of type list"),
    "list alone": ("m.pt", tensors(list(TENSORS)), "a list, not a tensor"),
    "NumPy in torch": ("m.pt", tensors({PATHS[0]: SCORES[0]}), "it holds `numpy"),
    "no archive": ("m.npz", lambda path: path.write_bytes(b"PK\3\4 nothing"), "zip"),
    "array as archive": ("m.npz", disguised(".npy", array(SCORES)), "not a zip file"),
    "archive as array": ("m.npy", disguised(".npz", archive(a=SCORES)), "magic string"),
    "bool": ("m.pt", tensors({"asmaps": TENSORS > 0, "paths": PATHS}), r"dtype torch\.bool"),
    "complex": ("m.pt", tensors({"asmaps": TENSORS + 0j, "paths": PATHS}), r"dtype torch\.complex64"),
    "sparse": ("m.pt", tensors({"asmaps": TENSORS.to_sparse(), "paths": PATHS}), "not a dense tensor|broken"),
    "quantized": ("m.pt", quantized, "not a dense tensor|it holds"),
    "without memory": ("m.pt", tensors({"asmaps": TENSORS.to("meta"), "paths": PATHS}), "meta"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*quant")
@pytest.mark.parametrize("kind", UNCLEAR)
def test_files_that_are_not_clear(tmp_path: Path, kind: str) -> None:
    """A file of which it is not clear what are the maps and the paths is refused with what was found."""
    name, write, reason = UNCLEAR[kind]
    write(tmp_path / name)
    with pytest.raises(evaluate.BadDataError, match=reason):
        read_all(tmp_path / name)


def write_all(folder: Path, files: dict[str, Write]) -> None:
    """Write files into a folder."""
    for name, write in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)


def test_sets_beside_each_other(tmp_path: Path) -> None:
    """A folder may hold a set for each category, as the official package leaves them, and single maps too."""
    write_all(tmp_path, {"bottle/asmaps.pt": SETS["official"][1], "screw/a.npy": array(SCORES[:1], ["screw/0.png"])})
    write_all(tmp_path, {"zipper/000.npy": array(SCORES[1])})
    read = read_all(tmp_path)
    assert list(read) == [*PATHS, "screw/a.npy", "zipper/000.npy"]
    assert evaluate.open_maps(tmp_path).files == [*["bottle/asmaps.pt"] * 3, "screw/a.npy", "zipper/000.npy"]
    assert np.array_equal(read["zipper/000.npy"], SCORES[1])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_channels_among_maps(tmp_path: Path, suffix: str) -> None:
    """Among other files, an array of three channels is no map, and nothing is said of sets."""
    write = {
        ".npy": array,
        ".npz": lambda values: archive(arr_0=values),
        ".pt": lambda values: tensors(torch.tensor(values)),
    }
    write_all(tmp_path, {f"0{suffix}": write[suffix](SCORES[0]), f"1{suffix}": write[suffix](SCORES)})
    maps = evaluate.open_maps(tmp_path)
    assert maps.read(0).shape == (5, 7)
    with pytest.raises(evaluate.BadDataError, match=r"^an array of shape \(3, 5, 7\) is no map \(H, W\)$"):
        maps.read(1)


def test_results_beside_maps(tmp_path: Path) -> None:
    """Curves and pictures of an earlier evaluation are no maps, wherever its results lie."""
    files: dict[str, Write] = {"curves.npy": array(SCORES[0]), "curves.png": Image.new("L", (7, 5)).save}
    files |= {"curves.pt": tensors({"per_image_tprs": torch.zeros(3, 5)}), "aupimos.json": Path.touch}
    write_all(
        tmp_path,
        {"000.npy": array(SCORES[0]), **{f"scores/bottle/aupimo/{name}": each for name, each in files.items()}},
    )
    assert evaluate.open_maps(tmp_path).names == ["000.npy"]
    (tmp_path / "scores/bottle/aupimo/aupimos.json").unlink()
    assert len(evaluate.open_maps(tmp_path).names) == 4


WEIGHTS: dict[str, Write] = {
    "state": tensors(
        {"conv.weight": torch.zeros(4, 3, 7, 7), "fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    ),
    "bare": tensors({"weight": torch.zeros(3, 3), "more": torch.zeros(2, 2), "bias": torch.zeros(3)}),
    "checkpoint": tensors({"state_dict": {"weight": torch.zeros(3, 3)}, "epoch": 3}),
    "unreadable": tensors({"arguments": argparse.Namespace(lr=1)}),
    "broken": lambda path: path.write_bytes(b"no tensors"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_beside_maps(tmp_path: Path, kind: str) -> None:
    """A file of torch without maps is passed over and named; one that cannot be read, if maps are of another kind."""
    write_all(tmp_path, {"000.npy": array(SCORES[0]), "model.pt": WEIGHTS[kind]})
    maps = evaluate.open_maps(tmp_path)
    assert maps.names == ["000.npy"]
    (note,) = maps.notes
    assert note.startswith("Files that are no maps: model.pt (")
    write_all(tmp_path, {"z.pt": SETS["official"][1]})
    assert evaluate.open_maps(tmp_path).names == ["000.npy", *PATHS]


@pytest.mark.parametrize("kind", WEIGHTS)
def test_broken_maps_of_torch_are_named(tmp_path: Path, kind: str) -> None:
    """Where all files are those of torch, one that cannot be read is a bad map; one that holds no map is none."""
    write_all(tmp_path, {"0.pt": tensors(TENSORS[0]), "1.pt": WEIGHTS[kind]})
    maps = evaluate.open_maps(tmp_path)
    is_bad = kind in {"unreadable", "broken"}
    assert maps.names == ["0.pt", "1.pt"][: 1 + is_bad]
    if is_bad:
        with pytest.raises(evaluate.BadDataError, match=r"it holds `argparse\.Namespace`|broken"):
            maps.read(1)
        return
    write_all(tmp_path, {"0.pt": WEIGHTS[kind]})
    with pytest.raises(
        evaluate.BadDataError, match=r"to hold maps .*, but found none. Files that are no maps: 0\.pt \(.*; 1\.pt \("
    ):
        evaluate.open_maps(tmp_path)


def test_broken_archives_are_bad_maps(tmp_path: Path) -> None:
    """An archive that cannot be read is a bad map by its name, and the others are read."""
    write_all(tmp_path, {"a.npz": archive(a=SCORES[0]), "d.npz": archive(a=np.array([[None]]))})
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    maps = evaluate.open_maps(tmp_path)
    assert maps.names == ["a.npz", "c.npz", "d.npz"]
    for index, reason in ((1, "zip"), (2, "objects of Python")):
        with pytest.raises(evaluate.BadDataError, match=reason):
            maps.read(index)


@pytest.mark.parametrize("suffix", [".tiff", "tiff", ".TIFF", "_map.tiff"])
def test_map_suffix(tmp_path: Path, suffix: str) -> None:
    """Only files with the ending, in any case, are maps."""
    write_all(
        tmp_path, dict.fromkeys(("000_map.tiff", "001_map.TIFF", "000.npy", "000.png", "002_map.tif"), Path.touch)
    )
    assert evaluate.open_maps(tmp_path, suffix).names == ["000_map.tiff", "001_map.TIFF"]


def test_map_suffixes_that_do_not_help(tmp_path: Path) -> None:
    """A suffix of no kind of maps, or of none in the folder, is an error that says so."""
    (tmp_path / "000.npy").touch()
    with pytest.raises(ValueError, match=r"Expected `map_suffix` to end in \.tiff, .*, but got '\.exr'"):
        evaluate.open_maps(tmp_path, ".exr")
    with pytest.raises(evaluate.BadDataError, match=r"to hold maps \(`map_suffix=\.tiff`\), but found none\.$"):
        evaluate.open_maps(tmp_path, ".tiff")


TIFF_TYPES = {
    "uint8": (SCORES[0] * 40 + 128).clip(0, 255).astype(np.uint8),
    "uint16": (SCORES[0] * 9000 + 30_000).clip(0, 65535).astype(np.uint16),
    "int16": (SCORES[0] * 9000).astype(np.int16),
    "int32": (SCORES[0] * 1e8).astype(np.int32),
    "float32": SCORES[0],
}


COMPRESSED = [
    (dtype, kind, predictor) for dtype in TIFF_TYPES for kind, predictor in (("tiff_lzw", 2), ("packbits", 1))
]
COMPRESSED += [("float32", "tiff_lzw", 3), ("float32", "tiff_adobe_deflate", 3), ("uint16", "tiff_lzw", 1)]


@pytest.mark.parametrize(("dtype", "compression", "predictor"), COMPRESSED)
def test_compressed_tiff(tmp_path: Path, dtype: str, compression: str, predictor: int) -> None:
    """LZW, which OpenCV writes, and predictors are read to the last bit, with imagecodecs installed or not."""
    picture = Image.fromarray(TIFF_TYPES[dtype])
    picture.save(tmp_path / "000.tiff", compression=compression, tiffinfo={317: predictor} if predictor > 1 else {})
    assert np.array_equal(read_all(tmp_path)["000.tiff"], TIFF_TYPES[dtype])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [*TIFF_TYPES, "int8", "uint32", "float16", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_tiff_that_needs_no_codecs(tmp_path: Path, compression: str | None, dtype: str, order: str) -> None:
    """Uncompressed, deflated and LZMA TIFF of all types and both orders of bytes is read to the last bit."""
    values = (SCORES[0] * 20).astype(dtype) if "u" not in dtype else np.abs(SCORES[0] * 20).astype(dtype)
    tifffile.imwrite(tmp_path / "000.tiff", values, compression=compression, byteorder=order)
    assert np.array_equal(read_all(tmp_path)["000.tiff"], values)


@pytest.mark.parametrize(
    "kind", [("float32", ">"), ("int16", ">"), ("uint32", "<"), ("int8", "<"), ("float64", "<"), ("float16", "<")]
)
def test_tiff_that_needs_codecs(tmp_path: Path, kind: tuple[str, str]) -> None:
    """What neither tifffile nor Pillow reads right is refused with the remedy, not read wrong."""
    path = tmp_path / "000.tiff"
    tifffile.imwrite(path, np.zeros((5, 7), kind[0]), byteorder=kind[1], metadata=None)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["Compression"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 2] = (5).to_bytes(2, "little" if kind[1] == "<" else "big")  # says that it is LZW
    path.write_bytes(content)
    with pytest.raises(evaluate.BadDataError, match=rf"a TIFF of {kind[0]} with LZW .*`pip install imagecodecs`|LZW"):
        read_all(tmp_path)


def turned(path: Path) -> None:
    """Write a picture that is turned by EXIF."""
    image = Image.fromarray(TIFF_TYPES["uint8"])
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)


def frames(path: Path) -> None:
    """Write a picture that moves."""
    first, second = (Image.new("L", (7, 5), grey) for grey in (0, 1))
    first.save(path, save_all=True, append_images=[second])


UNCERTAIN: dict[str, tuple[str, Write, str]] = {
    "palette": ("0.tif", lambda path: Image.fromarray(TIFF_TYPES["uint8"]).quantize(9).save(path), "a palette"),
    "white is 0": ("0.tif", tiff(SCORES[0], photometric="miniswhite"), "0 is white"),
    "turned": ("0.tif", tiff(SCORES[0], extratags=[(274, "H", 1, 6, True)]), "turned by its tag"),
    "colours": ("0.tif", tiff(np.zeros((5, 7, 3), np.uint8), photometric="rgb"), "no map"),
    "pages": ("0.tif", tiff(SCORES, photometric="minisblack"), r"an array of shape \(3, 5, 7\) is no map"),
    "cut": ("0.tif", lambda path: (tiff(SCORES[0])(path), path.write_bytes(path.read_bytes()[:-9])), "read"),
    "no page": ("0.tif", lambda path: path.write_bytes(b"II*\0\x08\0\0\0"), "no page"),
    "turned PNG": ("0.png", turned, "turned by its EXIF orientation"),
    "frames": ("0.png", frames, "several pictures, not one"),
    "coloured PNG": ("0.png", Image.new("RGB", (7, 5)).save, "an image of mode RGB is no map"),
    "no PNG": ("0.png", lambda path: path.write_bytes(b"\x89PNG"), "cannot identify image file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_pictures_that_readers_do_not_agree_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """A picture of which programs read different numbers, or none, is refused; no library prints anything."""
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that does not ask for logs
    name, write, reason = UNCERTAIN[kind]
    write(tmp_path / name)
    with pytest.raises(evaluate.BadDataError, match=reason):
        read_all(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_are_exact(tmp_path: Path, dtype: Any) -> None:
    """Integers are the same numbers as maps: those of more than 16 bits in float64, which holds 53."""
    values = np.array([[np.iinfo(dtype).max if np.dtype(dtype).itemsize < 8 else 2**53, 1], [2, 3]], dtype)
    write_all(tmp_path, {"0.npy": array(values), "1.pt": tensors(torch.from_numpy(values))})
    assert [read.tolist() for read in read_all(tmp_path).values()] == [values.tolist()] * 2


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[True, False]], "dtype torch.bool|dtype bool"),
        ([[1j, 0]], "dtype complex128"),
        ([["a", "b"]], "dtype <U1"),
        (np.zeros((2, 2), np.longdouble), "dtype"),
        (np.zeros((0, 2)), "is no array of maps"),
        ([[np.nan, 0]], "NaN in the map"),
        ([[1e300, 0]], "beyond float32"),
        ([[-1e39, np.inf]], "beyond float32"),
        ([[1e-50, 1e-60]], "beyond float32"),
    ],
)
def test_arrays_that_are_no_scores(tmp_path: Path, values: Any, reason: str) -> None:
    """What is no number, or would be another one in float32, is refused; the rounding of float32 is not."""
    np.save(tmp_path / "000.npy", np.asarray(values))
    with pytest.raises(evaluate.BadDataError, match=reason):
        read_all(tmp_path)


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
    with pytest.raises(evaluate.BadDataError, match=r"too large: 16384 x 16384, at most \d+,\d+,\d+|exceeds limit"):
        read_all(tmp_path)
