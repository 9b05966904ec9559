"""Data sets as they are published: for each, which files are its test images, and which masks belong to them.

Each function finds the test images of one layout, and none in a folder of another. How a data set lies on disk is
documented by its authors: MVTec AD, AD 2, 3D-AD and LOCO (mvtec.com), VisA (github.com/amazon-science/spot-diff), BTAD
(avires.dimi.uniud.it/papers/btad), KolektorSDD2 (vicos.si/resources/kolektorsdd2), Real-IAD (realiad4ad.github.io), and
the folders of anomalib (anomalib.readthedocs.io).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.data.folders import (
    DataFolder,
    LabelledImage,
    MaskIndex,
    as_key,
    as_name,
    is_file,
    missing_image,
    read_text,
)

__all__ = ["LAYOUTS", "MASK_FOLDERS", "DataSetLayout"]

MASK_FOLDERS = ("mask", "masks", "ground_truth", "groundtruth", "gt", "label", "labels", "depth", "xyz")
"""Names of folders, in any case, whose files are masks or depths, and no images."""
OTHER_SPLITS = ("train", "val", "valid", "validation", "test", "test_public", "test_private", "test_private_mixed")
"""Names of folders that hold whole splits of a data set, and so no type of defect."""

Find = Callable[[DataFolder], Iterator[LabelledImage]]


class DataSetLayout(NamedTuple):
    """How a data set lies on disk."""

    find: Find
    """Yields the test images."""
    needs: str
    """What has to be there, in words."""
    is_tried: bool = True
    """Whether `"auto"` tries it. It does not where another layout finds the same images."""
    prepared: Find | None = None
    """Yields the test images of a prepared form, which is that of another layout; not tried by `"auto"`."""


def mvtec_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test/DEFECT/`, with one mask each in `CATEGORY/ground_truth/DEFECT/`."""
    for category in _categories_with_masks(data, "files"):
        yield from data.images(category, category / "test", category / "ground_truth")


def loco_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test/DEFECT/`, with a folder of masks each in `CATEGORY/ground_truth/DEFECT/`."""
    for category in _categories_with_masks(data, "folders"):
        test, truth = category / "test", category / "ground_truth"
        masks = MaskIndex(data.files(truth)).by_folder()
        for relative, path in data.files(test).items():
            key, folders = as_key(relative), relative.split("/")[:-1]
            image = data.image(category, path, folders, [], truth / key)
            found = tuple(masks.pop(key, ()))
            yield image._replace(masks=found or image.masks, has_mask_classes=True)
        for folder, paths in masks.items():
            if not data.is_normal(folder.split("/")):
                name = data.name_of(truth / folder)
                yield missing_image(name, category, paths[0], folder.split("/")[:-1])


def mvtec_ad_2_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test_public/{good,bad}/`, with masks in `CATEGORY/test_public/ground_truth/bad/`."""
    for category in data.categories(lambda folder: (folder / "test_public").is_dir()):
        test = category / "test_public"
        yield from data.images(category, test, test / "ground_truth", skip="ground_truth")


def mvtec_3d_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test/DEFECT/rgb/`, with masks, also of normal ones, in `CATEGORY/test/DEFECT/gt/`."""
    for category in data.categories(lambda folder: (folder / "test").is_dir()):
        for defect in _folders_with_depth(data, category):
            yield from data.images(category, defect / "rgb", defect / "gt", (defect.name,))


def btad_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images as in MVTec AD, in folders `ok` and `ko`."""
    for image in mvtec_images(data):
        if image.defect is None or image.defect.casefold() in {"ok", "ko"}:
            yield image


def visa_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Test images of VisA as it is published, with its table of the split; or of its prepared form in `1cls`."""
    if not (data.root / "split_csv").exists() and (data.root / "1cls").is_dir():
        yield from _below(data, data.root / "1cls", mvtec_images)
    split = _visa_split(data.root)
    for category in data.categories(lambda folder: (folder / "Data" / "Images").is_dir()):
        expected = None if split is None else split.get(as_name(category.name), {})
        for image in data.images(category, category / "Data" / "Images", category / "Data" / "Masks"):
            key = as_key(image.path.relative_to(category).as_posix()) if image.path else None
            if expected is None or key is None or expected.pop(key, ""):
                yield image._replace(has_mask_classes=True)
        for name in (expected or {}).values():
            yield LabelledImage(name, as_name(category.name), None, (), None, problem="in the split, but not on disk")


def ksdd2_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images `test/20000.png` with a mask `test/20000_GT.png` each, empty for a normal one."""
    for category in data.categories(lambda folder: (folder / "test").is_dir()):
        if any("/" in relative for relative in data.files(category / "test")):
            continue
        images, masks = _images_and_masks(data, category / "test", "_GT")
        if not masks:
            continue
        for key, path in images.items():
            found = masks.take(f"{key}_GT")
            image = data.image(category, path, [], found, path.with_name(f"{path.stem}_GT.png"))
            yield image._replace(has_defect=None)
        yield from data.masks_without_image(category, masks)


def real_iad_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/{OK,NG}/`, those of the test split by the JSON of the category if it is there.

    Without the JSON all images are test images, and the mask of `x.jpg` is `x_mask.png` or `x.png`.
    """
    for category in data.categories(lambda folder: (folder / "OK").is_dir() and (folder / "NG").is_dir()):
        yield from _real_iad_category(data, category)
    resolutions = [folder for folder in data.folders(data.root) if folder.name.startswith("realiad_")]
    resolutions = [each for each in resolutions if any((folder / "OK").is_dir() for folder in data.folders(each))]
    if len(resolutions) > 1:
        names = ", ".join(folder.name for folder in resolutions)
        raise BadDataError(
            f"Expected {data.root} to hold one resolution of Real-IAD, but found {names}. Give one of them."
        )
    for folder in resolutions:
        yield from _below(data, folder, real_iad_images)


def anomalib_folder_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `good/` and folders of defects, or these in `test/`; masks in `mask/DEFECT/`, or in `mask/`."""
    for category in data.categories(lambda folder: _mask_folder(data, folder) is not None):
        masks_in = _mask_folder(data, category)
        images_in = category / "test" if (category / "test").is_dir() else category
        masks = MaskIndex(data.files(masks_in)) if masks_in else MaskIndex({})
        folders = [folder for folder in data.folders(images_in) if folder.name.casefold() not in _NO_DEFECTS]
        is_only_defect = sum(not data.is_normal([folder.name]) for folder in folders) == 1
        for folder in folders:
            for relative, path in data.files(folder).items():
                within = (folder.name, *relative.split("/")[:-1])
                key = as_key(f"{folder.name}/{relative}")
                keys = [key, as_key(relative)] if is_only_defect and not data.is_normal(within) else [key]
                found = masks.take(*keys, *(f"{key}_mask" for key in keys))
                yield data.image(category, path, within, found, (masks_in or category) / f"{key}.png")
        yield from data.masks_without_image(category, masks)


def folder_images(data: DataFolder) -> Iterator[LabelledImage]:
    """Images in `images/`, with masks of the same name, or with `_mask`, in `masks/`."""

    def is_category(folder: Path) -> bool:
        is_visa = folder != data.root and folder.name == "Data"
        return not is_visa and _named(data, folder, "images") is not None

    for category in data.categories(is_category):
        images_in = _named(data, category, "images") or category
        masks = MaskIndex(data.files(_named(data, category, "masks") or category / "masks"))
        for relative, path in data.files(images_in).items():
            key, within = as_key(relative), relative.split("/")[:-1]
            image = data.image(category, path, within, masks.take(key, f"{key}_mask"), category / f"masks/{key}.png")
            yield image._replace(has_defect=False if data.is_normal(within) else None)
        yield from data.masks_without_image(category, masks)


LAYOUTS: dict[str, DataSetLayout] = {
    "mvtec": DataSetLayout(
        mvtec_images, "CATEGORY/test/DEFECT/000.png and CATEGORY/ground_truth/DEFECT/000_mask.png or 000.png"
    ),
    "mvtec_ad_2": DataSetLayout(
        mvtec_ad_2_images,
        "CATEGORY/test_public/bad/000.png and CATEGORY/test_public/ground_truth/bad/000_mask.png",
    ),
    "mvtec_3d": DataSetLayout(mvtec_3d_images, "CATEGORY/test/DEFECT/rgb/000.png and CATEGORY/test/DEFECT/gt/000.png"),
    "loco": DataSetLayout(
        loco_images, "CATEGORY/test/DEFECT/000.png and CATEGORY/ground_truth/DEFECT/000/000.png, 001.png, ..."
    ),
    "visa": DataSetLayout(
        visa_images,
        "CATEGORY/Data/Images/Anomaly/000.JPG, CATEGORY/Data/Masks/Anomaly/000.png and split_csv/1cls.csv, or 1cls/...",
        prepared=mvtec_images,
    ),
    "btad": DataSetLayout(
        btad_images, "CATEGORY/test/{ok,ko}/000.png and CATEGORY/ground_truth/ko/000.png", is_tried=False
    ),
    "ksdd2": DataSetLayout(ksdd2_images, "test/20000.png and test/20000_GT.png"),
    "real_iad": DataSetLayout(
        real_iad_images,
        "CATEGORY/OK/..., CATEGORY/NG/... and realiad_jsons/CATEGORY.json, or masks x_mask.png beside x.jpg",
    ),
    "anomalib_folder": DataSetLayout(
        anomalib_folder_images,
        "good/000.png, DEFECT/000.png and mask/DEFECT/000.png, or these in CATEGORY/",
        prepared=mvtec_images,
    ),
    "folder": DataSetLayout(folder_images, "images/000.png and masks/000.png"),
}
"""Layouts by name."""

_NO_DEFECTS = {*MASK_FOLDERS, *OTHER_SPLITS}


def _below(data: DataFolder, folder: Path, find: Find) -> Iterator[LabelledImage]:
    """Find images in a folder of a data set, and name them by their path in the data set."""
    below = DataFolder(folder, data.normal_folders, follow_links=data.follow_links)
    for image in find(below):
        yield image._replace(name=f"{data.name_of(folder)}/{image.name}")


def _categories_with_masks(data: DataFolder, form: str) -> list[Path]:
    """Categories as in MVTec AD whose masks are `files`, or a folder of them for each image (`folders`).

    A category without any mask goes with the others.
    """
    categories = data.categories(lambda folder: (folder / "test").is_dir())
    categories = [each for each in categories if not _folders_with_depth(data, each)]
    categories = [each for each in categories if any("/" in relative for relative in data.files(each / "test"))]
    forms = {category: _mask_forms(data, category) for category in categories}
    all_forms = set().union(*forms.values()) or {"files"}
    return [each for each in categories if form in (forms[each] or all_forms)]


def _mask_forms(data: DataFolder, category: Path) -> set[str]:
    """Whether masks of a category have the names of images, or lie in folders of these names, or such and such."""
    images = {as_key(relative) for relative in data.files(category / "test")}
    masks = {as_key(relative) for relative in data.files(category / "ground_truth")}
    has_files = any(key in images or key.removesuffix("_mask") in images for key in masks)
    has_folders = any(key.rpartition("/")[0] in images for key in masks)
    return {form for form, is_there in (("files", has_files), ("folders", has_folders)) if is_there}


def _folders_with_depth(data: DataFolder, category: Path) -> list[Path]:
    """Folders of defects of a category as in MVTec 3D-AD."""
    folders = data.folders(category / "test")
    return [folder for folder in folders if (folder / "rgb").is_dir() and (folder / "gt").is_dir()]


def _images_and_masks(data: DataFolder, folder: Path, ending: str) -> tuple[dict[str, Path], MaskIndex]:
    """Images by key, and masks, of a folder in which they lie side by side: the name of a mask has an ending."""
    files = data.files(folder)
    masks = {relative: path for relative, path in files.items() if as_key(relative).endswith(ending)}
    return {as_key(relative): path for relative, path in files.items() if relative not in masks}, MaskIndex(masks)


def _visa_split(root: Path) -> dict[str, dict[str, str]] | None:
    """Names of VisA's test images by category and by key within it, None if there is no table of the split."""
    path = (root.parent if (root / "Data").is_dir() else root) / "split_csv" / "1cls.csv"
    if not path.is_file():
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
        split: dict[str, dict[str, str]] = {}
        for row in rows:
            is_test, image = row["split"] == "test", row["image"]
            category, _, within = as_name(image).partition("/")
            if is_test:
                split.setdefault(category, {})[as_key(within)] = as_name(image)
    except KeyError as error:
        raise BadDataError(f"Expected {path} to be a table with a column {error}, but it has none.") from error
    except (csv.Error, AttributeError, TypeError) as error:
        raise BadDataError(f"Expected {path} to be a table in CSV, but could not read it: {error}.") from error
    return split


def _real_iad_category(data: DataFolder, category: Path) -> Iterator[LabelledImage]:
    """Images of one category of Real-IAD, by its JSON or, without it, all of them."""
    path = _real_iad_json(data.root, category.name)
    if path is not None:
        yield from _real_iad_rows(data, category, path)
        return
    for kind in ("OK", "NG"):
        files = data.files(category / kind)
        keys = {as_key(relative) for relative, path in files.items() if path.suffix.lower() != ".png"}
        masks = {relative: path for relative, path in files.items() if _is_mask_beside(relative, path, keys)}
        index = MaskIndex(masks)
        for relative, path in files.items():
            if relative not in masks:
                key, within = as_key(relative), relative.split("/")[:-1]
                folders = [kind] if kind == "OK" else within[:-1] or within
                found = index.take(key, f"{key}_mask")
                yield data.image(category, path, folders, found, path.with_name(f"{path.stem}_mask.png"))
        yield from data.masks_without_image(category, index, (kind,))


def _is_mask_beside(relative: str, path: Path, keys: Collection[str]) -> bool:
    """Whether a PNG has the name of a JPEG beside it, or ends in `_mask`."""
    key = as_key(relative)
    return key.endswith("_mask") or (path.suffix.lower() == ".png" and key in keys)


def _real_iad_json(root: Path, category: str) -> Path | None:
    """File that lists the images of a category of Real-IAD, in `realiad_jsons` or the only other variant; or None."""
    for base in (root, *root.parents[:2]):
        folders = [each for each in sorted(base.glob("realiad_jsons*")) if each.is_dir()]
        folders = [deeper for each in folders for deeper in (each, *sorted(each.glob("realiad_jsons*")))]
        paths = [folder / f"{category}.json" for folder in folders if (folder / f"{category}.json").is_file()]
        usual = [path for path in paths if path.parent.name == "realiad_jsons"]
        if len(usual or paths) > 1:
            names = ", ".join(str(path) for path in usual or paths)
            raise BadDataError(
                f"Expected one JSON of the category {category}, but found {names}. Move the others away."
            )
        if paths:
            return (usual or paths)[0]
    return None


def _real_iad_rows(data: DataFolder, category: Path, path: Path) -> Iterator[LabelledImage]:
    """Test images of a category of Real-IAD that its JSON lists."""
    try:
        content = json.loads(read_text(path))
        normal = content.get("meta", {}).get("normal_class", "OK")
        rows = [(row["image_path"], row.get("mask_path"), row["anomaly_class"]) for row in content["test"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadDataError(f"Expected {path} to be a JSON of Real-IAD, but could not read it: {error!r}.") from error
    for row in rows:
        for text in row:
            if not isinstance(text, str | None) or (text and (text.startswith("/") or ".." in text.split("/"))):
                raise BadDataError(f"Expected {path} to hold paths of images in {category.name}, but found {text!r}.")
        image_path, mask_path, anomaly = row
        # Paths are relative to the folder of the category, or to the one above it.
        base = category.parent if image_path.startswith(f"{category.name}/") else category
        file = base / image_path
        masks = (base / mask_path,) if mask_path else ()
        image = LabelledImage(
            data.name_of(file), as_name(category.name), file, masks, anomaly != normal, as_name(anomaly)
        )
        if not is_file(file):
            image = image._replace(path=None, problem=f"in {path.name}, but not on disk")
        elif image.has_defect and not masks:
            image = image._replace(problem=f"{path.name} names no mask of its defect")
        yield image


def _mask_folder(data: DataFolder, folder: Path) -> Path | None:
    """Folder of the masks beside folders of images as anomalib has them, None if there is no such thing, or several.

    With `test` and `ground_truth` it is a category as in MVTec AD.
    """
    if folder != data.root and folder.name.casefold() in OTHER_SPLITS:
        return None
    masks = [each for each in data.folders(folder) if each.name.casefold() in MASK_FOLDERS]
    has_test = (folder / "test").is_dir()
    if len(masks) != 1 or (has_test and masks[0].name == "ground_truth"):
        return None
    images = {each.name for each in data.folders(folder / "test" if has_test else folder)} - {masks[0].name}
    has_normal = any(data.is_normal([name]) for name in images)
    return masks[0] if has_normal or any(each.name in images for each in data.folders(masks[0])) else None


def _named(data: DataFolder, folder: Path, name: str) -> Path | None:
    """Folder in a folder by its name in any case; None if there is none."""
    return next((each for each in data.folders(folder) if each.name.casefold() == name), None)
