"""Images of two results are matched by the common ends of their paths, and never by a guess."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.compare import BadDataError
from aupimo_torchmetrics.statistics import compare_models
from aupimo_torchmetrics.statistics._matching import match_images

NAN = math.nan
NAMES = [f"part/test/{folder}/{index:03}.png" for folder in ("crack", "good", "hole") for index in range(4)]
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
    others = [SAME_IMAGES[case](NAMES[index]) for index in indices]
    assert [indices[index] for index in match_images(NAMES, others)] == list(range(len(NAMES)))
    assert match_images(others, NAMES) == indices


@pytest.mark.parametrize("middle", ["test/", ""])
def test_both_ends_may_have_other_folders_before(middle: str) -> None:
    """Two machines keep one data set in two places, even where neither path is the end of the other."""
    names = [name.replace("test/", middle) for name in NAMES]
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
    (NAMES, NAMES[:-1], "'part/test/hole/003.png' of 'x' (12 images) fits none"),
    (NAMES[:-1], NAMES, "'part/test/hole/003.png' of 'y' (12 images) fits none"),
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
