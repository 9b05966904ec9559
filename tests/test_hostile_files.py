"""Files of other people that are made to mislead, or damaged: reading them gives an answer or a documented error.

No code in them is run, and no file beside them is opened. Small files of each kind are damaged at random, in their
checksummed parts with the checksum put right. Run as a program this goes on with other damage each time:
`python tests/test_hostile_files.py 100` for a hundred rounds.
"""

import collections
import io
import json
import os
import pickle
import re
import struct
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from data_sets import write_image, write_map
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics._files import limits
from aupimo_torchmetrics.evaluate import BadDataError, evaluate, find_test_images, open_maps

WHITE = np.full((4, 4), 255, np.uint8)


class Code:
    """What leaves a file behind if it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the file when unpickled."""
        return (Path.touch, (self.trace,))


def code_in(path: Path) -> Code:
    """Code that leaves a file beside a path."""
    return Code(path.with_suffix(".trace"))


def content(path: Path) -> dict[str, Any]:
    """Code among tensors."""
    return {"asmaps": torch.zeros(1, 2, 2), "paths": [code_in(path)]}


def write_tar(path: Path) -> None:
    """Write code in the oldest format of torch, which torch before 2.6 unpickles without any check."""
    pickled = pickle.dumps(code_in(path))
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))


def write_polyglot(path: Path) -> None:
    """Write tensors in the old format, with code in them, and behind them an archive that `zipfile` finds."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, path)
    whole = path.read_bytes()
    torch.save(content(path), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + whole)


def write_pickle(path: Path) -> None:
    """Write code in place of what the suffix says."""
    path.write_bytes(pickle.dumps(code_in(path)))


CODE: dict[str, Callable[[Path], Any]] = {
    "archive.pt": lambda path: torch.save(content(path), path),
    "old format.pt": lambda path: torch.save(content(path), path, _use_new_zipfile_serialization=False),
    "oldest format.pt": write_tar,
    "before an archive.pt": write_polyglot,
    "objects.npy": lambda path: np.save(path, np.array([[code_in(path)]], dtype=object)),
    "objects.npz": lambda path: np.savez(path, np.array([[code_in(path)]], dtype=object)),
    **dict.fromkeys(("alone.pt", "alone.npy", "alone.npz"), write_pickle),
}


@pytest.mark.parametrize("name", CODE)
def test_code_in_files(tmp_path: Path, name: str) -> None:
    """Code in a file of tensors or arrays is not run, whatever the format, and no error advises to run it."""
    CODE[name](tmp_path / name)
    for read in (lambda path: open_maps(path).read(0), PIMOResult.load):
        with pytest.raises(ValueError, match=r"(?s)^(?!.*(pickle|weights_only)).*\.(pt|np.)"):
            read(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


VERSIONS = {"2.5.1+cu121": False, "2.6.0a0+git1234": False, "2.6.0+cu124": True, "2.10.1": True}
"""Versions of torch, and whether they read tensors without running code."""


@pytest.mark.parametrize("version", VERSIONS)
def test_torch_that_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Under torch before 2.6 a file of tensors is not read: the error names both versions and the remedy."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, tmp_path / "file.pt")
    monkeypatch.setattr(torch, "__version__", version)
    if VERSIONS[version]:
        assert open_maps(tmp_path / "file.pt").names == ["a.png"]
        return
    message = rf'torch 2\.6 or later.* but torch {re.escape(version)} is installed.*pip install "torch>=2\.6"'
    with pytest.raises(ImportError, match=message):
        open_maps(tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        PIMOResult.load(tmp_path / "file.pt")


def test_a_data_set_with_a_mask_elsewhere(tmp_path: Path) -> None:
    """A mask that lies elsewhere is refused by name; links within the data set, and to it, are no matter."""
    root, mask = tmp_path / "data", tmp_path / "data/bottle/ground_truth/broken/000_mask.png"
    write_image(root / "bottle/test/broken/000.png", WHITE)
    write_image(mask, WHITE)
    (root / "bottle/test/broken/001.png").symlink_to("000.png")
    (tmp_path / "link").symlink_to(root)
    names = ["bottle/test/broken/000.png", "bottle/test/broken/001.png"]
    assert [image.name for image in find_test_images(tmp_path / "link")] == names
    mask.rename(tmp_path / "outside.png")
    mask.symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match=r"bottle.*000.* is reached by a link that leads out"):
        find_test_images(root)


def test_formats_that_run_other_programs(tmp_path: Path) -> None:
    """A file is read by the decoders of images only, whatever its name says: not as EPS, which runs Ghostscript."""
    for index, name in enumerate(("000.png", "001.tif")):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n%%EOF\n")
        with pytest.raises(BadDataError, match=r"cannot identify image file|not a TIFF file"):
            open_maps(tmp_path).read(index)


def test_maps_that_name_other_files(tmp_path: Path) -> None:
    """A TIFF map whose description names a file outside of the folder is read itself, and the other is not."""
    tifffile.imwrite(tmp_path / "secret.tif", np.full((4, 4), 7, np.float32))
    (tmp_path / "maps").mkdir()
    description = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" SizeX="4" SizeY="4" SizeZ="1" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1">'
        '<UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    scores = np.zeros((4, 4), np.float32)
    tifffile.imwrite(tmp_path / "maps/000.tif", scores, description=description, metadata=None)
    assert open_maps(tmp_path / "maps").read(0).amax() == 0


@pytest.mark.parametrize("kind", ["data set", "maps"])
@pytest.mark.parametrize("link", ["file out", "folder", "circle", "nothing", "nothing without suffix", "pipe"])
def test_links_within_folders(tmp_path: Path, kind: str, link: str) -> None:
    """A link that leads out, to a folder or nowhere is refused by name: it is neither followed nor skipped."""
    root, outside = tmp_path / kind, tmp_path / "outside"
    read = find_test_images if kind == "data set" else open_maps
    folder = root / "bottle/test/good"
    for path in (folder / "000.png", outside / "001.png"):
        write_image(path, WHITE)
    odd = folder / ("odd" if link == "nothing without suffix" else "odd.png")
    if link == "pipe":
        os.mkfifo(odd)
    else:
        targets = {"file out": outside / "001.png", "folder": outside, "circle": root}
        odd.symlink_to(targets.get(link, tmp_path / "nowhere"))
    with pytest.raises(BadDataError, match=r"odd(\.png)? is|odd(\.png)? to be a file"):
        read(root)
    if link in {"file out", "folder"}:
        assert read(root, follow_links=True)
    else:
        with pytest.raises(BadDataError, match=r"odd\.png is a link to a folder above|to be a file"):
            read(root, follow_links=True)


def test_links_that_lead_to_each_other(tmp_path: Path) -> None:
    """A circle of two links ends, too, and a folder may be reached by two."""
    maps = tmp_path / "maps"
    for name, other in (("a", "b"), ("b", "a")):
        write_image(maps / name / "000.png", WHITE)
        (maps / name / "link").symlink_to(maps / other)
    with pytest.raises(BadDataError, match="is a link to a folder above"):
        open_maps(maps, follow_links=True)
    (maps / "b/link").unlink()
    assert open_maps(maps, follow_links=True).names == ["a/000.png", "a/link/000.png", "b/000.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A mask that declares too many pixels is named, and its pixels are not read."""
    mask, scores = tmp_path / f"mask{suffix}", tmp_path / "map.npy"
    np.save(scores, np.eye(4))
    write_image(mask, np.full((20, 20), 255, np.uint8))
    with Image.open(mask) as opened:
        monkeypatch.setattr(type(opened), "load", lambda _: pytest.fail("its pixels were read"))
    monkeypatch.setattr(limits, "MAX_PIXELS", 300)
    with pytest.raises(BadDataError, match=r"mask\.\w+: too large: 20 x 20, at most 300 pixels"):
        evaluate(table=pd.DataFrame({"image": ["0.png"], "map": [str(scores)], "mask": [str(mask)]}))


TABLES = {
    "empty": (b"", "could not read it: EmptyDataError"),
    "no text": (b"object,split,label,image,mask\n\xff\xfe", "could not read it"),
    "open quote": (b'object,split,label,image,mask\ncandle,test,normal,"candle/a', "could not read it: ParserError"),
    "endless field": (b"object,split,label,image,mask\n" + b"x" * 200_000, "the layout 'visa', but it fits none"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_the_split(tmp_path: Path, kind: str) -> None:
    """If VisA's table cannot be read, its images are not all taken for test images."""
    table, reason = TABLES[kind]
    write_image(tmp_path / "candle/Data/Images/Normal/a.JPG", WHITE)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_bytes(table)
    with pytest.raises(ValueError, match=reason):
        find_test_images(tmp_path, "visa")


MAX_PIXELS = 2**20
"""Pixels of the largest file that is read here."""
NUM_FILES = 30
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


class Target(NamedTuple):
    """A kind of file that the library reads."""

    name: str
    """Path of the file in its folder."""
    samples: list[bytes]
    """Small files that can be read."""
    read: Callable[[Path], Any]
    """Reads a folder with one such file; may raise a ValueError."""
    repair: Callable[[bytes], bytes] = bytes
    """Puts checksums right, or wraps what was damaged."""


def written(write: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:
    """Return what is written to a file."""
    file = io.BytesIO()
    write(file, *args, **kwargs)
    return file.getvalue()


def saved(content: Any) -> bytes:
    """Return a file of `torch.save`."""
    return written(lambda file: torch.save(content, file))


def random_map(dtype: Any, size: tuple[int, ...] = (6, 5)) -> Any:
    """Return a seeded array."""
    return np.random.default_rng(0).integers(0, 100, size).astype(dtype)


TIFF_OPTIONS: list[dict[str, Any]] = [
    {"data": random_map(np.float32)},
    {"data": random_map(np.uint8), "compression": "zlib"},
    {"data": random_map(np.float64, (16, 16)), "tile": (16, 16), "compression": "lzma"},
    {"data": random_map(np.float16), "bigtiff": True, "byteorder": ">"},
    {"data": random_map(np.uint16), "rowsperstrip": 2, "metadata": None},
    {"data": random_map(np.float32), "ome": True},
]
"""Several types, compressions and orders of bytes, in strips and in tiles."""


def pictures(form: str, modes: tuple[str, ...], **options: Any) -> list[bytes]:
    """Black pictures with two pixels of another value, of several modes in a format."""
    images = [Image.new(mode, (5, 6)) for mode in modes]
    for image in images:
        image.paste(255, (1, 2, 3, 3))
    return [written(image.save, form, **options) for image in images]


def with_png_checksums(data: bytes) -> bytes:
    """Put the checksum of each chunk of a PNG right, as far as it is one."""
    content, start = bytearray(data), 8
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        if start + 12 + length > len(content):
            break
        struct.pack_into(">I", content, start + 8 + length, zlib.crc32(content[start + 4 : start + 8 + length]))
        start += 12 + length
    return bytes(content)


ASMAPS = {"asmaps": torch.arange(60.0).view(2, 6, 5), "paths": ["a.png", "b.png"]}
BY_PATH = {"a/0.png": torch.zeros(6, 5), "b/0.png": torch.zeros(6, 5)}
CURVES = {"threshs": torch.arange(3.0), "shared_fpr": torch.rand(3), "per_image_tprs": torch.rand(2, 3)}


SCORES = json.dumps(
    {"shared_fpr_metric": "mean-per-image-fpr", "fpr_lower_bound": 1e-5, "fpr_upper_bound": 1e-4}
    | {"thresh_lower_bound": 0.5, "thresh_upper_bound": 1.5, "num_threshs": 301}
    | {"aupimos": [float("nan"), 0.0, 1.0], "paths": ["a", "b", "c"]}
).encode()


def read_maps(folder: Path) -> None:
    """Read all maps in a folder."""
    maps = open_maps(folder)
    for index in range(len(maps.names)):
        maps.read(index)


def read_data(folder: Path) -> None:
    """Evaluate maps with an image and a mask of which one is damaged."""
    for name in ("good/000", "bad/000"):
        write_image(folder / f"data/x/test/{name}.png", np.zeros((6, 5), np.uint8))
        write_map(folder / f"maps/{name}.npy", random_map(np.float32))
    evaluate(folder / "maps", folder / "data", fpr_bounds=(0.01, 0.5))


def read_scores(folder: Path) -> None:
    """Read scores, quote them and write them again."""
    result = AUPIMOResult.load(folder / "aupimos.json")
    assert result.protocol
    result.save(folder / "again.json")
    AUPIMOResult.load(folder / "again.json")


def read_real_iad(folder: Path) -> None:
    """List the images of a data set with a JSON."""
    for name in ("OK/a.jpg", "NG/b.jpg"):
        write_image(folder / "x" / name, np.zeros((1, 1), np.uint8))
    find_test_images(folder, "real_iad")


ARRAYS = [random_map(dtype) for dtype in (np.float16, np.float64, np.uint8, ">f4")]
NPZ: list[dict[str, Any]] = [
    {"arr_0": ARRAYS[0]},
    {"maps": random_map(np.float16, (2, 6, 5)), "paths": ["a/000.png", "a/001.png"]},
    {"a/0.png": np.asfortranarray(ARRAYS[3]), "label": np.array(1)},
]
MASK = "data/x/ground_truth/bad/000_mask"

REAL_IAD = b"""{"meta": {"normal_class": "OK", "prefix": "x/"},
    "test": [{"image_path": "OK/a.jpg", "mask_path": null, "anomaly_class": "OK"}]}"""
TABLE = b'image,mask,map\na.png,,a.npy\n"b,1.png",b.png;c.png,b.npy'


TARGETS = {
    "map.tiff": Target("0.tiff", [written(tifffile.imwrite, **each) for each in TIFF_OPTIONS], read_maps),
    "map.tiff, LZW": Target("0.tiff", pictures("TIFF", ("L", "I;16", "F"), compression="tiff_lzw"), read_maps),
    "map.npy": Target("0.npy", [written(np.save, each) for each in ARRAYS], read_maps),
    "map.npz": Target("0.npz", [written(np.savez_compressed, **each) for each in NPZ], read_maps),
    "map.png": Target("0.png", pictures("PNG", ("L", "I;16")), read_maps, with_png_checksums),
    "mask.png": Target(f"{MASK}.png", pictures("PNG", ("1", "L", "I;16")), read_data, with_png_checksums),
    "mask.tif": Target(f"{MASK}.tif", pictures("TIFF", ("1", "L", "I;16", "F")), read_data),
    "asmaps.pt": Target("asmaps.pt", [saved(ASMAPS), saved(BY_PATH)], read_maps),
    "curves.pt": Target("curves.pt", [saved(CURVES)], lambda folder: PIMOResult.load(folder / "curves.pt")),
    "aupimos.json": Target("aupimos.json", [SCORES], read_scores),
    "table.csv": Target("t.csv", [TABLE], lambda folder: evaluate(None, table=folder / "t.csv", skip_bad=True)),
    "Real-IAD": Target("realiad_jsons/x.json", [REAL_IAD], read_real_iad),
}


def damaged(sample: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to five ways."""
    data = bytearray(sample)
    for _ in range(rng.integers(1, 6)):
        start, length = int(rng.integers(len(data) + 1)), int(rng.choice([1, 2, 4, 8, 50]))
        kind = rng.choice(["bit", "bytes", "number", "end", "loss", "repeat"])
        if kind == "bit" and start < len(data):
            data[start] ^= 1 << int(rng.integers(8))
        elif kind == "bytes":
            data[start : start + length] = rng.bytes(8)
        elif kind == "number":
            number, size = int(rng.choice(len(NUMBERS))), int(rng.choice([1, 2, 4, 8]))
            part = (NUMBERS[number] % 2 ** (8 * size)).to_bytes(size, "little")
            data[start : start + size] = part if rng.integers(2) else part[::-1]
        elif kind == "end":
            del data[start:]
        elif kind == "loss":
            del data[start : start + length]
        else:
            data[start:start] = data[start : start + length] * int(rng.choice([1, 2, 1000]))
    return bytes(data)


def try_file(target: Target, data: bytes) -> str:
    """Read a damaged file, and return what came of it; raise if that is nothing that may come of it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are uncertain
        path = Path(folder, target.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(target.repair(data))
        try:
            target.read(Path(folder))
        except ValueError as error:
            if not str(error):
                raise
            return "refused"
    return "read"


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse files of more than a million pixels."""
    monkeypatch.setattr(limits, "MAX_PIXELS", MAX_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)


def fuzz(kind: str, seed: int) -> collections.Counter[str]:
    """Try damaged files of one kind, and count what came of them."""
    target, rng = TARGETS[kind], np.random.default_rng(seed)
    files = [damaged(target.samples[number % len(target.samples)], rng) for number in range(NUM_FILES)]
    return collections.Counter(try_file(target, data) for data in files)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    """No damage brings about another error than the documented ones; what is not damaged is read."""
    if kind != "table.csv":  # names files that are not there
        assert {try_file(TARGETS[kind], data) for data in TARGETS[kind].samples} == {"read"}
    assert fuzz(kind, 0)["refused"] > 0


if __name__ == "__main__":
    limits.MAX_PIXELS = Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    for kind in TARGETS:
        counts = sum((fuzz(kind, seed) for seed in range(int(sys.argv[1]))), collections.Counter[str]())
        print(f"{kind:20} {counts['read']:8,} read {counts['refused']:8,} refused")  # noqa: T201
