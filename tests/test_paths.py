"""Paths of random trees are matched as they were made, or refused, and never to another image."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from aupimo_torchmetrics.evaluate import LabelledImage, MapFiles
from aupimo_torchmetrics.evaluate.pairing import pair_maps

CATEGORIES = ["bottle", "bottle_2", "cable", "big", "part", "p1"]
DEFECTS = ["good", "good_2", "crack", "big_crack", "crack_2", "crack/big", "hole", "000", "a.b"]
NAMES = ["000", "001", "0001", "1", "01", "crack_000", "000_1", "a", "img.v2", "000_map"]
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
        for name in draw.sample(NAMES, draw.randint(1, 5))
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


@pytest.mark.parametrize("first_seed", range(0, 500, 100))
def test_no_path_is_taken_for_another_image(first_seed: int) -> None:
    """What is matched is right, and most trees are matched as a whole."""
    num_right = 0
    for seed in range(first_seed, first_seed + 100):
        tree = a_tree(seed)
        images = [LabelledImage(name, name.split("/")[0], None, (), False) for name in tree.images]
        maps = MapFiles(tree.paths, lambda _: torch.zeros(1, 1))
        found = {each.map_index: each.image.name for each in pair_maps(maps, images)[0]}
        assert found.items() <= tree.truth.items(), seed
        num_right += found == tree.truth
    assert num_right > 75
