"""A table of images, masks and maps says all that an evaluation needs, and contradictions in it are named by line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data_sets import write_image, write_map

from aupimo_torchmetrics.evaluate import BadDataError, BadFilesError, LabelledImage, find_test_images, open_maps
from aupimo_torchmetrics.evaluate.data.table import open_table, write_table
from aupimo_torchmetrics.evaluate.pairing import FoundPairs
from aupimo_torchmetrics.evaluate.reading import PairReader

MASK = np.zeros((4, 5), dtype=np.uint8)
MASK[1, 2:4] = 255
ROWS = "image,mask,map\na.png,,a.npy\nb.png,b_mask.png,b.npy\n"
"""A normal image and one with a defect."""


def make(root: Path, *names: str) -> Path:
    """Write maps, masks with a defect, and images, by their names."""
    for name in names:
        if name.endswith(".npy"):
            write_map(root / name, np.arange(20.0).reshape(4, 5))
        else:
            write_image(root / name, MASK if "mask" in name else np.zeros((4, 5), np.uint8))
    return root


def table_of(root: Path, text: str) -> Path:
    """Write a table beside the files that it names."""
    path = make(root, "a.npy", "b.npy", "b_mask.png", "b.png") / "parts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def read(paired: FoundPairs) -> list[tuple[str, int, float]]:
    """Name, mask pixels and highest score of each pair, as they are read for an evaluation, where no row is bad."""
    assert not paired.bad_files
    reader = PairReader(paired.maps, resize=True)
    loaded = [reader.read(pair) for pair in paired.pairs]
    return [(each.pair.image.name, int(each.mask.sum()), float(each.anomaly_map.max())) for each in loaded]


SPELLINGS = {
    "mark of the encoding": "\ufeff" + ROWS,
    **{f"delimiter {each!r}": ROWS.replace(",", each) for each in (";", "\t", "|", ", ")},
    "ends of lines": ROWS.replace("\n", "\r\n"),
    "names of columns": ROWS.replace("image,mask,map", "Image,MASK, Map "),
    "quotes": ROWS.replace("a.png", '"a.png"').replace(",b_mask.png", ', "b_mask.png"'),
    "empty rows": "\n" + ROWS.replace("\n", "\n\n") + ",,\n",
    "order of columns": "map,ground truth,image,mask\na.npy,1,a.png,\nb.npy,2,b.png,b_mask.png",
    "paths of Windows": ROWS.replace("b.png,b_mask", ".\\\\b.png,.\\\\b_mask"),
}


@pytest.mark.parametrize("kind", ["path", "text", "frame", *SPELLINGS])
def test_spellings_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What programs write otherwise means the same, and so does a DataFrame with missing values.

    Images need not be there; an empty mask is that of a normal image; the file gives the category its name.
    """
    path = table_of(tmp_path, SPELLINGS.get(kind, ROWS))
    monkeypatch.chdir(tmp_path if kind == "frame" else "/")  # paths of a DataFrame are those of the current folder
    paired = open_table(pd.read_csv(path) if kind == "frame" else str(path) if kind == "text" else path)
    assert read(paired) == [("a.png", 0, 19.0), ("b.png", 2, 19.0)]
    category = "table" if kind == "frame" else "parts"
    found = [(image.path, image.has_defect, image.category) for image in paired.images]
    assert found == [(None, False, category), (tmp_path.resolve() / "b.png", None, category)]


@pytest.mark.parametrize("category", ["category", "object"])
def test_optional_columns(tmp_path: Path, category: str) -> None:
    """Label, category, type of defect, name and the meaning of masks are taken from their columns."""
    make(tmp_path, "c_mask.png")
    text = (
        f"image,mask,map,label,{category},defect,name,mask_classes\n"
        "a.png,,a.npy,0,wood,good,,\n"
        "b.png,b_mask.png;c_mask.png,b.npy,1,tile,crack,tile/7.png,1\n"
    )
    second, first = open_table(table_of(tmp_path, text)).images
    assert (first.name, first.category, first.defect, first.has_defect) == ("a.png", "wood", "good", False)
    assert (second.name, second.category, second.defect, second.has_defect) == ("tile/7.png", "tile", "crack", True)
    assert ([mask.name for mask in second.masks], second.has_mask_classes) == (["b_mask.png", "c_mask.png"], True)


def test_maps_that_are_given(tmp_path: Path) -> None:
    """Maps beside the table are matched to the names of its images, and a column of maps does not count then."""
    make(tmp_path / "maps", "x/a.npy", "x/b.npy")
    for text in ("image,mask\nx/a.png,\nx/b.png,b_mask.png", "image,mask,map\nx/a.png,,\nx/b.png,b_mask.png,gone.npy"):
        paired = open_table(table_of(tmp_path, text), open_maps(tmp_path / "maps"))
        assert read(paired) == [("x/a.png", 0, 19.0), ("x/b.png", 2, 19.0)]


CLASSES = {
    **{f"{label},,": False for label in ("0", "normal", "GOOD", "False", "0.0", "")},
    **dict.fromkeys((",good,b_mask.png", ",Defect_Free,", "0,crack,b_mask.png"), False),
    **{f"{label},,b_mask.png": True for label in ("1", "Anomalous", "defect", "ng", "True", "1.0")},
    **dict.fromkeys((",crack,b_mask.png", ",mask,b_mask.png", "1,good,b_mask.png"), True),
    **dict.fromkeys((",,b_mask.png", "mask,camera 1,b_mask.png"), None),
}
"""Label, defect and mask of a row, and whether the image has a defect; None if only the mask says it."""


@pytest.mark.parametrize("cells", CLASSES)
def test_what_says_the_class(tmp_path: Path, cells: str) -> None:
    """The label says whether there is a defect, or else its type, or else the mask."""
    paired = open_table(table_of(tmp_path, f"image,map,label,defect,mask\nx.png,a.npy,{cells}\n"))
    assert not paired.bad_files
    assert [image.has_defect for image in paired.images] == [CLASSES[cells]]


@pytest.mark.parametrize(("word", "other", "has_maps"), [("test", "train", True), (" TEST ", "", False)])
def test_rows_of_other_splits(tmp_path: Path, word: str, other: str, has_maps: bool) -> None:
    """Only rows of the split test count, the others are counted, and their maps are no maps without an image."""
    make(tmp_path / "maps", "a.npy", "b.npy")
    rows = f"p,{other},normal,a.png,,a.npy\np,{word},anomaly,b.png,b_mask.png,b.npy\n"
    path = table_of(tmp_path, f"object,Split,label,image,mask,map\n{rows}")
    paired = open_table(path, open_maps(tmp_path / "maps") if has_maps else None)
    assert not paired.bad_files
    assert [(image.name, image.category, image.has_defect) for image in paired.images] == [("b.png", "p", True)]
    first, *others = paired.notes
    assert first == f"rows of the table that are not of the split test do not count: {other or '(none)'} (1)"
    assert others == (["columns of the table that are not used: map"] if has_maps else [])


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    """What a table says beside is named once, but for an index without a name."""
    frame = pd.read_csv(table_of(tmp_path, ROWS)).assign(Note="x", labels=7, category="p", object="q")
    paired = open_table(table_of(tmp_path, frame.to_csv()))
    assert paired.notes == ["columns of the table that are not used: note, labels, object"]
    assert not paired.bad_files


TWICE, NO_MASK = "an image that another row", "but there is no mask"
BAD_ROWS = {
    "image,mask,map,label\na.png,,a.npy,1": {2: f"a.png: with a defect, .* {NO_MASK}"},
    "image,mask,map,label\na.png,,a.npy,-1": {2: "a.png: the label '-1' is neither 0 .normal. nor 1"},
    "image,mask,map\nb.png,,a.npy\n\n./b.png,,b.npy": dict.fromkeys((2, 4), f"b.png: {TWICE}"),
    "image,mask,map\n\u00e9.png,,a.npy\ne\u0301.png,,b.npy": dict.fromkeys((2, 3), f"\u00e9.png: {TWICE}"),
    "image,mask,map\na.png,,a.npy\nb.png,,./a.npy": {2: "a.png: a map that another", 3: "b.png: a map that another"},
    "image,mask,map\nb.png,./b_mask.png,b_mask.png": {2: "b.png: its map and its mask are one file"},
    "image,mask,map\na.png,,": {2: "a.png: no map"},
    "image,mask,map\na.png,,gone.npy": {2: "its map .*gone.npy is missing"},
    "image,mask,map\nb.png,b_mask.png;gone.png,a.npy": {2: "its mask .*gone.png is missing"},
    "image,mask,map,category\na.png,,a.npy,../up": {2: "'../up' cannot be a folder"},
    "image,mask,map,label\na.png,,a.npy,mask": {2: NO_MASK},
    "image,mask,map,mask_classes\na.png,,a.npy,x": {2: "mask_classes is 'x'"},
    'image,mask,map,x\na.png,,a.npy,"one\ntwo"\nb.png,,,': {4: "b.png: no map"},
    "image,mask,map,label\nx.png,,,1\ny.png,,a.npy,maybe": {2: "there is no mask; no map", 3: "'maybe' is neither"},
}
"""A table, and a part of the reason of each bad row by its line."""


@pytest.mark.parametrize("text", BAD_ROWS)
def test_bad_rows(tmp_path: Path, text: str) -> None:
    """Each row that contradicts itself or another is named once by its line, and the image by its name."""
    path = table_of(tmp_path, text)
    found = dict(open_table(path).bad_files)
    assert list(found) == [f"{path}, line {line}" for line in BAD_ROWS[text]]
    for line, reason in BAD_ROWS[text].items():
        assert re.search(reason, found[f"{path}, line {line}"])


def test_frames_hold_all_kinds_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, numbers, truth values and missing values of pandas are cells like texts; a row is named by its index."""
    monkeypatch.chdir(make(tmp_path, "a.npy", "b.npy", "b_mask.png"))
    cells = {"image": [Path("a.png"), "b.png"], "mask": [np.nan, tmp_path / "b_mask.png"], "map": ["a.npy", "b.npy"]}
    cells |= {"label": [False, True], "category": [7, 7], 3: ["x", "y"]}
    frame = pd.DataFrame(cells, index=["first", "second"])
    paired = open_table(frame)
    assert not paired.bad_files
    assert [(image.category, image.has_defect) for image in paired.images] == [("7", False), ("7", True)]
    assert open_table(frame.assign(label=[0.0, None])).images[1].has_defect is None
    assert open_table(frame.assign(map=[pd.NA, "b.npy"])).bad_files == [("table, row first", "a.png: no map")]


NO_TABLES = {
    "no mask": ("image,map\na,b\n", "columns image, mask, map, and none twice, but its columns are image, map"),
    "no map": ("image,mask\na,b\n", "but its columns are image, mask. Without a column map, give the maps as `maps`"),
    "column twice": ("image,mask,map,image\na,,b,c\n", "none twice, but its columns are image, mask, map, image"),
    "no rows": ("image,mask,map\n", "rows of the split test, but found none"),
    "empty": ("", "but its columns are none"),
    "too few cells": ("image,mask,map\na.png", "an image and 3 cells, but .*line 2 has 'a.png'"),
    "no image": ("image,mask,map\n,,a.npy", "an image and 3 cells, but .*line 2"),
    "open quote": ('image,mask,map\n"a,,b\n', "could not read line 2"),
    "endless cell": ("image,mask,map\n" + "x" * 200_000, "could not read line 2"),
    "UTF-16": (ROWS.encode("utf-16"), "to be a text in UTF-8, but it is in UTF-16"),
    "no test rows": ("image,mask,map,split\na,,b,train\nc,,d,val\ne,,f,val\n", r"found train \(1\), val \(2\)"),
    "JSON lines": ('{"image": "a", "mask": ""}\n{"image": "b", "mask": ""}\n', "but it is JSON"),
}
"""What is no table, and a part of the message."""


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table(tmp_path: Path, kind: str) -> None:
    """A file without the columns, or that is broken, is refused with what was found."""
    content, message = NO_TABLES[kind]
    path = tmp_path / "parts.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadDataError, match=message):
        open_table(path)


def test_images_that_lie_elsewhere(tmp_path: Path) -> None:
    """Absolute paths, and those that lead out of the folder of the table, are named from the folder they share."""
    make(tmp_path, "data/x/a.png", "data/y/b.png", "data/y/b_mask.png", "a.npy", "b.npy")
    rows = f"{tmp_path}/data/x/a.png,,../a.npy\n../data/y/b.png,..\\data\\y\\b_mask.png,../b.npy"
    paired = open_table(table_of(tmp_path / "tables", f"image,mask,map\n{rows}\n"))
    assert read(paired) == [("x/a.png", 0, 19.0), ("y/b.png", 2, 19.0)]
    assert all(image.path is not None for image in paired.images)
    rows = "/of/another/machine/x/a.png,,../a.npy\n/of/another/machine/y/b.png,,../b.npy"
    paired = open_table(table_of(tmp_path / "tables", f"image,mask,map\n{rows}\n"))
    assert [image.name for image in paired.images] == ["x/a.png", "y/b.png"]


QUOTED = {
    "mvtec": ("x/test/good/a,b.png", 'x/test/crack "1"/\u00e4\n.png', 'x/ground_truth/crack "1"/\u00e4\n_mask.png'),
    "loco": ("x/test/good/0.png", "x/test/la/0.png", "x/ground_truth/la/0/mask0.png", "x/ground_truth/la/0/mask1.png"),
    "folder": ("images/a;b.png", "images/b.png", "masks/a;b_mask.png", "masks/b_mask.png"),
}
"""Files of data sets with names that a table has to quote."""


PLACES = [("mvtec", "data/t.csv"), ("mvtec", "data/x/t.csv"), ("loco", "t.csv"), ("folder", "tables/deep/t.csv")]


@pytest.mark.parametrize(("layout", "place"), PLACES)
def test_a_written_table_says_what_the_layout_says(tmp_path: Path, layout: Any, place: str) -> None:
    """Wherever the table of a data set is written, reading it gives the same images, and still does so elsewhere."""
    images = find_test_images(make(tmp_path / "before/data", *QUOTED[layout]), layout)
    write_table(images, tmp_path / "before" / place)
    maps = open_maps(make(tmp_path / "maps", *(f"{image.key}.npy" for image in images)))
    text = (tmp_path / "before" / place).read_text(encoding="utf-8")
    assert text.startswith("image,mask,label,category,defect,name,mask_classes\n")
    paired = open_table(tmp_path / "before" / place, maps)
    assert [image._replace(place=None) for image in paired.images] == images
    pixels = read(paired)
    assert len(pixels) == len(images)
    (tmp_path / "before").rename(tmp_path / "after")
    assert read(open_table(tmp_path / "after" / place, maps)) == pixels


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """What is unclear, and a name that is no text, is refused, and no half of a table is left; but a mask may miss."""
    names = ("x/test/la/0.png", "x/ground_truth/la/0_mask.png", "x/ground_truth/la/0.bmp")
    root = make(tmp_path / "data", *names, "x/test/b/0.png", "x/ground_truth/b/0_mask.png")
    with pytest.raises(BadFilesError, match="several masks"):
        write_table(find_test_images(root), tmp_path / "t.csv")
    with pytest.raises(BadDataError, match="which no table can hold"):
        write_table([LabelledImage("\udc80.png", "x", None, (), False)], tmp_path / "t.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    for name in names[1:]:
        (root / name).unlink()
    write_table(find_test_images(root), tmp_path / "t.csv")
    ((_, reason),) = open_table(tmp_path / "t.csv", open_maps(make(tmp_path / "maps", "la/0.npy", "b/0.npy"))).bad_files
    assert reason.endswith("la/0_mask.png is missing")
