"""Which result files there are, and of which category, model and seed each is.

Conventions: a model has a folder `[COLLECTION/]CATEGORY/aupimo/aupimos.json`, as `aupimo evaluate --out` writes it, or
`aupimo/aupimos.json` of a single category. A benchmark is a folder of such folders. Seeds of a model are folders named
`seed` and a number, as `seed0`, `seed_1` or `Seed-2`, between the folder of the model and `aupimo`. Folders that begin
with a dot are no data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError

__all__ = ["FoundResults", "distinguishing_names", "find_results", "missing_text"]

RESULT_FILE = "aupimo/aupimos.json"
FILE_SUFFIXES = (".json", ".safetensors")
MAX_NAMED = 5
"""How many folders an error names."""
MAX_FOLDERS = 4
"""Folders above `aupimo` in a benchmark: those of model, collection, seed and category."""

SEED_FOLDER = re.compile(r"seed[-_ ]?(\d+)", re.IGNORECASE)
NO_SEED = ""
"""Stands for the seed of a model of which there is one result only."""

Folders = tuple[str, ...]
"""Names of the folders of a category: those of collection, if any, and category; none if the category has no folder."""


class FoundResults(NamedTuple):
    """Result files of models, and what there is not."""

    files: dict[str, dict[str, dict[str, Path]]]
    """`files[category][model][seed]` of the categories that all models have. The category is `""` if there are no
    folders of categories, and the seed is `""` if there are no folders of seeds."""
    missing: dict[str, tuple[str, ...]]
    """The models, as `MODEL` or `MODEL/SEED`, that lack each of the other categories."""
    empty: tuple[str, ...] = ()
    """Folders of models and seeds without any result, as `MODEL` or `MODEL/SEED`."""


class _Result(NamedTuple):
    """A result file and where it lies."""

    model: str
    seed: str
    category: Folders
    path: Path


def find_results(paths: Sequence[Path], names: Sequence[str] | None) -> FoundResults:
    """Find the result files of models.

    Args:
        paths: Two or more result files of different models, two or more folders of different models, or one benchmark.
        names: Names of the models, one for each path. None for the parts in which the paths differ. A benchmark has
            names of its own.

    Returns:
        The result files of the common categories, and the models that lack the others.

    Raises:
        ValueError: If a path is not there, if there is one file only or files among folders, or if names do not fit.
        BadDataError: If folders hold fewer than two models, no category that all of them have, or results of which it
            is not clear to what they belong.

    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"Expected `paths` to be files or folders with results, but there is none at {path}.")
    folders = [path for path in paths if path.is_dir()]
    if folders and len(folders) < len(paths):
        (file, *_) = (path for path in paths if path not in folders)
        raise ValueError(
            f"Expected `paths` to be files only or folders only, but got a folder among {len(paths)}: {folders[0]} is "
            f"a folder and {file} a file."
        )
    if len(paths) < 2 and not folders:
        found = f"the single file {paths[0]}" if paths else "none"
        raise ValueError(
            f"Expected `paths` to be two files or more, or one benchmark folder, but got {found}. Two folders that "
            "`aupimo evaluate --out` wrote do as well."
        )
    if len(paths) == 1:
        if names is not None:
            raise ValueError(
                "Expected `names` with files only, or with the folders of two models or more: in a benchmark folder "
                "the names are those of its folders."
            )
        return _arrange(_results_of_benchmark(paths[0]))
    names = _checked_names(paths, names)
    if folders:
        return _arrange([each for path, name in zip(paths, names, strict=True) for each in _results_of(path, name)])
    return FoundResults({"": {name: {NO_SEED: path} for path, name in zip(paths, names, strict=True)}}, {})


def _checked_names(paths: Sequence[Path], names: Sequence[str] | None) -> Sequence[str]:
    """Names of models: the given ones or those that tell the paths apart. Raise unless each path has one of its own."""
    if names is None:
        names = distinguishing_names(paths)
    if len(names) != len(paths):
        kind = "folders" if paths[0].is_dir() else "files"
        raise ValueError(f"Expected `names` to hold a name for each of {len(paths)} {kind}, but got {len(names)}.")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"Expected the names of the models to be distinct, but got {name!r} twice.")
    return names


def distinguishing_names(paths: Sequence[Path]) -> list[str]:
    """Name files or folders by the parts of their paths that differ, such as the folder of the model.

    Parts that all paths have in common are cut at the front and at the end. Equal paths get equal names.

    Example:
        >>> from pathlib import Path
        >>> distinguishing_names([Path("runs/padim/aupimos.json"), Path("runs/uflow/aupimos.json")])
        ['padim', 'uflow']
        >>> distinguishing_names([Path("padim.json"), Path("runs/uflow.json")])
        ['padim', 'runs/uflow']

    """
    without_suffix = [path.with_suffix("") if path.suffix in FILE_SUFFIXES else path for path in paths]
    # Not `Path.resolve`, which follows links: a link may be the name that somebody gave a model.
    parts = [Path(os.path.abspath(path)).parts for path in without_suffix]  # noqa: PTH100
    shortest = min(len(each) for each in parts) - 1  # at least one part remains of each
    num_front = _num_common(parts, shortest)
    num_end = _num_common([each[::-1] for each in parts], shortest - num_front)
    return ["/".join(each[num_front : len(each) - num_end]) for each in parts]


def _num_common(sequences: Sequence[Sequence[str]], at_most: int) -> int:
    """How many of the first elements all sequences have in common."""
    for index in range(at_most):
        if len({sequence[index] for sequence in sequences}) > 1:
            return index
    return at_most


def _files_below(root: Path) -> list[tuple[Folders, Path]]:
    """Result files in a folder and the folders below it, and the names of the folders that lead to each."""
    patterns = ["*/" * num_folders + RESULT_FILE for num_folders in range(MAX_FOLDERS + 1)]
    files = [(path.relative_to(root).parts[:-2], path) for pattern in patterns for path in root.glob(pattern)]
    return sorted(each for each in files if not any(folder.startswith(".") for folder in each[0]))


def _results_of_benchmark(root: Path) -> list[_Result]:
    """Results of all models in a benchmark folder."""
    results, of_one_model = [], []
    for folders, path in _files_below(root):
        if len(folders) > 1 and not SEED_FOLDER.fullmatch(folders[0]):
            results.append(_result(folders[0], folders[1:], path))
        else:  # MODEL/aupimo looks like CATEGORY/aupimo of a single model
            of_one_model.append("/".join((*folders, "aupimo")))
    models = sorted({result.model for result in results})
    if len(models) >= 2 and not of_one_model:
        return results
    one_model = (
        f"{', '.join(of_one_model[:MAX_NAMED])}{', ...' if of_one_model[MAX_NAMED:] else ''}: are these categories or "
        "seeds of one model, as `aupimo evaluate --out` writes them? Then give the folders of two models or more."
    )
    if len(models) >= 2:
        raise BadDataError(
            f"Expected folders MODEL/CATEGORY/aupimo in {root}, but one folder is missing in {one_model}"
        )
    raise BadDataError(
        f"Expected the results of two models or more, as MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json in {root}, "
        f"but got {len(models)}{''.join(f' ({model})' for model in models)}."
        f"{f' There is {one_model}' if of_one_model else ''}"
    )


def _results_of(folder: Path, model: str) -> list[_Result]:
    """Results in the folder of one model, or in the folder `aupimo` of one category."""
    files = _files_below(folder)
    single = folder / Path(RESULT_FILE).name
    if not files and single.is_file():
        files = [((), single)]
    if not files:
        raise BadDataError(f"Expected CATEGORY/{RESULT_FILE} or {RESULT_FILE} in {folder}, but there is none.")
    return [_result(model, folders, path) for folders, path in files]


def _result(model: str, folders: Sequence[str], path: Path) -> _Result:
    """A result with its seed and category, by the folders below that of the model."""
    seeds = [folder for folder in folders if SEED_FOLDER.fullmatch(folder)]
    category = tuple(folder for folder in folders if folder not in seeds)
    if len(seeds) > 1 or len(category) > 2:
        raise BadDataError(
            f"Expected results of {model!r} as [seed0/][COLLECTION/]CATEGORY/{RESULT_FILE}, but got {path}, of "
            "which it is not clear what its folders are."
        )
    return _Result(model, seeds[0] if seeds else NO_SEED, category, path)


def _arrange(results: Sequence[_Result]) -> FoundResults:
    """Result files by category, model and seed."""
    files: dict[Folders, dict[str, dict[str, Path]]] = {}
    models = list(dict.fromkeys(result.model for result in results))
    for model in models:
        _check_clear([result for result in results if result.model == model])
    for result in _with_category(results):
        by_seed = files.setdefault(result.category, {}).setdefault(result.model, {})
        if result.seed in by_seed:
            raise _unclear(result.model, by_seed[result.seed], result.path)
        by_seed[result.seed] = result.path
    names = _category_names(files)
    missing = {names[category]: _lacking(files[category], models, results) for category in sorted(files)}
    common = [category for category in sorted(files) if not missing[names[category]]]
    skipped = {name: lacking for name, lacking in missing.items() if lacking}
    if not common:
        raise BadDataError(f"Expected a category that all models have, but each lacks some: {missing_text(skipped)}.")
    arranged = {names[category]: {model: _in_order(files[category][model]) for model in models} for category in common}
    return FoundResults(arranged, skipped)


def missing_text(missing: Mapping[str, Collection[str]]) -> str:
    """Categories, and the models that lack each."""
    return ", ".join(
        f"{category or '(without a folder)'} (missing: {', '.join(models)})" for category, models in missing.items()
    )


def _in_order(by_seed: Mapping[str, Path]) -> dict[str, Path]:
    """Files in the order of the numbers of their seeds."""
    return {seed: by_seed[seed] for seed in sorted(by_seed, key=_seed_number)}


def _seed_number(seed: str) -> int:
    """Number of a seed, by which seeds are sorted; -1 for none."""
    match = SEED_FOLDER.fullmatch(seed)
    return int(match[1]) if match else -1


def _check_clear(results: Sequence[_Result]) -> None:
    """Raise if results of a model lie where some with and some without a seed or category, or one seed twice, lie."""
    first, by_number = results[0], dict[int, _Result]()
    for result in results:
        if (first.seed == NO_SEED) != (result.seed == NO_SEED) or bool(first.category) != bool(result.category):
            raise _unclear(first.model, first.path, result.path)
        same_number = by_number.setdefault(_seed_number(result.seed), result)
        if same_number.seed != result.seed:
            raise _unclear(first.model, same_number.path, result.path)


def _unclear(model: str, path: Path, other: Path) -> BadDataError:
    """Error of two files that cannot both be results of a model."""
    return BadDataError(
        f"Expected one result of {model!r} for each category and seed, but it is not clear what {path} and {other} are "
        "of. Remove one, or give it a folder of its own."
    )


def _with_category(results: Sequence[_Result]) -> list[_Result]:
    """Results, of which those without the folder of a category are of the only category that there is."""
    categories = {result.category for result in results if result.category}
    if len(categories) != 1:
        return list(results)
    return [result._replace(category=next(iter(categories))) for result in results]


def _category_names(categories: Iterable[Folders]) -> dict[Folders, str]:
    """Names of categories, with that of the collection only if there are several of these."""
    has_one_collection = len({folders[:-1] for folders in categories if folders}) == 1
    return {folders: "/".join(folders[-1:] if has_one_collection else folders) for folders in categories}


def _lacking(
    by_model: Mapping[str, Mapping[str, Path]], models: Sequence[str], results: Sequence[_Result]
) -> tuple[str, ...]:
    """Models, or seeds of them, that a category lacks."""
    lacking = []
    for model in models:
        seeds = dict.fromkeys(result.seed for result in results if result.model == model)
        without = [seed for seed in seeds if seed not in by_model.get(model, {})]
        lacking += [model] if len(without) == len(seeds) else [f"{model}/{seed}" for seed in without]
    return tuple(lacking)
