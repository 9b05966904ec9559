"""Whatever is in a file, reading it gives an answer or one of the documented errors.

Small files of each kind are damaged at random, in their checksummed parts with the checksum put right. Run as a program
this goes on with other damage each time: `python tests/test_fuzz_files.py 100` for a hundred rounds.
"""

import collections
import io
import json
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from data_sets import write_image, write_map
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics._files import limits
from aupimo_torchmetrics.evaluate import evaluate, find_test_images, open_maps

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


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse files of more than a million pixels."""
    monkeypatch.setattr(limits, "MAX_PIXELS", MAX_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)


def fuzz(kind: str, seed: int) -> collections.Counter[str]:
    """Try damaged files of one kind, and count what came of them."""
    target, rng = TARGETS[kind], np.random.default_rng(seed)
    files = [damaged(target.samples[number % len(target.samples)], rng) for number in range(NUM_FILES)]
    return collections.Counter(try_file(target, data) for data in files)


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
