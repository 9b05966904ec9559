"""Maps are read as the numbers that their files hold, one at a time, from files, sets and archives."""

from __future__ import annotations

import io
import shutil
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
from aupimo_torchmetrics._errors import BadDataError

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
map_files = pytest.importorskip("aupimo_torchmetrics.evaluate.maps.open")

PATHS = ["bottle/test/good/000.png", "bottle/test/dirt/001.png", "bottle/test/dirt/000.png"]
SCORES = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)

Write = Callable[[Path], Any]


def check_set(path: Path, expected: NDArray[Any] = SCORES, names: list[str] = PATHS) -> None:
    """Open a set, and compare its maps in an order that is not theirs."""
    maps = map_files.open_maps(path)
    assert maps.names == names
    for index in (2, 0, 1, 1):
        assert np.array_equal(maps.read(index).numpy(), expected[index])


def beside(path: Path, names: list[str] = PATHS) -> None:
    """Write the paths of the images one a line beside a file of maps."""
    path.with_suffix(".txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def rich_archive() -> bytes:
    """An archive in which maps and paths are known by their names."""
    file = io.BytesIO()
    scores, names = SCORES.max((1, 2)), np.array(PATHS, "S")
    np.savez(file, scores=scores, asmaps=SCORES, masks=SCORES > 1, names=names)
    return file.getvalue()


SETS: dict[str, tuple[str, Write]] = {
    "official": ("asmaps.pt", lambda path: torch.save({"asmaps": torch.tensor(SCORES), "paths": PATHS}, path)),
    "with a channel": (
        "asmaps.pt",
        lambda path: torch.save({"asmaps": torch.tensor(SCORES)[:, None], "paths": tuple(PATHS)}, path),
    ),
    "other names": (
        "maps.pth",
        lambda path: torch.save(
            {"anomaly_maps": torch.tensor(SCORES), "image_paths": PATHS, "masks": torch.zeros(3, 5, 7)}, path
        ),
    ),
    "archive": ("maps.npz", lambda path: np.savez(path, maps=SCORES, paths=PATHS)),
    "compressed archive": ("maps.npz", lambda path: np.savez_compressed(path, maps=SCORES[:, None], paths=PATHS)),
    "archive with more in it": ("maps.NPZ", lambda path: path.write_bytes(rich_archive())),
    "archive, channels last": ("maps.npz", lambda path: np.savez(path, arr_0=SCORES[..., None], files=PATHS)),
    "array": ("maps.npy", lambda path: (np.save(path, SCORES), beside(path))),
    "array with a channel": ("maps.npy", lambda path: (np.save(path, SCORES[:, None]), beside(path))),
    "big-endian array in Fortran order": (
        "maps.npy",
        lambda path: (np.save(path, np.asfortranarray(SCORES.astype(">f4"))), beside(path)),
    ),
    "tensor": ("maps.pt", lambda path: (torch.save(torch.tensor(SCORES), path), beside(path))),
    "paths as Windows writes them": (
        "maps.npy",
        lambda path: (
            np.save(path, SCORES),
            path.with_suffix(".txt").write_bytes("\ufeff{}\r\n{}\r\n{}\r\n\r\n".format(*PATHS).encode()),
        ),
    ),
    "archive with paths beside it": ("maps.npz", lambda path: (np.savez(path, SCORES), beside(path))),
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("is_in_folder", [False, True])
def test_whole_sets(tmp_path: Path, kind: str, is_in_folder: bool) -> None:
    """A set (N, H, W) or (N, 1, H, W) with the paths of its images is read map by map, given itself or in a folder."""
    name, write = SETS[kind]
    write(tmp_path / name)
    check_set(tmp_path if is_in_folder else tmp_path / name)


def test_sets_beside_each_other(tmp_path: Path) -> None:
    """A folder may hold a set for each category, as the official package leaves them, and single maps too."""
    for category in ("bottle", "screw"):
        (tmp_path / category).mkdir()
        names = [name.replace("bottle", category) for name in PATHS]
        torch.save({"asmaps": torch.tensor(SCORES), "paths": names}, tmp_path / category / "asmaps.pt")
    np.save(tmp_path / "zipper.npy", SCORES[1])
    maps = map_files.open_maps(tmp_path)
    assert maps.names == [*PATHS, *(name.replace("bottle", "screw") for name in PATHS), "zipper.npy"]
    assert np.array_equal(maps.read(4).numpy(), SCORES[1])
    assert np.array_equal(maps.read(6).numpy(), SCORES[1])


def test_results_beside_maps(tmp_path: Path) -> None:
    """Curves and pictures of an earlier evaluation are no maps, wherever its results lie."""
    np.save(tmp_path / "000.npy", SCORES[0])
    for folder in ("aupimo", "scores/bottle/aupimo"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "curves.npy", SCORES[0])
        Image.new("L", (7, 5)).save(tmp_path / folder / "curves.png")
        torch.save({"shared_fpr": torch.zeros(5), "per_image_tprs": torch.zeros(3, 5)}, tmp_path / folder / "curves.pt")
        (tmp_path / folder / "aupimos.json").touch()
    assert map_files.open_maps(tmp_path).names == ["000.npy"]
    (tmp_path / "aupimo/aupimos.json").unlink()
    assert len(map_files.open_maps(tmp_path).names) == 4


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_sets_without_paths(tmp_path: Path, suffix: str) -> None:
    """The order of maps is not taken for that of the images; what the error advises is enough."""
    path = tmp_path / f"maps{suffix}"
    writers: dict[str, Write] = {
        ".npy": lambda path: np.save(path, SCORES),
        ".npz": lambda path: np.savez(path, SCORES),
        ".pt": lambda path: torch.save(torch.tensor(SCORES), path),
    }
    writers[suffix](path)
    for given in (path, tmp_path):
        with pytest.raises(BadDataError, match=r"maps\.\w+: 3 maps without the paths .* one a line in maps\.txt"):
            map_files.open_maps(given)
    beside(path)
    check_set(path)
    if suffix == ".npz":
        path.with_suffix(".txt").unlink()
        np.savez(path, maps=SCORES, paths=PATHS)
        check_set(path)


BAD_SETS: dict[str, tuple[str, Write, str]] = {
    "fewer paths": ("m.npz", lambda path: np.savez(path, maps=SCORES, paths=PATHS[:2]), "3 maps and 2 paths"),
    "fewer lines": ("m.npy", lambda path: (np.save(path, SCORES), beside(path, PATHS[1:])), "3 maps and 2 paths"),
    "long lines": (
        "m.npy",
        lambda path: (np.save(path, SCORES), beside(path, ["x" * 100_000])),
        "too large for 3 paths",
    ),
    "two arrays": ("m.npz", lambda path: np.savez(path, a=SCORES, b=SCORES, paths=PATHS), "'a', 'b' may all be the"),
    "two lists": (
        "m.npz",
        lambda path: np.savez(path, maps=SCORES, paths=PATHS, names=PATHS),
        "'paths', 'names' may all be the paths",
    ),
    "two tensors": (
        "m.pt",
        lambda path: torch.save({"a": torch.zeros(3, 2, 2), "b": torch.zeros(3, 2, 2), "paths": PATHS}, path),
        "'a', 'b' may all be the maps",
    ),
    "no map": ("m.npz", lambda path: np.savez(path, maps=SCORES[0, 0], paths=PATHS), "no array of maps"),
    "objects": ("m.npz", lambda path: np.savez(path, maps=SCORES, paths=np.array(PATHS, object)), "`paths` of dtype"),
    "numbers": (
        "m.npz",
        lambda path: np.savez(path, maps=SCORES, paths=np.arange(3)),
        "`paths` is not a list of texts",
    ),
    "colours": ("m.npz", lambda path: np.savez(path, maps=np.zeros((3, 3, 5, 7)), paths=PATHS), "is neither"),
    "list of maps": (
        "m.pt",
        lambda path: torch.save({"asmaps": list(torch.tensor(SCORES)), "paths": PATHS}, path),
        "`asmaps` is a list",
    ),
    "picture": ("m.npy", lambda path: np.save(path, np.zeros((5, 7, 3))), "looks like a picture in colours"),
    "picture with transparency": ("m.npy", lambda path: np.save(path, np.zeros((5, 7, 4))), "looks like a picture"),
    "weights": ("m.pt", lambda path: torch.save({"bias": torch.zeros(3)}, path), "no array of maps"),
    "no archive": ("m.npz", lambda path: path.write_bytes(b"PK\3\4 nothing"), "zip"),
}


@pytest.mark.parametrize("kind", BAD_SETS)
def test_sets_that_are_not_clear(tmp_path: Path, kind: str) -> None:
    """A file of which it is not clear what are the maps and the paths is refused by name."""
    name, write, reason = BAD_SETS[kind]
    write(tmp_path / name)
    with pytest.raises(BadDataError, match=rf"{name}: .*{reason}"):
        map_files.open_maps(tmp_path / name)


def test_archives_of_one_map(tmp_path: Path) -> None:
    """A folder of `.npz` and `.pt` files is read like one of `.npy`: each is the map of the image of its name."""
    np.savez(tmp_path / "a.npz", SCORES[0])
    np.savez_compressed(tmp_path / "b.npz", anomaly_map=SCORES[1][None], image=np.zeros((5, 7, 3)), label=1)
    torch.save(torch.tensor(SCORES[2])[None], tmp_path / "c.pt")
    np.savez(tmp_path / "d.npz", np.asfortranarray(SCORES[0]))
    np.savez(tmp_path / "e.npz", map=SCORES[1], path=PATHS[1])
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1", encoding="utf-8")
    maps = map_files.open_maps(tmp_path)
    assert maps.names == ["a.npz", "b.npz", "c.pt", "d.npz", PATHS[1]]
    for index, expected in enumerate((0, 1, 2, 0, 1)):
        assert np.array_equal(maps.read(index).numpy(), SCORES[expected])


def test_a_set_is_not_one_map(tmp_path: Path) -> None:
    """Where a file is named as the map of one image, the first map of a set is not taken for it."""
    SETS["archive"][1](tmp_path / "maps.npz")
    with pytest.raises(BadDataError, match="3 maps, not one"):
        map_files.open_map_files([tmp_path / "maps.npz"], ["000.png"]).read(0)


def test_broken_archives_are_bad_maps(tmp_path: Path) -> None:
    """An archive that cannot be read is a bad map by its name, and the others are read."""
    np.savez(tmp_path / "a.npz", SCORES[0])
    np.savez(tmp_path / "b.npz", SCORES)
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    np.savez(tmp_path / "d.npz", np.array([[None]]))
    maps = map_files.open_maps(tmp_path)
    assert maps.names == ["a.npz", "b.npz", "c.npz", "d.npz"]
    assert maps.read(0).shape == (5, 7)
    for index, reason in ((1, "3 maps without the paths"), (2, "zip"), (3, "dtype object")):
        with pytest.raises(BadDataError, match=reason):
            maps.read(index)


def test_models_beside_maps(tmp_path: Path) -> None:
    """Weights of a model and curves among maps are no maps, but a second set of maps is never passed over."""
    np.save(tmp_path / "000.npy", SCORES[0])
    torch.save({"weight": torch.zeros(3, 3), "bias": torch.zeros(3), "more": torch.zeros(2, 2)}, tmp_path / "model.pt")
    (tmp_path / "old.pth").write_bytes(b"no tensors")
    assert map_files.open_maps(tmp_path).names == ["000.npy"]
    torch.save({"asmaps": torch.tensor(SCORES), "paths": PATHS}, tmp_path / "z.pt")
    assert map_files.open_maps(tmp_path).names == ["000.npy", *PATHS]


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".tiff"])
def test_a_single_map_keeps_its_folders(tmp_path: Path, suffix: str) -> None:
    """The name of the only map in a folder holds the folders that say which image it is of."""
    path = tmp_path / f"crack/000{suffix}"
    path.parent.mkdir()
    write = {
        ".npy": np.save,
        ".pt": lambda path, scores: torch.save(torch.tensor(scores), path),
        ".tiff": tifffile.imwrite,
    }
    write[suffix](path, SCORES[0])
    assert map_files.open_maps(tmp_path).names == [f"crack/000{suffix}"]


@pytest.mark.parametrize("kind", ["cut", "empty", "of NumPy"])
def test_broken_maps_of_torch_are_named(tmp_path: Path, kind: str) -> None:
    """A file of torch that cannot be read is a bad map where those beside it are maps, and is named."""
    for index, scores in enumerate(SCORES):
        torch.save(torch.tensor(scores), tmp_path / f"{index}.pt")
    reasons = {
        "cut": "broken",
        "empty": "not a file of `torch.save`",
        "of NumPy": r"a NumPy array\. Please save a tensor",
    }
    if kind == "of NumPy":
        torch.save(SCORES[1], tmp_path / "1.pt")
    else:
        (tmp_path / "1.pt").write_bytes((tmp_path / "1.pt").read_bytes()[: 400 if kind == "cut" else 0])
    maps = map_files.open_maps(tmp_path)
    assert maps.names == ["0.pt", "1.pt", "2.pt"]
    assert maps.read(2).shape == SCORES[2].shape
    with pytest.raises(BadDataError, match=reasons[kind]):
        maps.read(1)
    shutil.copy(tmp_path / "1.pt", tmp_path / "0.pt")
    (tmp_path / "2.pt").unlink()
    with pytest.raises(BadDataError, match=rf"but found none\. .*0\.pt: .*{reasons[kind]}"):
        map_files.open_maps(tmp_path)


@pytest.mark.parametrize("suffix", [".tiff", "tiff", ".TIFF", "_map.tiff"])
def test_map_suffix(tmp_path: Path, suffix: str) -> None:
    """Only files with the ending, in any case, are maps."""
    for name in ("000_map.tiff", "001_map.TIFF", "000.npy", "000.png", "002_map.tif"):
        (tmp_path / name).touch()
    assert map_files.open_maps(tmp_path, suffix).names == ["000_map.tiff", "001_map.TIFF"]


def test_map_suffixes_that_do_not_help(tmp_path: Path) -> None:
    """A suffix of no kind of maps, or of none in the folder, is an error that says so."""
    (tmp_path / "000.npy").touch()
    with pytest.raises(ValueError, match=r"Expected `map_suffix` to end in \.tiff, .*, but got '\.exr'"):
        map_files.open_maps(tmp_path, ".exr")
    with pytest.raises(BadDataError, match=r"to hold maps \(`map_suffix=\.tiff`\), but found none"):
        map_files.open_maps(tmp_path, ".tiff")


def make_archive(path: Path, head: dict[str, Any], data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Write an archive of one array with any head."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, head)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("maps.npy", file.getvalue() + data)


def test_archives_that_are_made_to_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array is not unpacked beyond its size, nor if it is too large, or compressed in a way without a limit."""
    monkeypatch.setattr(_files.limits, "MAX_PIXELS", 100)
    head = {"descr": "<f4", "fortran_order": False, "shape": (10, 10)}
    cases: list[tuple[dict[str, Any], bytes, int, str]] = [
        ({**head, "shape": (100, 100)}, bytes(40_000), zipfile.ZIP_DEFLATED, "too large: 100 x 100"),
        (head, bytes(100), zipfile.ZIP_DEFLATED, "ends too early"),
        (head, bytes(400), zipfile.ZIP_LZMA, "a way that NumPy never does"),
        ({**head, "descr": "|O"}, bytes(800), zipfile.ZIP_STORED, "dtype object"),
        ({**head, "descr": "|V1000000"}, bytes(100), zipfile.ZIP_STORED, "dtype"),
    ]
    for case, data, compression, reason in cases:
        make_archive(tmp_path / "a.npz", case, data, compression)
        with pytest.raises(BadDataError, match=reason):
            map_files.open_maps(tmp_path / "a.npz").read(0)
    make_archive(tmp_path / "a.npz", head, bytes(2**24))
    assert map_files.open_maps(tmp_path / "a.npz").read(0).shape == (10, 10)


def test_maps_of_a_large_set_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for each map, not for the set."""
    monkeypatch.setattr(_files.limits, "MAX_PIXELS", 40)
    for name in ("official", "compressed archive", "array"):
        SETS[name][1](tmp_path / SETS[name][0])
        check_set(tmp_path / SETS[name][0])


TIFF_TYPES = {
    "uint8": (SCORES[0] * 40 + 128).clip(0, 255).astype(np.uint8),
    "uint16": (SCORES[0] * 9000 + 30_000).clip(0, 65535).astype(np.uint16),
    "int16": (SCORES[0] * 9000).astype(np.int16),
    "int32": (SCORES[0] * 1e8).astype(np.int32),
    "float32": SCORES[0],
}


@pytest.mark.parametrize("dtype", TIFF_TYPES)
@pytest.mark.parametrize("predictor", [1, 2])
def test_lzw_tiff(tmp_path: Path, dtype: str, predictor: int) -> None:
    """LZW, which OpenCV writes with a predictor, is read to the last bit, with imagecodecs installed or not."""
    options = {"compression": "tiff_lzw", "tiffinfo": {317: predictor}}
    Image.fromarray(TIFF_TYPES[dtype]).save(tmp_path / "000.tiff", **options)
    with tifffile.TiffFile(tmp_path / "000.tiff") as file:
        assert (file.pages.first.compression, file.pages.first.predictor) == (5, predictor)
    values = map_files.open_maps(tmp_path).read(0)
    assert np.array_equal(values.numpy(), TIFF_TYPES[dtype])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"])
def test_float_predictor(tmp_path: Path, compression: str) -> None:
    """Float maps with the predictor of floats are read to the last bit."""
    Image.fromarray(SCORES[0]).save(tmp_path / "000.tiff", compression=compression, tiffinfo={317: 3})
    assert np.array_equal(map_files.open_maps(tmp_path).read(0).numpy(), SCORES[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [*TIFF_TYPES, "int8", "uint32", "float16", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_that_needs_no_codecs(tmp_path: Path, compression: str | None, dtype: str, order: str) -> None:
    """Deflated and uncompressed TIFF of all types and both orders of bytes is read to the last bit."""
    values = (SCORES[0] * 20).astype(dtype) if "u" not in dtype else np.abs(SCORES[0] * 20).astype(dtype)
    tifffile.imwrite(tmp_path / "000.tiff", values, compression=compression, byteorder=order)
    assert np.array_equal(map_files.open_maps(tmp_path).read(0).numpy(), values)


def write_foreign_tiff(path: Path, dtype: str, order: str, compression: int, predictor: int) -> None:
    """Write a TIFF whose tags say that it is packed in another way than it is."""
    tifffile.imwrite(
        path, np.zeros((5, 7), dtype), byteorder=order, metadata=None, extratags=[(65000, "H", 1, predictor, True)]
    )
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = [(tags["Compression"].valueoffset, compression), (tags[65000].offset, 317)]  # 317: predictor
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place : place + 2] = value.to_bytes(2, "little" if order == "<" else "big")
    path.write_bytes(content)


@pytest.mark.parametrize(
    "kind",
    [
        ("float32", ">", 5, 1),
        ("int16", ">", 5, 1),
        ("uint32", "<", 5, 1),
        ("int8", "<", 5, 1),
        ("float64", "<", 5, 1),
        ("float16", "<", 5, 1),
        ("float32", "<", 32773, 3),
        ("float32", ">", 5, 3),
    ],
)
def test_tiff_that_needs_codecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: tuple[str, str, int, int]
) -> None:
    """What neither tifffile nor Pillow reads right is refused with the remedy, not read wrong."""
    monkeypatch.setattr(_files.tiff, "find_spec", lambda _: None)
    write_foreign_tiff(tmp_path / "000.tiff", *kind)
    with pytest.raises(BadDataError, match=rf"a TIFF of {kind[0]} with .*`pip install imagecodecs`"):
        map_files.open_maps(tmp_path).read(0)


MEANINGS: dict[str, tuple[Write, str]] = {
    "palette": (lambda path: Image.fromarray(TIFF_TYPES["uint8"]).quantize(9).save(path), "a palette"),
    "white is 0": (lambda path: tifffile.imwrite(path, SCORES[0], photometric="miniswhite"), "0 is white"),
    "turned": (lambda path: tifffile.imwrite(path, SCORES[0], extratags=[(274, "H", 1, 6, True)]), "turned by its tag"),
    "colours": (lambda path: tifffile.imwrite(path, np.zeros((5, 7, 3), np.uint8), photometric="rgb"), "no map"),
}


@pytest.mark.parametrize("kind", MEANINGS)
def test_tiff_that_readers_do_not_agree_on(tmp_path: Path, kind: str) -> None:
    """A TIFF of which programs read different numbers is refused with the reason."""
    write, reason = MEANINGS[kind]
    write(tmp_path / "000.tif")
    with pytest.raises(BadDataError, match=reason):
        map_files.open_maps(tmp_path).read(0)


def test_png_that_readers_do_not_agree_on(tmp_path: Path) -> None:
    """So is a PNG that is turned by EXIF, or has several frames."""
    image = Image.fromarray(TIFF_TYPES["uint8"])
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "000.png", exif=exif)
    image.save(tmp_path / "001.png", save_all=True, append_images=[Image.new("L", image.size)])
    maps = map_files.open_maps(tmp_path)
    for index, reason in enumerate(("turned by its EXIF orientation", "several pictures, not one")):
        with pytest.raises(BadDataError, match=reason):
            maps.read(index)


def read_array(tmp_path: Path, values: Any) -> torch.Tensor:
    """Read an array as a map."""
    np.save(tmp_path / "000.npy", np.asarray(values))
    return map_files.open_maps(tmp_path / "000.npy").read(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_are_exact(tmp_path: Path, dtype: Any) -> None:
    """Integers are the same numbers as maps: those of more than 16 bits in float64, which holds 53."""
    values = np.array([[np.iinfo(dtype).max if np.dtype(dtype).itemsize < 8 else 2**53, 1], [2, 3]], dtype)
    read = read_array(tmp_path, values)
    assert read.tolist() == values.tolist()
    if np.dtype(dtype) != np.uint64:
        torch.save(torch.from_numpy(values), tmp_path / "000.pt")
        assert map_files.open_maps(tmp_path / "000.pt").read(0).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[True, False]], "dtype bool"),
        ([[1j, 0]], "dtype complex128"),
        ([["a", "b"]], "dtype <U1"),
        (np.zeros((2, 2), np.longdouble), "dtype"),
        (np.zeros((0, 2)), "no map"),
        ([[np.nan, 0]], "NaN in the map"),
        ([[1e300, 0]], "beyond float32"),
        ([[-1e39, np.inf]], "beyond float32"),
        ([[1e-50, 1e-60]], "too close to 0 for float32"),
    ],
)
def test_arrays_that_are_no_scores(tmp_path: Path, values: Any, reason: str) -> None:
    """What is no number, or would be another one in float32, is refused; the rounding of float32 is not."""
    with pytest.raises(BadDataError, match=reason):
        read_array(tmp_path, values)


def test_float64_within_float32(tmp_path: Path) -> None:
    """Infinite scores, zeros, and small scores beside larger ones are scores like others."""
    values = [[np.inf, -np.inf, 0.0, 1e-60, 1.0, 3e38]]
    assert read_array(tmp_path, values).tolist() == values
    assert read_array(tmp_path, [[0.0, 0.0]]).tolist() == [[0.0, 0.0]]


def test_bool_tensors_are_no_scores(tmp_path: Path) -> None:
    """The same holds for tensors."""
    torch.save({"asmaps": torch.ones(1, 2, 2, dtype=torch.bool), "paths": ["a.png"]}, tmp_path / "asmaps.pt")
    with pytest.raises(BadDataError, match=r"dtype torch\.bool"):
        map_files.open_maps(tmp_path / "asmaps.pt").read(0)


def test_archives_are_closed(tmp_path: Path) -> None:
    """Reading sets leaves no warning of a file that was not closed."""
    SETS["archive"][1](tmp_path / "maps.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = map_files.open_maps(tmp_path)
        maps.read(0)
        del maps
