"""Files of other people that are made to mislead: refused with the reason, and nothing beside them is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.folders import find_test_images

image_files = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
map_files = pytest.importorskip("aupimo_torchmetrics.map_files")

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


def test_settings_nested_without_end(tmp_path: Path) -> None:
    """The same holds for the settings beside the scores."""
    path = write_result(tmp_path)
    (tmp_path / "aupimos.settings.json").write_text(DEEP, encoding="utf-8")
    with pytest.raises(ValueError, match=r"aupimos\.settings\.json to hold the settings"):
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
    settings_path = tmp_path / "aupimos.settings.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8")) | {name: [1]}
    settings_path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match=f"could not read it: `{name}` is of type list"):
        AUPIMOResult.load(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_formats_that_run_other_programs(tmp_path: Path, suffix: str) -> None:
    """A file is read by the decoders of images only, whatever its name says: not as EPS, which runs Ghostscript."""
    path = tmp_path / f"000{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (map_files.read_image, map_files.image_size, lambda each: map_files.read_mask((each,))):
        with pytest.raises(ValueError, match="cannot identify image file"):
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
    with pytest.raises(ValueError, match="2 pages, not one"):
        map_files.open_maps(tmp_path).read(0)


TENSORS = {
    "sparse": torch.zeros(1, 2, 2).to_sparse(),
    "complex": torch.zeros(1, 2, 2, dtype=torch.complex64),
    "four axes": torch.zeros(1, 1, 2, 2),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_no_maps(tmp_path: Path, kind: str) -> None:
    """Tensors of other kinds are refused when the file is opened."""
    torch.save({"asmaps": TENSORS[kind], "paths": ["a.png"]}, tmp_path / "asmaps.pt")
    with pytest.raises(ValueError, match=r"asmaps\.pt: `asmaps` is not a dense tensor"):
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
