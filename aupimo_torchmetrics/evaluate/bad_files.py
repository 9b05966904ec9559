"""Files that cannot be evaluated, why, and whether the others may be scored without them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aupimo_torchmetrics._errors import BadDataError

if TYPE_CHECKING:
    from aupimo_torchmetrics.evaluate.data.folders import LabelledImage
    from aupimo_torchmetrics.evaluate.evaluation import CategoryScores
    from aupimo_torchmetrics.evaluate.pairing import Pair

__all__ = ["BadFile", "BadFileError", "BadFilesError", "bad_file_lines", "check_bad_files", "skipped_images"]

MAX_LISTED = 10
"""More files that are bad for one reason are not listed one by one."""
NUM_SHOWN = 3
"""How many of those are named."""


class BadFile(NamedTuple):
    """A file that cannot be evaluated.

    Example:
        >>> from aupimo_torchmetrics.evaluate import BadFile
        >>> BadFile("good/000.png", "an image without a map")
        BadFile(path='good/000.png', reason='an image without a map')

    """

    path: str
    """Path of the file."""
    reason: str
    """What is wrong with it."""


class BadFileError(BadDataError):
    """A single file cannot be evaluated.

    Attributes:
        bad_file: The file, and the reason.

    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.bad_file = BadFile(path, reason)


class BadFilesError(BadDataError):
    """Files cannot be evaluated. The message names each of them, or how many there are where one reason makes many.

    Attributes:
        bad_files: All these files, with the reasons.

    Example:
        >>> from aupimo_torchmetrics.evaluate import BadFile, BadFilesError
        >>> error = BadFilesError([BadFile("good/000.png", "an image without a map")], "skip them by `skip_bad=True`")
        >>> print(error)
        1 file cannot be evaluated (skip them by `skip_bad=True`):
          good/000.png: an image without a map
        >>> error.bad_files[0].path
        'good/000.png'

    """

    def __init__(self, bad_files: Sequence[BadFile], remedy: str) -> None:
        count = len({bad_file.path for bad_file in bad_files})
        lines = "".join(f"\n  {line}" for line in bad_file_lines(bad_files))
        super().__init__(f"{count} {'file' if count == 1 else 'files'} cannot be evaluated ({remedy}):{lines}")
        self.bad_files = list(bad_files)


def bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    """List bad files, each once.

    Args:
        bad_files: Files with the reasons. A file may be there several times.

    Returns:
        A line for each file, in the order given; and one line for more than ten files that are bad for the same reason,
        or for reasons that differ only in paths and numbers.

    Example:
        >>> from aupimo_torchmetrics.evaluate.bad_files import BadFile, bad_file_lines
        >>> bad_file_lines([BadFile(f"good/{number:03}.png", "an image without a map") for number in range(340)])
        ['340 files: an image without a map: good/000.png, good/001.png, good/002.png, ... (and 337 more)']

    """
    reasons: dict[str, dict[str, None]] = {}
    for path, reason in bad_files:
        reasons.setdefault(path, {})[reason] = None
    groups: dict[str, list[BadFile]] = {}
    for path, known in reasons.items():
        bad_file = BadFile(path, "; and ".join(known))
        groups.setdefault(_kind_of(bad_file), []).append(bad_file)
    return [line for group in groups.values() for line in _group_lines(group)]


def _kind_of(bad_file: BadFile) -> str:
    """The reason without what differs from file to file: its path, other paths, and numbers."""
    reason = bad_file.reason.replace(bad_file.path, "#")
    return re.sub(r"\S*[/\\]\S*|\S*\d[^\s,;:()\[\]]*", "#", reason)


def _group_lines(group: Sequence[BadFile]) -> list[str]:
    """List files that are bad for one kind of reason."""
    if len(group) <= MAX_LISTED:
        return [f"{path}: {reason}" for path, reason in group]
    first, *others = (bad_file.path for bad_file in group[:NUM_SHOWN])
    reason, more = group[0].reason, f"... (and {len(group) - NUM_SHOWN} more)"
    if all(bad_file.reason == reason for bad_file in group):
        return [f"{len(group)} files: {reason}: {', '.join([first, *others])}, {more}"]
    return [f"{len(group)} files, such as {first}: {reason}; the same for {', '.join(others)}, {more}"]


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
    is_bad = {image.category for image in images if (image.place or image.name) in bad_paths}
    skipped: dict[str, list[LabelledImage]] = {
        category: [] for category in sorted(is_bad | {pair.image.category for pair in pairs})
    }
    for image in images:
        if image.category in skipped and image.name not in scored:
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
    if not bad_files and categories:
        return
    if not bad_files:
        raise BadDataError("Expected the map of a test image, but found none.")
    by_name = {scores.category: scores for scores in categories}
    lost = [text for category in skipped for text in _lost_classes(category, skipped[category], by_name.get(category))]
    if skip_bad and categories and not lost:
        return
    remedy = "`skip_bad=True` goes on without them"
    if not categories:
        remedy = "there are no others"
    elif lost:
        remedy = f"`skip_bad=True` cannot go on without them: it would skip {' and '.join(lost)}"
    raise BadFilesError(bad_files, remedy)


def _lost_classes(category: str, skipped: Sequence[LabelledImage], scores: CategoryScores | None) -> Iterator[str]:
    """Say of which classes a category has images, but none that could be scored."""
    if scores is None or scores.num_normal == 0:
        defects = {pair.image.defect for pair in scores.pairs} if scores else set()
        yield from _all_of(category, "normal", skipped, [image for image in skipped if _may_be_normal(image, defects)])
    if scores is None or scores.num_anomalous == 0:
        yield from _all_of(category, "anomalous", skipped, [image for image in skipped if image.has_defect is None])


def _may_be_normal(image: LabelledImage, scored_defects: Collection[str | None]) -> bool:
    """Whether an image may be normal although it is not known to be.

    Where only its mask says it, it may be. So it may if its folder is taken for one of defects because of its name, and
    has no masks or empty ones.
    """
    is_known = image.defect in scored_defects and any(mask.is_file() for mask in image.masks)
    return image.has_defect is None or (image.has_defect and not is_known)


def _all_of(
    category: str, class_name: str, skipped: Sequence[LabelledImage], possible: Sequence[LabelledImage]
) -> Iterator[str]:
    """Name the skipped images of a class of a category, or if none is known those that may be of it."""
    num_known = sum(image.has_defect is (class_name == "anomalous") for image in skipped)
    if num_known:
        yield f"all {class_name} images of {category} ({num_known})"
    elif possible:
        yield f"all images of {category} that may be {class_name} ({len(possible)})"
