"""Files of other people that are made to mislead: no code in them is run, and no file beside them is opened."""

from __future__ import annotations

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
import torch

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics._files import limits

image_files = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
evaluate = pytest.importorskip("aupimo_torchmetrics.evaluate")

GREY = image_files.new("L", (4, 4), 255)


class Code:
    """What leaves a file behind if it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the file when unpickled."""
        return (Path.touch, (self.trace,))


def content(path: Path) -> dict[str, Any]:
    """Code among tensors."""
    return {"asmaps": torch.zeros(1, 2, 2), "paths": [Code(path.with_suffix(".trace"))]}


def write_tar(path: Path) -> None:
    """Write code in the oldest format of torch, which torch before 2.6 unpickles without any check."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            pickled = pickle.dumps(Code(path.with_suffix(".trace")))
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
    "alone": lambda path: path.write_bytes(pickle.dumps(Code(path.with_suffix(".trace")))),
}


@pytest.mark.parametrize("kind", CODE)
def test_code_in_tensor_files(tmp_path: Path, kind: str) -> None:
    """Code in a file of tensors is not run, whatever the format, and no error advises to run it."""
    CODE[kind](tmp_path / "file.pt")
    for read in (evaluate.open_maps, PIMOResult.load):
        with pytest.raises(ValueError, match=r"file\.pt: ") as caught:
            read(tmp_path / "file.pt")
        assert "weights_only" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("is_array", [False, True])
def test_code_in_arrays(tmp_path: Path, suffix: str, is_array: bool) -> None:
    """Neither is code in a file of NumPy, in an array of objects or in place of one."""
    path, code = tmp_path / f"file{suffix}", Code(tmp_path / "file.trace")
    if is_array:
        (np.save if suffix == ".npy" else np.savez)(path, np.array([[code]], dtype=object))
    else:
        path.write_bytes(pickle.dumps(code))
    with pytest.raises(evaluate.BadDataError, match=r"^(?!.*pickle)"):
        evaluate.open_maps(path).read(0)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("version", "is_read"),
    [("2.4.0", False), ("2.5.1+cu121", False), ("2.6.0a0+git1234", False), ("2.6.0+cu124", True), ("2.10.1", True)],
)
def test_a_torch_that_runs_code_reads_no_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_read: bool
) -> None:
    """Under torch before 2.6 a file of tensors is not read: the error names both versions and the remedy."""
    torch.save({"asmaps": torch.zeros(1, 2, 2), "paths": ["a.png"]}, tmp_path / "file.pt")
    monkeypatch.setattr(torch, "__version__", version)
    if is_read:
        assert evaluate.open_maps(tmp_path / "file.pt").names == ["a.png"]
        return
    message = rf'torch 2\.6 or later.* but torch {re.escape(version)} is installed.*pip install "torch>=2\.6"'
    with pytest.raises(ImportError, match=message):
        evaluate.open_maps(tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        PIMOResult.load(tmp_path / "file.pt")


def write_data(root: Path) -> tuple[Path, Path]:
    """Write a data set of one image with a defect, and return the paths of image and mask in it."""
    paths = Path("bottle/test/broken/000.png"), Path("bottle/ground_truth/broken/000_mask.png")
    for path in paths:
        (root / path).parent.mkdir(parents=True)
        GREY.save(root / path)
    return paths


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_formats_that_run_other_programs(tmp_path: Path, suffix: str) -> None:
    """A file is read by the decoders of images only, whatever its name says: not as EPS, which runs Ghostscript."""
    (tmp_path / f"000{suffix}").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n%%EOF\n")
    with pytest.raises(evaluate.BadDataError, match=r"cannot identify image file|not a TIFF file"):
        evaluate.open_maps(tmp_path).read(0)


def test_maps_that_name_other_files(tmp_path: Path) -> None:
    """A TIFF map whose description names a file outside of the folder is read itself, and the other is not."""
    tifffile.imwrite(tmp_path / "secret.tif", np.full((4, 4), 7, np.float32))
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
    assert evaluate.open_maps(folder).read(0).amax() == 0


def test_a_data_set_with_a_mask_elsewhere(tmp_path: Path) -> None:
    """A mask that lies elsewhere is refused by name; links within the data set, and to it, are no matter."""
    outside, root = tmp_path / "outside", tmp_path / "data"
    _, mask = write_data(outside)
    write_data(root)
    (root / "bottle/test/broken/001.png").symlink_to("000.png")
    (tmp_path / "link").symlink_to(root)
    names = ["bottle/test/broken/000.png", "bottle/test/broken/001.png"]
    assert [image.name for image in evaluate.find_test_images(tmp_path / "link")] == names
    (root / mask).unlink()
    (root / mask).symlink_to(outside / mask)
    with pytest.raises(ValueError, match=r"bottle.*000.* is reached by a link that leads out"):
        evaluate.find_test_images(root)


@pytest.mark.parametrize("kind", ["data set", "maps"])
@pytest.mark.parametrize("link", ["file out", "folder", "circle", "nothing", "nothing without suffix", "pipe"])
def test_links_within_folders(tmp_path: Path, kind: str, link: str) -> None:
    """A link that leads out, to a folder or nowhere is refused by name: it is neither followed nor skipped."""
    root, outside = tmp_path / kind, tmp_path / "outside"
    folder = root / ("bottle/test/good" if kind == "data set" else "bottle")
    for path in (folder / "000.png", outside / "001.png"):
        path.parent.mkdir(parents=True)
        GREY.save(path)
    odd = folder / ("odd" if link == "nothing without suffix" else "odd.png")
    if link == "pipe":
        os.mkfifo(odd)
    else:
        targets = {"file out": outside / "001.png", "folder": outside, "circle": root}
        odd.symlink_to(targets.get(link, tmp_path / "nowhere"))
    read = evaluate.find_test_images if kind == "data set" else evaluate.open_maps
    with pytest.raises(evaluate.BadDataError, match=r"odd(\.png)? is|odd(\.png)? to be a file"):
        read(root)
    if link in {"file out", "folder"}:
        assert read(root, follow_links=True)
    else:
        with pytest.raises(evaluate.BadDataError, match=r"odd\.png is a link to a folder above|to be a file"):
            read(root, follow_links=True)


def test_links_that_lead_to_each_other(tmp_path: Path) -> None:
    """A circle of two links ends, too, and a folder may be reached by two."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "maps" / name).mkdir(parents=True)
        GREY.save(tmp_path / "maps" / name / "000.png")
        (tmp_path / "maps" / name / "link").symlink_to(tmp_path / "maps" / other)
    with pytest.raises(evaluate.BadDataError, match="is a link to a folder above"):
        evaluate.open_maps(tmp_path / "maps", follow_links=True)
    (tmp_path / "maps/b/link").unlink()
    expected = ["a/000.png", "a/link/000.png", "b/000.png"]
    assert evaluate.open_maps(tmp_path / "maps", follow_links=True).names == expected


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_masks_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A mask that declares too many pixels is named, and its pixels are not read."""
    mask, scores = tmp_path / f"mask{suffix}", tmp_path / "map.npy"
    table = pd.DataFrame({"image": ["0.png"], "map": [str(scores)], "mask": [str(mask)]})
    np.save(scores, np.eye(4))
    GREY.resize((20, 20)).save(mask)
    with image_files.open(mask) as opened:
        monkeypatch.setattr(type(opened), "load", lambda _: pytest.fail("its pixels were read"))
    monkeypatch.setattr(limits, "MAX_PIXELS", 300)
    with pytest.raises(evaluate.BadDataError, match=r"mask\.\w+: too large: 20 x 20, at most 300 pixels"):
        evaluate.evaluate(table=table)


@pytest.mark.parametrize("key", ["num_threshs", "aupimos", "paths"])
@pytest.mark.parametrize("value", [{"a": 5}, "[" * 100_000])
def test_scores_of_other_types(tmp_path: Path, key: str, value: Any) -> None:
    """What is no number, score or path is not taken for one, and not quoted at length."""
    path = tmp_path / "aupimos.json"
    AUPIMOResult(torch.tensor([0.5, torch.nan]), (1e-5, 1e-4), (0.1, 0.2)).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"could not read .*aupimos\.json: \w+Error: ") as caught:
        AUPIMOResult.load(path)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_scores_nested_without_end(tmp_path: Path) -> None:
    """JSON deeper than Python can read is refused like any other that holds no scores."""
    path = tmp_path / "aupimos.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"aupimos\.json: RecursionError"):
        AUPIMOResult.load(path)


TABLES = {
    "other columns": (b"object,set,path\ncandle,test,candle/a.JPG\n", "could not read it: KeyError"),
    "empty": (b"", "could not read it: EmptyDataError"),
    "short row": (b"object,split,label,image,mask\ncandle,test\n", "could not read it"),
    "no text": (b"object,split,label,image,mask\n\xff\xfe", "could not read it"),
    "open quote": (b'object,split,label,image,mask\ncandle,test,normal,"candle/a', "could not read it: ParserError"),
    "endless field": (b"object,split,label,image,mask\n" + b"x" * 200_000, "the layout 'visa', but it fits none"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_the_split(tmp_path: Path, kind: str) -> None:
    """If VisA's table cannot be read, its images are not all taken for test images."""
    table, reason = TABLES[kind]
    for path in (tmp_path / "candle/Data/Images/Normal/a.JPG", tmp_path / "split_csv/1cls.csv"):
        path.parent.mkdir(parents=True)
    GREY.save(tmp_path / "candle/Data/Images/Normal/a.JPG")
    (tmp_path / "split_csv/1cls.csv").write_bytes(table)
    with pytest.raises(ValueError, match=reason):
        evaluate.find_test_images(tmp_path, "visa")
