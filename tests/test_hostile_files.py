"""Files of other people that are made to mislead: no code in them is run, and no file beside them is opened."""

import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from data_sets import write_image
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


CODE: dict[str, Callable[[Path], Any]] = {
    "in an archive": lambda path: torch.save(content(path), path),
    "in the old format": lambda path: torch.save(content(path), path, _use_new_zipfile_serialization=False),
    "in the oldest format": write_tar,
    "before an archive": write_polyglot,
    "alone": lambda path: path.write_bytes(pickle.dumps(code_in(path))),
}
CODE_IN_ARRAYS: dict[str, Callable[[Path], Any]] = {
    "0.npy": lambda path: np.save(path, np.array([[code_in(path)]], dtype=object)),
    "0.npz": lambda path: np.savez(path, np.array([[code_in(path)]], dtype=object)),
    "1.npy": CODE["alone"],
    "1.npz": CODE["alone"],
}


@pytest.mark.parametrize("kind", CODE)
def test_code_in_tensor_files(tmp_path: Path, kind: str) -> None:
    """Code in a file of tensors is not run, whatever the format, and no error advises to run it."""
    CODE[kind](tmp_path / "file.pt")
    for read in (open_maps, PIMOResult.load):
        with pytest.raises(ValueError, match=r"file\.pt: ") as caught:
            read(tmp_path / "file.pt")
        assert "weights_only" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("name", CODE_IN_ARRAYS)
def test_code_in_arrays(tmp_path: Path, name: str) -> None:
    """Neither is code in a file of NumPy, in an array of objects or in place of one."""
    CODE_IN_ARRAYS[name](tmp_path / name)
    with pytest.raises(BadDataError, match=r"^(?!.*pickle)"):
        open_maps(tmp_path / name).read(0)
    assert [each.name for each in tmp_path.iterdir()] == [name]


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


@pytest.mark.parametrize(("key", "value"), [("num_threshs", {"a": 5}), ("aupimos", {"a": 5}), ("", "[" * 100_000)])
def test_scores_of_other_types(tmp_path: Path, key: str, value: Any) -> None:
    """What is no number, score or path, or nested without end, is not taken for one, and not quoted at length."""
    path = tmp_path / "aupimos.json"
    AUPIMOResult(torch.tensor([0.5, torch.nan]), (1e-5, 1e-4), (0.1, 0.2)).save(path)
    text = json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value})
    path.write_text(text if key else str(value), encoding="utf-8")
    with pytest.raises(ValueError, match=r"could not read .*aupimos\.json: \w+Error: ") as caught:
        AUPIMOResult.load(path)
    assert len(str(caught.value)) < 400 + len(str(path))


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
