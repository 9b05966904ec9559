"""Which result files there are, and of which category, model and seed each is.

Conventions: a model has a folder `[COLLECTION/]CATEGORY/aupimo/aupimos.json`, as `aupimo evaluate --out` writes it, or
`aupimo/aupimos.json` of a single category. A benchmark is a folder of such folders. Seeds of a model are folders named
`seed` and a number, as `seed0`, `seed_1` or `Seed-2`, between the folder of the model and `aupimo`. Folders that begin
with a dot are no data.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._paths import distinguishing_names

__all__ = ["FoundResults", "find_results", "missing_text"]

RESULT_FILE = "aupimo/aupimos.json"
OUTPUT_FILES = {"summary.json", "images.csv", "report.html"}
"""What `aupimo evaluate --out` writes beside the results."""
MAX_NAMED = 5
"""How many folders an error names."""
MAX_FOLDERS = 3
"""Folders between that of the model and `aupimo`: those of collection, seed and category."""

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
    warnings: tuple[str, ...]
    """Folders of models and of seeds without a result, in a sentence."""


class _Result(NamedTuple):
    """A result file and where it lies."""

    model: str
    seed: str
    category: Folders
    path: Path

    @property
    def seed_number(self) -> int:
        """Number of the seed, -1 for none."""
        match = SEED_FOLDER.fullmatch(self.seed)
        return int(match[1]) if match else -1


def find_results(paths: Sequence[Path], names: Sequence[str] | None) -> FoundResults:
    """Find the result files of models.

    Args:
        paths: Two or more result files of different models, two or more folders of different models, or one benchmark.
        names: Names of the models, one for each path. None for the parts in which the paths differ. A benchmark has
            names of its own.

    Returns:
        The result files of the common categories, and the models that lack the others.

    Raises:
        ValueError: If a path is not there or no result, if there is one file only or files among folders, or if names
            do not fit.
        BadDataError: If folders hold fewer than two models, no category that all of them have, or results of which it
            is not clear to what they belong.

    """
    _check_paths(paths)
    if len(paths) == 1:
        if names is not None:
            raise SettingError(
                "Expected `names` with files only, or with the folders of two models or more: in a benchmark folder "
                "the names are those of its folders."
            )
        return _find_benchmark(paths[0])
    models = dict(zip(_checked_names(paths, names), paths, strict=True))
    if not paths[0].is_dir():
        files = {name: {NO_SEED: path} for name, path in models.items()}
        return FoundResults({"": files}, {}, ())
    results = {name: _results_of(name, folder) for name, folder in models.items()}
    for name, of_model in results.items():
        if not of_model:
            raise BadDataError(
                f"Expected CATEGORY/{RESULT_FILE} or {RESULT_FILE} in {models[name]}, but there is none."
            )
    return _arrange([each for of_model in results.values() for each in of_model], models)


def _check_paths(paths: Sequence[Path]) -> None:
    """Raise unless there are two result files or more, or folders."""
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if path not in folders]
    for file in files:
        if not file.exists():
            raise SettingError(f"Expected `paths` to be files or folders with results, but there is none at {file}.")
        if file.name in OUTPUT_FILES:
            raise SettingError(f"Expected `paths` to be results, but got {file}. Give its folder, {file.parent}.")
    if folders and files:
        raise SettingError(
            f"Expected `paths` to be files only or folders only, but got a folder among {len(paths)}: {folders[0]} is "
            f"a folder and {files[0]} a file."
        )
    if len(paths) < 2 and not folders:
        found = f"the single file {paths[0]}" if paths else "none"
        raise SettingError(
            f"Expected `paths` to be two files or more, or one benchmark folder, but got {found}. Two folders that "
            "`aupimo evaluate --out` wrote do as well."
        )


def _checked_names(paths: Sequence[Path], names: Sequence[str] | None) -> Sequence[str]:
    """Names of models: the given ones or those that tell the paths apart. Raise unless each path has one of its own."""
    names = distinguishing_names(paths) if names is None else names
    if len(names) != len(paths):
        kind = "folders" if paths[0].is_dir() else "files"
        raise SettingError(f"Expected `names` to hold a name for each of {len(paths)} {kind}, but got {len(names)}.")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SettingError(f"Expected the names of the models to be distinct, but got {name!r} twice.")
    return names


def _find_benchmark(root: Path) -> FoundResults:
    """Find the results of all models in a folder."""
    models = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    results = [result for name, folder in models.items() for result in _results_of(name, folder)]
    # MODEL/aupimo looks like CATEGORY/aupimo of a single model.
    alone = [each for each in results if SEED_FOLDER.fullmatch(each.model) or not (each.category or each.seed)]
    found = sorted({result.model for result in results} - {result.model for result in alone})
    if len(found) < 2 or alone:
        names = [result.path.parent.relative_to(root).as_posix() for result in alone]
        one_model = (
            f" There is {', '.join(names[:MAX_NAMED])}{', ...' if names[MAX_NAMED:] else ''}: are these categories or "
            "seeds of one model, as `aupimo evaluate --out` writes them? Then give the folders of two models or more."
        )
        raise BadDataError(
            f"Expected the results of two models or more, as MODEL/[COLLECTION/]CATEGORY/{RESULT_FILE} in {root}, "
            f"but got {len(found)}{''.join(f' ({model})' for model in found)}.{one_model if alone else ''}"
        )
    return _arrange(results, models)


def _results_of(model: str, root: Path) -> list[_Result]:
    """Results in the folder of one model, or in the folder `aupimo` of one category."""
    patterns = ["*/" * num_folders + RESULT_FILE for num_folders in range(MAX_FOLDERS + 1)]
    files = sorted(path for pattern in patterns for path in root.glob(pattern))
    single = root / Path(RESULT_FILE).name
    if not files and single.is_file():
        return [_Result(model, NO_SEED, (), single)]
    with_folders = [(path.relative_to(root).parts[:-2], path) for path in files]
    return [_result(model, *each) for each in with_folders if not any(name.startswith(".") for name in each[0])]


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


def _arrange(results: Sequence[_Result], folders: Mapping[str, Path]) -> FoundResults:
    """Put results in order by category, model and seed, and name the folders of models that have none."""
    _check_clear(results)
    categories = {result.category for result in results if result.category}
    has_one_collection = len({category[:-1] for category in categories}) == 1
    files: dict[str, dict[str, dict[str, Path]]] = {}
    seeds: dict[str, dict[str, None]] = {result.model: {} for result in results}
    for result in sorted(results, key=lambda result: (result.category, result.seed_number)):
        # Without a folder, it is of the only category that there is.
        category = next(iter(categories)) if len(categories) == 1 else result.category
        name = "/".join(category[-1:] if has_one_collection else category)
        files.setdefault(name, {}).setdefault(result.model, {})[result.seed] = result.path
        seeds[result.model][result.seed] = None
    missing: dict[str, dict[str, None]] = {}
    for name, by_model in files.items():
        for model, seed in ((model, seed) for model, of_model in seeds.items() for seed in of_model):
            if seed not in by_model.get(model, {}):
                missing.setdefault(name, {})[f"{model}/{seed}" if model in by_model else model] = None
    common = {name: {model: files[name][model] for model in seeds} for name in files if name not in missing}
    if not common:
        raise BadDataError(f"Expected a category that all models have, but each lacks some: {missing_text(missing)}.")
    lacking = {name: tuple(models) for name, models in missing.items()}
    return FoundResults(common, lacking, tuple(_empty(results, folders)))


def _empty(results: Sequence[_Result], folders: Mapping[str, Path]) -> Iterator[str]:
    """Warn of the folders of models, and of their seeds, in which there is no result."""
    with_results = {folder for result in results for folder in result.path.parents}
    empty = [model for model, folder in folders.items() if folder not in with_results]
    for model, folder in folders.items():
        seeds = [path for path in sorted(folder.iterdir()) if path.is_dir() and SEED_FOLDER.fullmatch(path.name)]
        empty += [f"{model}/{seed.name}" for seed in seeds if seed not in with_results]
    if empty:
        yield f"there is no result in {', '.join(empty)}, which the comparison lacks"


def missing_text(missing: Mapping[str, Collection[str]]) -> str:
    """Categories, and the models that lack each."""
    return ", ".join(
        f"{category or '(without a folder)'} (missing: {', '.join(models)})" for category, models in missing.items()
    )


def _check_clear(results: Sequence[_Result]) -> None:
    """Raise if some results of a model lie in folders of seeds or categories and others do not, or two are of one."""
    first: dict[object, _Result] = {}
    for result in results:
        of_model = first.setdefault(result.model, result)
        same = first.setdefault((result.model, result.category, result.seed_number), result)
        is_alike = (of_model.seed_number < 0, not of_model.category) == (result.seed_number < 0, not result.category)
        if same is not result or not is_alike:
            other = of_model if same is result else same
            raise BadDataError(
                f"Expected one result of {result.model!r} for each category and seed, but it is not clear what "
                f"{other.path} and {result.path} are of. Give each a folder of its own."
            )
