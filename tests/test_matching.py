"""Images of two results are matched by the common ends of their paths, and never by a guess."""

import math
import unicodedata

import pytest
import torch

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.statistics import compare_models
from aupimo_torchmetrics.statistics._matching import match_images

NAMES = [f"part/test/{folder}/{index:03}.png" for folder in ("crack", "good", "hole") for index in range(4)]
"""Images as `aupimo evaluate` names them; each number occurs in each folder."""


def windows(path: str) -> str:
    """The path as another machine has it."""
    return "C:\\Users\\me\\data\\mvtec\\" + path.replace("/", "\\")


SAME_IMAGES = {
    "the same paths": NAMES,
    "maps in another format": [name.replace(".png", ".tiff") for name in NAMES],
    "maps named as the images": [f"{name}.npy" for name in NAMES],
    "suffixes in capitals": [name.replace(".png", ".PNG") for name in NAMES],
    "no suffixes": [name[:-4] for name in NAMES],
    "a folder more": [f"mvtec/{name}" for name in NAMES],
    "the published folder": [f"MVTec/{name}" for name in NAMES],
    "a folder less": [name.removeprefix("part/") for name in NAMES],
    "only the folders of defects": [name.removeprefix("part/test/") for name in NAMES],
    "absolute paths": [f"/home/me/data/{name}" for name in NAMES],
    "paths of Windows": [windows(name) for name in NAMES],
    "a share of Windows": ["\\\\server\\share\\" + name.replace("/", "\\") for name in NAMES],
    "maps of a model": [f"runs/padim/maps/{name[:-4]}.npy" for name in NAMES],
    "the current folder": [f"./{name}" for name in NAMES],
}


@pytest.mark.parametrize("case", SAME_IMAGES)
def test_paths_of_the_same_images_are_matched_in_any_order(case: str) -> None:
    """Suffixes, folders before the common end, separators and order may differ, in both directions."""
    indices = [7, 2, 11, 0, 5, 9, 1, 10, 4, 8, 3, 6]
    others = [SAME_IMAGES[case][index] for index in indices]
    assert [indices[index] for index in match_images(NAMES, others)] == list(range(len(NAMES)))
    assert match_images(others, NAMES) == indices


def test_both_ends_may_have_other_folders_before() -> None:
    """Two machines keep one data set in two places, even where neither path is the end of the other."""
    here = [f"/home/anna/data/{name}" for name in NAMES]
    there = [windows(name) for name in reversed(NAMES)]
    assert match_images(here, there) == list(range(len(NAMES)))[::-1]
    here, there = ([name.replace("test/", "") for name in names] for names in (here, [windows(name) for name in NAMES]))
    assert match_images(here, there) == list(range(len(NAMES)))


@pytest.mark.parametrize("form", ["{}_map.png", "{}.png_heat.npy"])
def test_an_addition_to_all_names_of_one_side_does_not_count(form: str) -> None:
    """Who scored under the paths of maps compares with who scored under those of images, whichever comes first."""
    others = [form.format(name.removesuffix(".png")) for name in reversed(NAMES)]
    assert match_images(NAMES, others) == match_images(others, NAMES) == list(range(len(NAMES)))[::-1]
    joined = [name.replace("/", "_") for name in others]
    assert match_images(NAMES, joined) == match_images(joined, NAMES) == list(range(len(NAMES)))[::-1]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms_of_a_name_are_one_name(form: str) -> None:
    """A name with an accent is the same from Linux and from macOS."""
    names = ["tür/test/größe/é.png", "tür/test/größe/e.png"]
    others = [unicodedata.normalize(form, name) for name in names]
    assert match_images([unicodedata.normalize("NFD", name) for name in names], others) == [0, 1]


def test_names_of_which_only_the_suffix_differs_are_told_apart() -> None:
    """Two images of one name are matched by their suffixes, as far as these say which is which."""
    assert match_images(["a/0.png", "a/0.jpg"], ["x/a/0.jpg", "x/a/0.png"]) == [1, 0]
    with pytest.raises(BadDataError, match=r"'a/0\.jpg' of 'the first' fits both 'a/0\.tif' and 'a/0\.npy'"):
        match_images(["a/0.jpg", "a/0.png"], ["a/0.tif", "a/0.npy"])


def test_dots_in_names_are_no_suffixes() -> None:
    """Only suffixes of images and maps are cut."""
    assert match_images(["a/x.v1.png", "a/x.v2.png"], ["a/x.v2.npy", "a/x.v1.npy"]) == [1, 0]
    assert match_images(["a/0.5", "a/0.7"], ["a/0.7", "a/0.5"]) == [1, 0]
    assert match_images([".png", "sample 1"], ["sample 1", ".png"]) == [1, 0]


def test_names_without_folders_fit_if_only_one_image_has_the_name() -> None:
    """A bare name is the end of a path, but not of two."""
    assert match_images(["0.png", "1.png"], ["good/1.png", "crack/0.png"]) == [1, 0]
    assert match_images(["./0.png", "./1.png"], ["good/1.png", "crack/0.png"]) == [1, 0]
    with pytest.raises(BadDataError, match=r"'0\.png' of 'x' fits both 'crack/0\.png' and 'good/0\.png' of 'y'"):
        match_images(["0.png", "1.png"], ["crack/0.png", "good/0.png"], "x", "y")
    with pytest.raises(BadDataError, match=r"both 'crack/0\.png' and 'good/0\.png' of 'y' fit '0\.png' of 'x'"):
        match_images(["crack/0.png", "good/0.png"], ["0.png", "1.png"], "y", "x")


OTHER_IMAGES = {
    "other defects": (["good/000.png"], ["crack/000.png"]),
    "other defects in one set": (["test/good/000.png"], ["test/crack/000.png"]),
    "other defects on two machines": (["/a/test/good/000.png"], ["C:\\b\\test\\crack\\000.png"]),
    "other numbers": (["crack/000.png", "crack/001.png"], ["crack/000.png", "crack/002.png"]),
    "other categories": (["cashew/test/bad/000.JPG"], ["candle/test/bad/000.JPG"]),
    "two machines whose only folders are the categories": (
        ["/home/anna/test/crack/1.png"],
        [r"D:\sets\test\crack\1.png"],
    ),
    "other categories of one collection": (["/x/mvtec/tile/test/good/0.png"], ["/y/MVTec/wood/test/good/0.png"]),
    "other categories of MVTec AD 2": (["can/test_public/bad/000.png"], ["vial/test_public/bad/000.png"]),
    "other categories of VisA": (
        ["candle/Data/Images/Anomaly/000.JPG"],
        ["cashew/Data/Images/Anomaly/000.JPG"],
    ),
    "one folder is the same, another is not": (
        ["line1/crack/000.png", "line2/crack/001.png"],
        ["line3/crack/000.png", "line2/crack/001.png"],
    ),
    "names that end alike": (["crack/1000.png"], ["crack/000.png"]),
    "folders that end alike": (["big crack/000.png"], ["crack/000.png"]),
    "names without stem": (["crack/.png"], ["crack/.npy"]),
    "capitals": (["Crack/000.png"], ["crack/000.png"]),
}


@pytest.mark.parametrize("case", OTHER_IMAGES)
def test_other_images_are_refused(case: str) -> None:
    """What differs in more than the place of the data set is of other images, which the error names."""
    own, others = OTHER_IMAGES[case]
    for paths in ((own, others), (others, own)):
        with pytest.raises(BadDataError, match="Expected `results` to be of the same images, but ") as caught:
            match_images(*paths)
        assert sum(path in str(caught.value).replace("\\\\", "\\") for path in own + others) > 1


def test_images_without_a_partner_are_counted_and_some_named() -> None:
    """The error names three images and says how many more there are."""
    with pytest.raises(BadDataError) as caught:
        match_images(NAMES, [name.replace("hole", "scratch") for name in NAMES], "old", "new")
    assert "'part/test/hole/000.png' is in only one of 'old' and 'new', as are" in str(caught.value)
    assert str(caught.value).endswith(
        "'part/test/hole/001.png', 'part/test/hole/002.png', 'part/test/hole/003.png' and 4 more."
    )
    with pytest.raises(BadDataError, match=r"got 12 of 'old' and 11 of 'new'; 'part/test/hole/003.png' is in only one"):
        match_images(NAMES, NAMES[:-1], "old", "new")


def test_images_with_one_path_or_without_are_refused() -> None:
    """Each image needs a path of its own."""
    with pytest.raises(BadDataError, match=r"images of 'b' to be distinct, but some have the same path or id: 'x\\\\0"):
        match_images(["x/0.png", "x/1.png"], ["x/0.png", "x\\0.png"], "a", "b")
    with pytest.raises(BadDataError, match="the images of 'b' to have paths, but 1 of 2 have none"):
        match_images(["x/0.png", "x/1.png"], ["x/0.png", ""], "a", "b")


def result(scores: list[float], paths: list[str] | None = None, ids: list[int] | None = None) -> AUPIMOResult:
    """A result with these scores."""
    tensor = torch.tensor(scores, dtype=torch.float64)
    image_ids = None if ids is None else torch.tensor(ids)
    return AUPIMOResult(tensor, (1e-5, 1e-4), (0.0, 1.0), paths=paths, image_ids=image_ids)


def test_models_are_compared_by_matched_images() -> None:
    """Scores in another order and under other paths give the same comparison, which says how they were matched."""
    scores, others = [math.nan, 0.1, 0.2, 0.9], [math.nan, 0.3, 0.1, 0.8]
    paths = ["good/0.png", "crack/0.png", "crack/1.png", "hole/0.png"]
    by_position = compare_models({"a": result(scores), "b": result(others)})
    order = [2, 0, 3, 1]
    b = result([others[index] for index in order], [windows(f"part\\test\\{paths[index]}") for index in order])
    by_path = compare_models({"a": result(scores, paths), "b": b})
    by_id = compare_models({"a": result(scores, ids=[0, 1, 2, 3]), "b": result([others[i] for i in order], ids=order)})
    assert by_path.confidence == by_id.confidence == by_position.confidence
    assert by_path.average_ranks == by_id.average_ranks == by_position.average_ranks
    assert (by_path.matched_by, by_id.matched_by, by_position.matched_by) == ("path", "image id", "position")
    assert str(by_position).startswith("3 images matched by position; ")
    assert str(by_path).startswith("3 images; ")


def test_an_image_that_is_normal_for_one_model_only_is_named() -> None:
    """The error says which image it is, and which model has no score of it."""
    a = result([math.nan, 0.1, 0.2, 0.3], ["good/0.png", "crack/0.png", "crack/1.png", "crack/2.png"])
    b = result([0.3, math.nan, math.nan, 0.2], ["crack/0.tiff", "crack/1.tiff", "good/0.tiff", "crack/2.tiff"])
    with pytest.raises(BadDataError, match=r"'crack/1\.png' is normal \(NaN\) for 'b' and has a score for 'a'\."):
        compare_models({"a": a, "b": b})
    with pytest.raises(BadDataError, match=r"'crack/1\.tiff' is normal \(NaN\) for 'b' and has a score for 'a'\."):
        compare_models({"b": b, "a": a})
    with pytest.raises(BadDataError, match=r"'image 0' is normal \(NaN\) for 'a' .* 'b', and another image differs"):
        compare_models({"a": result([math.nan, 0.1, 0.2]), "b": result([0.1, math.nan, 0.2])})


def test_a_model_without_any_score_is_named() -> None:
    """Where all scores of one model are undefined, the error names the model, and no image."""
    with pytest.raises(BadDataError, match=r"to have scores, but all of 'b' are undefined \(NaN\)"):
        compare_models({"a": result([0.1, 0.2]), "b": result([math.nan, math.nan])})


def test_positions_do_not_match_what_paths_tell_apart() -> None:
    """A model without paths is compared by position only if those with paths agree about the order."""
    paths = ["crack/0.png", "crack/1.png", "crack/2.png"]
    a, b, c = result([0.1, 0.2, 0.3], paths), result([0.3, 0.2, 0.4], paths[::-1]), result([0.1, 0.2, 0.4])
    with pytest.raises(BadDataError, match="'c' has none, and the images of 'a' and 'b' are in different orders"):
        compare_models({"a": a, "b": b, "c": c})
    same = result([0.3, 0.2, 0.4], [path.replace("png", "npy") for path in paths])
    assert compare_models({"a": a, "b": same, "c": c}).matched_by == "position"
