"""Which result files there are, and of which category, model and seed each is.

Conventions: a model has a folder `[COLLECTION/]CATEGORY/aupimo/aupimos.json`, as `aupimo evaluate --out` writes it, or
`aupimo/aupimos.json` of a single category; or a file of its own. A benchmark is a folder of such folders. Seeds of a
model are folders named `seed` and a number, as `seed0`, `seed_1` or `Seed-2`, between the folder of the model and
`aupimo`, of which the number counts. Folders that begin with a dot are no data.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._paths import distinguishing_names

__all__ = ["FoundResults", "find_results", "missing_text", "run_name"]

RESULT_FILE = "aupimo/aupimos.json"
MAX_FOLDERS = 3
"""Folders between that of the model and `aupimo`: those of collection, seed and category."""
SEED_FOLDER = re.compile(r"seed[-_ ]?(\d+)", re.IGNORECASE)
NO_SEED = ""
"""Stands for the seed of a model of which there is one result only."""
ByCategory = dict[str, dict[str, dict[str, Path]]]
"""Files `[category][model][seed]`."""


class FoundResults(NamedTuple):
    """Result files of models, and what there is not."""

    files: ByCategory
    """Of the categories that all models have. The category is `""` if there are no
    folders of categories, and the seed is `""` if there are no folders of seeds."""
    missing: dict[str, tuple[str, ...]]
    """The models, as `MODEL` or `MODEL/SEED`, that lack each of the other categories."""
    warnings: list[str]
    """Folders of models and of seeds without a result, in a sentence."""


class _Result(NamedTuple):
    """A result file and where it lies."""

    model: str
    category: str
    """Folders of collection and category; empty if there are none."""
    seed: str
    path: Path


def find_results(paths: Sequence[Path], names: Sequence[str] | None) -> FoundResults:
    """Find the result files of models.

    Args:
        paths: Two or more files or folders of results, each of another model, or one benchmark.
        names: Names of the models, one for each path, or each folder of a benchmark. None for the parts in which the
            paths differ.

    Returns:
        The result files of the common categories, and the models that lack the others.

    Raises:
        ValueError: If a path is not there, if there is one file only, or if names do not fit.
        BadDataError: If there are results of fewer than two models, no category that all of them have, or results of
            which it is not clear to what they belong.

    """
    for path in paths:
        if not path.exists():
            raise SettingError(f"Expected `paths` to be files or folders with results, but there is none at {path}.")
    is_benchmark = len(paths) == 1 and paths[0].is_dir()
    if len(paths) < 2 and not is_benchmark:
        raise SettingError("Expected `paths` to be two results or more, or one benchmark folder, but got fewer.")
    places = sorted(path for path in paths[0].glob("[!.]*") if path.is_dir()) if is_benchmark else paths
    names = distinguishing_names(places) if names is None else names
    if len(names) != len(places) or len({*names}) < len(names):
        raise SettingError(f"Expected distinct `names` of {len(places)} models, but got {', '.join(names)}.")
    models = dict(zip(names, places, strict=True))
    results = [result for name, place in models.items() for result in _results_of(name, place)]
    for result in results if is_benchmark else ():  # MODEL/aupimo looks like CATEGORY/aupimo of a single model
        if SEED_FOLDER.fullmatch(models[result.model].name) or not (result.category or result.seed):
            raise BadDataError(
                f"Expected MODEL/[COLLECTION/]CATEGORY/{RESULT_FILE} in {paths[0]}, but got {result.path}, as of a "
                "category or a seed of one model. Give the folders of two models or more."
            )
    found = list(dict.fromkeys(result.model for result in results))
    if len(found) < 2:
        raise BadDataError(
            f"Expected the results of two models or more, as [COLLECTION/]CATEGORY/{RESULT_FILE} in a folder of each, "
            f"in {', '.join(map(str, paths))}, but got {', '.join(found) or 'none'}."
        )
    return FoundResults(*_arrange(results), _without_result(models, results))


def _results_of(model: str, place: Path) -> list[_Result]:
    """Results in the folder of one model by category and seed, or the file that it is or that lies in it."""
    results = []
    for path in (path for number in range(MAX_FOLDERS + 1) for path in place.glob("*/" * number + RESULT_FILE)):
        folders = path.relative_to(place).parts[:-2]
        seeds = {folder: f"seed{int(match[1])}" for folder in folders if (match := SEED_FOLDER.fullmatch(folder))}
        category = "/".join(folder for folder in folders if folder not in seeds)
        if not any(folder.startswith(".") for folder in folders):
            results.append(_Result(model, category, next(iter(seeds.values()), NO_SEED), path))
    for one, other in itertools.combinations(results, 2):
        is_alike = (not one.category, not one.seed) == (not other.category, not other.seed)
        if one[:3] == other[:3] or not is_alike:
            raise BadDataError(
                f"Expected one result of {model!r} for each category and seed, but it is not clear what {one.path} and "
                f"{other.path} are of. Give each a folder of its own."
            )
    own = place if place.is_file() else place / Path(RESULT_FILE).name
    if not results and own.is_file():
        return [_Result(model, "", NO_SEED, own)]
    return sorted(results, key=lambda result: (result.category, len(result.seed), result.seed))


def _arrange(results: Sequence[_Result]) -> tuple[ByCategory, dict[str, tuple[str, ...]]]:
    """Files of the categories that all models have, and the models and seeds that lack each of the others."""
    categories = {result.category for result in results if result.category}
    has_one_collection = len({category.rpartition("/")[0] for category in categories}) == 1
    files: ByCategory = {}
    for result in results:
        # Without a folder, it is of the only category that there is.
        category = min(categories) if len(categories) == 1 else result.category
        name = category.rpartition("/")[2] if has_one_collection else category
        files.setdefault(name, {}).setdefault(result.model, {})[result.seed] = result.path
    runs = dict.fromkeys((result.model, result.seed) for result in results)
    missing = {
        category: tuple(run_name(model, seed) for model, seed in runs if seed not in by_model.get(model, {}))
        for category, by_model in sorted(files.items())
    }
    common = {category: files[category] for category, lacking in missing.items() if not lacking}
    missing = {category: lacking for category, lacking in missing.items() if lacking}
    if not common:
        raise BadDataError(f"Expected a category that all models have, but each lacks some: {missing_text(missing)}.")
    return common, missing


def _without_result(models: Mapping[str, Path], results: Sequence[_Result]) -> list[str]:
    """Name the folders of models, and of their seeds, in which there is no result, in a warning."""
    folders = dict(models)
    for model, place in models.items():
        folders |= {f"{model}/{path.name}": path for path in place.glob("*") if SEED_FOLDER.fullmatch(path.name)}
    used = {path for result in results for path in (result.path, *result.path.parents)}
    empty = [name for name, folder in folders.items() if folder not in used]
    return [f"there is no result in {', '.join(empty)}, which the comparison lacks"] if empty else []


def run_name(model: str, seed: str) -> str:
    """`MODEL/SEED`, or `MODEL` of a model without seeds."""
    return f"{model}/{seed}" if seed else model


def missing_text(missing: Mapping[str, Sequence[str]]) -> str:
    """Categories, and the models that lack each."""
    return ", ".join(
        f"{category or '(without a folder)'} (missing: {', '.join(models)})" for category, models in missing.items()
    )
