"""Each data set is found in its published form, by name and by itself, and whatever is not clear is named."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any, get_args

import pytest

from aupimo_torchmetrics._settings import Layout
from aupimo_torchmetrics.evaluate import BadDataError, LabelledImage, find_test_images, open_maps
from aupimo_torchmetrics.evaluate.data.table import open_table, write_table

JSON = {
    "meta": {"prefix": "audiojack/", "normal_class": "OK"},
    "train": [{"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S1/a.jpg", "mask_path": None}],
    "test": [
        {"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S2/b.jpg", "mask_path": None},
        {"category": "audiojack", "anomaly_class": "OK", "image_path": "NG/BX/S3/c.jpg", "mask_path": None},
        {"category": "audiojack", "anomaly_class": "BX", "image_path": "NG/BX/S3/d.jpg", "mask_path": "NG/BX/S3/d.png"},
    ],
}
"""How Real-IAD lists its images; a view of a part in `NG` on which there is no defect is normal."""

TREES: dict[str, tuple[list[str], dict[str, tuple[str, list[str], bool | None, str | None]]]] = {
    "mvtec": (
        [
            "bottle/train/good/000.png",
            "bottle/test/good/000.png",
            "bottle/test/broken/000.png",
            "bottle/ground_truth/broken/000_mask.png",
            "bottle/license.txt",
            "screw/test/good/000.png",
        ],
        {
            "bottle/test/broken/000.png": ("bottle", ["bottle/ground_truth/broken/000_mask.png"], True, "broken"),
            "bottle/test/good/000.png": ("bottle", [], False, "good"),
            "screw/test/good/000.png": ("screw", [], False, "good"),
        },
    ),
    "mvtec_ad_2": (
        [
            "can/train/good/000_regular.png",
            "can/validation/good/000_regular.png",
            "can/test_private/000_regular.png",
            "can/test_private_mixed/000_mixed.png",
            "can/test_public/good/000_regular.png",
            "can/test_public/bad/000_regular.png",
            "can/test_public/ground_truth/bad/000_regular_mask.png",
        ],
        {
            "can/test_public/bad/000_regular.png": (
                "can",
                ["can/test_public/ground_truth/bad/000_regular_mask.png"],
                True,
                "bad",
            ),
            "can/test_public/good/000_regular.png": ("can", [], False, "good"),
        },
    ),
    "mvtec_3d": (
        [
            f"bagel/{folder}/{kind}"
            for folder in ("train/good", "test/good", "test/hole")
            for kind in ("rgb/000.png", "gt/000.png", "xyz/000.tiff")
        ],
        {
            "bagel/test/good/rgb/000.png": ("bagel", ["bagel/test/good/gt/000.png"], False, "good"),
            "bagel/test/hole/rgb/000.png": ("bagel", ["bagel/test/hole/gt/000.png"], True, "hole"),
        },
    ),
    "loco": (
        [
            "box/test/good/000.png",
            "box/test/logical_anomalies/000.png",
            "box/ground_truth/logical_anomalies/000/000.png",
            "box/ground_truth/logical_anomalies/000/001.png",
            "pins/test/good/000.png",
        ],
        {
            "box/test/good/000.png": ("box", [], False, "good"),
            "box/test/logical_anomalies/000.png": (
                "box",
                [f"box/ground_truth/logical_anomalies/000/00{i}.png" for i in (0, 1)],
                True,
                "logical_anomalies",
            ),
            "pins/test/good/000.png": ("pins", [], False, "good"),
        },
    ),
    "visa": (
        [
            "candle/Data/Images/Normal/000.JPG",
            "candle/Data/Images/Normal/001.JPG",
            "candle/Data/Images/Anomaly/000.JPG",
            "candle/Data/Masks/Anomaly/000.png",
        ],
        {
            "candle/Data/Images/Anomaly/000.JPG": ("candle", ["candle/Data/Masks/Anomaly/000.png"], True, "Anomaly"),
            "candle/Data/Images/Normal/001.JPG": ("candle", [], False, "Normal"),
        },
    ),
    "btad": (
        [
            "01/train/ok/0000.bmp",
            "01/test/ok/0000.bmp",
            "01/test/ko/0000.bmp",
            "01/ground_truth/ko/0000.png",
            "03/test/ko/0000.bmp",
            "03/ground_truth/ko/0000.bmp",
        ],
        {
            "01/test/ko/0000.bmp": ("01", ["01/ground_truth/ko/0000.png"], True, "ko"),
            "01/test/ok/0000.bmp": ("01", [], False, "ok"),
            "03/test/ko/0000.bmp": ("03", ["03/ground_truth/ko/0000.bmp"], True, "ko"),
        },
    ),
    "ksdd2": (
        ["train/1.png", "train/1_GT.png", "test/20000.png", "test/20000_GT.png", "test/20001.png", "test/20001_GT.png"],
        {
            "test/20000.png": ("data", ["test/20000_GT.png"], None, None),
            "test/20001.png": ("data", ["test/20001_GT.png"], None, None),
        },
    ),
    "real_iad": (
        [
            *(f"realiad_1024/audiojack/{name}" for name in ("OK/S1/a.jpg", "OK/S2/b.jpg")),
            *(f"realiad_1024/audiojack/NG/BX/S3/{name}" for name in ("c.jpg", "d.jpg", "d.png")),
        ],
        {
            "realiad_1024/audiojack/NG/BX/S3/c.jpg": ("audiojack", [], False, "OK"),
            "realiad_1024/audiojack/NG/BX/S3/d.jpg": (
                "audiojack",
                ["realiad_1024/audiojack/NG/BX/S3/d.png"],
                True,
                "BX",
            ),
            "realiad_1024/audiojack/OK/S2/b.jpg": ("audiojack", [], False, "OK"),
        },
    ),
    "bmad": (
        [
            "Brain_AD/train/good/1.png",
            *(f"Brain_AD/{split}/{name}/1.png" for split in ("test", "valid") for name in ("good/img", "Ungood/img")),
            *(
                f"Brain_AD/{split}/{name}/1.png"
                for split in ("test", "valid")
                for name in ("good/label", "Ungood/label")
            ),
        ],
        {
            "Brain_AD/test/Ungood/img/1.png": ("Brain_AD", ["Brain_AD/test/Ungood/label/1.png"], True, "Ungood"),
            "Brain_AD/test/good/img/1.png": ("Brain_AD", ["Brain_AD/test/good/label/1.png"], False, "good"),
        },
    ),
    "images_and_masks": (
        [
            "plate/train/normal/images/0.png",
            "plate/test/normal/images/1.png",
            "plate/test/anomalous/images/1.png",
            "plate/test/anomalous/masks/1.png",
        ],
        {
            "plate/test/anomalous/images/1.png": ("plate", ["plate/test/anomalous/masks/1.png"], True, "anomalous"),
            "plate/test/normal/images/1.png": ("plate", [], False, "normal"),
        },
    ),
    "anomalib_folder": (
        ["good/000.jpg", "crack/000.jpg", "colour/000.jpg", "mask/crack/000.jpg", "mask/colour/000.jpg"],
        {
            "colour/000.jpg": ("data", ["mask/colour/000.jpg"], True, "colour"),
            "crack/000.jpg": ("data", ["mask/crack/000.jpg"], True, "crack"),
            "good/000.jpg": ("data", [], False, "good"),
        },
    ),
    "folder": (
        ["images/a.png", "images/b.png", "masks/a.png", "masks/b.png"],
        {
            "images/a.png": ("data", ["masks/a.png"], None, None),
            "images/b.png": ("data", ["masks/b.png"], None, None),
        },
    ),
}
"""Files of a data set by layout; and its test images with category, masks, class and type of defect."""


def touch(root: Path, *names: str) -> Path:
    """Make empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def make_tree(root: Path, layout: str) -> Path:
    """Make a data set in a layout, of empty files."""
    touch(root, *TREES[layout][0])
    if layout == "visa":
        rows = ["candle,train,normal,candle/Data/Images/Normal/000.JPG,"]
        rows += ["candle,test,normal,candle/Data/Images/Normal/001.JPG,"]
        rows += ["candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png"]
        (root / "split_csv").mkdir()
        (root / "split_csv/1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]), encoding="utf-8")
    if layout == "real_iad":
        for folder in ("realiad_jsons/realiad_jsons", "realiad_jsons/realiad_jsons_sv"):
            (root / folder).mkdir(parents=True)
            (root / folder / "audiojack.json").write_text(json.dumps(JSON), encoding="utf-8")
    return root


def described(root: Path, images: list[LabelledImage]) -> dict[str, Any]:
    """What was found, in the form of `TREES`."""
    start = root.resolve()
    return {
        image.name: (
            image.category,
            [mask.relative_to(start).as_posix() for mask in image.masks],
            image.has_defect,
            image.defect,
        )
        for image in images
    }


@pytest.mark.parametrize("layout", TREES)
def test_published_forms(tmp_path: Path, layout: Any) -> None:
    """Each layout gives its test images with categories, masks and types of defect, by name and by itself alike."""
    root = make_tree(tmp_path / "data", layout)
    images = find_test_images(root, layout)
    assert described(root, images) == TREES[layout][1]
    assert not [image for image in images if image.problem]
    assert all(image.path is not None and image.path.is_file() for image in images)
    assert {image.has_mask_classes for image in images} == {layout in {"loco", "visa"}}
    assert find_test_images(root) == images


@pytest.mark.parametrize("layout", TREES)
def test_the_table_of_a_layout(tmp_path: Path, layout: Any) -> None:
    """The table that is written of a data set says the same as its layout, and any map finds its image by either."""
    images = find_test_images(make_tree(tmp_path / "data", layout), layout)
    write_table(images, tmp_path / "tables/table.csv")
    maps = open_maps(touch(tmp_path / "maps", *(f"{image.key}.npy" for image in images)))
    paired = open_table(tmp_path / "tables/table.csv", maps)
    assert [image._replace(place=None) for image in paired.images] == images
    assert len(paired.pairs) == len(images)
    assert not paired.bad_files
    assert not paired.notes


def test_a_missing_mask_can_be_written_in_a_table(tmp_path: Path) -> None:
    """An image whose mask is missing is named by folders and by their table alike; the table can be set right."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    images = find_test_images(root)
    write_table(images, tmp_path / "table.csv")
    maps = open_maps(touch(tmp_path / "maps", *(f"{image.key}.npy" for image in images)))
    ((_, reason),) = open_table(tmp_path / "table.csv", maps).bad_files
    assert reason.endswith("broken/000.png is missing")


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_3d", "bmad", "images_and_masks"])
def test_a_split_is_part_of_a_data_set(tmp_path: Path, layout: Any) -> None:
    """Of the folder `test` of a category the category is named, and no folder in it is taken for one."""
    root = make_tree(tmp_path / "data", layout)
    test = root / next(iter(TREES[layout][1].values()))[0] / "test"
    with pytest.raises(BadDataError, match=r"to be one data set, but it is part of another") as caught:
        find_test_images(test)
    assert find_test_images(str(caught.value).splitlines()[1].strip()) == find_test_images(test.parent)


def test_every_layout_has_a_tree() -> None:
    """No layout is untested."""
    assert {"auto", *TREES} == set(get_args(Layout))


@pytest.mark.parametrize("layout", TREES)
@pytest.mark.parametrize("other", TREES)
def test_no_layout_takes_another_for_itself(tmp_path: Path, layout: str, other: Any) -> None:
    """A layout by the name of another gives the same images, or an error that names the right one."""
    root = make_tree(tmp_path / "data", layout)
    same = [{"mvtec", "btad"}, {"mvtec", "visa"}, {"mvtec", "anomalib_folder"}, {layout}]
    if other in {"mvtec", "btad", "visa", "anomalib_folder"} and layout in {"mvtec", "btad"}:
        assert find_test_images(root, other) == find_test_images(root)
    elif {layout, other} not in same:
        with pytest.raises(BadDataError, match=f'`layout="{"mvtec" if layout == "btad" else layout}"`'):
            find_test_images(root, other)


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "loco", "visa", "btad"])
def test_one_category_alone(tmp_path: Path, layout: str) -> None:
    """A category may be given instead of the collection; names then begin within it."""
    root = make_tree(tmp_path / "data", layout)
    category = next(iter(TREES[layout][1].values()))[0]
    images = find_test_images(root / category)
    expected = {name for name in TREES[layout][1] if name.startswith(f"{category}/")}
    assert {f"{category}/{image.name}" for image in images} == expected
    assert {image.category for image in images} == {category}


def test_real_iad_without_its_json(tmp_path: Path) -> None:
    """Without the JSON all images are test images, and masks lie beside them under either name."""
    names = ["x.jpg", "x_mask.png", "y.jpg", "y.png"]
    root = touch(tmp_path / "data", "zip/OK/S1/a.jpg", *(f"zip/NG/crack/S2/{name}" for name in names))
    assert described(root, find_test_images(root)) == {
        "zip/NG/crack/S2/x.jpg": ("zip", ["zip/NG/crack/S2/x_mask.png"], True, "crack"),
        "zip/NG/crack/S2/y.jpg": ("zip", ["zip/NG/crack/S2/y.png"], True, "crack"),
        "zip/OK/S1/a.jpg": ("zip", [], False, "OK"),
    }


def test_normal_images_without_a_folder_of_their_own(tmp_path: Path) -> None:
    """Where only anomalous images have masks beside them, normal ones may lie in the folder of their class."""
    names = ["test/normal/0.png", "test/anomalous/images/0.png", "test/anomalous/masks/0.png"]
    root = touch(tmp_path / "data", *names)
    assert described(root, find_test_images(root)) == {
        "test/anomalous/images/0.png": ("data", ["test/anomalous/masks/0.png"], True, "anomalous"),
        "test/normal/0.png": ("data", [], False, "normal"),
    }


@pytest.mark.parametrize("is_one_category", [False, True])
def test_paths_in_the_json_of_real_iad_may_begin_with_the_category(tmp_path: Path, is_one_category: bool) -> None:
    """Paths of images relative to the folder above the category are the same images."""
    root = make_tree(tmp_path / "data", "real_iad")
    root = root / "realiad_1024/audiojack" if is_one_category else root
    expected = find_test_images(root)
    (path,) = tmp_path.rglob("realiad_jsons/realiad_jsons/audiojack.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    for row in content["test"]:
        for key in ("image_path", "mask_path"):
            row[key] = f"audiojack/{row[key]}" if row.get(key) else None
    path.write_text(json.dumps(content), encoding="utf-8")
    assert find_test_images(root) == expected
    assert any(image.masks for image in expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "could not read it"),
        ("{", "could not read it"),
        ('{"test": [{"image_path": "OK/a.jpg"}]}', "could not read it"),
        ('{"test": [{"image_path": "../../a.jpg", "anomaly_class": "OK"}]}', "paths of images in audiojack"),
        ('{"test": [{"image_path": "/etc/a.jpg", "anomaly_class": "OK"}]}', "paths of images in audiojack"),
        ('{"test": [{"image_path": 7, "anomaly_class": "OK"}]}', "paths of images in audiojack"),
    ],
)
def test_broken_json_of_real_iad(tmp_path: Path, content: str, message: str) -> None:
    """A JSON that is none of Real-IAD, or leads out of the category, is refused by name."""
    root = make_tree(tmp_path / "data", "real_iad")
    (root / "realiad_jsons/realiad_jsons/audiojack.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadDataError, match=rf"audiojack\.json.*{message}"):
        find_test_images(root)


def test_several_resolutions_of_real_iad(tmp_path: Path) -> None:
    """Two resolutions are two data sets: one of them has to be given, and its JSON is still found."""
    root = make_tree(tmp_path / "data", "real_iad")
    for name in ("OK/S1/a.jpg", "OK/S2/b.jpg", "NG/BX/S3/c.jpg", "NG/BX/S3/d.jpg", "NG/BX/S3/d.png"):
        touch(root, f"realiad_256/audiojack/{name}")
    with pytest.raises(BadDataError, match=r"it holds some.*\n.*realiad_1024\n.*realiad_256$"):
        find_test_images(root)
    images = find_test_images(root / "realiad_1024")
    assert [image.name for image in images] == [
        f"audiojack/{name}" for name in ("NG/BX/S3/c.jpg", "NG/BX/S3/d.jpg", "OK/S2/b.jpg")
    ]


@pytest.mark.parametrize("layout", ["visa", "real_iad"])
def test_images_of_a_split_that_are_not_there(tmp_path: Path, layout: Any) -> None:
    """An image that the table of the split names is not lost without a word."""
    root = make_tree(tmp_path / "data", layout)
    gone = next(name for name, (_, masks, _, _) in TREES[layout][1].items() if not masks)
    (root / gone).unlink()
    (problem,) = [image for image in find_test_images(root) if image.problem]
    assert (problem.name, problem.path) == (gone, None)
    assert "not on disk" in str(problem.problem)


FOLDERS = {
    "collection": (
        ["a/good/0.png", "a/crack/0.png", "a/mask/crack/0.png", "b/good/0.png", "b/cut/0.png", "b/mask/cut/0.png"],
        {
            "a/crack/0.png": ["a/mask/crack/0.png"],
            "a/good/0.png": [],
            "b/cut/0.png": ["b/mask/cut/0.png"],
            "b/good/0.png": [],
        },
    ),
    "masks without folders": (
        ["good/0.png", "crack/1.png", "mask/1.png"],
        {"crack/1.png": ["mask/1.png"], "good/0.png": []},
    ),
    "ground_truth": (
        ["Normal/0.png", "crack/1.png", "ground_truth/crack/1_mask.png"],
        {"crack/1.png": ["ground_truth/crack/1_mask.png"], "Normal/0.png": []},
    ),
    "in test": (
        ["train/good/0.png", "test/good/0.png", "test/crack/1.png", "mask/crack/1.png"],
        {"test/crack/1.png": ["mask/crack/1.png"], "test/good/0.png": []},
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_forms_of_anomalib_folders(tmp_path: Path, kind: str) -> None:
    """The folders that anomalib takes are found with masks in a folder of their own, in whichever arrangement."""
    names, expected = FOLDERS[kind]
    root = touch(tmp_path / "data", *names)
    found = {name: masks for name, (_, masks, _, _) in described(root, find_test_images(root)).items()}
    assert found == expected
    assert find_test_images(root, "anomalib_folder") == find_test_images(root)


@pytest.mark.parametrize(
    "suffix",
    [".png", ".PNG", ".bmp", ".gif", ".GIF", ".tif", ".TIFF", ".jfif", ".jpg", ".JPEG", ".webp", ".pgm", ".ppm"],
)
@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "ksdd2", "anomalib_folder", "folder"])
def test_masks_of_any_suffix(tmp_path: Path, suffix: str, layout: Any) -> None:
    """A mask is found whatever its suffix, in any case."""
    root = make_tree(tmp_path / "data", layout)
    for _, masks, _, _ in TREES[layout][1].values():
        for mask in masks:
            (root / mask).rename((root / mask).with_suffix(suffix))
    images = find_test_images(root)
    assert {mask.suffix for image in images for mask in image.masks} == {suffix}
    assert all(mask.is_file() for image in images for mask in image.masks)
    assert {image.name for image in images} == set(TREES[layout][1])


@pytest.mark.parametrize("name", ["000_mask.npy", "000.npy", "000_mask.svg", "000_mask.png.npy"])
def test_masks_that_are_no_images(tmp_path: Path, name: str) -> None:
    """An image whose mask is in no format of images has none, and is not taken to be normal."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/ground_truth/broken/000_mask.png").rename(root / f"bottle/ground_truth/broken/{name}")
    problem = problems(find_test_images(root))["bottle/test/broken/000.png"]
    assert "broken/000" in problem
    assert "is missing, or is no image" in problem


@pytest.mark.parametrize("layout", TREES)
@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/000-checkpoint.png", "._000.png", ".hidden/deep/000/000.png"])
def test_hidden_files_are_no_data(tmp_path: Path, layout: Any, hidden: str) -> None:
    """Whatever begins with a dot, in any folder, changes neither the images nor the layout."""
    root = make_tree(tmp_path / ".cache" / "data", layout)  # the data set itself may lie in a hidden folder
    expected = find_test_images(root)
    touch(root, *(f"{folder.relative_to(root)}/{hidden}" for folder in [root, *root.rglob("*/")] if folder.is_dir()))
    assert find_test_images(root) == find_test_images(root, layout) == expected


def problems(images: list[LabelledImage]) -> dict[str, str]:
    """Problems by the name of the image."""
    return {image.name: image.problem for image in images if image.problem}


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    """Two masks for one image, by suffix or by ending, are no choice to be made: both are named."""
    root = make_tree(tmp_path / "data", "mvtec")
    touch(root, "bottle/ground_truth/broken/000_mask.bmp")
    assert problems(find_test_images(root)) == {
        "bottle/test/broken/000.png": "several masks, of which one has to go: "
        "bottle/ground_truth/broken/000_mask.bmp, bottle/ground_truth/broken/000_mask.png"
    }
    (root / "bottle/ground_truth/broken/000_mask.bmp").rename(root / "bottle/ground_truth/broken/000.png")
    assert (
        "broken/000.png, bottle/ground_truth/broken/000_mask.png"
        in problems(find_test_images(root))["bottle/test/broken/000.png"]
    )


def test_several_images_of_one_name(tmp_path: Path) -> None:
    """Two images that differ in the suffix, or in the normal form of Unicode, only, are both named."""
    nfc, nfd = (unicodedata.normalize(form, "bottle/test/good/é.png") for form in ("NFC", "NFD"))
    names = ["bottle/test/broken/000.JPG", nfc, nfd]
    root = touch(make_tree(tmp_path / "data", "mvtec"), *names)
    found = problems(find_test_images(root))
    assert set(found) == {"bottle/test/broken/000.JPG", "bottle/test/broken/000.png", nfc}
    assert found["bottle/test/broken/000.JPG"].endswith("bottle/test/broken/000.JPG, bottle/test/broken/000.png")


def test_masks_in_the_other_normal_form_of_unicode(tmp_path: Path) -> None:
    """An image and its mask may be written in different normal forms; the name is in the composed one."""
    nfc, nfd = (unicodedata.normalize(form, "Kratzer_ä") for form in ("NFC", "NFD"))
    root = touch(
        tmp_path / "data", f"x/test/{nfd}/ü.png", "x/test/good/0.png", f"x/ground_truth/{nfc}/u\u0308_mask.png"
    )
    images = find_test_images(root)
    assert not problems(images)
    assert images[0].name == f"x/test/{nfc}/ü.png"
    assert images[0].masks[0].is_file()


def test_names_with_dots(tmp_path: Path) -> None:
    """Only the suffix of an image is cut off."""
    root = touch(tmp_path / "data", "x/test/a.b/img.v2.png", "x/test/good/0.png", "x/ground_truth/a.b/img.v2_mask.png")
    image = find_test_images(root)[0]
    assert (image.key, image.defect, image.masks[0].name) == ("x/test/a.b/img.v2", "a.b", "img.v2_mask.png")


@pytest.mark.parametrize(
    ("layout", "mask"),
    [
        ("mvtec", "bottle/ground_truth/broken/099_mask.png"),
        ("mvtec", "bottle/ground_truth/lost/000_mask.png"),
        ("mvtec_ad_2", "can/test_public/ground_truth/bad/099_mask.png"),
        ("mvtec_3d", "bagel/test/hole/gt/099.png"),
        ("loco", "box/ground_truth/logical_anomalies/099/000.png"),
        ("ksdd2", "test/20099_GT.png"),
        ("anomalib_folder", "mask/crack/099.png"),
        ("folder", "masks/099.png"),
    ],
)
def test_masks_without_an_image(tmp_path: Path, layout: Any, mask: str) -> None:
    """A mask whose image is lost is named, as an anomalous image would be missing without a word."""
    root = touch(make_tree(tmp_path / "data", layout), mask)
    ((name, problem),) = problems(find_test_images(root)).items()
    assert mask.startswith(name)
    assert problem == "a mask without an image"


def test_masks_of_normal_images(tmp_path: Path) -> None:
    """The mask of a normal image is given, so that it can be seen to be empty; one without an image is no loss."""
    masks = [f"bottle/ground_truth/good/00{number}_mask.png" for number in (0, 1)]
    root = touch(make_tree(tmp_path / "data", "mvtec"), *masks)
    images = find_test_images(root)
    assert not problems(images)
    image = next(image for image in images if image.name == "bottle/test/good/000.png")
    assert (image.has_defect, [mask.name for mask in image.masks]) == (False, ["000_mask.png"])


@pytest.mark.parametrize("name", ["good", "GOOD", "Good", "ok", "OK", "normal", "Normal", "NORMAL", "defect_free"])
@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "loco", "anomalib_folder"])
def test_folders_of_normal_images(tmp_path: Path, name: str, layout: Any) -> None:
    """Folders of normal images are known by their usual names in any case."""
    root = make_tree(tmp_path / "data", layout)
    for folder in [folder for folder in root.rglob("good") if folder.is_dir()]:
        folder.rename(folder.with_name(name))
    images = find_test_images(root)
    assert not problems(images)
    assert {image.defect for image in images if image.has_defect is False} == {name}


def test_more_folders_of_normal_images(tmp_path: Path) -> None:
    """A folder of normal images of another name is named as what lacks masks, and the advice makes it normal."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/test/good").rename(root / "bottle/test/Pass")
    problem = problems(find_test_images(root))["bottle/test/Pass/000.png"]
    assert "if the images in 'Pass' have no defect, `normal_folder=\"Pass\"` says so" in problem
    for names in ("Pass", ["pass"], ("PASS", "good")):
        images = find_test_images(root, normal_folder=names)
        assert not problems(images)
        assert [image.has_defect for image in images] == [False, True, False]


def test_folders_of_normal_images_that_are_not_there(tmp_path: Path) -> None:
    """A folder that is said to hold normal images must be there."""
    root = make_tree(tmp_path / "data", "mvtec")
    with pytest.raises(ValueError, match=r"`normal_folder` .* there is no 'pas' among broken, good"):
        find_test_images(root, normal_folder=["good", "pas"])


def test_masks_in_folders_of_masks(tmp_path: Path) -> None:
    """Masks that lie a folder too deep hide no layout, but are masks without an image."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/ground_truth/broken/masks").mkdir()
    mask = root / "bottle/ground_truth/broken/000_mask.png"
    mask.rename(mask.parent / "masks/000_mask.png")
    found = problems(find_test_images(root))
    assert found["bottle/ground_truth/broken/masks/000_mask.png"] == "a mask without an image"


def test_images_without_a_folder(tmp_path: Path) -> None:
    """A stray image between the folders of defects is named."""
    root = touch(make_tree(tmp_path / "data", "mvtec"), "bottle/test/overview.png")
    assert problems(find_test_images(root)) == {"bottle/test/overview.png": "no folder says whether it has a defect"}


UNSURE = {
    "nothing": (["readme.png"], "found no test images with masks"),
    "masks beside images": (
        ["x/test/good/0.png", "x/test/crack/1.png", "x/test/crack/1_mask.png"],
        "found no test images with masks; x/test/crack/1_mask.png among the images looks like a mask",
    ),
    "a copy of a mask beside images": (
        ["x/test/good/0.png", "x/test/a/0.png", "x/ground_truth/a/0_mask.png", "x/test/a/0_mask.png"],
        "found no test images with masks; x/test/a/0_mask.png among the images looks like a mask",
    ),
    "depth": (
        ["x/test/crack/depth/1.png", "x/test/crack/1.png"],
        "found no test images with masks; x/test/crack/depth/1.png",
    ),
    "gt": (["x/test/good/0.png", "x/test/gt/0.png"], "found no test images with masks; x/test/gt/0.png"),
    "two layouts": (
        ["x/test/good/0.png", "x/test/a/0.png", "x/ground_truth/a/0.png", "images/a.png", "masks/a.png"],
        "it fits several: mvtec, folder",
    ),
    "two forms of masks": (
        ["x/test/a/0.png", "x/ground_truth/a/0.png", "x/ground_truth/a/0/0.png"],
        "it fits several: mvtec, loco",
    ),
}


@pytest.mark.parametrize("kind", UNSURE)
def test_what_auto_is_not_sure_of(tmp_path: Path, kind: str) -> None:
    """Where no layout fits, or several do, each is listed in a line with what it needs, and nothing is guessed."""
    names, message = UNSURE[kind]
    with pytest.raises(BadDataError, match=message) as caught:
        find_test_images(touch(tmp_path / "data", *names))
    first, *needs = str(caught.value).splitlines()
    listed = message.partition(": ")[2].split(", ") if "several" in message else list(TREES)
    assert sorted(need.split()[0] for need in needs) == sorted(listed)
    assert all(" needs " in need for need in needs)
    assert "`layout`" in first or "`table`" in first


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "loco", "visa", "btad", "real_iad"])
def test_a_folder_of_data_sets(tmp_path: Path, layout: str) -> None:
    """Of a folder that holds data sets each is named, and can be given as it is named."""
    sets = [make_tree(tmp_path / "data sets" / name, layout) for name in ("a", "b")]
    touch(tmp_path / "data sets", "c/notes.png", "d/e/0.png")
    with pytest.raises(BadDataError, match="to be one data set, but it holds some") as caught:
        find_test_images(tmp_path / "data sets")
    named = [Path(line.strip()) for line in str(caught.value).splitlines()[1:]]
    assert named == [path.resolve() for path in sets]
    assert all(find_test_images(path) for path in named)


def test_masks_among_the_images_of_a_named_layout(tmp_path: Path) -> None:
    """Even by name no layout takes the mask of another image for an image."""
    root = touch(make_tree(tmp_path / "data", "mvtec"), "bottle/test/broken/000_mask.png")
    assert list(problems(find_test_images(root, "mvtec"))) == ["bottle/test/broken/000_mask.png"]


def test_a_category_that_holds_another(tmp_path: Path) -> None:
    """A stray folder `test` beside the categories does not hide them."""
    root = touch(make_tree(tmp_path / "data", "mvtec"), "test/good/000.png")
    with pytest.raises(BadDataError, match="looks like a category and holds bottle"):
        find_test_images(root, "mvtec")


@pytest.mark.parametrize("form", [".", "..", "slash", "link"])
def test_the_category_has_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """However the folder is given, the category is called as the folder is."""
    root = make_tree(tmp_path / "data", "mvtec") / "bottle"
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(root if form == "." else root / "test")
    given = {".": ".", "..": "..", "slash": f"{root}/", "link": tmp_path / "link"}[form]
    images = find_test_images(given)
    assert {image.category for image in images} == {"bottle"}
    assert [image.name for image in images] == ["test/broken/000.png", "test/good/000.png"]


def linked(tmp_path: Path, kind: str) -> Path:
    """Make a data set of links."""
    real, root = make_tree(tmp_path / "real", "mvtec"), tmp_path / "data"
    if kind == "category":
        root.mkdir()
        for category in ("bottle", "screw"):
            (root / category).symlink_to(real / category)
        return root
    if kind == "folder of images":
        make_tree(root, "mvtec")
        for path in (root / "bottle/test/good").iterdir():
            path.unlink()
        (root / "bottle/test/good").rmdir()
        (root / "bottle/test/good").symlink_to(real / "bottle/test/good")
        return root
    for number, path in enumerate(sorted(each for each in real.rglob("*") if each.is_file())):
        blob = touch(tmp_path / "blobs", str(number)) / str(number)
        link = root / path.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return root


@pytest.mark.parametrize("kind", ["files", "category", "folder of images"])
def test_links_are_refused_and_followed(tmp_path: Path, kind: str) -> None:
    """Links out of the data set are refused with the option that follows them, which gives the same images."""
    root = linked(tmp_path, kind)
    with pytest.raises(BadDataError, match="`follow_links=True`"):
        find_test_images(root)
    assert described_by_name(find_test_images(root, follow_links=True)) == described_by_name(
        find_test_images(tmp_path / "real")
    )


def described_by_name(images: list[LabelledImage]) -> list[Any]:
    """Images without the places of their files."""
    return [(image.name, image.category, len(image.masks), image.has_defect, image.defect) for image in images]


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_loops_of_links(tmp_path: Path, target: str) -> None:
    """A link to a folder that holds it ends with an error, not never."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/test/good/loop").symlink_to(target)
    with pytest.raises(BadDataError, match=r"good.loop.* is a link to a folder above it"):
        find_test_images(root, follow_links=True)


@pytest.mark.parametrize("follow_links", [True, False])
@pytest.mark.parametrize("name", ["bottle/test/good/009.png", "bottle/test/dent"])
def test_broken_links_are_named(tmp_path: Path, follow_links: bool, name: str) -> None:
    """A link to nothing is not skipped, whether it looks like an image or was a folder."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadDataError, match=rf"{name}.* a link to nothing"):
        find_test_images(root, follow_links=follow_links)


def test_two_links_to_one_folder(tmp_path: Path) -> None:
    """A folder may be reached twice, as long as it does not hold itself."""
    root = make_tree(tmp_path / "data", "mvtec")
    (root / "flask").symlink_to("bottle")
    images = find_test_images(root, follow_links=True)
    assert [image.category for image in images] == ["bottle", "bottle", "flask", "flask", "screw"]
