"""Which images cannot be scored as their files are bad, and whether the others may be scored without them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image
from aupimo_torchmetrics.evaluate.report import CategoryScores

__all__ = ["check_bad_files", "skipped_images"]


def skipped_images(
    images: Sequence[LabelledImage],
    pairs: Sequence[Pair],
    categories: Sequence[CategoryScores],
    bad_files: Sequence[BadFile],
) -> dict[str, list[LabelledImage]]:
    """List the images that were not scored.

    Args:
        images: Test images.
        pairs: Those that have a map.
        categories: Scores of all that could be scored.
        bad_files: Files that cannot be evaluated.

    Returns:
        Images that were not scored, by the name of their category, for each category of which there is a map.

    """
    bad_paths = {bad_file.path for bad_file in bad_files}
    scored = {pair.image.name for scores in categories for pair in scores.pairs}
    # An image without a map is a bad file only where its category has maps.
    is_bad = {image.category for image in images if bad_image(image, "").path in bad_paths}
    with_maps = {pair.image.category for pair in pairs} | is_bad
    skipped: dict[str, list[LabelledImage]] = {category: [] for category in sorted(with_maps)}
    for image in images:
        if image.category in with_maps and image.name not in scored:
            skipped[image.category].append(image)
    return skipped


def check_bad_files(
    bad_files: Sequence[BadFile],
    skipped: Mapping[str, Sequence[LabelledImage]],
    categories: Sequence[CategoryScores],
    *,
    skip_bad: bool,
) -> None:
    """Raise unless there is no bad file, or bad files are to be skipped and each category keeps both of its classes.

    Args:
        bad_files: Files that cannot be evaluated.
        skipped: Images that were not scored, by category.
        categories: Scores of all that could be scored.
        skip_bad: Whether bad files are to be skipped.

    Raises:
        BadDataError: If there is no bad file, and nothing could be scored all the same.
        BadFilesError: With all bad files, and what can be done about them.

    """
    if not bad_files:
        if not categories:
            raise BadDataError("Expected the map of a test image, but found none.")
        return
    by_name = {scores.category: scores for scores in categories}
    lost = [text for category in skipped for text in _lost_classes(category, skipped[category], by_name.get(category))]
    if not categories:
        remedy = "there are no others"
    elif lost:
        remedy = f"`skip_bad=True` cannot go on without them: it would skip {', '.join(lost)}"
    elif skip_bad:
        return
    else:
        remedy = "`skip_bad=True` goes on without them"
    raise BadFilesError(bad_files, "; ".join([remedy, *_folders_without_masks(skipped, by_name)]))


def _lost_classes(category: str, skipped: Sequence[LabelledImage], scores: CategoryScores | None) -> Iterator[str]:
    """Classes of which a category has images, but none that could be scored."""
    num_scored = {"normal": scores.num_normal if scores else 0, "anomalous": scores.num_anomalous if scores else 0}
    for name, is_anomalous in (("normal", False), ("anomalous", True)):
        num_skipped = sum(_can_be(image, is_anomalous=is_anomalous) for image in skipped)
        if num_skipped > 0 and num_scored[name] == 0:
            yield f"every image of {category} that is or may be {name} ({num_skipped})"


def _can_be(image: LabelledImage, *, is_anomalous: bool) -> bool:
    """Whether an image whose mask was not read may be of a class.

    A folder whose name says nothing is taken for one of defects. If its images have no masks, they may be normal.
    """
    if image.has_defect is None:
        return bool(image.masks) or not is_anomalous
    return image.has_defect == is_anomalous or (image.has_defect and not _has_mask(image))


def _has_mask(image: LabelledImage) -> bool:
    """Whether a mask of an image is on disk."""
    return any(mask.is_file() for mask in image.masks)


def _folders_without_masks(
    skipped: Mapping[str, Sequence[LabelledImage]], categories: Mapping[str, CategoryScores]
) -> list[str]:
    """Say how to call the images normal of folders that were taken for defects and in which no image has a mask."""
    names: list[str] = []
    for category, images in skipped.items():
        scored = categories[category].pairs if category in categories else []
        with_masks = {pair.image.defect for pair in scored} | {image.defect for image in images if _has_mask(image)}
        names += _defects(images, with_masks)
    names = list(dict.fromkeys(names))
    if not names:
        return []
    folders = ", ".join(map(repr, names))
    return [f"if the images in {folders}, which have no masks, are normal, give `normal_folder=[{folders}]`"]


def _defects(images: Sequence[LabelledImage], known: Collection[str | None]) -> list[str]:
    """Types of defects that the names of folders say, and that are not known."""
    defects = (image.defect for image in images if image.has_defect and image.path is not None)
    return [defect for defect, _ in groupby(defects) if defect is not None and defect not in known]
