"""Files of other people that are made to mislead: refused with the reason, and nothing beside them is opened."""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
import re
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aupimo_torchmetrics import AUPIMOResult, PIMOResult, _files
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import results as _result_files
from aupimo_torchmetrics.evaluate.data.layouts import find_test_images

image_files = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
map_files = pytest.importorskip("aupimo_torchmetrics.evaluate.maps.open")
masks = pytest.importorskip("aupimo_torchmetrics.evaluate.masks")

DEEP = "[" * 100_000


def write_result(folder: Path) -> Path:
    """Write scores with settings and return the file of the scores."""
    path = folder / "aupimos.json"
    AUPIMOResult(torch.tensor([0.5, torch.nan]), (1e-5, 1e-4), (0.1, 0.2)).save(path)
    return path


def test_scores_nested_without_end(tmp_path: Path) -> None:
    """JSON deeper than Python can read is refused like any other that holds no scores."""
    path = tmp_path / "aupimos.json"
    path.write_text(DEEP, encoding="utf-8")
    with pytest.raises(ValueError, match=r"aupimos\.json: RecursionError"):
        AUPIMOResult.load(path)


def with_setting(path: Path, name: str, value: str) -> None:
    """Write another text under a name into the settings beside scores."""
    details = path.with_suffix(".safetensors")
    with safe_open(details, framework="pt") as file:
        metadata = {**file.metadata(), name: value}
    tensors = load_file(details)
    save_file(tensors, details, {**metadata, "sha256": _result_files.checksum(tensors, metadata)})


def test_settings_nested_without_end(tmp_path: Path) -> None:
    """The same holds for the settings beside the scores."""
    path = write_result(tmp_path)
    with_setting(path, "warnings", DEEP)
    with pytest.raises(ValueError, match=r"aupimos\.safetensors to hold the details"):
        AUPIMOResult.load(path)


@pytest.mark.parametrize("value", ["5", 5.5, [5], {"a": 5}, True])
def test_number_of_thresholds_of_another_type(tmp_path: Path, value: Any) -> None:
    """What is not a number of thresholds is not taken for one, so that a result that was read can be written."""
    path = write_result(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8")) | {"num_threshs": value}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"TypeError: `num_threshs` is of type"):
        AUPIMOResult.load(path)


@pytest.mark.parametrize("name", ["num_thresholds", "num_points", "version"])
def test_settings_of_another_type(tmp_path: Path, name: str) -> None:
    """A setting that is neither number nor text is refused, not quoted."""
    path = write_result(tmp_path)
    with_setting(path, name, "[1]")
    with pytest.raises(ValueError, match=f"could not read it: .*`{name}`.* list"):
        AUPIMOResult.load(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_formats_that_run_other_programs(tmp_path: Path, suffix: str) -> None:
    """A file is read by the decoders of images only, whatever its name says: not as EPS, which runs Ghostscript."""
    path = tmp_path / f"000{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (map_files.read_image, map_files.image_size, lambda each: masks.read_mask((each,), masks.MaskRule())):
        with pytest.raises(ValueError, match=r"cannot identify image file|not a TIFF file"):
            read(path)


def test_maps_that_name_other_files(tmp_path: Path) -> None:
    """A TIFF map whose description names a file outside of the folder is read itself, and the other is not."""
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((4, 4), 7, np.float32))
    folder = tmp_path / "maps"
    folder.mkdir()
    description = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" SizeX="4" SizeY="4" SizeZ="1" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1">'
        '<UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(folder / "000.tif", np.zeros((4, 4), np.float32), description=description, metadata=None)
    assert map_files.open_maps(folder).read(0).amax() == 0


def test_maps_of_several_pages(tmp_path: Path) -> None:
    """It is not guessed which page of a TIFF file is the map."""
    tifffile.imwrite(tmp_path / "000.tif", np.zeros((2, 5, 4), np.float32), photometric="minisblack")
    with pytest.raises(ValueError, match="several pages, not one"):
        map_files.open_maps(tmp_path).read(0)


TENSORS = {
    "sparse": torch.zeros(1, 2, 2).to_sparse(),
    "complex": torch.zeros(1, 2, 2, dtype=torch.complex64),
    "four axes": torch.zeros(1, 2, 2, 2),
    "five axes": torch.zeros(1, 1, 1, 2, 2),
    "one axis": torch.zeros(4),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_no_maps(tmp_path: Path, kind: str) -> None:
    """Tensors of other kinds are refused when the file is opened."""
    torch.save({"asmaps": TENSORS[kind], "paths": ["a.png"]}, tmp_path / "asmaps.pt")
    reason = "'asmaps' is not a dense tensor|an array of shape|no array of maps"
    if kind == "sparse":
        reason += "|broken, or not only tensors"  # of torch 2.14, which reads no sparse tensor from a file
    with pytest.raises(ValueError, match=rf"asmaps\.pt: ({reason})"):
        map_files.open_maps(tmp_path / "asmaps.pt")


def test_tensors_without_memory(tmp_path: Path) -> None:
    """Maps without values are refused when they are read."""
    torch.save({"asmaps": torch.zeros(1, 2, 2, device="meta"), "paths": ["a.png"]}, tmp_path / "asmaps.pt")
    with pytest.raises(ValueError, match="meta"):
        map_files.open_maps(tmp_path / "asmaps.pt").read(0)


@pytest.mark.parametrize("link", ["mask", "category"])
def test_data_sets_with_links_that_lead_out(tmp_path: Path, link: str) -> None:
    """A mask or a category that lies elsewhere is refused by name, not read; the data set itself may be a link."""
    outside, root = tmp_path / "outside", tmp_path / "data"
    image, mask = Path("bottle/test/broken/000.png"), Path("bottle/ground_truth/broken/000_mask.png")
    for path in (image, mask):
        (outside / path).parent.mkdir(parents=True)
        image_files.new("L", (4, 4), 255).save(outside / path)
    root.mkdir()
    if link == "category":
        (root / "bottle").symlink_to(outside / "bottle")
    else:
        (root / image).parent.mkdir(parents=True)
        (root / mask).parent.mkdir(parents=True)
        (root / image).write_bytes((outside / image).read_bytes())
        (root / mask).symlink_to(outside / mask)
    with pytest.raises(ValueError, match=r"bottle.*000.* is reached by a link that leads out"):
        find_test_images(root)
    (tmp_path / "link").symlink_to(outside)
    assert [each.key for each in find_test_images(tmp_path / "link")] == ["bottle/test/broken/000"]


@pytest.mark.parametrize("kind", ["data set", "maps"])
@pytest.mark.parametrize("link", ["file out", "folder", "circle", "nothing", "pipe"])
def test_links_within_folders(tmp_path: Path, kind: str, link: str) -> None:
    """A link that leads out, to a folder or nowhere is refused by name: it is neither followed nor skipped."""
    root = tmp_path / kind
    folder = root / ("bottle/test/good" if kind == "data set" else "bottle")
    folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (folder / "000.png", outside / "001.png"):
        image_files.new("L", (4, 4), 255).save(path)
    odd = folder / "odd.png"
    if link == "pipe":
        os.mkfifo(odd)
    else:
        target = {"file out": outside / "001.png", "folder": outside, "circle": root, "nothing": tmp_path / "nowhere"}
        odd.symlink_to(target[link])
    read = find_test_images if kind == "data set" else map_files.open_maps
    with pytest.raises(ValueError, match=r"odd\.png is|odd\.png to be a file"):
        read(root)


def test_links_that_stay_inside(tmp_path: Path) -> None:
    """A link to a file of the same data set is a file like any other."""
    folder = tmp_path / "bottle/test/good"
    folder.mkdir(parents=True)
    image_files.new("L", (4, 4), 255).save(folder / "000.png")
    (folder / "001.png").symlink_to("000.png")
    assert [image.path.name for image in find_test_images(tmp_path)] == ["000.png", "001.png"]


def rewritten(path: Path, pickled: bytes | None = None, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a file of tensors with another description of what is in it, or compressed."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, pickled if pickled is not None and name.endswith("data.pkl") else data)


def pickled_text(length: int) -> bytes:
    """A text in a pickle."""
    return b"X" + length.to_bytes(4, "little") + b"x" * length


def pickled_nest(depth: int) -> bytes:
    """Lists in lists in a pickle, each twice in the next: a few bytes, which are quoted as 2 to the depth texts."""
    levels = b"".join(b"](h%ch%ceq%c" % (level, level, level + 1) for level in range(depth))
    return b"]q\0" + pickled_text(1) + b"a" + levels


CALL = b")R."
"""Ends a pickle with a call of what stands before it, which torch refuses and quotes."""


def write_polyglot(path: Path) -> None:
    """Write tensors in the old format, with code in them, and behind them an archive that `zipfile` finds."""
    write_old_code(path)
    old = path.read_bytes()
    rewritten(path)
    path.write_bytes(old + path.read_bytes())


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "old": (lambda path: torch.save([], path, _use_new_zipfile_serialization=False), "not a file of `torch.save`"),
    "polyglot": (write_polyglot, "not a file of `torch.save`"),
    "bomb": (lambda path: rewritten(path, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "text": (lambda path: rewritten(path, b"\x80\2" + pickled_text(10**6) + CALL), "a text of 1,000,000 characters"),
    "name": (lambda path: rewritten(path, b"\x80\2c" + b"x" * 10**6 + b"\ny\n."), "a text of 1,000,002 characters"),
    "nest": (lambda path: rewritten(path, b"\x80\2" + pickled_nest(100) + CALL), "one object twice"),
}
"""Files that fill the memory or keep torch 2.13 busy for hours, with the reason why they are refused."""


@pytest.mark.parametrize("kind", REFUSED)
def test_tensor_files_that_torch_must_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Files of tensors that are made to fill the memory or to take hours are refused before torch sees them."""
    write, reason = REFUSED[kind]
    write(tmp_path / "file.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    for read in (map_files.open_maps, PIMOResult.load):
        with pytest.raises(ValueError, match=rf"file\.pt: .*{reason}"):
            read(tmp_path / "file.pt")


class Code:
    """What leaves a file behind if it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the file when unpickled."""
        return (Path.touch, (self.trace,))


def write_code(path: Path) -> None:
    """Write code among tensors."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": [Code(path.with_suffix(".trace"))]}, path)


def write_old_code(path: Path) -> None:
    """Write code among tensors in the format of torch before 1.6."""
    content = {"asmaps": torch.zeros(1, 2, 2), "paths": [Code(path.with_suffix(".trace"))]}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_tar(path: Path) -> None:
    """Write code in the oldest format of torch, which torch before 2.6 unpickles without any check."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            pickled = pickle.dumps(Code(path.with_suffix(".trace")))
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))


def write_script(path: Path) -> None:
    """Write what torch takes for a TorchScript model: tensors with one more entry, in letters of any case."""
    write_code(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/Constants.PKL", b"")


@pytest.mark.filterwarnings("ignore:.*TorchScript archive")
@pytest.mark.parametrize("write", [write_code, write_old_code, write_tar, write_script])
def test_code_in_tensor_files(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """Code in a file of tensors is not run, whatever the format, and no error advises to run it."""
    write(tmp_path / "file.pt")
    for read in (map_files.open_maps, PIMOResult.load):
        with pytest.raises(ValueError, match=r"file\.pt: ") as caught:
            read(tmp_path / "file.pt")
        assert "weights_only" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("version", ["2.4.0", "2.5.1+cu121", "2.6.0a0+git1234"])
def test_a_torch_that_runs_code_reads_no_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Under torch before 2.6 a file of tensors is not read: the error names both versions and the remedy."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, tmp_path / "file.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    monkeypatch.setattr(torch, "__version__", version)
    message = rf'torch 2\.6 or later.* but torch {re.escape(version)} is installed.*pip install "torch>=2\.6"'
    with pytest.raises(ImportError, match=message):
        map_files.open_maps(tmp_path / "file.pt")
    with pytest.raises((ImportError, ValueError), match=message):
        PIMOResult.load(tmp_path / "file.pt")


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0+cu124", "2.10.1", "3.0.0"])
def test_versions_of_torch_are_compared_as_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Torch 2.6 and whatever is later reads files of tensors."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, tmp_path / "file.pt")
    monkeypatch.setattr(torch, "__version__", version)
    assert map_files.open_maps(tmp_path / "file.pt").names == ["a.png"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", ["Pillow's", "ours", "none of Pillow's"])
def test_images_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """An image above the limit of this library or of Pillow is refused unread, though Pillow's warning is muted."""
    ours, pillows = {"Pillow's": (1000, 300), "ours": (300, 1000), "none of Pillow's": (300, None)}[limit]
    monkeypatch.setattr(_files.limits, "MAX_PIXELS", ours)
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", pillows)
    paths = [tmp_path / f"000{suffix}" for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp")]
    for path in paths:
        image_files.new("L", (20, 20)).save(path)
    for path in paths:
        with image_files.open(path) as image:
            monkeypatch.setattr(type(image), "load", lambda _: pytest.fail("its pixels were read"))
        for read in (
            map_files.read_image,
            map_files.image_size,
            lambda each: masks.read_mask((each,), masks.MaskRule()),
        ):
            with pytest.raises(BadDataError, match="too large: 20 x 20, at most 300 pixels"):
                read(path)
    with pytest.raises(BadDataError, match="too large: 20 x 20, at most 300 pixels"):
        map_files.open_maps(tmp_path).read(0)


def write_packed_tiff(path: Path, compression: int, packed: bytes) -> None:
    """Write a TIFF map of 4 x 4 bytes with other compressed data than its own."""
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as file:
        tags = {name: file.pages.first.tags[name] for name in ("Compression", "StripOffsets", "StripByteCounts")}
    content = bytearray(path.read_bytes())
    for name, value in {
        "Compression": compression,
        "StripOffsets": len(content),
        "StripByteCounts": len(packed),
    }.items():
        tag = tags[name]
        # the type of these tags is a short or a long, and one value stands in the tag itself
        content[tag.valueoffset : tag.valueoffset + 4] = value.to_bytes(4, "little")
    path.write_bytes(bytes(content) + packed)


PACK: dict[int, Callable[[bytes], bytes]] = {8: zlib.compress, 32946: zlib.compress, 34925: lzma.compress}


@pytest.mark.parametrize("compression", PACK)
def test_compressed_maps(tmp_path: Path, compression: int) -> None:
    """Maps compressed without loss are read."""
    scores = bytes(range(16))
    write_packed_tiff(tmp_path / "000.tif", compression, PACK[compression](scores))
    assert map_files.open_maps(tmp_path).read(0).flatten().tolist() == [*range(16)]


@pytest.mark.parametrize("compression", PACK)
def test_maps_that_unpack_without_end(tmp_path: Path, compression: int) -> None:
    """A map of which a hundred million times its pixels would be unpacked is refused, and no memory filled."""
    bomb = PACK[compression](bytes(2**28))
    write_packed_tiff(tmp_path / "000.tif", compression, bomb)
    maps = map_files.open_maps(tmp_path)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more compressed data than pixels"):
        maps.read(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24  # of 2**28 bytes


@pytest.mark.parametrize("compression", [6, 7, 34712, 50000, 50001])
def test_maps_compressed_as_pictures(tmp_path: Path, compression: int) -> None:
    """JPEG and its like, whose decoders believe a size of their own, are no scores; Zstandard may have no limit."""
    write_packed_tiff(tmp_path / "000.tif", compression, b"anything")
    with pytest.raises(ValueError, match=f"compression {compression}, not 1, 5,"):
        map_files.open_maps(tmp_path).read(0)


def test_tiles_larger_than_the_map(tmp_path: Path) -> None:
    """A TIFF map of a few pixels in a tile of many is refused before the tile is unpacked."""
    tifffile.imwrite(tmp_path / "000.tif", np.zeros((16, 16), np.uint8), tile=(16, 16), metadata=None)
    with tifffile.TiffFile(tmp_path / "000.tif") as file:
        tags = [file.pages.first.tags[name] for name in ("TileWidth", "TileLength")]
    content = bytearray((tmp_path / "000.tif").read_bytes())
    for tag in tags:
        content[tag.valueoffset : tag.valueoffset + 2] = (2**15).to_bytes(2, "little")
    (tmp_path / "000.tif").write_bytes(content)
    with pytest.raises(ValueError, match="too large"):
        map_files.open_maps(tmp_path).read(0)


def test_archives_by_the_name_of_an_array(tmp_path: Path) -> None:
    """A NumPy archive, which may unpack without end, is not opened by the name of an array."""
    with (tmp_path / "000.npy").open("wb") as file:
        np.savez_compressed(file, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="magic string"):
        map_files.open_maps(tmp_path).read(0)


TABLES = {
    "other columns": (b"object,set,path\ncandle,test,candle/a.JPG\n", "could not read it: KeyError.'split'"),
    "empty": (b"", "found no test image"),
    "short row": (b"object,split,label,image,mask\ncandle,test\n", "could not read it"),
    "no text": (b"object,split,label,image,mask\n\xff\xfe", "could not read it"),
    "open quote": (b'object,split,label,image,mask\ncandle,test,normal,"candle/a', "could not read line 2"),
    "endless field": (b"object,split,label,image,mask\n" + b"x" * 200_000, "could not read line 2"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_the_split(tmp_path: Path, kind: str) -> None:
    """If VisA's table cannot be read, its images are not all taken for test images."""
    content, reason = TABLES[kind]
    for path in (tmp_path / "candle/Data/Images/Normal/a.JPG", tmp_path / "split_csv/1cls.csv"):
        path.parent.mkdir(parents=True)
    image_files.new("L", (4, 4), 255).save(tmp_path / "candle/Data/Images/Normal/a.JPG")
    (tmp_path / "split_csv/1cls.csv").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        find_test_images(tmp_path, "visa")
