"""Which images cannot be scored as their files are bad, and whether the others may be scored without them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.category import CategoryScores
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image

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
        remedy = f"`skip_bad=True` cannot go on without them: it would skip {' and '.join(lost)}"
    elif skip_bad:
        return
    else:
        remedy = "`skip_bad=True` goes on without them"
    raise BadFilesError(bad_files, remedy)


def _lost_classes(category: str, skipped: Sequence[LabelledImage], scores: CategoryScores | None) -> Iterator[str]:
    """Say of which classes a category has images, but none that could be scored."""
    if scores is None or scores.num_normal == 0:
        normal = [image for image in skipped if _has_defect(image) is False]
        defects = {pair.image.defect for pair in scores.pairs} if scores else set()
        possible = [image for image in skipped if _may_be_normal(image, defects)]
        if normal or possible:
            yield _all_of(category, "normal", len(normal), len(possible))
    if scores is None or scores.num_anomalous == 0:
        anomalous = [image for image in skipped if _has_defect(image)]
        possible = [image for image in skipped if _has_defect(image) is None]
        if anomalous or possible:
            yield _all_of(category, "anomalous", len(anomalous), len(possible))


def _has_defect(image: LabelledImage) -> bool | None:
    """Whether an image has a defect, as far as its folder and whether it should have a mask say it."""
    return False if image.has_defect is None and not image.masks else image.has_defect


def _may_be_normal(image: LabelledImage, scored_defects: Collection[str | None]) -> bool:
    """Whether an image may be normal although it is not known to be.

    Where only its mask says it, it may be. So it may if its folder is taken for one of defects because of its name, and
    has no masks or empty ones.
    """
    if not _has_defect(image):
        return _has_defect(image) is None
    return image.defect not in scored_defects or not any(mask.is_file() for mask in image.masks)


def _all_of(category: str, class_name: str, num_known: int, num_possible: int) -> str:
    """Name the images of a class of a category, or if none is known those that may be of it."""
    if num_known:
        return (
            f"all {num_known} {class_name} images of {category}"
            if num_known > 1
            else f"the only {class_name} image of {category}"
        )
    return f"all images of {category} that may be {class_name} ({num_possible})"
