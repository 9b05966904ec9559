"""Each data set is found in its published form, by name and by itself, and whatever is not clear is named."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from aupimo_torchmetrics.evaluate import BadDataError, LabelledImage, evaluate, find_test_images, open_maps
from aupimo_torchmetrics.evaluate.data.table import open_table, write_table

ROW = {"category": "audiojack", "anomaly_class": "OK", "mask_path": None}
JSON = {
    "meta": {"prefix": "audiojack/", "normal_class": "OK"},
    "train": [{**ROW, "image_path": "OK/S1/a.jpg"}],
    "test": [
        {**ROW, "image_path": "OK/S2/b.jpg"},
        {**ROW, "image_path": "NG/BX/S3/c.jpg"},
        {**ROW, "anomaly_class": "BX", "image_path": "NG/BX/S3/d.jpg", "mask_path": "NG/BX/S3/d.png"},
    ],
}
"""How Real-IAD lists its images; a view of a part in `NG` on which there is no defect is normal."""
CSV = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/000.JPG,
candle,test,normal,candle/Data/Images/Normal/001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
"""
"""How VisA does."""


def named_trees(text: str) -> dict[str, str]:
    """Files of each tree by its name, which is the line above them."""
    return dict(re.findall(r"^(\S.*)\n((?: .*\n)+)", text, re.MULTILINE))


TREES = named_trees("""
mvtec
    bottle/train/good/000.png bottle/license.txt
    bottle/test/broken/000.png = bottle 1 broken bottle/ground_truth/broken/000_mask.png
    bottle/test/good/000.png = bottle 0 good
    screw/test/good/000.png = screw 0 good
mvtec_ad_2
    can/train/good/000_regular.png can/test_private/000_regular.png can/test_private_mixed/000_mixed.png
    can/test_public/bad/000_r.png = can 1 bad can/test_public/ground_truth/bad/000_r_mask.png
    can/test_public/good/000_r.png = can 0 good
mvtec_3d
    bagel/train/good/rgb/000.png bagel/train/good/gt/000.png
    bagel/test/good/xyz/000.tiff bagel/test/hole/xyz/000.tiff
    bagel/test/good/rgb/000.png = bagel 0 good bagel/test/good/gt/000.png
    bagel/test/hole/rgb/000.png = bagel 1 hole bagel/test/hole/gt/000.png
loco
    box/test/good/000.png = box 0 good
    box/test/la/000.png = box 1 la box/ground_truth/la/000/000.png box/ground_truth/la/000/001.png
    pins/test/good/000.png = pins 0 good
visa
    candle/Data/Images/Normal/000.JPG
    candle/Data/Images/Anomaly/000.JPG = candle 1 Anomaly candle/Data/Masks/Anomaly/000.png
    candle/Data/Images/Normal/001.JPG = candle 0 Normal
btad
    01/train/ok/0000.bmp
    01/test/ko/0000.bmp = 01 1 ko 01/ground_truth/ko/0000.png
    01/test/ok/0000.bmp = 01 0 ok
    03/test/ko/0000.bmp = 03 1 ko 03/ground_truth/ko/0000.bmp
ksdd2
    train/1.png train/1_GT.png
    test/20000.png = data ? - test/20000_GT.png
    test/20001.png = data ? - test/20001_GT.png
real_iad
    realiad_1024/audiojack/OK/S1/a.jpg
    realiad_1024/audiojack/NG/BX/S3/c.jpg = audiojack 0 OK
    realiad_1024/audiojack/NG/BX/S3/d.jpg = audiojack 1 BX realiad_1024/audiojack/NG/BX/S3/d.png
    realiad_1024/audiojack/OK/S2/b.jpg = audiojack 0 OK
bmad
    Brain_AD/train/good/1.png Brain_AD/valid/Ungood/img/1.png Brain_AD/valid/Ungood/label/1.png
    Brain_AD/test/Ungood/img/1.png = Brain_AD 1 Ungood Brain_AD/test/Ungood/label/1.png
    Brain_AD/test/good/img/1.png = Brain_AD 0 good Brain_AD/test/good/label/1.png
images_and_masks
    plate/train/normal/images/0.png
    plate/test/anomalous/images/1.png = plate 1 anomalous plate/test/anomalous/masks/1.png
    plate/test/normal/images/1.png = plate 0 normal
anomalib_folder
    colour/000.jpg = data 1 colour mask/colour/000.jpg
    crack/000.jpg = data 1 crack mask/crack/000.jpg
    good/000.jpg = data 0 good
folder
    images/a.png = data ? - masks/a.png
    images/b.png = data ? - masks/b.png
""")
"""Files of a data set by layout: each of its test images with its category, class, type of defect and masks."""

LAYOUTS = get_args(get_type_hints(find_test_images)["layout"])[1:]
"""All but `auto`."""

MORE_TREES = named_trees("""
Real-IAD without its JSON, with masks under either name
    zip/NG/crack/S2/x.jpg = zip 1 crack zip/NG/crack/S2/x_mask.png
    zip/NG/crack/S2/y.jpg = zip 1 crack zip/NG/crack/S2/y.png
    zip/OK/S1/a.jpg = zip 0 OK
VisA in the form that its authors prepare
    1cls/candle/test/bad/0.JPG = candle 1 bad 1cls/candle/ground_truth/bad/0.png
    1cls/candle/test/good/1.JPG = candle 0 good
normal images without a folder `images`
    test/anomalous/images/0.png = data 1 anomalous test/anomalous/masks/0.png
    test/normal/0.png = data 0 normal
a collection of folders as anomalib takes them
    a/crack/0.png = a 1 crack a/mask/crack/0.png
    a/good/0.png = a 0 good
    b/cut/0.png = b 1 cut b/mask/cut/0.png
    b/good/0.png = b 0 good
masks without folders
    crack/1.png = data 1 crack mask/1.png
    good/0.png = data 0 good
folders in `test`
    train/good/0.png
    test/crack/1.png = data 1 crack mask/crack/1.png
    test/good/0.png = data 0 good
names with dots
    x/test/a.b/img.v2.png = x 1 a.b x/ground_truth/a.b/img.v2_mask.png
    x/test/good/0.png = x 0 good
masks of normal images, also of one that is not there
    x/ground_truth/good/1_mask.png
    x/test/a/0.png = x 1 a x/ground_truth/a/0_mask.png
    x/test/good/0.png = x 0 good x/ground_truth/good/0_mask.png
""")
"""Other forms of the same layouts."""
CLASSES = {"0": False, "1": True, "?": None}

Found = dict[str, tuple[str, list[str], bool | None, str | None]]


def touch(root: Path, *names: str) -> Path:
    """Make empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def make_tree(root: Path, text: str) -> tuple[Path, Found]:
    """Make the empty files of a tree in `TREES`, or of one like them; return the test images in it."""
    expected: Found = {}
    for line in TREES.get(text, text).split("\n"):
        names, _, facts = line.strip().partition(" = ")
        touch(root, *names.split())
        if facts:
            category, says, defect, *masks = facts.split()
            touch(root, *masks)
            expected[names] = (category, masks, CLASSES[says], None if defect == "-" else defect)
    if text == "visa":
        (touch(root, "split_csv/1cls.csv") / "split_csv/1cls.csv").write_text(CSV, encoding="utf-8")
    for folder in ("realiad_jsons/realiad_jsons", "realiad_jsons/realiad_jsons_sv") if text == "real_iad" else ():
        path = touch(root, f"{folder}/audiojack.json") / folder / "audiojack.json"
        path.write_text(json.dumps(JSON), encoding="utf-8")
    return root, expected


def described(root: Path, images: list[LabelledImage]) -> Found:
    """What was found, in the form of `make_tree`."""
    start = root.resolve()
    return {
        each.name: (each.category, [mask.relative_to(start).as_posix() for mask in each.masks], *each[4:6])
        for each in images
    }


def problems(images: list[LabelledImage]) -> dict[str, str]:
    """Problems by the name of the image."""
    return {image.name: image.problem for image in images if image.problem}


@pytest.mark.parametrize("tree", [*TREES, *MORE_TREES])
def test_forms_of_data_sets(tmp_path: Path, tree: Any) -> None:
    """Each layout gives its test images with categories, masks and types of defect, by name and by itself alike.

    The table that is written of it says the same, and any map finds its image by either.
    """
    root, expected = make_tree(tmp_path / "data", MORE_TREES.get(tree, tree))
    images = find_test_images(str(root))
    assert described(root, images) == expected
    assert not problems(images)
    assert all(image.path is not None and image.path.is_file() for image in images)
    if tree in TREES:
        assert {image.has_mask_classes for image in images} == {tree in {"loco", "visa"}}
        assert find_test_images(root, tree) == images
    write_table(images, tmp_path / "tables/table.csv")
    maps = open_maps(touch(tmp_path / "maps", *(f"{image.key}.npy" for image in images)))
    paired = open_table(tmp_path / "tables/table.csv", maps)
    assert [image._replace(place=None) for image in paired.images] == images
    assert (len(paired.pairs), paired.bad_files, paired.notes) == (len(images), [], [])


@pytest.mark.parametrize("layout", TREES)
def test_no_layout_takes_another_for_itself(tmp_path: Path, layout: str) -> None:
    """A layout by the name of another gives the same images, or an error that names the right one."""
    assert {*TREES} == {*LAYOUTS}  # none is untested
    root, _ = make_tree(tmp_path / "data", layout)
    same = [{"mvtec", "btad"}, {"mvtec", "visa"}, {"mvtec", "anomalib_folder"}, {layout}]
    for other in LAYOUTS:
        if other in {"mvtec", "btad", "visa", "anomalib_folder"} and layout in {"mvtec", "btad"}:
            assert find_test_images(root, other) == find_test_images(root)
        elif {layout, other} not in same:
            with pytest.raises(BadDataError, match=f'`layout="{"mvtec" if layout == "btad" else layout}"`'):
                find_test_images(root, other)


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "loco", "visa", "btad"])
def test_one_category_alone(tmp_path: Path, layout: str) -> None:
    """A category may be given instead of the collection; names then begin within it."""
    root, expected = make_tree(tmp_path / "data", layout)
    category = next(iter(expected.values()))[0]
    images = find_test_images(root / category)
    of_category = {(name, category) for name, facts in expected.items() if facts[0] == category}
    assert {(f"{category}/{image.name}", image.category) for image in images} == of_category


@pytest.mark.parametrize("folder", [".", "realiad_1024/audiojack"])
def test_paths_in_the_json_of_real_iad_may_begin_with_the_category(tmp_path: Path, folder: str) -> None:
    """Paths of images relative to the folder above the category are the same images."""
    root, _ = make_tree(tmp_path / "data", "real_iad")
    expected = find_test_images(root / folder)
    text = json.dumps(JSON).replace('_path": "', '_path": "audiojack/')
    (root / "realiad_jsons/realiad_jsons/audiojack.json").write_text(text, encoding="utf-8")
    assert find_test_images(root / folder) == expected
    assert any(image.masks for image in expected)


BROKEN_JSONS = ["[]", "{", "\xff", '{"test": [{"image_path": "OK/a.jpg"}]}']
BROKEN_JSONS += [f'{{"test": [{{"image_path": {path}, "anomaly_class": "OK"}}]}}' for path in ('"../../a"', '"/a"', 7)]


@pytest.mark.parametrize("content", BROKEN_JSONS)
def test_broken_json_of_real_iad(tmp_path: Path, content: str) -> None:
    """A JSON that is none of Real-IAD, or leads out of the category, is refused by name; several are, too."""
    folder = make_tree(tmp_path / "data", "real_iad")[0] / "realiad_jsons/realiad_jsons"
    (folder / "audiojack.json").write_text(content, encoding="latin-1")
    with pytest.raises(BadDataError, match=r"audiojack\.json to name test images, but could not read it"):
        find_test_images(tmp_path / "data")
    folder.rename(folder.with_name("realiad_jsons_fuiad"))  # of several, none is the usual one
    with pytest.raises(BadDataError, match=r"one split of audiojack, but found .*_fuiad.*_sv"):
        find_test_images(tmp_path / "data")


@pytest.mark.parametrize(("layout", "gone"), [("visa", "Normal/001.JPG"), ("real_iad", "OK/S2/b.jpg")])
def test_images_of_a_split_that_are_not_there(tmp_path: Path, layout: Any, gone: str) -> None:
    """An image that the table of the split names is not lost without a word."""
    root, _ = make_tree(tmp_path / "data", layout)
    next(root.rglob(gone)).unlink()
    (image,) = [image for image in find_test_images(root) if image.problem]
    assert image.name.endswith(gone)
    assert (image.path, image.problem) == (None, "in the split, but not on disk")


SUFFIXES = [".PNG", ".bmp", ".TIFF", ".gif", ".webp", ".JPEG", ".tif", ".jfif", ".jpg", ".pgm", ".ppm"]
WITH_SUFFIXES = ["mvtec", "mvtec_ad_2", "mvtec_3d", "ksdd2", "anomalib_folder", "folder"]


@pytest.mark.parametrize(("suffix", "layout"), [*zip(SUFFIXES, [*WITH_SUFFIXES, *WITH_SUFFIXES[:-1]], strict=True)])
def test_masks_of_any_suffix(tmp_path: Path, suffix: str, layout: Any) -> None:
    """A mask is found whatever its suffix, in any case."""
    root, expected = make_tree(tmp_path / "data", layout)
    for mask in [mask for _, masks, *_ in expected.values() for mask in masks]:
        (root / mask).rename((root / mask).with_suffix(suffix))
    images = find_test_images(root)
    assert {mask.suffix for image in images for mask in image.masks} == {suffix}
    assert {image.name: image.problem for image in images} == dict.fromkeys(expected)


@pytest.mark.parametrize("layout", TREES)
def test_hidden_files_are_no_data(tmp_path: Path, layout: Any) -> None:
    """Whatever begins with a dot, in any folder, changes neither the images nor the layout."""
    root, _ = make_tree(tmp_path / ".cache" / "data", layout)  # the data set itself may lie in a hidden folder
    expected = find_test_images(root)
    for folder in [root, *(path for path in root.rglob("*/") if path.is_dir())]:
        touch(folder, ".ipynb_checkpoints/000-checkpoint.png", "._000.png", ".hidden/deep/000/000.png")
    assert find_test_images(root) == find_test_images(root, layout) == expected


BROKEN, MASK = "bottle/test/broken/000.png", "bottle/ground_truth/broken/000_mask.png"
BMP, JPG, BESIDE, DEEP = MASK[:-3] + "bmp", BROKEN[:-3] + "JPG", BROKEN[:-4] + "_mask.png", MASK.replace("000", "x/000")
NFC, NFD = (unicodedata.normalize(form, "bottle/test/good/é.png") for form in ("NFC", "NFD"))
LOST = "a mask without an image"
MISSING = 'broken/000_mask.png is missing; `normal_folder="broken"`'
PROBLEMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "a mask is missing": ("", MASK, {BROKEN: MISSING}),
    "a mask is an array": (MASK[:-3] + "npy", MASK, {BROKEN: MISSING}),
    "a mask a folder too deep": (DEEP, MASK, {DEEP: LOST, BROKEN: MISSING}),
    "two masks by suffix": (BMP, "", {BROKEN: f"several masks, of which one has to go: {BMP}, {MASK}"}),
    "two masks by ending": (MASK.replace("_mask", ""), "", {BROKEN: "several masks, of which one has to go"}),
    "two images by suffix": (JPG, "", dict.fromkeys((BROKEN, JPG), "one of several images of this name")),
    "two images by the form of Unicode": (f"{NFC} {NFD}", "", {NFC: "one of several images of this name"}),
    "a mask among the images": (BESIDE, "", {BESIDE: "named as the mask of another image"}),
    "an image without a folder": ("bottle/test/all.png", "", {"bottle/test/all.png": "no folder says"}),
}
"""Files that are made and one that goes, and a part of each problem by the name of the image."""
MASKS_ALONE = {
    "bottle/ground_truth/broken/099_mask.png": "mvtec",
    "bottle/ground_truth/lost/000_mask.png": "mvtec",
    "can/test_public/ground_truth/bad/099_mask.png": "mvtec_ad_2",
    "bagel/test/hole/gt/099.png": "mvtec_3d",
    "box/ground_truth/la/099/000.png": "loco",
    "test/20099_GT.png": "ksdd2",
    "mask/crack/099.png": "anomalib_folder",
    "masks/099.png": "folder",
}
"""Masks whose image is lost, and the layout."""


@pytest.mark.parametrize("kind", [*PROBLEMS, *MASKS_ALONE])
def test_what_cannot_be_evaluated_is_named(tmp_path: Path, kind: str) -> None:
    """An image that is not in order has a problem, and no other image has one."""
    made, gone, expected = PROBLEMS.get(kind, (kind, "", {kind: LOST}))
    layout: Any = MASKS_ALONE.get(kind, "mvtec")
    root, _ = make_tree(tmp_path / "data", layout)
    touch(root, *made.split())
    if gone:
        (root / gone).unlink()
    found = problems(find_test_images(root, layout))
    assert set(found) == set(expected)
    assert all(problem in found[name] for name, problem in expected.items())


def test_masks_in_the_other_normal_form_of_unicode(tmp_path: Path) -> None:
    """An image and its mask may be written in different normal forms; the name is in the composed one."""
    touch(tmp_path, "x/test/good/0.png", "x/test/a\u0308/\u00fc.png", "x/ground_truth/\u00e4/u\u0308_mask.png")
    _, image = find_test_images(tmp_path)
    assert (image.name, image.problem) == ("x/test/\u00e4/\u00fc.png", None)
    assert image.masks[0].is_file()


NORMAL_FOLDERS = [("mvtec", "GOOD"), ("mvtec_3d", "ok"), ("anomalib_folder", "Normal")]
NORMAL_FOLDERS += [("mvtec", "none"), ("mvtec_3d", "no_defect"), ("anomalib_folder", "defect_free")]


@pytest.mark.parametrize(("layout", "name"), NORMAL_FOLDERS)
def test_folders_of_normal_images(tmp_path: Path, layout: Any, name: str) -> None:
    """Folders of normal images are known by their usual names in any case."""
    root, expected = make_tree(tmp_path / "data", layout)
    for folder in [folder for folder in root.rglob("good") if folder.is_dir()]:
        folder.rename(folder.with_name(name))
    images = find_test_images(root)
    assert not problems(images)
    normal = [image.defect for image in images if image.has_defect is False]
    assert normal == [name] * sum(facts[2] is False for facts in expected.values())


def test_more_folders_of_normal_images(tmp_path: Path) -> None:
    """A folder of normal images of another name can be named, in any case; one that is not there cannot."""
    root, _ = make_tree(tmp_path / "data", "mvtec")
    (root / "bottle/test/good").rename(root / "bottle/test/Pass")
    assert set(problems(find_test_images(root))) == {"bottle/test/Pass/000.png"}
    for names in ("Pass", ["pass"], ("PASS", "good")):
        images = find_test_images(root, normal_folder=names)
        assert [(image.has_defect, image.problem) for image in images] == [(False, None), (True, None), (False, None)]
    with pytest.raises(ValueError, match=r"`normal_folder` .* there is no 'pas' among Pass, broken, good"):
        find_test_images(root, normal_folder=["good", "pas"])
    for call in (lambda: find_test_images(root, "mvtek"), lambda: evaluate(root, root, "mvtek")):
        with pytest.raises(ValueError, match=r"^Expected `layout` to be 'auto'"):
            call()


GOOD_AND_A = "x/test/good/0.png x/test/a/0.png x/ground_truth/a/0.png"
UNSURE = {
    "readme.png": [],
    "x/test/good/0.png x/test/crack/1.png x/test/crack/1_mask.png": [],
    f"{GOOD_AND_A} x/test/a/0_mask.png": [],
    "x/test/crack/depth/1.png x/test/crack/1.png": [],
    "x/test/good/0.png x/test/gt/0.png": [],
    f"{GOOD_AND_A} images/a.png masks/a.png": ["mvtec", "folder"],
    f"{GOOD_AND_A} x/ground_truth/a/0/0.png": ["mvtec", "loco"],
}
"""Files, and the layouts that fit."""


@pytest.mark.parametrize("names", UNSURE)
def test_what_auto_is_not_sure_of(tmp_path: Path, names: str) -> None:
    """Where no layout fits, or several do, each is listed in a line with what it needs, and nothing is guessed."""
    fits = " and ".join(f'`layout="{name}"`' for name in UNSURE[names]) or "none"
    with pytest.raises(BadDataError, match=f"but it fits {fits}. Give another folder, the `layout`") as caught:
        find_test_images(touch(tmp_path / "data", *names.split()))
    _, *needs = str(caught.value).splitlines()
    assert sorted(need.split(" needs ")[0].strip() for need in needs) == sorted(UNSURE[names] or TREES)


def named_folders(root: Path) -> list[Path]:
    """Folders that an error names instead of the one that was given."""
    with pytest.raises(BadDataError, match=r"to be one data set\. Give one of these:") as caught:
        find_test_images(root)
    return [Path(line.strip()) for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_ad_2", "mvtec_3d", "loco", "visa", "btad", "real_iad"])
def test_a_folder_of_data_sets(tmp_path: Path, layout: str) -> None:
    """Of a folder that holds data sets each is named, and can be given as it is named."""
    sets = [make_tree(tmp_path / "data sets" / name, layout)[0] for name in ("a", "b")]
    touch(tmp_path / "data sets", "c/notes.png", "d/e/0.png")
    named = named_folders(tmp_path / "data sets")
    assert named == [path.resolve() for path in sets]
    assert all(find_test_images(path) for path in named)


def test_several_resolutions_of_real_iad(tmp_path: Path) -> None:
    """Two resolutions are two data sets: one of them has to be given, and its JSON is still found."""
    root, _ = make_tree(tmp_path / "data", "real_iad")
    touch(root / "realiad_256/audiojack", "OK/S1/a.jpg", "OK/S2/b.jpg", "NG/BX/S3/d.jpg", "NG/BX/S3/d.png")
    named = named_folders(root)
    assert [path.name for path in named] == ["realiad_1024", "realiad_256"]
    assert len(find_test_images(named[0])) == 3


@pytest.mark.parametrize("layout", ["mvtec", "mvtec_3d", "bmad", "images_and_masks"])
def test_a_split_is_part_of_a_data_set(tmp_path: Path, layout: Any) -> None:
    """Of the folder `test` of a category the category is named; a stray `test` beside it does not hide it."""
    root, expected = make_tree(tmp_path / "data", layout)
    category = root / next(iter(expected.values()))[0]
    assert named_folders(category / "test") == [category.resolve()]
    if layout == "mvtec":
        assert named_folders(touch(root, "test/good/000.png")) == [category.resolve()]


@pytest.mark.parametrize("form", [".", "..", "slash", "link"])
def test_the_category_has_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """However the folder is given, the category is called as the folder is."""
    root = make_tree(tmp_path / "data", "mvtec")[0] / "bottle"
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(root if form == "." else root / "test")
    images = find_test_images({"slash": f"{root}/", "link": tmp_path / "link"}.get(form, form))
    names = ["test/broken/000.png", "test/good/000.png"]
    assert [(image.category, image.name) for image in images] == [("bottle", name) for name in names]
