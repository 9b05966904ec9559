"""A table of images, masks and maps says all that an evaluation needs, and contradictions in it are named by line."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.evaluate import BadDataError, BadFilesError, LabelledImage, find_test_images, open_maps
from aupimo_torchmetrics.evaluate.data.table import PairedTable, open_table, write_table
from aupimo_torchmetrics.evaluate.reading import PairReader

MASK = np.zeros((4, 5), dtype=np.uint8)
MASK[1, 2:4] = 255
ROWS = "image,mask,map\na.png,,a.npy\nb.png,b_mask.png,b.npy\n"
"""A normal image and one with a defect."""


def save(path: Path, pixels: NDArray[Any]) -> Path:
    """Write a map or a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def make(root: Path, *names: str) -> Path:
    """Write maps, masks with a defect, and images, by their names."""
    for name in names:
        is_map, is_mask = name.endswith(".npy"), "mask" in name
        save(root / name, np.arange(20.0).reshape(4, 5) if is_map else MASK if is_mask else np.zeros((4, 5), np.uint8))
    return root


def table_of(root: Path, text: str, name: str = "parts.csv") -> Path:
    """Write a table beside the files that it names."""
    make(root, "a.npy", "b.npy", "b_mask.png", "b.png")
    path = root / name
    path.write_text(text, encoding="utf-8")
    return path


def read(paired: PairedTable) -> list[tuple[str, int, float]]:
    """Name, mask pixels and highest score of each pair, as they are read for an evaluation."""
    reader = PairReader(paired.maps, resize=True)
    loaded = [reader.read(pair) for pair in paired.pairs]
    return [(each.pair.image.name, int(each.mask.sum()), float(each.anomaly_map.max())) for each in loaded]


def bad_rows(root: Path, text: str, **kwargs: Any) -> dict[str, str]:
    """Reasons by the lines of the bad rows."""
    path = table_of(root, text)
    return {bad.path.removeprefix(f"{path}, "): bad.reason for bad in open_table(path, **kwargs).bad_files}


def test_a_table_of_images_masks_and_maps(tmp_path: Path) -> None:
    """Images need not be there; an empty mask is that of a normal image; the table gives the category its name."""
    paired = open_table(table_of(tmp_path, ROWS))
    assert not paired.bad_files
    assert read(paired) == [("a.png", 0, 19.0), ("b.png", 2, 19.0)]
    assert [image.path for image in paired.images] == [None, tmp_path.resolve() / "b.png"]
    assert [image.has_defect for image in paired.images] == [False, None]
    assert {image.category for image in paired.images} == {"parts"}
    assert paired.maps.names == ["a.npy", "b.npy"]


@pytest.mark.parametrize("form", ["text", "path", "frame"])
def test_forms_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A path, its text and a DataFrame with missing values say the same; a frame's paths are those of the folder."""
    path = table_of(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path if form == "frame" else "/")
    paired = open_table({"text": str(path), "path": path, "frame": pd.read_csv(path)}[form])
    assert read(paired) == [("a.png", 0, 19.0), ("b.png", 2, 19.0)]
    assert {image.category for image in paired.images} == {"table" if form == "frame" else "parts"}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + ROWS,
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
        ROWS.replace(",", "|"),
        ROWS.replace("\n", "\r\n"),
        ROWS.replace(",", ", "),
        ROWS.replace("image,mask,map", "Image,MASK, Map "),
        ROWS.replace("a.png", '"a.png"'),
        ROWS.replace(",b_mask.png", ', "b_mask.png"'),
        "\n" + ROWS.replace("\n", "\n\n") + ",,\n",
        "map,ground truth,image,mask\na.npy,1,a.png,\nb.npy,2,b.png,b_mask.png",
        ROWS.replace("b.png,b_mask", ".\\\\b.png,.\\\\b_mask"),
        ROWS.replace("b.png,b_mask.png", "./b.png,./b_mask.png"),
    ],
)
def test_spellings_of_tables(tmp_path: Path, text: str) -> None:
    """What programs write otherwise means the same: marks of encodings, delimiters, ends of lines, other columns."""
    paired = open_table(table_of(tmp_path, text))
    assert not paired.bad_files
    assert read(paired) == [("a.png", 0, 19.0), ("b.png", 2, 19.0)]


def test_optional_columns(tmp_path: Path) -> None:
    """Label, category, type of defect, name and the meaning of masks are taken from their columns."""
    make(tmp_path, "c_mask.png")
    text = (
        "image,mask,map,label,category,defect,name,mask_classes\n"
        "a.png,,a.npy,0,wood,good,,\n"
        "b.png,b_mask.png;c_mask.png,b.npy,1,tile,crack,tile/7.png,1\n"
    )
    second, first = open_table(table_of(tmp_path, text)).images
    assert (first.name, first.category, first.defect, first.has_defect) == ("a.png", "wood", "good", False)
    assert (second.name, second.category, second.defect, second.has_defect) == ("tile/7.png", "tile", "crack", True)
    assert ([mask.name for mask in second.masks], second.has_mask_classes) == (["b_mask.png", "c_mask.png"], True)


@pytest.mark.parametrize("label", ["0", "normal", "GOOD", "ok", "False", "0.0"])
@pytest.mark.parametrize("other", ["1", "Anomalous", "defect", "ng", "True", "1.0"])
def test_labels(tmp_path: Path, label: str, other: str) -> None:
    """Labels may be numbers or the usual words."""
    text = f"image,mask,map,label\na.png,,a.npy,{label}\nb.png,b_mask.png,b.npy,{other}\n"
    paired = open_table(table_of(tmp_path, text))
    assert [image.has_defect for image in paired.images] == [False, True]
    assert len(paired.pairs) == 2


def test_maps_that_are_given(tmp_path: Path) -> None:
    """Maps beside the table are matched to the names of its images, and a column of maps does not count then."""
    make(tmp_path / "maps", "x/a.npy", "x/b.npy")
    for text in ("image,mask\nx/a.png,\nx/b.png,b_mask.png", "image,mask,map\nx/a.png,,\nx/b.png,b_mask.png,gone.npy"):
        paired = open_table(table_of(tmp_path, text), open_maps(tmp_path / "maps"))
        assert not paired.bad_files
        assert read(paired) == [("x/a.png", 0, 19.0), ("x/b.png", 2, 19.0)]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("0,,", False),
        ("1,,b_mask.png", True),
        (",crack,b_mask.png", True),
        (",good,b_mask.png", False),
        (",Defect_Free,", False),
        (",,b_mask.png", None),
        (",,", False),
        ("0,crack,b_mask.png", False),
        ("1,good,b_mask.png", True),
        ("mask,camera 1,b_mask.png", None),
    ],
)
def test_what_says_the_class(tmp_path: Path, cells: str, expected: bool | None) -> None:
    """The label says whether there is a defect, or else its type, or else the mask."""
    text = f"image,map,label,defect,mask\nx.png,a.npy,{cells}\n"
    paired = open_table(table_of(tmp_path, text))
    assert not paired.bad_files
    assert [image.has_defect for image in paired.images] == [expected]


@pytest.mark.parametrize("word", ["test", "Test", " TEST "])
@pytest.mark.parametrize("other", ["train", "val", ""])
@pytest.mark.parametrize("has_maps", [True, False])
def test_rows_of_other_splits(tmp_path: Path, word: str, other: str, has_maps: bool) -> None:
    """Only rows of the split test count, the others are counted, and their maps are no maps without an image."""
    make(tmp_path / "maps", "a.npy", "b.npy")
    path = table_of(
        tmp_path,
        f"object,Split,label,image,mask,map\np,{other},normal,a.png,,a.npy\np,{word},anomaly,b.png,b_mask.png,b.npy\n",
    )
    paired = open_table(path, open_maps(tmp_path / "maps") if has_maps else None)
    assert not paired.bad_files
    assert [(image.name, image.category, image.has_defect) for image in paired.images] == [("b.png", "p", True)]
    first, *others = paired.notes
    assert first == f"rows of the table that are not of the split test do not count: {other or '(none)'} (1)"
    assert others == (["columns of the table that are not used: map"] if has_maps else [])


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    """What a table says beside is named once, but for an index without a name."""
    paired = open_table(table_of(tmp_path, pd.read_csv(table_of(tmp_path, ROWS)).assign(Note="x", area=7).to_csv()))
    assert paired.notes == ["columns of the table that are not used: note, area"]
    assert not paired.bad_files


BAD_ROWS = {
    "label and mask": (
        "image,mask,map,label\na.png,,a.npy,1",
        {"line 2": "a.png: the label 1 says that it has a defect, but there is no mask"},
    ),
    "unclear label": (
        "image,mask,map,label\na.png,,a.npy,-1",
        {"line 2": "a.png: the label '-1' is neither 0 (normal) nor 1"},
    ),
    "image twice": (
        "image,mask,map\nb.png,,a.npy\n\nb.png,,b.npy",
        {"line 2": "b.png: an image that", "line 4": "b.png: an image that"},
    ),
    "image twice, spelled otherwise": (
        "image,mask,map\nb.png,,a.npy\n./b.png,,b.npy",
        {"line 2": "b.png: an image that", "line 3": "b.png: an image that"},
    ),
    "map twice": (
        "image,mask,map\na.png,,a.npy\nb.png,,a.npy",
        {"line 2": "a.png: a map that", "line 3": "b.png: a map that"},
    ),
    "map twice, spelled otherwise": (
        "image,mask,map\na.png,,a.npy\nb.png,,./a.npy",
        {"line 2": "a.png: a map that", "line 3": "b.png: a map that"},
    ),
    "map and mask": (
        "image,mask,map\nb.png,./b_mask.png,b_mask.png",
        {"line 2": "b.png: its map and its mask are one file"},
    ),
    "no map": ("image,mask,map\na.png,,", {"line 2": "a.png: no map"}),
    "lost map": ("image,mask,map\na.png,,gone.npy", {"line 2": "gone.npy is missing"}),
    "lost mask": ("image,mask,map\na.png,gone.png,a.npy", {"line 2": "gone.png is missing"}),
    "one of two masks lost": ("image,mask,map\nb.png,b_mask.png;gone.png,a.npy", {"line 2": "gone.png is missing"}),
    "no image": ("image,mask,map\n,,a.npy", {"line 2": "no image"}),
    "too few cells": ("image,mask,map\na.png", {"line 2": "1 cells, but 3 columns"}),
    "too many cells": ("image,mask,map\na,b.png,,a.npy", {"line 2": "4 cells, but 3 columns"}),
    "category": ("image,mask,map,category\na.png,,a.npy,../up", {"line 2": "'../up' cannot be the name of a folder"}),
    "defect without a mask": ("image,mask,map,defect\na.png,,a.npy,crack", {"line 2": "the defect crack says"}),
    "only the mask, without a mask": ("image,mask,map,label\na.png,,a.npy,mask", {"line 2": "there is no mask"}),
    "classes": ("image,mask,map,mask_classes\na.png,,a.npy,x", {"line 2": "mask_classes is 'x'"}),
    "after a cell of two lines": (
        'image,mask,map,note\na.png,,a.npy,"one\ntwo"\nb.png,,,',
        {"line 4": "b.png: no map"},
    ),
    "several reasons": ("image,mask,map,label\na.png,,,1", {"line 2": "there is no mask; no map"}),
}
"""A table, and a part of the reason of each bad row by its line."""


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows(tmp_path: Path, kind: str) -> None:
    """Each row that contradicts itself or another is named once by its line, and the image by its name."""
    text, expected = BAD_ROWS[kind]
    found = bad_rows(tmp_path, text)
    assert list(found) == list(expected)
    for line, reason in expected.items():
        assert reason in found[line]


def test_bad_rows_are_listed_all_at_once(tmp_path: Path) -> None:
    """One bad row does not hide the next, and the good ones remain."""
    path = table_of(tmp_path, "image,mask,map,label\nx.png,,,\ny.png,,a.npy,maybe\nb.png,b_mask.png,b.npy,1\n,,,1\n")
    paired = open_table(path)
    assert {bad.path for bad in paired.bad_files} == {f"{path}, line {line}" for line in (2, 3, 5)}
    assert [pair.image.name for pair in paired.pairs] == ["b.png"]


def test_bad_rows_of_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a DataFrame is named by its index."""
    monkeypatch.chdir(make(tmp_path, "a.npy"))
    frame = pd.DataFrame({"image": ["a.png"], "mask": [None], "map": [pd.NA]}, index=["first"])
    (bad,) = open_table(frame).bad_files
    assert bad == ("table, row first", "a.png: no map")


def test_frames_hold_all_kinds_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, numbers, truth values and missing values of pandas are cells like texts."""
    monkeypatch.chdir(make(tmp_path, "a.npy", "b.npy", "b_mask.png"))
    frame = pd.DataFrame(
        {
            "image": [Path("a.png"), "b.png"],
            "mask": [np.nan, tmp_path / "b_mask.png"],
            "map": ["a.npy", "b.npy"],
            "label": [False, True],
            "category": [7, 7],
            3: ["x", "y"],
        }
    )
    paired = open_table(frame)
    assert not paired.bad_files
    assert [(image.category, image.has_defect) for image in paired.images] == [("7", False), ("7", True)]
    assert open_table(frame.assign(label=[0.0, None])).images[1].has_defect is None


NO_TABLES = {
    "no mask": ("image,map\na,b\n", "a column mask, but its columns are image, map"),
    "no map": ("image,mask\na,b\n", "a column map, but its columns are image, mask. .*`maps`"),
    "plural": ("image,mask,map,labels\na,,b,1\n", "one column label, but its columns are image, mask, map, labels"),
    "column twice": ("image,mask,map,image\na,,b,c\n", "one column image"),
    "no rows": ("image,mask,map\n", "a row for each image, but it has none"),
    "empty": ("", "a column image, but its columns are none"),
    "open quote": ('image,mask,map\n"a,,b\n', "could not read line"),
    "bytes": ("PK\x03\x04\0\0image,mask,map", "to be a text in UTF-8, but it is none"),
    "no test rows": ("image,mask,map,split\na,,b,train\nc,,d,val\ne,,f,val\n", r"found train \(1\), val \(2\)"),
    "two columns of categories": ("image,mask,map,object,category\na,,b,x,y\n", "it has both, and they differ"),
    "JSON lines": ('{"image": "a", "mask": ""}\n{"image": "b", "mask": ""}\n', "but it is JSON"),
    "JSON": ('\n[{"image": "a", "mask": ""}]', "but it is JSON"),
    "endless cell": ("image,mask,map\n" + "x" * 200_000, "could not read line"),
}
"""What is no table, and a part of the message."""


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table(tmp_path: Path, kind: str) -> None:
    """A file without the columns, or that is broken, is refused with what was found."""
    text, message = NO_TABLES[kind]
    with pytest.raises(BadDataError, match=message):
        open_table(table_of(tmp_path, text))


def test_other_things_than_tables(tmp_path: Path) -> None:
    """Something else than a path or a DataFrame, a file that is not there, and no text are errors."""
    with pytest.raises(TypeError, match="`table` to be a path or a pandas DataFrame, but got list"):
        open_table([("a.png", "")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`table` to be a file, but there is no file"):
        open_table(tmp_path / "nowhere.csv")
    (tmp_path / "excel.csv").write_bytes(ROWS.encode("utf-16"))
    with pytest.raises(BadDataError, match=r"excel\.csv to be a text in UTF-8, but it is one in UTF-16"):
        open_table(tmp_path / "excel.csv")


def test_images_that_lie_elsewhere(tmp_path: Path) -> None:
    """Absolute paths, and those that lead out of the folder of the table, are named from the folder they share."""
    make(tmp_path, "data/x/a.png", "data/y/b.png", "data/y/b_mask.png", "a.npy", "b.npy")
    rows = f"{tmp_path}/data/x/a.png,,../a.npy\n../data/y/b.png,..\\data\\y\\b_mask.png,../b.npy"
    (tmp_path / "tables").mkdir()
    paired = open_table(table_of(tmp_path / "tables", f"image,mask,map\n{rows}\n"))
    assert read(paired) == [("x/a.png", 0, 19.0), ("y/b.png", 2, 19.0)]
    assert all(image.path is not None for image in paired.images)
    rows = "/of/another/machine/x/a.png,,../a.npy\n/of/another/machine/y/b.png,,../b.npy"
    paired = open_table(table_of(tmp_path / "tables", f"image,mask,map\n{rows}\n"))
    assert [image.name for image in paired.images] == ["x/a.png", "y/b.png"]


def test_a_normal_image_with_a_mask(tmp_path: Path) -> None:
    """The mask of an image with label 0 must be empty, which is seen when it is read; the image knows its row."""
    save(tmp_path / "empty_mask.png", np.zeros((4, 5), np.uint8))
    text = "image,mask,map,label\na.png,empty_mask.png,a.npy,0\nb.png,b_mask.png,b.npy,0\n"
    path = table_of(tmp_path, text)
    paired = open_table(path)
    reader = PairReader(paired.maps, resize=True)
    assert not bool(reader.read(paired.pairs[0]).mask.any())
    with pytest.raises(BadDataError, match=r"b\.png: a normal image, but 2 pixels"):
        reader.read(paired.pairs[1])
    assert paired.pairs[1].image.place == f"{path}, line 3"


def data_set(root: Path, layout: str) -> Path:
    """Write a data set with names that a table has to quote."""
    if layout == "mvtec":
        make(root, "x/test/good/a,b.png", 'x/test/crack "1"/ä\n.png', 'x/ground_truth/crack "1"/ä\n_mask.png')
        save(root / "x/ground_truth/good/a,b_mask.png", np.zeros((4, 5), np.uint8))
    elif layout == "loco":
        make(
            root,
            "x/test/good/0.png",
            "x/test/la/0.png",
            "x/ground_truth/la/0/mask0.png",
            "x/ground_truth/la/0/mask1.png",
        )
    elif layout == "mvtec_3d":
        make(root, "x/test/good/rgb/0.png", "x/test/la/rgb/0.png", "x/test/la/gt/0_mask.png")
    else:
        make(root, "images/a;b.png", "images/b.png", "masks/a;b_mask.png", "masks/b_mask.png")
    return root


@pytest.mark.parametrize("layout", ["mvtec", "loco", "mvtec_3d", "folder"])
@pytest.mark.parametrize("place", ["data/t.csv", "data/x/t.csv", "t.csv", "tables/deep/t.csv"])
def test_a_written_table_says_what_the_layout_says(tmp_path: Path, layout: Any, place: str) -> None:
    """Wherever the table of a data set is written, reading it gives the same images, masks, classes and names."""
    root = data_set(tmp_path / "data", layout)
    images = find_test_images(root, layout)
    for image in images:
        make(tmp_path / "maps", f"{image.key}.npy")
    path = tmp_path / place
    write_table(images, path)
    paired = open_table(path, open_maps(tmp_path / "maps"))
    assert [image._replace(place=None) for image in paired.images] == images
    assert not paired.bad_files
    assert len(read(paired)) == len(images)


def test_columns_of_a_written_table(tmp_path: Path) -> None:
    """A written table has the columns that people start from, and paths relative to it."""
    root = data_set(tmp_path / "data", "mvtec")
    write_table(find_test_images(root), root / "t.csv")
    with (root / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "mask", "label", "category", "defect"]
    assert rows[1] == {
        "image": "x/test/good/a,b.png",
        "mask": "x/ground_truth/good/a,b_mask.png",
        "label": "0",
        "category": "x",
        "defect": "good",
    }
    assert not [path for path in root.iterdir() if "unfinished" in path.name]


def test_a_table_can_be_moved_with_its_data(tmp_path: Path) -> None:
    """Paths in a written table are relative, so it holds elsewhere, too."""
    root = data_set(tmp_path / "data", "loco")
    write_table(find_test_images(root), root / "t.csv")
    root.rename(tmp_path / "moved")
    images = open_table(tmp_path / "moved/t.csv", open_maps(make(tmp_path / "maps", "0.npy"))).images
    assert all(mask.is_file() for image in images for mask in image.masks)


def test_problems_are_not_written(tmp_path: Path) -> None:
    """A data set with something unclear in it does not become a table that hides it."""
    root = make(tmp_path / "data", "x/test/la/0.png", "x/ground_truth/la/0_mask.png", "x/ground_truth/la/0.bmp")
    with pytest.raises(BadFilesError, match="several masks"):
        write_table(find_test_images(root), tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """A name that is no text is refused, and no half of a table is left."""
    image = LabelledImage("\udc80.png", "x", None, (), False)
    with pytest.raises(BadDataError, match="which no table can hold"):
        write_table([image], tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


def test_normal_forms_of_unicode_in_tables(tmp_path: Path) -> None:
    """An image is named in the composed form, and two forms of one name are one image."""
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    found = bad_rows(tmp_path, f"image,mask,map\n{names[0]},,a.npy\n{names[1]},,b.npy\n")
    assert list(found) == ["line 2", "line 3"]


def test_large_tables(tmp_path: Path) -> None:
    """A table of many rows is read in passes over it."""
    rows = "\n".join(f"x/{number}.png,b_mask.png,a.npy" for number in range(20_000))
    path = table_of(tmp_path, f"image,mask\n{rows}".replace(",a.npy", ""))
    assert len(open_table(path, open_maps(make(tmp_path / "maps", "x/7.npy"))).images) == 20_000
