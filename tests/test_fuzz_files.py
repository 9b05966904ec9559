"""Whatever is in a file, reading it gives an answer or one of the documented errors, with little time and memory.

Small files of each kind are damaged at random, in their checksummed parts with the checksum put right. Run as a program
this goes on for minutes, with other damage each time: `python tests/test_fuzz_files.py --minutes 10`.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import json
import logging
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aupimo_torchmetrics import AUPIMOResult, PIMOResult, _files
from aupimo_torchmetrics.evaluate.data.layouts import find_test_images
from aupimo_torchmetrics.evaluate.data.table import open_table
from aupimo_torchmetrics.evaluate.pairing import pair_maps

resource = pytest.importorskip("resource")  # Windows has none
Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
map_files = pytest.importorskip("aupimo_torchmetrics.evaluate.maps.open")
masks = pytest.importorskip("aupimo_torchmetrics.evaluate.masks")
photographs = pytest.importorskip("aupimo_torchmetrics.evaluate.photographs")

MAX_PIXELS = 2**20
"""Pixels of the largest file that is read here, so that what needs more memory than that is found."""
MAX_GROWTH = 2**28
"""Bytes by which one file may raise the peak memory of the process; after other tests that used more, it sees less."""
MAX_SECONDS = 20
"""How long to wait for one file before the process is ended with a traceback."""
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


class Target(NamedTuple):
    """A kind of file that the library reads."""

    name: str
    """Path of the file in its folder."""
    samples: Callable[[], list[bytes]]
    """Makes small files that can be read."""
    read: Callable[[Path], Any]
    """Reads a folder with one such file; may raise a ValueError."""
    repair: Callable[[bytes], bytes] = bytes
    """Puts checksums right, or wraps what was damaged."""


def random_map(dtype: Any, size: tuple[int, int] = (6, 5)) -> Any:
    """Return a seeded array."""
    return np.random.default_rng(0).integers(0, 100, size).astype(dtype)


def tiff_maps() -> list[bytes]:
    """TIFF maps of several types, compressions and orders of bytes, in strips and in tiles."""
    options: list[dict[str, Any]] = [
        {"data": random_map(np.float32)},
        {"data": random_map(np.uint8), "compression": "zlib"},
        {"data": random_map(np.float64, (16, 16)), "tile": (16, 16), "compression": "lzma"},
        {"data": random_map(np.float16), "bigtiff": True, "byteorder": ">"},
        {"data": random_map(np.uint16), "rowsperstrip": 2, "metadata": None},
        {"data": random_map(np.float32), "ome": True},
        {"data": random_map(np.float32), "imagej": True},
    ]
    return [_written(tifffile.imwrite, **each) for each in options]


def npy_maps() -> list[bytes]:
    """NumPy maps of several types and orders of bytes and of axes."""
    arrays = [random_map(dtype) for dtype in (np.float16, np.float32, np.float64, np.uint8, ">f4")]
    return [_written(np.save, each) for each in [*arrays, np.asfortranarray(arrays[1])]]


def npy_masks() -> list[bytes]:
    """NumPy masks of several types."""
    return [_written(np.save, random_map(np.uint8) // 50 * dtype(1)) for dtype in (np.uint8, np.bool_, np.float32)]


def npz_maps() -> list[bytes]:
    """NumPy archives of a map, and of a set of maps."""
    contents: list[dict[str, Any]] = [
        {"arr_0": random_map(np.float32)},
        {"maps": random_map(np.float16, (2, 6, 5)), "paths": ["a/000.png", "a/001.png"]},
        {"maps": np.asfortranarray(random_map(">f8")), "label": np.array(1)},
    ]
    return [_written(write, **each) for each in contents for write in (np.savez, np.savez_compressed)]


def pictures(form: str, modes: tuple[str, ...], **options: Any) -> Callable[[], list[bytes]]:
    """Make pictures of several modes in a format."""

    def make() -> list[bytes]:
        images = [Image.new(mode, (6, 5), 0x010101 if mode == "RGB" else 1) for mode in modes]
        return [_written(image.save, form, **options) for image in images]

    return make


def _written(write: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    write(file, *args, **kwargs)
    return file.getvalue()


def with_png_checksums(data: bytes) -> bytes:
    """Put the checksum of each chunk of a PNG right, as far as it is one."""
    content, start = bytearray(data), 8
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        if start + 12 + length > len(content):
            break
        checksum = zlib.crc32(content[start + 4 : start + 8 + length])
        struct.pack_into(">I", content, start + 8 + length, checksum)
        start += 12 + length
    return bytes(content)


TENSORS = {
    "asmaps": {"asmaps": torch.arange(60.0).view(2, 6, 5), "paths": ["a/000.png", "a/001.png"]},
    "curves": {
        "shared_fpr_metric": "mean-per-image-fpr",
        "threshs": torch.arange(3.0),
        "shared_fpr": torch.tensor([1.0, 0.5, 0.1]),
        "per_image_tprs": torch.rand(2, 3, generator=torch.Generator().manual_seed(0)),
    },
}


def tensors(kind: str) -> Callable[[], list[bytes]]:
    """Make a file of tensors."""
    return lambda: [_written(lambda file: torch.save(TENSORS[kind], file))]


def pickles(kind: str) -> Callable[[], list[bytes]]:
    """Make the part of a file of tensors that says what is in it."""

    def make() -> list[bytes]:
        with zipfile.ZipFile(io.BytesIO(tensors(kind)()[0])) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]

    return make


def with_pickle(kind: str) -> Callable[[bytes], bytes]:
    """Replace that part of a file of tensors."""

    def wrap(pickled: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(tensors(kind)()[0])) as archive, zipfile.ZipFile(file, "w") as other:
            for name in archive.namelist():
                other.writestr(name, pickled if name.endswith("data.pkl") else archive.read(name))
        return file.getvalue()

    return wrap


def scores() -> list[bytes]:
    """Files of scores, of the official package and of this library."""
    official: dict[str, Any] = {
        "shared_fpr_metric": "mean-per-image-fpr",
        "fpr_lower_bound": 1e-5,
        "fpr_upper_bound": 1e-4,
        "num_threshs": 301,
        "thresh_lower_bound": 0.5,
        "thresh_upper_bound": 1.5,
        "aupimos": [float("nan"), 0.0, 0.25, 1.0],
    }
    return [json.dumps(each).encode() for each in (official, {**official, "paths": ["a", "b", "c", "d"]})]


def split_tables() -> list[bytes]:
    """VisA's table."""
    return [b"object,split,label,image,mask\ncandle,test,normal,candle/Data/Images/Normal/a.JPG,\n"]


def tables() -> list[bytes]:
    """Tables of images, masks and maps."""
    return [
        b'image,mask,map,label,category\na.png,,a.npy,0,x\n"b,1.png",b.png;c.png,b.npy,1,y\n',
        b"\xef\xbb\xbfimage;mask;map\r\n../d/a.png;;a.npy\r\n",
    ]


def lists_of_real_iad() -> list[bytes]:
    """Lists of images of Real-IAD."""
    rows = b'{"image_path": "OK/a.jpg", "mask_path": null, "anomaly_class": "OK"}'
    return [b'{"meta": {"normal_class": "OK", "prefix": "x/"}, "test": [' + rows + b"]}"]


def read_maps(folder: Path) -> None:
    """Read all maps in a folder."""
    maps = map_files.open_maps(folder)
    for index in range(len(maps.names)):
        maps.read(index)


def read_asmaps(folder: Path) -> None:
    """Read all maps in a file of the official package."""
    maps = map_files.open_maps(folder / "asmaps.pt")
    pair_maps(maps, [])  # takes the paths of the images apart
    for index in range(min(10, len(maps.names))):
        maps.read(index)


def read_picture(folder: Path) -> None:
    """Read an image in all ways."""
    (path,) = folder.iterdir()
    photographs.read_head(path)
    masks.read_mask((path,), masks.MaskRule(threshold=127, ignore_index=7))
    photographs.read_image(path)


def read_mask(folder: Path) -> None:
    """Read a mask without a rule."""
    (path,) = folder.iterdir()
    masks.read_mask((path,), masks.MaskRule())


def read_scores(folder: Path) -> None:
    """Read scores, quote them and write them again."""
    result = AUPIMOResult.load(folder / "aupimos.json")
    assert result.protocol
    assert result.chance >= 0
    result.save(folder / "again.json")
    AUPIMOResult.load(folder / "again.json")


def read_curves(folder: Path) -> None:
    """Read curves and write them again."""
    PIMOResult.load(folder / "curves.pt").save(folder / "again.pt")


def read_split(folder: Path) -> None:
    """List the images of a data set with a table."""
    image = folder / "candle/Data/Images/Normal/a.JPG"
    image.parent.mkdir(parents=True)
    image.touch()
    find_test_images(folder, "visa")


def read_table(folder: Path) -> None:
    """Take a table apart."""
    open_table(folder / "table.csv")


def read_real_iad(folder: Path) -> None:
    """List the images of a data set with a JSON."""
    for name in ("OK/a.jpg", "NG/b.jpg"):
        (folder / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "x" / name).touch()
    find_test_images(folder, "real_iad")


GREY = ("L", "I;16")
TARGETS = {
    "map.tiff": Target("000.tiff", tiff_maps, read_maps),
    "map.tiff, LZW": Target(
        "000.tiff", pictures("TIFF", ("L", "I;16", "I", "F"), compression="tiff_lzw", tiffinfo={317: 2}), read_maps
    ),
    "map.npy": Target("000.npy", npy_maps, read_maps),
    "map.npz": Target("000.npz", npz_maps, read_maps),
    "map.png": Target("000.png", pictures("PNG", GREY), read_maps, repair=with_png_checksums),
    "image.png": Target("000.png", pictures("PNG", (*GREY, "1", "RGBA", "P")), read_picture, repair=with_png_checksums),
    "image.jpg": Target("000.jpg", pictures("JPEG", ("L", "RGB")), read_picture),
    "image.bmp": Target("000.bmp", pictures("BMP", ("1", "L", "RGB")), read_picture),
    "image.tif": Target("000.tif", pictures("TIFF", ("1", "L", "RGB"), compression="tiff_lzw"), read_picture),
    "mask.tif": Target("000.tif", pictures("TIFF", ("1", "L", "I;16", "F")), read_mask),
    "mask.png": Target("000.png", pictures("PNG", ("1", "L", "I;16")), read_mask, repair=with_png_checksums),
    "mask.npy": Target("000.npy", npy_masks, read_mask),
    "image.webp": Target("000.webp", pictures("WEBP", ("RGB",)), read_picture),
    "asmaps.pt": Target("asmaps.pt", tensors("asmaps"), read_asmaps),
    "asmaps.pt, pickle": Target("asmaps.pt", pickles("asmaps"), read_asmaps, repair=with_pickle("asmaps")),
    "curves.pt": Target("curves.pt", tensors("curves"), read_curves),
    "curves.pt, pickle": Target("curves.pt", pickles("curves"), read_curves, repair=with_pickle("curves")),
    "aupimos.json": Target("aupimos.json", scores, read_scores),
    "1cls.csv": Target("split_csv/1cls.csv", split_tables, read_split),
    "table.csv": Target("table.csv", tables, read_table),
    "Real-IAD": Target("realiad_jsons/x.json", lists_of_real_iad, read_real_iad),
}


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """One of the files, damaged in one to five ways."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([1, 2, 4, 8, 50]))
        kind = draw(st.sampled_from(["bit", "bytes", "number", "end", "loss", "repeat"]))
        if kind == "bit" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "bytes":
            data[start : start + length] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "number":
            size, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["<", ">"]))
            number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size)
            data[start : start + size] = number.to_bytes(size, "little" if order == "<" else "big")
        elif kind == "end":
            del data[start:]
        elif kind == "loss":
            del data[start : start + length]
        else:
            data[start:start] = data[start : start + length] * draw(st.sampled_from([1, 2, 1000]))
    return bytes(data)


def peak_memory() -> int:
    """Return the largest memory of the process so far, in bytes."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse files of more than a million pixels."""
    monkeypatch.setattr(_files.limits, "MAX_PIXELS", MAX_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)


def try_file(target: Target, data: bytes) -> str:
    """Read a damaged file, and return what came of it; raise if that is nothing that may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, target.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(target.repair(data))
        before = peak_memory()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                target.read(Path(folder))
            except ValueError as error:
                if not str(error):
                    raise
                return "refused"
            finally:
                assert peak_memory() - before < MAX_GROWTH
    return "read"


@pytest.mark.parametrize("kind", TARGETS)
def test_undamaged_files_can_be_read(kind: str) -> None:
    """The files that are damaged are read when they are not."""
    for data in TARGETS[kind].samples():
        assert try_file(TARGETS[kind], data) == "read"


def fuzz(kind: str, num_examples: int, seed: int | None) -> collections.Counter[str]:
    """Try damaged files of one kind, and count what came of them."""
    counts: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=num_examples,
        database=None,
        deadline=None,
        derandomize=seed is None,
        suppress_health_check=[*HealthCheck],
    )
    @given(data=damaged(TARGETS[kind].samples()))
    def run(data: bytes) -> None:
        faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
        try:
            counts[try_file(TARGETS[kind], data)] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()

    (run if seed is None else hypothesis.seed(seed)(run))()
    return counts


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    """No damage brings about another error than the documented ones, nor fills the memory."""
    counts = fuzz(kind, 150, None)
    assert counts["refused"] > 0


def rounds(minutes: float) -> Iterator[int]:
    """Count from 1 until the time is over."""
    end, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        number += 1
        yield number


def main() -> None:
    """Fuzz all kinds of files in turn, and print how many files were read and how many refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="first of the seeds")
    arguments = parser.parse_args()
    logging.disable()
    _files.limits.MAX_PIXELS = Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    counts = {kind: collections.Counter[str]() for kind in TARGETS}
    for number in rounds(arguments.minutes):
        for kind, count in counts.items():
            count.update(fuzz(kind, 300, arguments.seed + number))
    for kind, count in counts.items():
        print(f"{kind:20} {count['read']:8,} read {count['refused']:8,} refused")  # noqa: T201
    print(f"{sum(count.total() for count in counts.values()):,} files in {arguments.minutes:g} minutes")  # noqa: T201


if __name__ == "__main__":
    main()
