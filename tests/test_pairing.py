"""A map belongs to the image that its path says, in one way for the whole set, and never by a guess."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from aupimo_torchmetrics.evaluate import LabelledImage, MapFiles
from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.maps.open import open_maps
from aupimo_torchmetrics.evaluate.pairing import pair_maps

NAMES = ["p/test/crack/000.png", "p/test/good/000.png", "p/test/good/001.JPG"]


def image(name: str, category: str | None = None) -> LabelledImage:
    """A normal image by its name, whose first folder is the category and last one the type of defect."""
    folders = name.split("/")[:-1]
    defect = folders[-1] if folders else None
    return LabelledImage(name, category or (folders or [""])[0], Path(name), (), False, defect)


def pair(names: Sequence[str], images: Sequence[LabelledImage]) -> tuple[dict[str, str], dict[str, str]]:
    """Maps by the names of their images, and reasons by bad files."""
    pairs, bad_files = pair_maps(MapFiles(list(names), lambda _: torch.zeros(1, 1), list(names)), images)
    assert all(names[each.map_index] == each.name for each in pairs)
    return {each.image.name: each.name for each in pairs}, dict(bad_files)


WAYS: dict[str, Callable[[str], str]] = {
    "equal": lambda key: f"{key}.tiff",
    "suffix in capitals": lambda key: f"{key}.TIFF",
    "image of asmaps.pt": lambda key: f"{key}.png",
    "no suffix": lambda key: key,
    "leading folders": lambda key: f"runs/seed 0/{key}.npy",
    "without the category": lambda key: f"{key.removeprefix('p/')}.npy",
    "without the folder test": lambda key: f"{key.replace('/test', '')}.npy",
    "absolute": lambda key: f"/home/somebody/data/mvtec/{key}.png",
    "from Windows": lambda key: "D:\\data\\mvtec\\" + key.replace("/", "\\") + ".png",
    "of a server": lambda key: "\\\\nas\\mvtec\\" + key.replace("/", "\\") + ".png",
    "with dots": lambda key: f"./{key}.png",
    "from above": lambda key: f"../mvtec/{key}.png",
    "suffix of the image": lambda key: f"{key}.png.npy",
    "_map": lambda key: f"{key}_map.tiff",
    "_anomaly_map": lambda key: f"{key}_anomaly_map.npy",
    "-heat": lambda key: f"{key}-heat.tiff",
    ".map": lambda key: f"{key}.map.tiff",
    "suffix and ending": lambda key: f"{key}.png_map.tiff",
    "ending and folders": lambda key: f"runs/{key}_map.tiff",
    "joined": lambda key: f"{key.replace('/', '_')}.tiff",
    "joined by two": lambda key: f"{key.replace('/', '__')}.tiff",
    "joined by hyphens": lambda key: f"{key.replace('/', '-')}.npy",
    "joined by dots": lambda key: f"{key.replace('/', '.')}.npy",
    "joined in a folder": lambda key: f"runs/seed 0/{key.replace('/', '_')}.npy",
    "joined without the category": lambda key: f"{key.removeprefix('p/').replace('/', '_')}.npy",
    "joined in a folder of the category": lambda key: f"p/{key.removeprefix('p/').replace('/', '_')}.npy",
    "joined without the folder test": lambda key: f"{key.replace('/test', '').replace('/', '_')}.npy",
    "joined with an ending": lambda key: f"{key.replace('/', '_')}_anomaly_map.npy",
    "joined with the suffix of the image": lambda key: f"{key.replace('/', '_')}.png.npy",
}
"""How maps may be named, by the key of their image."""


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_name_maps(way: str) -> None:
    """A whole set that follows one pattern is matched, whatever the pattern."""
    images = [image(name) for name in NAMES]
    names = [WAYS[way](each.key) for each in images]
    assert pair(names, images) == (dict(zip(NAMES, names, strict=True)), {})
    assert pair(names[::-1], images) == (dict(zip(NAMES, names, strict=True)), {})


@pytest.mark.parametrize("folder", ["", "test_"])
def test_joined_names_for_a_data_set_of_one_category(folder: str) -> None:
    """Names of maps may begin with the category that is the data set, but with no other."""
    images = [image(f"test/{end}.png", "p") for end in ("a_b/0", "a_b/1", "good/0", "good/1")]
    names = [f"p_{folder}{end}.tiff" for end in ("a_b_0", "a_b_1", "good_0", "good_1")]
    assert pair(names, images) == ({each.name: name for each, name in zip(images, names, strict=True)}, {})
    assert pair([name.replace("p_", "q_") for name in names], images)[0] == {}


def test_joined_names_that_fit_two_images() -> None:
    """A joined name that may be that of two images is a bad file."""
    images = [image(f"p/test/{end}.png") for end in ("a/b_0", "a_b/0", "good/1")]
    found, bad_files = pair(["p_test_a_b_0.npy", "p_test_good_1.npy"], images)
    assert found == {"p/test/good/1.png": "p_test_good_1.npy"}
    assert "a map that fits several images, p/test/a/b_0.png, p/test/a_b/0.png" in bad_files["p_test_a_b_0.npy"]


def test_joined_names_of_two_categories() -> None:
    """Without the category, joined names fit an image of each category, and are bad files."""
    images = [image(f"{category}/test/{end}.png") for category in "pq" for end in ("a/0", "good/1")]
    found, bad_files = pair(["a_0.npy", "good_1.npy"], images)
    assert found == {}
    assert "fits several images, p/test/a/0.png, q/test/a/0.png" in bad_files["a_0.npy"]


@pytest.mark.parametrize(
    ("name", "map_name"),
    [
        ("images/x.png", "x.tiff"),
        ("images/x.png", "images/x.tiff"),
        ("images/x.png", "maps/x.tiff"),
        ("images/x.png", "out/maps/x.tiff"),
        ("x.png", "maps/x.tiff"),
        ("set/bottle/test/good/x.png", "/a/b/bottle/test/good/x.png"),
        ("x.png", "x.png.npy"),
        ("bagel/test/crack/rgb/000.png", "bagel/test/crack/000.tiff"),
        ("bagel/test/crack/rgb/000.png", "bagel/test/crack/rgb/000.tiff"),
        ("test/20000.png", "20000.tiff"),
        ("img.v2.png", "img.v2.tiff"),
        ("img.v2.png", "img.v2"),
        ("img.v2.png", "img.v2_map.tiff"),
        ("a b/c,d.png", "a b/c,d.npy"),
    ],
)
def test_folders_of_the_data_set_that_maps_do_without(name: str, map_name: str) -> None:
    """Folders that tell no image from another may be missing, or differ, on either side."""
    assert pair([map_name], [image(name, "data")._replace(defect=None)]) == ({name: map_name}, {})


REFUSED: dict[str, Callable[[str], str]] = {
    "beginning": lambda key: f"/{key}.tiff".replace("/0", "/map_0").lstrip("/"),
    "another category": lambda key: key.replace("p/", "q/") + ".npy",
    "another category, joined": lambda key: key.replace("p/", "q/").replace("/", "_") + ".npy",
    "another category of another machine": lambda key: f"/mnt/parts/{key.removeprefix('p/')}.png",
    "another category of Windows": lambda key: "D:\\parts\\" + key.removeprefix("p/").replace("/", "\\") + ".png",
    "another category without a layout": lambda key: f"/mnt/parts/{key.removeprefix('p/test/')}.png",
    "a folder instead of the category": lambda key: f"run 1/{key.removeprefix('p/')}.tiff",
    "a word of a folder": lambda key: key.replace("crack", "big_crack").replace("good", "not_good") + ".npy",
}
"""How maps may be named that a person would match and the rule does not."""


@pytest.mark.parametrize("way", REFUSED)
@pytest.mark.parametrize("prefix", ["", "p/"])
def test_ways_that_are_refused(way: str, prefix: str) -> None:
    """What contradicts the folders of an image, or begins before its name, is taken for no image at all."""
    images = [image(name.removeprefix("p/"), "p") if not prefix else image(name) for name in NAMES]
    names = [REFUSED[way](name.rpartition(".")[0]) for name in NAMES]
    assert pair(names, images) == ({}, dict.fromkeys(names, "a map without a test image"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_normal_forms_of_unicode(form: str) -> None:
    """A name is the same in both normal forms."""
    name = unicodedata.normalize("NFC", "p/test/Kratzer ä/é.png")
    map_name = unicodedata.normalize(form, "p/test/Kratzer ä/é.tiff")
    assert pair([map_name], [image(name)]) == ({name: map_name}, {})


def test_maps_of_one_category_of_a_collection() -> None:
    """Images of categories without any map are no bad files."""
    images = [image(f"{category}/test/good/000.png") for category in ("a", "b")]
    assert pair(["b/test/good/000.tiff"], images) == ({"b/test/good/000.png": "b/test/good/000.tiff"}, {})


@pytest.mark.parametrize(
    ("map_names", "names"),
    [
        (["good/000.tiff"], ["p/test/crack/000.png"]),
        (["p/test/good/000.tiff"], ["p/test/crack/000.png"]),
        (["/x/p/test/good/000.tiff"], ["p/test/crack/000.png"]),
        (["bottle/test/good/000.tiff"], ["screw/test/good/000.png"]),
        (["000.tiff"], ["p/test/crack/0000.png"]),
        (["p/test/crack/00.tiff"], ["p/test/crack/000.png"]),
        (["p/test/crack/IMG.tiff"], ["p/test/crack/img.png"]),
        (["../000.tiff/x.png"], ["p/test/crack/000.png"]),
    ],
)
def test_maps_of_something_else(map_names: list[str], names: list[str]) -> None:
    """A map whose folders or name contradict the image is a map without an image."""
    assert pair(map_names, [image(name) for name in names]) == (
        {},
        dict.fromkeys(map_names, "a map without a test image"),
    )


def test_a_map_that_fits_in_another_way_than_the_rest() -> None:
    """What would match one map only is not taken, and both map and image are named."""
    images = [image(name) for name in ("p/test/crack/002.png", *NAMES)]
    rest = [f"{each.key}.tiff" for each in images[1:]]
    for odd in ("002.tiff", "p/test/good/002.tiff", "p/test/crack/002_map.tiff", "other/crack/002.tiff"):
        pairs, bad_files = pair([*rest, odd], images)
        assert set(pairs) == set(NAMES)
        assert bad_files == {
            odd: "a map without a test image",
            "p/test/crack/002.png": "a test image without a map",
        }


def test_a_map_that_fits_several_images() -> None:
    """A map is refused where two images would fit, and both are named, with what helps."""
    pairs, bad_files = pair(["000.tiff", "001.tiff"], [image(name) for name in NAMES])
    assert pairs == {"p/test/good/001.JPG": "001.tiff"}
    assert "several images, p/test/crack/000.png, p/test/good/000.png;" in bad_files["000.tiff"]
    assert "`data` of one category" in bad_files["000.tiff"]
    two = [image(f"{category}/test/good/000.png") for category in ("a", "b", "c")]
    (reason,) = pair(["x/test/good/000.png"], two)[1].values()
    assert reason == "a map without a test image"
    (reason,) = pair(["test/good/000.png"], two)[1].values()
    assert "a/test/good/000.png, b/test/good/000.png and 1 more" in reason


SEVERAL_MAPS = {
    "suffixes": (["{}.npy", "{}.png"], "`map_suffix` (here .npy or .png), or a `table` with a column map, says which"),
    "suffixes alike": (["{}.npy", "{}.npz"], "`map_suffix` (here .npy or .npz), or a `table`"),
    "a suffix in a suffix": (["{}.tif", "{}.tiff"], "`map_suffix` (here .tif or .tiff), or a `table`"),
    "an ending": (["{}.tiff", "{}_map.tiff"], "`map_suffix` (here .tiff or _map.tiff), or a `table`"),
    "endings": (["{}_heat.png", "{}_map.png"], "`map_suffix` (here _heat.png or _map.png), or a `table`"),
    "seeds": (["seed0/{}.npy", "seed1/{}.npy"], "give one of these alone as `maps`: seed0, seed1"),
    "models": (
        ["maps/padim/{}.npy", "maps/uflow/{}.tiff"],
        "give one of these alone as `maps`: maps/padim, maps/uflow",
    ),
    "a run in a run": (["a/{}.npy", "a/b/{}.npy"], "give one of these alone as `maps`: a/b"),
}
"""Several maps of each image, and what is said of them."""


@pytest.mark.parametrize("case", SEVERAL_MAPS)
def test_several_maps_of_each_image(case: str) -> None:
    """None is chosen: all are named, with what tells them apart."""
    ways, advice = SEVERAL_MAPS[case]
    images = [image(name) for name in NAMES]
    pairs, bad_files = pair([way.format(each.key) for each in images for way in ways], images)
    assert not pairs
    assert set(bad_files) == set(NAMES)
    for each in images:
        names = ", ".join(way.format(each.key) for way in ways)
        assert f"several maps of one image, {names}; {advice}" in bad_files[each.name]


def test_two_maps_of_a_single_image() -> None:
    """A second map of one image only is no reason to doubt the rest."""
    images = [image(name) for name in NAMES]
    names = [f"{each.key}.tiff" for each in images]
    for second in ("p/test/crack/000.npy", "p/test/crack/000_map.tiff", "p/test/crack/000.tiff"):
        pairs, bad_files = pair([*names, second], images)
        assert set(pairs) == set(NAMES[1:])
        assert list(bad_files) == [NAMES[0]]
        assert bad_files[NAMES[0]].startswith(f"several maps of one image, {names[0]}, {second}; ")
    (reason,) = pair([names[0]] * 50_000, images[:1])[1].values()
    assert "and 49996 more; a set needs one map of each image" in reason


DEEP = ["audiojack/OK/S0001/a1.jpg", "audiojack/NG/AK/S0002/a2.jpg", "audiojack/NG/BX/S0003/a3.jpg"]


@pytest.mark.parametrize("ending", [".npy", "_map.tiff", ".jpg.npy"])
def test_names_alone_of_images_at_several_depths(ending: str) -> None:
    """Maps without folders are matched by their names alone if these are unique, however deep the images lie."""
    images = [
        LabelledImage(n, "audiojack", Path(n), (), False, n.split("/")[-3].replace("audiojack", "OK")) for n in DEEP
    ]
    pairs, bad_files = pair([f"{Path(name).stem}{ending}" for name in DEEP], images)
    assert not bad_files
    assert {Path(name).stem: Path(each).name.removesuffix(ending) for name, each in pairs.items()} == {
        "a1": "a1",
        "a2": "a2",
        "a3": "a3",
    }


@pytest.mark.parametrize(
    "names",
    [
        ["a1.npy", "a2.npy", "a9.npy"],
        ["NG/a1.npy", "NG/a2.npy", "NG/a3.npy"],
        ["run1/a1.npy", "run1/a2.npy", "run1/a3.npy"],
        ["run1/audiojack/a1.npy", "run1/audiojack/a2.npy", "run1/audiojack/a3.npy"],
    ],
)
def test_names_alone_that_do_not_tell(names: list[str]) -> None:
    """If a map fits no image, or lies in a folder that the image does not, not all maps are matched."""
    images = [LabelledImage(n, "audiojack", Path(n), (), False, n.split("/")[1]) for n in DEEP]
    assert pair(names, images)[1]


def test_joined_names_of_images_in_a_folder_of_their_own() -> None:
    """In MVTec 3D-AD images lie in `rgb`, which names of maps may lack though they have the folder `test`."""
    images = [
        image(f"{category}/test/crack/rgb/00{n}.png", category) for category in ("bagel", "rope") for n in range(3)
    ]
    names = [each.key.replace("/rgb", "").replace("/", "_") + ".tiff" for each in images]
    pairs, bad_files = pair(names, images)
    assert not bad_files
    assert list(pairs.values()) == names


def test_maps_of_a_collection_for_one_category() -> None:
    """Maps of other categories are no maps of the category that is the data set."""
    images = [image(f"test/crack/{number:03}.png", "bottle") for number in range(3)]
    names = [f"{category}/test/crack/{number:03}.npy" for category in ("bottle", "cable") for number in range(3)]
    pairs, bad_files = pair(names, images)
    assert list(pairs.values()) == names[:3]
    assert bad_files == dict.fromkeys(names[3:], "a map without a test image")


def test_sets_of_maps_of_the_same_images(tmp_path: Path) -> None:
    """What is advised is a file or folder of a set, not the path of an image in it."""
    images = [image(name) for name in NAMES]
    for folder in ("seed0", "seed1"):
        (tmp_path / "seeds" / folder).mkdir(parents=True)
        np.savez(tmp_path / "seeds" / folder / "all.npz", maps=np.zeros((len(NAMES), 4, 4)), paths=NAMES)
    reasons = {bad_file.reason for bad_file in pair_maps(open_maps(tmp_path / "seeds"), images)[1]}
    assert {reason.rpartition("; ")[2] for reason in reasons} == {"give one of these alone as `maps`: seed0, seed1"}
    assert len(pair_maps(open_maps(tmp_path / "seeds" / "seed1"), images)[0]) == len(NAMES)
    (tmp_path / "seeds/seed0/p/test/crack").mkdir(parents=True)
    np.save(tmp_path / f"seeds/seed0/{images[0].key}.npy", np.zeros((4, 4)))
    ((_, reason),) = pair_maps(open_maps(tmp_path / "seeds/seed0"), images)[1]
    assert reason.startswith(f"several maps of one image, {NAMES[0]} (in all.npz), ")
    assert reason.endswith("; give one of these alone as `maps`: all.npz")


def test_images_with_problems(tmp_path: Path) -> None:
    """What is wrong with an image is told once, before what is wrong with its map; a row of a table by its line."""
    masks = (tmp_path / "mask.png",)
    images = [
        image(NAMES[0])._replace(problem="several masks"),
        image(NAMES[1])._replace(masks=masks, place="t.csv, line 7"),
        image(NAMES[2]),
    ]
    pairs, bad_files = pair([f"{each.key}.tiff" for each in images], images)
    assert list(pairs) == [NAMES[2]]
    assert bad_files == {
        NAMES[0]: "several masks",
        "t.csv, line 7": f"{NAMES[1]}: its mask {masks[0]} is missing",
    }
    unknown = image("images/0.png")._replace(masks=masks, has_defect=None)
    assert pair(["0.npy"], [unknown])[1] == {
        "images/0.png": f"its mask {masks[0]} is missing; that of a normal image is empty"
    }


def test_order_of_pairs() -> None:
    """Pairs have the order of the images, whatever that of the maps."""
    images = [image(name) for name in NAMES]
    pairs, _ = pair_maps(MapFiles([f"{each.key}.png" for each in images[::-1]], lambda _: torch.zeros(1, 1)), images)
    assert [(each.image.name, each.map_index) for each in pairs] == list(zip(NAMES, (2, 1, 0), strict=True))


def test_no_images_and_no_maps() -> None:
    """Nothing to match is no error here."""
    assert pair([], [image(NAMES[0])]) == ({}, {})
    assert pair_maps(MapFiles(["a.png"], lambda _: torch.zeros(1, 1)), []) == (
        [],
        [BadFile("a.png", "a map without a test image")],
    )


@pytest.mark.parametrize("way", ["absolute", "_map", "nothing fits"])
def test_many_maps(way: str) -> None:
    """Thirty thousand maps are matched in the time of a few passes over them, even where none fits."""
    folders = [f"c{category}/test/{defect}" for category in range(20) for defect in ("crack", "good")]
    images = [image(f"{folder}/{number:05}.png") for folder in folders for number in range(750)]
    names = [WAYS.get(way, lambda key: f"x{key}.tiff")(each.key) for each in images]
    start = time.process_time()
    pairs, _ = pair(names, images)
    assert len(pairs) == (0 if way == "nothing fits" else len(images))
    assert time.process_time() - start < 20  # about a second; a quadratic loop would take many minutes
