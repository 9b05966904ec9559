"""Data sets in folders: the test images of a collection or category, in whichever layout it lies on disk.

`LAYOUTS` is a table with a row for each layout. How a data set lies on disk is documented by its authors: MVTec AD,
AD 2, 3D-AD and LOCO (mvtec.com), VisA (github.com/amazon-science/spot-diff), BTAD (avires.dimi.uniud.it/papers/btad),
KolektorSDD2 (vicos.si/resources/kolektorsdd2), Real-IAD (realiad4ad.github.io), BMAD (github.com/DorisBao/BMAD), and
the folders of anomalib (anomalib.readthedocs.io).
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.folders import check_inside
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.data.folders import DataFolder, LabelledImage, as_name, folders_in, is_file
from aupimo_torchmetrics.evaluate.data.splits import read_split

__all__ = ["LAYOUTS", "LabelledImage", "find_test_images"]

MASK_FOLDERS = ("mask", "masks", "ground_truth", "groundtruth", "gt", "label", "labels")
"""Names of folders, in any case, that hold masks."""
NO_IMAGES = frozenset((*MASK_FOLDERS, "depth", "xyz"))
"""Names of folders, in any case, whose files are masks or depths, and no images."""
MASK_ENDING = re.compile("_(mask|gt|label|ground_truth)$", re.IGNORECASE)
"""How the name of a mask ends that lies beside its image."""
SPLITS = ("train", "val", "valid", "validation", "test", "test_public", "test_private", "test_private_mixed")
"""Names of folders, in any case, that hold splits of a data set."""
NO_CATEGORIES = NO_IMAGES | set(SPLITS)
"""Names of folders, in any case, that are neither a category nor a type of defect."""
PLACES = {
    "{defect}/": "(?:(?P<defect>.+)/)?",
    "{defect}": f"(?!(?:{'|'.join(NO_CATEGORIES)})$).+",
    "{type}/": "(?:(?P<defect>[^/]+)/)?",
    "{name}": "(?P<name>.+?)",
    "{masks}": f"(?:{'|'.join(MASK_FOLDERS)})",
    "[_mask]": "(?:_mask)?",
    "/*": "/[^/]+",
}
"""Parts of paths that stand in templates: the folders of a type of defect, the first folder of a category, or the first
folder of a type of defect alone; the name of an image; a folder of masks; an ending that may be there; and any file in
a folder."""

Files = dict[tuple[str, str], list[Path]]
"""Images or masks of a category, by the folders of the type of defect and the name: what both have in common."""


class Form(NamedTuple):
    """Where the files of a category lie in its folder, by templates of their paths in it, in any case."""

    images: tuple[str, ...]
    """Of test images. A category is a folder in which the first folders of these are."""
    masks: str
    """Of masks. If an image has several, it ends in `/*`; if it begins with `{masks}`, they need no folder of a type of
    defect where the names of images are unique."""
    is_class_in_mask: bool = False
    """Whether the mask, and not the folder, says that an image has a defect; folders of normal images hold, though."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect."""
    below: str = ""
    """Pattern of a folder that may lie between the root and the categories."""
    split: str = ""
    """Pattern of the file that says which are the test images of a `{category}`; without it, all of them are."""


MVTEC = Form(("test/{defect}/{name}",), "ground_truth/{defect}/{name}[_mask]", below="1cls")
VISA = Form(("Data/Images/{defect}/{name}",), "Data/Masks/{defect}/{name}[_mask]", split="split_csv/1cls.csv")
REAL_IAD = Form(("OK/{name}", "NG/{type}/{name}"), "NG/{type}/{name}[_mask].png", below="realiad_[!j]*")
LAYOUTS: dict[str, tuple[Form, ...]] = {
    "mvtec": (MVTEC,),
    "mvtec_ad_2": (Form(("test_public/{defect}/{name}",), "test_public/ground_truth/{defect}/{name}[_mask]"),),
    "mvtec_3d": (Form(("test/{defect}/rgb/{name}",), "test/{defect}/gt/{name}[_mask]"),),
    "loco": (Form(("test/{defect}/{name}",), "ground_truth/{defect}/{name}/*", has_mask_classes=True),),
    "visa": (VISA._replace(has_mask_classes=True), MVTEC),
    "btad": (MVTEC,),
    "ksdd2": (Form(("test/{name}",), "test/{name}_GT", is_class_in_mask=True),),
    "real_iad": (REAL_IAD._replace(split="realiad_jsons*/**/{category}.json"),),
    "bmad": (Form(("test/{defect}/img/{name}",), "test/{defect}/label/{name}[_mask]"),),
    "images_and_masks": (
        Form(("test/{defect}/images/{name}", "test/{defect}/{name}"), "test/{defect}/masks/{name}[_mask]"),
    ),
    "anomalib_folder": (
        Form(("{defect}/{name}",), "{masks}/{defect}/{name}[_mask]"),
        Form(("test/{defect}/{name}",), "{masks}/{defect}/{name}[_mask]"),
    ),
    "folder": (Form(("images/{defect}/{name}",), "masks/{defect}/{name}[_mask]", is_class_in_mask=True),),
}
"""Layouts by name, each with its forms: the first of these that finds images counts."""
FORMS = list(dict.fromkeys(chain(*LAYOUTS.values())))
"""All forms, each once."""


def find_test_images(
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    normal_folder: str | Sequence[str] = (),
    *,
    follow_links: bool = False,
) -> list[LabelledImage]:
    """List the test images of a collection or of a category, with their masks, sorted by category and name.

    Files and folders whose names begin with a dot are no data. Images in folders `good`, `ok`, `normal`, `defect_free`
    and their like, in any case, are normal. Masks may have any suffix of images, in any case.

    Args:
        root: Folder of a collection, or of a single category of it.
        layout: Name of the layout, such as `"mvtec"`; the table in `aupimo_torchmetrics.evaluate` has all of them.
            `"auto"` for whichever of these is there.
        normal_folder: Names of more folders of normal images, in any case, beside `good` and its like.
        follow_links: Whether links may lead out of the folder, and to folders.

    Returns:
        The test images. A mask that should be there is listed even if its file is missing. What cannot be evaluated for
        the names or places of its files, or for a missing mask, is listed, too, and has a `problem`.

    Raises:
        ValueError: If a layout is not known, there is no such folder, or a `normal_folder` is not there.
        BadDataError: If there is no image in that layout, or masks in another one only; `"auto"` finds no layout or
            several that fit; a table of the split cannot be read; an image or mask is reached by a link that leads out
            of the root or nowhere; or a folder in a category is a link. If folders in the root are data sets, they are
            named.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate import find_test_images
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("test/good/000.png", "test/dirt/000.png", "ground_truth/dirt/000_mask.png"):
        ...         Path(root, "bottle", name).parent.mkdir(parents=True)
        ...         Path(root, "bottle", name).touch()
        ...     [(image.name, image.defect, len(image.masks)) for image in find_test_images(root)]
        [('bottle/test/dirt/000.png', 'dirt', 1), ('bottle/test/good/000.png', 'good', 0)]

    """
    check_choice("layout", layout, Layout)
    normal_folders = [normal_folder] if isinstance(normal_folder, str) else list(normal_folder)
    data = DataFolder(existing_folder("root", root).resolve(), normal_folders, follow_links=follow_links)
    images = _images(data, layout)
    if not follow_links:
        check_inside(data.root, (path for image in images for path in (image.path, *image.masks) if path))
    folders = {folder for image in images if image.defect for folder in image.defect.split("/")}
    unknown = {as_name(name).casefold() for name in normal_folders} - {folder.casefold() for folder in folders}
    if unknown:
        found = f"there is no {', '.join(map(repr, sorted(unknown)))} among {', '.join(sorted(folders)) or 'none'}"
        raise SettingError(f"Expected `normal_folder` to name folders of images, but {found}.")
    return list(_with_problems(images))


def _images(data: DataFolder, layout: str) -> list[LabelledImage]:
    """Test images in a layout, or in the only one that fits; raise if there is none, or masks in another one only."""
    named = LAYOUTS.get(layout, ())
    found = (_find(data, form, needs_masks=needs_masks) for needs_masks in (True, False) for form in named)
    images = next(filter(None, found), [])
    if _have_masks(images):
        return images
    fitting = _fitting_layouts(data)
    if len(fitting) == 1 and not named:
        return next(iter(fitting.values()))
    if images and not _have_masks(chain(*fitting.values())):
        return images
    around = [data.root.parent] if data.root.name.casefold() in SPLITS else folders_in(data.root)
    below = (DataFolder(folder, data.normal_words, follow_links=data.follow_links) for folder in around)
    near = [] if fitting else [str(each.root) for each in below if _have_masks(chain(*_fitting_layouts(each).values()))]
    if near:
        raise BadDataError("\n  ".join([f"Expected {data.root} to be one data set. Give one of these:", *near]))
    fits = " and ".join(f'`layout="{name}"`' for name in fitting) or "none"
    listed = [layout] if named else fitting or LAYOUTS
    forms = {name: LAYOUTS[name][0] for name in listed}
    needs = [f"\n  {name} needs {' and '.join(form.images)} with {form.masks}" for name, form in forms.items()]
    raise BadDataError(
        f"Expected {data.root} to be a data set in {f'the layout {layout!r}' if named else 'one layout'}, but it fits "
        f"{fits}. Give another folder, the `layout`, or a `table` of images and masks:{''.join(needs)}"
    )


def _fitting_layouts(data: DataFolder) -> dict[str, list[LabelledImage]]:
    """Test images by layout, for each that fits; of layouts that find the same images and masks, the first.

    A layout fits if it takes no mask for an image, and finds a mask; or if none does so, if it finds normal images and
    folders say the class of each.
    """
    for needs_masks in (True, False):
        found = {form: _find(data, form, needs_masks=needs_masks) for form in FORMS}
        fitting: dict[object, tuple[str, list[LabelledImage]]] = {}
        for name, forms in LAYOUTS.items():
            images = next(filter(None, map(found.get, forms)), [])
            on_disk = [image for image in images if image.path]
            classes = {image.has_defect for image in on_disk}
            is_sure = _have_masks(images) if needs_masks else False in classes and None not in classes
            if is_sure and not _is_mask_among(on_disk):
                files = ((image.name, image.has_defect, *filter(is_file, image.masks)) for image in on_disk)
                fitting.setdefault(frozenset(files), (name, images))
        if fitting:
            return dict(fitting.values())
    return {}


def _have_masks(images: Iterable[LabelledImage]) -> bool:
    """Whether an image is there with a mask."""
    return any(image.path and any(map(is_file, image.masks)) for image in images)


def _is_mask_among(images: Sequence[LabelledImage]) -> bool:
    """Whether a file among the images has the name of a mask, or lies in a folder of masks or depths."""
    folders = "/".join({image.defect or "" for image in images}).casefold().split("/")
    return not NO_IMAGES.isdisjoint(folders) or bool(_masks_beside({image.key for image in images}))


def _masks_beside(keys: set[str]) -> set[str]:
    """Return the keys that are another one with the ending of a mask."""
    return {key for key in keys if MASK_ENDING.search(key) and MASK_ENDING.sub("", key) in keys}


def _find(data: DataFolder, form: Form, *, needs_masks: bool) -> list[LabelledImage]:
    """Find the test images of a form; none if there has to be a mask, and is none."""
    below = [folder for folder in folders_in(data.root) if fnmatch(folder.name, form.below)]
    for root in (data.root, *(below if len(below) == 1 else [])):
        files = [(category, *_files(data, form, category)) for category in _categories(data, form, root)]
        if any(masks for _, _, masks in files) or not needs_masks:
            images = [image for each in files for image in _test_images(data, form, *each)]
            if images:
                return images
    return []


def _categories(data: DataFolder, form: Form, root: Path) -> list[Path]:
    """List the folders of categories: the root, or folders in it; none if it is not clear which."""
    needed = (*form.images, form.masks) if form.images[0].startswith("{") else form.images

    def is_category(folder: Path) -> bool:
        names = [each.name for each in folders_in(folder)]
        return all(any(map(_pattern(template.partition("/")[0]).fullmatch, names)) for template in needed)

    inside = [each for each in folders_in(root) if each.name != "Data" and each.name.casefold() not in NO_CATEGORIES]
    categories = [folder for folder in inside if is_category(folder)]
    if is_category(root):
        return [] if categories else [root]
    return [] if any(data.is_normal(folder.name) for folder in categories) else categories


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """Regular expression of a template, which may leave out the suffix of a file."""
    text = template if template.endswith(".png") or "/" not in template else rf"{template}\.[^./]+"
    for place, expression in PLACES.items():
        text = text.replace(place, expression)
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _files(data: DataFolder, form: Form, category: Path) -> tuple[Files, Files]:
    """Images and masks in the folder of a category, by the first template that fits."""
    images: Files = defaultdict(list)
    masks: Files = defaultdict(list)
    templates = {form.masks: masks, **dict.fromkeys(form.images, images)}
    first = [_pattern(template.partition("/")[0]) for template in templates]
    folders = [each for each in folders_in(category) if any(pattern.fullmatch(each.name) for pattern in first)]
    for relative, path in chain.from_iterable(map(data.files, folders)):
        for template, files in templates.items():
            if match := _pattern(template).fullmatch(relative):
                files[match.groupdict().get("defect") or data.normal_folder(relative), match["name"]].append(path)
                break
    return images, masks


def _test_images(data: DataFolder, form: Form, category: Path, images: Files, masks: Files) -> Iterator[LabelledImage]:
    """Yield the test images of a category: those of its split, or else all, and the masks without an image."""
    split = read_split(data, category, form.split) if form.split else None
    if split is not None:
        yield from (image._replace(has_mask_classes=form.has_mask_classes) for image in split)
        return
    title, used = as_name(category.name), set()
    with_defect = Counter(name for defect, name in images if not data.is_normal(defect))
    # Without normal images, the folders may be no types of defect.
    is_loose = form.masks.startswith("{masks}") and with_defect.total() < len(images)
    for (defect, name), paths in images.items():
        is_normal = data.is_normal(defect)
        keys = {(defect, name)} | ({("", name)} if is_loose and not is_normal and with_defect[name] == 1 else set())
        used |= keys
        found = sorted(path for key in keys for path in masks.get(key, []))
        problem = None
        if not (defect or form.is_class_in_mask):
            problem = "no folder says whether it has a defect"
        elif len(found) > 1 and not form.masks.endswith("/*"):
            problem = f"several masks, of which one has to go: {', '.join(map(data.name_of, found))}"
        if not (found or is_normal):
            text = form.masks.replace("[_mask]", "_mask").format(defect=defect, type=defect, name=name, masks="mask")
            found = [category / f"{text.removesuffix('.png')}.png"]
        has_defect = None if form.is_class_in_mask and not is_normal else not is_normal
        facts = (tuple(found), has_defect, defect or None, form.has_mask_classes, problem)
        yield from (LabelledImage(data.name_of(path), title, path, *facts) for path in paths)
    for defect, name in masks.keys() - used:
        for path in [] if data.is_normal(defect) else masks[defect, name]:
            lost = LabelledImage(data.name_of(path), title, None, (path,), True, defect or None)
            yield lost._replace(problem="a mask without an image")


def _with_problems(images: Sequence[LabelledImage]) -> Iterator[LabelledImage]:
    """Sort images, and add what is wrong with them that is seen from others, or from the files of their masks."""
    counts = Counter(image.key for image in images)
    masks_beside = _masks_beside({image.key for image in images if image.path})
    for image in sorted(images, key=lambda image: (image.category, image.key, image.name)):
        problem = image.problem
        if counts[image.key] > 1:
            problem = "one of several images of this name, of which one has to stay"
        elif image.key in masks_beside:
            problem = "named as the mask of another image, but it lies among the images"
        elif not problem and image.missing_mask:
            folder = (image.defect or "").partition("/")[0]
            remedy = f'`normal_folder="{folder}"` if it has no defect' if folder else "that of a normal image is empty"
            problem = f"its mask {image.missing_mask} is missing; {remedy}"
        yield image._replace(problem=problem)
