"""A map belongs to the image that its path says, in one way for the whole set, and never by a guess.

Images of two results are matched by the common ends of their paths. Paths of random trees are matched as they were
made, or refused.
"""

import math
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.evaluate import BadDataError, LabelledImage, MapFiles, open_maps
from aupimo_torchmetrics.evaluate.pairing import pair_maps
from aupimo_torchmetrics.statistics import compare_models
from aupimo_torchmetrics.statistics._matching import match_images

NO_IMAGE = "a map without a test image"
NAMES = ["p/test/crack/000.png", "p/test/good/000.png", "p/test/good/001.JPG"]


def image(name: str, category: str | None = None) -> LabelledImage:
    """A normal image by its name, whose first folder is the category and last one the type of defect."""
    folders = name.split("/")[:-1]
    defect = folders[-1] if folders else None
    return LabelledImage(name, category or (folders or [""])[0], Path(name), (), False, defect)


def pair(names: Sequence[str], images: Sequence[LabelledImage]) -> tuple[dict[str, str], dict[str, str]]:
    """Maps by the names of their images, in the order of the images, and reasons by bad files."""
    pairs, bad_files = pair_maps(MapFiles(list(names), lambda _: torch.zeros(1, 1), list(names)), images)
    assert all(names[each.map_index] == each.name for each in pairs)
    by_image = {each.image.name: each.name for each in pairs}
    assert list(by_image) == [each.name for each in images if each.name in by_image]
    return by_image, dict(bad_files)


def matched(names: Sequence[str], maps: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What `pair` answers if each map is of the image at its place."""
    return dict(zip(names, maps, strict=True)), {}


WAYS: dict[str, Callable[[str], str]] = {
    "equal": lambda key: f"{key}.tiff",
    "suffix in capitals": lambda key: f"{key}.TIFF",
    "no suffix": lambda key: key,
    "without the category": lambda key: f"{key.removeprefix('p/')}.npy",
    "without the folder test": lambda key: f"{key.replace('/test', '')}.npy",
    "absolute": lambda key: f"/home/somebody/data/mvtec/{key}.png",
    "from Windows": lambda key: "D:\\data\\mvtec\\" + key.replace("/", "\\") + ".png",
    "with dots": lambda key: f"./{key}.png",
    "suffix of the image": lambda key: f"{key}.png.npy",
    "_map": lambda key: f"{key}_map.tiff",
    ".map": lambda key: f"{key}.map.tiff",
    "joined": lambda key: f"{key.replace('/', '_')}.tiff",
    "joined by dots": lambda key: f"{key.replace('/', '.')}.npy",
    "joined in a folder": lambda key: f"runs/seed 0/{key.replace('/', '_')}.npy",
    "joined without the category": lambda key: f"{key.removeprefix('p/').replace('/', '_')}.npy",
    "joined without the folder test": lambda key: f"{key.replace('/test', '').replace('/', '_')}.npy",
}
"""How maps may be named, by the key of their image."""


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_name_maps(way: str) -> None:
    """A whole set that follows one pattern is matched, whatever the pattern."""
    images = [image(name) for name in NAMES]
    names = [WAYS[way](each.key) for each in images]
    assert pair(names, images) == pair(names[::-1], images) == matched(NAMES, names)


ONE_TO_ONE = [
    ("images/x.png", "x.tiff"),
    ("images/x.png", "out/maps/x.tiff"),
    ("x.png", "x.png.npy"),
    ("bagel/test/crack/rgb/000.png", "bagel/test/crack/000.tiff"),
    ("bagel/test/crack/rgb/0.png rope/test/crack/rgb/0.png", "bagel_test_crack_0.npy rope_test_crack_0.npy"),
    ("test/20000.png", "20000.tiff"),
    ("img.v2.png", "img.v2"),
    ("p/c,d/Kratzer_\u00e4.png", "p/c,d/Kratzer_a\u0308.tiff"),  # both forms of Unicode
    ("q/test/a_b/0.png q/test/good/0.png", "q_a_b_0.npy q_good_0.npy"),
    ("p/OK/S1/a1.jpg p/NG/AK/S2/a2.jpg", "a1_map.npy a2_map.npy"),  # at several depths
]
"""Images and their maps."""


@pytest.mark.parametrize(("names", "map_names"), ONE_TO_ONE)
def test_folders_of_the_data_set_that_maps_do_without(names: str, map_names: str) -> None:
    """Folders that tell no image from another may be missing, or differ, on either side."""
    images = [image(name) for name in names.split()]
    assert pair(map_names.split(), images) == matched(names.split(), map_names.split())


def test_a_data_set_of_one_category() -> None:
    """Names of maps may begin with the category that is the data set, but with no other, which has no images here."""
    images = [image(f"test/{end}.png", "p") for end in ("a_b/0", "good/0")]
    names = ["p_a_b_0.tiff", "p_good_0.tiff"]
    assert pair(names, images) == matched([each.name for each in images], names)
    assert pair([name.replace("p_", "q_") for name in names], images)[0] == {}
    names = [f"{category}/{each.key}.npy" for category in "pq" for each in images]
    assert pair(names, images)[1] == dict.fromkeys(names[2:], NO_IMAGE)
    several = [image(f"{category}/test/good/000.png") for category in "ab"]
    assert pair(["b/test/good/000.tiff"], several) == matched(["b/test/good/000.png"], ["b/test/good/000.tiff"])


REFUSED: dict[str, Callable[[str], str]] = {
    "beginning": lambda key: f"/{key}.tiff".replace("/0", "/map_0").lstrip("/"),
    "another category": lambda key: key.replace("p/", "q/") + ".npy",
    "another category, joined": lambda key: key.replace("p/", "q/").replace("/", "_") + ".npy",
    "another category of another machine": lambda key: f"/mnt/parts/{key.removeprefix('p/')}.png",
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
    assert pair(names, images) == ({}, dict.fromkeys(names, NO_IMAGE))


SOMETHING_ELSE = {
    "good/000.tiff": "p/test/crack/000.png",
    "/x/p/test/good/000.tiff": "p/test/crack/000.png",
    "bottle/test/good/000.tiff": "screw/test/good/000.png",
    "000.tiff": "p/test/crack/0000.png",
    "p/test/crack/IMG.tiff": "p/test/crack/img.png",
    "../000.tiff/x.png": "p/test/crack/000.png",
}


@pytest.mark.parametrize("name", SOMETHING_ELSE)
def test_maps_of_something_else(name: str) -> None:
    """A map whose folders or name contradict the image is a map without an image."""
    assert pair([name], [image(SOMETHING_ELSE[name])]) == ({}, {name: NO_IMAGE})


@pytest.mark.parametrize("odd", ["002.tiff", "p/test/good/002.tiff", "p/test/crack/002_map.tiff", "q/crack/002.tiff"])
def test_a_map_that_fits_in_another_way_than_the_rest(odd: str) -> None:
    """What would match one map only is not taken, and both map and image are named."""
    images = [image(name) for name in ("p/test/crack/002.png", *NAMES)]
    pairs, bad_files = pair([*(f"{each.key}.tiff" for each in images[1:]), odd], images)
    assert list(pairs) == NAMES
    assert bad_files == {odd: NO_IMAGE, "p/test/crack/002.png": "a test image without a map"}


A_B = "p/test/a/b_0.png p/test/a_b/0.png"
SEVERAL_IMAGES = [
    ("000.tiff 001.tiff", " ".join(NAMES), "p/test/crack/000.png and p/test/good/000.png"),
    ("p_test_a_b_0.npy p_test_good_1.npy", f"{A_B} p/test/good/1.png", A_B.replace(" ", " and ")),
    ("a_0.npy", "p/test/a/0.png q/test/a/0.png", "p/test/a/0.png and q/test/a/0.png"),
]


@pytest.mark.parametrize(("map_names", "names", "both"), SEVERAL_IMAGES)
def test_a_map_that_fits_several_images(map_names: str, names: str, both: str) -> None:
    """A map is refused where two images would fit, and both are named, with what helps; others are taken."""
    first, *others = map_names.split()
    pairs, bad_files = pair([first, *others], [image(name) for name in names.split()])
    assert len(pairs) == len(others)
    assert f"several images, as {both}; " in bad_files[first]
    assert "`data` of one category" in bad_files[first]


TWO_WAYS = [("{}.tif", "{}.tiff"), ("{}.tiff", "{}_map.tiff")]
TWO_WAYS += [("maps/padim/{}.npy", "maps/uflow/{}.tiff"), ("a/{}.npy", "a/b/{}.npy")]


@pytest.mark.parametrize(("one", "two"), TWO_WAYS)
def test_several_maps_of_an_image(one: str, two: str) -> None:
    """None is chosen: two are named, with the settings that choose. Where one image has them, the rest is paired."""
    images = [image(name) for name in NAMES]
    keys = [each.key for each in images]
    for seconds in (keys, keys[:1]):
        pairs, bad_files = pair([one.format(key) for key in keys] + [two.format(key) for key in seconds], images)
        assert len(pairs) + len(bad_files) == len(images)
        for name, key in zip(NAMES, seconds, strict=False):
            both = f"{one.format(key)} and {two.format(key)}"
            assert bad_files[name].startswith(f"several maps of one image, as {both}; the folder of one of them as ")


def test_sets_of_maps_of_the_same_images(tmp_path: Path) -> None:
    """Sets are named by their files, and one of them alone is right."""
    for folder in ("seed0", "seed1"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "all.npz", maps=np.zeros((len(NAMES), 4, 4)), paths=NAMES)
    images = [image(name) for name in NAMES]
    reasons = {reason.partition(";")[0] for _, reason in pair_maps(open_maps(tmp_path), images)[1]}
    assert f"several maps of one image, as {NAMES[0]} in seed0/all.npz and {NAMES[0]} in seed1/all.npz" in reasons
    assert len(pair_maps(open_maps(tmp_path / "seed1"), images)[0]) == len(NAMES)


@pytest.mark.parametrize("names", ["a1.npy a9.npy", "NG/a1.npy NG/a2.npy", "run1/p/a1.npy run1/p/a2.npy"])
def test_names_alone_that_do_not_tell(names: str) -> None:
    """If a map fits no image, or lies in a folder that the image does not, not all maps are matched."""
    assert pair(names.split(), [image("p/OK/S1/a1.jpg"), image("p/NG/AK/S2/a2.jpg")])[1]


def test_images_with_problems() -> None:
    """What is wrong with an image is told once, before what is wrong with its map; a row of a table by its line."""
    facts: list[dict[str, str]] = [{"problem": "several masks"}, {"problem": "no mask", "place": "t.csv, line 7"}, {}]
    images = [image(name)._replace(**each) for name, each in zip(NAMES, facts, strict=True)]
    pairs, bad_files = pair([f"{each.key}.tiff" for each in images], images)
    assert list(pairs) == [NAMES[2]]
    assert bad_files == {NAMES[0]: "several masks", "t.csv, line 7": f"{NAMES[1]}: no mask"}
    alike = dict.fromkeys(("p/test/crack/000.jpg", NAMES[0]), "one of several")
    assert pair(["p/test/crack/000.tiff"], [image(name)._replace(problem=alike[name]) for name in alike]) == ({}, alike)


def test_no_images_and_no_maps() -> None:
    """Nothing to match is no error here."""
    assert pair([], [image(NAMES[0])]) == ({}, {})
    assert pair(["a.png"], []) == ({}, {"a.png": NO_IMAGE})


def test_many_maps() -> None:
    """Ten thousand maps are matched in the time of a few passes over them, even where none fits."""
    folders = [f"c{category}/test/{defect}" for category in range(20) for defect in ("crack", "good")]
    images = [image(f"{folder}/{number:05}.png") for folder in folders for number in range(250)]
    start = time.process_time()
    assert pair([f"x{each.key}.tiff" for each in images], images)[0] == {}
    assert time.process_time() - start < 10  # less than a second; a quadratic loop would take minutes


NAN = math.nan
OF_PART = [f"part/test/{folder}/{index:03}.png" for folder in ("crack", "good", "hole") for index in range(4)]
"""Images as `aupimo evaluate` names them; each number occurs in each folder."""


def windows(path: str) -> str:
    """The path as another machine has it."""
    return "C:\\Users\\me\\data\\mvtec\\" + path.replace("/", "\\")


SAME_IMAGES: dict[str, Callable[[str], str]] = {
    "only the folders of defects": lambda name: name.removeprefix("part/test/"),
    "paths of Windows": windows,
    "an addition": lambda name: name.replace(".png", "_map.png"),
    "an addition, joined": lambda name: name.replace(".png", "_map.png").replace("/", "_"),
}


@pytest.mark.parametrize("case", SAME_IMAGES)
def test_paths_of_the_same_images_are_matched_in_any_order(case: str) -> None:
    """Suffixes, folders before the common end, additions, separators and order may differ, in both directions."""
    indices = [7, 2, 11, 0, 5, 9, 1, 10, 4, 8, 3, 6]
    others = [SAME_IMAGES[case](OF_PART[index]) for index in indices]
    assert [indices[index] for index in match_images(OF_PART, others)] == list(range(len(OF_PART)))
    assert match_images(others, OF_PART) == indices


@pytest.mark.parametrize("middle", ["test/", ""])
def test_both_ends_may_have_other_folders_before(middle: str) -> None:
    """Two machines keep one data set in two places, even where neither path is the end of the other."""
    names = [name.replace("test/", middle) for name in OF_PART]
    there = [windows(name) for name in reversed(names)]
    assert match_images([f"/home/anna/data/{name}" for name in names], there) == list(range(len(names)))[::-1]


SAME_IN_ORDER: list[tuple[list[str], list[str], list[int]]] = [
    (["a/0.png", "a/0.jpg"], ["x/a/0.jpg", "x/a/0.png"], [1, 0]),  # of one name, told apart by the suffix
    (["a/x.v1.png", "a/x.v2.png"], ["a/x.v2.npy", "a/x.v1.npy"], [1, 0]),  # dots in names are no suffixes
    (["a/0.5", "a/0.7"], ["a/0.7", "a/0.5"], [1, 0]),
    ([".png", "sample 1"], ["sample 1", ".png"], [1, 0]),
    (["0.png", "1.png"], ["good/1.png", "crack/0.png"], [1, 0]),  # a bare name is the end of a path
    (["./0.png", "./1.png"], ["good/1.png", "crack/0.png"], [1, 0]),
    (["t\u00fcr/e.png", "t\u00fcr/\u00e9.png"], ["tu\u0308r/e\u0301.png", "tu\u0308r/e.png"], [1, 0]),  # NFC and NFD
]


@pytest.mark.parametrize(("paths", "others", "order"), SAME_IN_ORDER)
def test_names_that_are_nearly_alike(paths: list[str], others: list[str], order: list[int]) -> None:
    """Suffixes, dots and Unicode forms change no match."""
    assert match_images(paths, others) == match_images(others, paths) == order


UNCLEAR = [
    (["a/0.jpg", "a/1.png"], ["a/0.tif", "a/0.npy"], "'a/0.jpg' of 'x' (2 images) fits 'a/0.tif' and 'a/0.npy' of 'y'"),
    (["a/0.png", "b/0.png"], ["0.png", "1.png"], "fits 'a/0.png' and 'b/0.png' of 'x' (2 images)"),
    (["x/0.png", "x/1.png"], ["x/0.png", "x\\0.png"], "'x/0.png' of 'x' (2 images) fits 'x/0.png' and"),
    (["x/0.png", "x/1.png"], ["x/0.png", ""], "'x/1.png' of 'x' (2 images) fits none, such as 'x/0.png', of 'y'"),
    (OF_PART, OF_PART[:-1], "'part/test/hole/003.png' of 'x' (12 images) fits none"),
    (OF_PART[:-1], OF_PART, "'part/test/hole/003.png' of 'y' (12 images) fits none"),
]


@pytest.mark.parametrize(("paths", "others", "reason"), UNCLEAR)
def test_images_without_one_partner_are_refused(paths: list[str], others: list[str], reason: str) -> None:
    """The error names an image, those that it fits, and how many images there are."""
    with pytest.raises(BadDataError, match=re.escape(reason)):
        match_images(paths, others, "x", "y")


OTHER_IMAGES = [
    (["good/000.png"], ["crack/000.png"]),
    (["/home/anna/test/crack/1.png"], [r"D:\sets\test\crack\1.png"]),  # the only folders are the categories
    (["candle/Data/Images/Anomaly/000.JPG"], ["cashew/Data/Images/Anomaly/000.JPG"]),
    (["line1/crack/000.png", "line2/crack/001.png"], ["line3/crack/000.png", "line2/crack/001.png"]),
    (["crack/.png"], ["crack/.npy"]),
    (["Crack/000.png"], ["crack/000.png"]),
]


@pytest.mark.parametrize(("own", "others"), OTHER_IMAGES)
def test_other_images_are_refused(own: list[str], others: list[str]) -> None:
    """What differs in more than the place of the data set is of other images, which the error names."""
    for paths in ((own, others), (others, own)):
        with pytest.raises(BadDataError, match="Expected `results` to be of the same images, but ") as caught:
            match_images(*paths)
        assert sum(path in str(caught.value).replace("\\\\", "\\") for path in own + others) > 1


def result(scores: list[float], paths: list[str] | None = None, ids: list[int] | None = None) -> AUPIMOResult:
    """A result with these scores."""
    image_ids = None if ids is None else torch.tensor(ids)
    return AUPIMOResult(torch.tensor(scores).double(), (1e-5, 1e-4), (0.0, 1.0), paths=paths, image_ids=image_ids)


def test_models_are_compared_by_matched_images() -> None:
    """Scores in another order and under other paths give the same comparison, which says how they were matched."""
    scores, others, order = [NAN, 0.1, 0.2, 0.9], [NAN, 0.3, 0.1, 0.8], [2, 0, 3, 1]
    paths, moved = ["good/0.png", "crack/0.png", "crack/1.png", "hole/0.png"], [others[index] for index in order]
    windows_paths = [windows(f"part/test/{paths[index]}") for index in order]
    by_position = compare_models({"a": result(scores), "b": result(others)})
    by_path = compare_models({"a": result(scores, paths), "b": result(moved, windows_paths)})
    by_id = compare_models({"a": result(scores, ids=[0, 1, 2, 3]), "b": result(moved, ids=order)})
    assert by_path.confidence == by_id.confidence == by_position.confidence
    assert by_path.average_ranks == by_id.average_ranks == by_position.average_ranks
    assert (by_path.matched_by, by_id.matched_by, by_position.matched_by) == ("path", "image id", "position")
    assert str(by_position).startswith("for these thresholds, 3 images matched by position; ")
    assert str(by_path).startswith("for these thresholds, 3 images; ")


PATHS = ["good/0.png", "crack/0.png", "crack/1.png"]
OTHER_RESULTS: dict[str, tuple[list[float], list[float], list[str] | None]] = {
    r"'crack/1\.png' is normal \(NaN\) for 'b' and has a score for 'a'": ([NAN, 1, 1], [1, NAN, NAN], PATHS),
    "'image 0' is normal .* for 'a' and has a score for 'b'": ([NAN, 1, 1], [1, NAN, 1], None),
    "'image 0' is normal .* for 'b'": ([1, 1], [NAN, NAN], None),
    r"'image 2' of 'b' \(3 images\) fits none": ([1, 1], [1, 1, 1], None),
}


@pytest.mark.parametrize("reason", OTHER_RESULTS)
def test_results_of_other_images_or_classes_are_refused(reason: str) -> None:
    """The error says which image it is, and of which models."""
    a, b, paths = OTHER_RESULTS[reason]
    with pytest.raises(BadDataError, match=reason):
        compare_models({"a": result(a, paths), "b": result(b, paths and paths[1:] + paths[:1])})


def test_positions_do_not_match_what_paths_tell_apart() -> None:
    """A model without paths is compared by position only if those with paths agree about the order."""
    paths = ["crack/0.png", "crack/1.png", "crack/2.png"]
    a, b, c = result([0.1, 0.2, 0.3], paths), result([0.3, 0.2, 0.4], paths[::-1]), result([0.1, 0.2, 0.4])
    message = "not all of them have, and the images of 'a' and 'b' are in different orders"
    with pytest.raises(BadDataError, match=message):
        compare_models({"a": a, "b": b, "c": c})
    same = result([0.3, 0.2, 0.4], [path.replace("png", "npy") for path in paths])
    assert compare_models({"a": a, "b": same, "c": c}).matched_by == "position"


CATEGORIES = ["bottle", "bottle_2", "cable", "big", "part", "p1"]
DEFECTS = ["good", "good_2", "crack", "big_crack", "crack_2", "crack/big", "hole", "000", "a.b"]
TREE_NAMES = ["000", "001", "0001", "1", "01", "crack_000", "000_1", "a", "img.v2", "000_map"]
FORMS = ["{}/test/{}/{}", "{}/{}/{}", "{}/test/{}/rgb/{}", "{}/Data/Images/{}/{}", "{}/{}/S1/{}"]
"""Layouts of data sets, of category, defect and name."""
FRONTS = ["", "", "run1/", "out/maps/", "/home/x/data/", "C:\\data\\", "bottle/"]
ADDITIONS = ["", "", "_map", "_anomaly_map", "-heat", ".map", ".png", "_0"]
JOINERS = ["/", "/", "_", "-", "__"]


class Tree(NamedTuple):
    """A data set, and paths of what was made of its images."""

    images: list[str]
    paths: list[str]
    truth: dict[int, str]
    """Image of each path, but for those of another category, or of an image that is not there."""


def a_tree(seed: int) -> Tree:
    """Draw a tree, which may lack images, or hold paths of another category."""
    draw = random.Random(seed)  # noqa: S311
    *categories, other = draw.sample(CATEGORIES, draw.randint(2, 4))
    form, path_of = draw.choice(FORMS), a_way(draw)
    keys = [
        form.format(category, defect, name)
        for category in categories
        for defect in draw.sample(DEFECTS, draw.randint(1, 4))
        for name in draw.sample(TREE_NAMES, draw.randint(1, 5))
    ]
    share_missing, is_replaced = draw.choice([0, 0, 0.3]), draw.random() < 0.3
    images = [f"{key}.png" for key in keys if draw.random() >= share_missing]
    made: dict[str, str] = {}
    for key in draw.sample(keys, len(keys)):
        category, rest = key.split("/", 1)
        is_other = is_replaced and category == categories[0]
        made[path_of(other if is_other else category, rest)] = "" if is_other else f"{key}.png"
    truth = {index: image for index, image in enumerate(made.values()) if image in images}
    return Tree(images, list(made), truth)


def a_way(draw: random.Random) -> Callable[[str, str], str]:
    """Draw how paths are made of a category and what is below its folder."""
    front, addition, joiner = draw.choice(FRONTS), draw.choice(ADDITIONS), draw.choice(JOINERS)
    is_without_test = draw.random() < 0.3

    def path_of(category: str, rest: str) -> str:
        rest = rest.removeprefix("test/") if is_without_test else rest
        path = f"{front}{f'{category}/{rest}'.replace('/', joiner)}{addition}.npy"
        return path.replace("/", "\\") if "\\" in front else path

    return path_of


def test_no_path_of_random_trees_is_taken_for_another_image() -> None:
    """What is matched is right, and most trees are matched as a whole."""
    num_right = 0
    for seed in range(500):
        tree = a_tree(seed)
        images = [LabelledImage(name, name.split("/")[0], None, (), False) for name in tree.images]
        maps = MapFiles(tree.paths, lambda _: torch.zeros(1, 1))
        found = {each.map_index: each.image.name for each in pair_maps(maps, images)[0]}
        assert found.items() <= tree.truth.items(), seed
        num_right += found == tree.truth
    assert num_right > 400
