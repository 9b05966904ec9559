"""The command `aupimo`, also `python -m aupimo_torchmetrics`.

Conventions: the options of a subcommand are the parameters of the functions behind it, with their types, defaults and
docstrings. Results go to standard output. An error is one line on standard error, with an indented line for each thing
that it lists, such as bad files or layouts. Errors and docstrings of the library name parameters in backticks; the
command names its options instead. What is no error of settings, data or the machine is a bug, and a traceback. No
subject of the library is imported before its subcommand runs.
"""

from __future__ import annotations

import argparse
import inspect
import math
import os
import re
import shlex
import sys
from collections import abc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._tables import json_text
from aupimo_torchmetrics._version import __version__

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = """exit codes:
  0  done, and a score or a threshold came out
  1  data that cannot be used, or no score came out: AUPIMO is undefined (NaN)
     in every category, a package is missing, a disk error, too little memory,
     stopped by Ctrl-C
  2  the command itself is wrong: an unknown option or choice, a number out of
     range, a path that is not there, a device that is not there
"""
"""What the exit codes of all subcommands mean. A bug is a traceback."""
EVALUATE_PACKAGES = ("jinja2", "matplotlib", "pandas", "PIL", "scipy", "tifffile", "tqdm")
"""What an evaluation and the page `report.html` import."""
NEEDED_BY = "this command"
NO_MEMORY = "(out of|allocate|enough) memory"
"""How torch says that there is too little memory."""
MAX_LISTED = 5
"""How many files a hint names."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None for those of the process.

    Returns:
        The exit code, as `EXIT_CODES` says.

    Raises:
        SystemExit: With code 2 if the command was not understood, and with 0 after `--help` and `--version`.

    Example:
        >>> from aupimo_torchmetrics.cli import main
        >>> main(["evaluate", "nowhere", "--data", "nowhere"])
        2

    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # a service may have closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  for the whole process
    argv = sys.argv[1:] if argv is None else argv
    parser = _Parser("aupimo", description="AUPIMO scores of visual anomaly detectors.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"aupimo-torchmetrics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, run in _COMMANDS.items():
        commands.add_parser(name, help=(run.__doc__ or "").partition("\n")[0], add_help=False)
    run = _COMMANDS[parser.parse_args(argv[:1]).command]
    parser = _Parser(f"aupimo {argv[0]}")
    try:
        return run(parser, argv[1:])
    except BrokenPipeError:  # who read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it ends
        return 0
    except (SettingError, BadDataError) as error:
        return parser.fail(str(error), 2 if isinstance(error, SettingError) else 1)
    except (ImportError, OSError, MemoryError, RuntimeError) as error:
        text = str(error) or type(error).__name__
        if isinstance(error, RuntimeError) and not re.search(NO_MEMORY, text):  # a bug
            raise
        return parser.fail(text.splitlines()[0], 1)
    except KeyboardInterrupt as error:
        return parser.fail(str(error) or "stopped", 1)


class _Parser(argparse.ArgumentParser):
    """Parser whose options are the parameters of functions, and whose errors are one line."""

    def __init__(self, prog: str | None = None, **settings: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter if "epilog" in settings else argparse.HelpFormatter
        super().__init__(prog, argument_default=argparse.SUPPRESS, formatter_class=formatter, **settings)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # of an older Python it does not know -1e-3
        self.options: dict[str, argparse.Action] = {}
        """Options by the names of the parameters."""

    def add_options(self, function: Callable[..., Any], *without: str, **changed: dict[str, Any]) -> None:
        """Add an option for each parameter of a function with its type, default and docstring, unless it is `without`.

        `changed` are settings of `add` by parameter.
        """
        self.description = self.description or (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        texts, hints = _texts_of_parameters(function), get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in hints and name not in {*without, *self.options}:
                default = () if parameter.default in {None, False, True, parameter.empty} else parameter.default
                shown = " ".join(map(str, default if isinstance(default, tuple) else [default]))
                text = f"{texts[name]} (default: {shown})" if shown else texts[name]
                text = text.replace("Whether", "Turn off that", 1) if parameter.default is True else text
                kind = _kind(hints[name], is_on=parameter.default is True)
                self.add(name, **{"help": text, **kind, **changed.get(name, {})})

    def add(self, name: str, flag: str | None = None, **settings: Any) -> None:
        """Add an option for a parameter; one with the `flag` "" is an argument without a name."""
        no = "no-" if settings.get("action") == "store_false" else ""
        flag = f"--{no}{name.replace('_', '-')}" if flag is None else flag
        settings["help"] = settings["help"].replace("%", "%%")
        self.options[name] = self.add_argument(*filter(None, [flag]), dest=name, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")

    def fail(self, message: str, code: int) -> int:
        """Print an error, and return the exit code."""
        print(f"{self.prog}: {self.with_options(message)}", file=sys.stderr)  # noqa: T201
        return code

    def code_of_scores(self, means: Iterable[float]) -> int:
        """Return 0 if a score came out; otherwise say that none did, and return 1."""
        if all(math.isnan(mean) for mean in means):
            return self.fail("no score came out: AUPIMO is undefined (NaN); the warnings say why", 1)
        return 0

    def format_help(self) -> str:
        for action in self.options.values():
            action.help = self.with_options(action.help or "")
        return super().format_help()

    def with_options(self, text: str) -> str:
        """Name options where a text of the library names parameters in backticks.

        `` `num_thresholds` `` becomes `` `--num-thresholds` ``, `` `skip_bad=True` `` becomes `` `--skip-bad` ``,
        `` `resize=False` `` becomes `` `--no-resize` ``, and one without a name what the help calls it, `` `MAPS` ``.
        What no option can say, as `` `skip_bad=False` ``, stays as it is.
        """

        def option(match: re.Match[str]) -> str:
            action, value = self.options.get(match["name"]), match["value"] or ""
            if action is None or (action.nargs == 0 and value == str(not action.const)):
                return match[0]
            flag = action.option_strings[0] if action.option_strings else str(action.metavar)
            quoted = re.fullmatch(r"""(["'])(.*)\1""", value)
            shown = shlex.quote(quoted[2]) if quoted else re.sub("[(),]", "", value)
            return f"`{flag}`" if action.nargs == 0 or not shown else f"`{flag} {shown}`"

        return re.sub(r"`(?P<name>\w+)(?:=(?P<value>[^`]*))?`", option, text)


def _texts_of_parameters(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function says of each parameter."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    texts = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in texts}


def _kind(hint: Any, *, is_on: bool) -> dict[str, Any]:
    """What argparse has to know of a type; a switch that `is_on` by default can be turned off."""
    parts = {hint} if get_origin(hint) in {None, Literal, abc.Sequence} else {*get_args(hint)}
    if bool in parts:
        return {"action": "store_false" if is_on else "store_true"}
    of_many = [get_args(part)[0] for part in parts if get_origin(part) is abc.Sequence]
    how_many = {} if not of_many else {"action": "append"} if str in parts else {"nargs": "+"}
    for part in (*parts, *of_many):
        if get_origin(part) is Literal:
            both = {"nargs": "+", "action": "extend"} if of_many else {}  # several at once, and one after the other
            return {**both, "choices": get_args(part)}
        if part in {int, float}:
            return {**how_many, "type": _number(part, is_optional=type(None) in parts)}
    return how_many


def _number(kind: Callable[[str], float], *, is_optional: bool) -> Callable[[str], float | None]:
    """Make what reads a number, or the text None, as errors of the library advise."""

    def read(text: str) -> float | None:
        return None if is_optional and text.lower() == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse names it in its errors
    return read


def _number_or_file(text: str) -> float | str:
    """Read a number, or else the path of a file."""
    try:
        return float(text)
    except ValueError:
        return text


THRESHOLD_OPTION = {"metavar": "NUMBER|FILE", "type": _number_or_file}


def _of(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the given settings that a function has."""
    return {name: value for name, value in given.items() if name in inspect.signature(function).parameters}


def _check_out(given: dict[str, Any]) -> None:
    """Raise if there can be no such folder to write to, before hours are spent on what is to be written there."""
    for name in ("report", "heatmaps"):
        if name in given and "out" not in given:
            raise SettingError(f"Expected `out` with `{name}`, which is written there, but got none.")
    for name in ("out", "write_masks", "write_maps"):
        if name in given:
            _check_folder(name, Path(given[name]).absolute())


def _check_folder(name: str, folder: Path) -> None:
    """Raise unless a folder can be made and written to."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        reason = "may not be written to" if nearest.is_dir() else "is a file"
        raise OSError(f"Expected `{name}` to be a folder, but {nearest} {reason}.")


def _print(text: str) -> None:
    """Print to standard output, whatever characters it knows."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201


def _demo(parser: _Parser, argv: Sequence[str]) -> int:
    """Train a small detector on real photographs, on the CPU in about a minute, and log its AUPIMO."""
    require("lightning", "matplotlib", "PIL", "skimage", "tensorboard", "tifffile", extra="demo", needed_by=NEEDED_BY)
    from aupimo_torchmetrics.demo import run_demo  # noqa: PLC0415

    parser.add_options(run_demo)
    settings = vars(parser.parse_args(argv))
    _print("Loading PyTorch Lightning ...")
    report = run_demo(**settings)
    _print(report.summary())
    return parser.code_of_scores([report.after.mean])


def _evaluate(parser: _Parser, argv: Sequence[str]) -> int:
    """Score saved anomaly maps against the masks of a data set."""
    require(*EVALUATE_PACKAGES, extra="evaluate", needed_by=NEEDED_BY)
    from aupimo_torchmetrics.evaluate import Evaluation, evaluate  # noqa: PLC0415
    from aupimo_torchmetrics.evaluate.written import check_apart  # noqa: PLC0415

    parser.description = f"{_evaluate.__doc__ or ''} Without `--out`, scores of a file asmaps.pt are written beside it."
    parser.add_options(
        evaluate,
        maps={"flag": "", "nargs": "?", "metavar": "MAPS"},
        fpr_bounds={"nargs": 2, "metavar": ("L", "U")},
        metrics={"metavar": "METRIC"},
        threshold=THRESHOLD_OPTION,
    )
    parser.add_options(Evaluation.save, "has_folders", picture_format={"flag": "--format"})
    parser.add_options(Evaluation.summary)
    parser.add("json", action="store_true", help="Print `summary.json` instead of the table.")
    parser.add("write_masks", metavar="DIR", help="Write what `threshold` calls anomalous, a PNG for each image.")
    parser.add("write_table", metavar="FILE", help="Write `data` as a table, to start from for `table`.")
    given = vars(parser.parse_args(argv))
    if "write_table" in given:
        _write_table(given)
        if "maps" not in given:
            return 0
    is_beside_maps = "out" not in given and Path(given.get("maps", "")).is_file()
    if is_beside_maps:
        given["out"] = Path(given["maps"]).parent
    _check_out(given)
    if "write_masks" in given and "threshold" not in given:
        raise SettingError("Expected a `threshold` with `write_masks`, but got none.")
    if "write_masks" in given:
        check_apart("write_masks", given["write_masks"], [given.get("maps"), given.get("data")])
    evaluation = evaluate(**_of(evaluate, given))
    lines = [parser.with_options(evaluation.summary(**_of(Evaluation.summary, given)))]
    hints = ["Nothing was written: --out DIR keeps scores, curves and pictures."]
    if "out" in given:
        has_folders = not is_beside_maps or len(evaluation.categories) > 1
        saved = evaluation.save(has_folders=has_folders, **_of(Evaluation.save, given))
        if saved.left:
            left = ", ".join([*saved.left[:MAX_LISTED], *["..."] * (len(saved.left) > MAX_LISTED)])
            lines.append(f"Left of an earlier evaluation, and not of this one: {left}")
        hints = [f"Scores, curves, tables and pictures: {given['out']}"]
        hints += [f"Open in a browser: {Path(given['out'], 'report.html')}"] if "report" in given else []
    try:
        if "write_masks" in given:
            masks = evaluation.write_masks(given["write_masks"], quiet="quiet" in given)
            hints.append(f"{len(masks)} masks: {given['write_masks']}")
    finally:  # the scores are there, whatever becomes of the masks
        lines += [] if "quiet" in given else hints
        _print(json_text(evaluation.to_dict()) if "json" in given else "\n".join(lines))
    return parser.code_of_scores(scores.result.mean for scores in evaluation.categories)


def _write_table(given: dict[str, Any]) -> None:
    """Write the table that a data set amounts to."""
    from aupimo_torchmetrics.evaluate import find_test_images  # noqa: PLC0415
    from aupimo_torchmetrics.evaluate.data.table import write_table  # noqa: PLC0415

    if "data" not in given:
        raise SettingError("Expected `data` with `write_table`, but got none: the table is made of it.")
    images = find_test_images(existing_folder("data", given["data"]), **_of(find_test_images, given))
    write_table(images, given["write_table"])
    if not {"quiet", "json"} & {*given}:
        _print(f"Table of {len(images)} images: {given['write_table']}")


def _compare(parser: _Parser, argv: Sequence[str]) -> int:
    """Say which of several models is better, and how sure one may be, from their aupimos.json."""
    require("pandas", "scipy", extra="stats,plot", needed_by=NEEDED_BY)
    from aupimo_torchmetrics.compare import Comparison, compare_paths  # noqa: PLC0415

    parser.add_options(compare_paths, paths={"flag": "", "action": "store", "nargs": "+", "metavar": "PATH"})
    parser.add_options(Comparison.save, picture_format={"flag": "--format"})
    parser.add("json", action="store_true", help="Print the comparison as JSON instead of tables.")
    given = vars(parser.parse_args(argv))
    if "out" in given:
        require("matplotlib", extra="stats,plot", needed_by=NEEDED_BY)
    if "report" in given:
        require(*EVALUATE_PACKAGES, extra="evaluate", needed_by=NEEDED_BY)
    _check_out(given)
    comparison = compare_paths(**_of(compare_paths, given))
    hint = "`--out DIR` writes the comparison in each category, and pictures" if comparison.ranking is not None else ""
    if "out" in given:  # before anything is printed, so that a closed pipe loses nothing
        out, written = Path(given["out"]), comparison.save(**_of(Comparison.save, given))
        files = dict.fromkeys(path.name if path.parent == out else f"CATEGORY/{path.name}" for path in written)
        hint = f"written to {out}: {', '.join(files)}"
    lines = [comparison.summary(), *([hint] if hint and "quiet" not in given else [])]
    _print(json_text(comparison.to_dict()) if "json" in given else "\n\n".join(lines))
    return 0


def _threshold(parser: _Parser, argv: Sequence[str]) -> int:
    """Choose a threshold from maps of normal images, or apply one to maps that have no masks."""
    require(*EVALUATE_PACKAGES, extra="evaluate", needed_by=NEEDED_BY)
    from aupimo_torchmetrics.evaluate import apply_thresholds, choose_thresholds  # noqa: PLC0415

    parser.description = _threshold.__doc__
    parser.add_options(choose_thresholds, maps={"flag": "", "nargs": "?", "metavar": "MAPS"})
    parser.add("out", metavar="FILE", help="Write the thresholds to a file, as thresholds.json.")
    parser.add_options(apply_thresholds, apply={"metavar": "MAPS"}, threshold=THRESHOLD_OPTION)
    parser.add("json", action="store_true", help="Print what `out` writes instead of tables.")
    given = vars(parser.parse_args(argv))
    _check_threshold_options(given)
    contents, texts, number = dict[str, Any](), [], given.get("threshold")
    if number is None:
        number = choose_thresholds(**_of(choose_thresholds, given))
        if "out" in given:
            number.save(given["out"])
        contents, texts = number.to_dict(), [number.summary()]
    if "apply" in given:
        applied = apply_thresholds(**_of(apply_thresholds, {**given, "threshold": number}))
        contents, texts = contents | applied.to_dict(), [*texts, applied.summary()]
    _print(json_text(contents) if "json" in given else "\n\n".join(texts))
    return 0


def _check_threshold_options(given: dict[str, Any]) -> None:
    """Raise unless the options go together, and there can be the files that are to be written."""
    from aupimo_torchmetrics.evaluate.written import check_apart  # noqa: PLC0415

    of_applying = {"threshold", "apply", "write_masks", "write_maps"}
    others = {*given} - of_applying - {"split", "map_suffix", "follow_links", "quiet", "json"}
    if "apply" not in given and of_applying & {*given}:
        raise SettingError("Expected `apply` with `threshold`, `write_masks` and `write_maps`, but got none.")
    if "threshold" in given and others:
        raise SettingError(f"Expected `threshold`, or to choose one, but got it and `{'`, `'.join(sorted(others))}`.")
    if "threshold" not in given and not {"fpr", "alarms"} & {*given}:
        raise SettingError("Expected one of `fpr` and `alarms` to choose a threshold, or a `threshold`, but got none.")
    if "threshold" not in given and {"apply", "split"} <= {*given}:
        raise SettingError("Expected `split` where maps are chosen from or applied to, but got both; use two commands.")
    written: dict[str, Any] = {name: given[name] for name in ("write_masks", "write_maps") if name in given}
    _check_out(written)
    for name, folder in written.items():
        check_apart(name, folder, [given.get("maps"), given.get("data")])
    if "out" in given:
        out = Path(given["out"]).absolute()
        if out.is_dir():
            raise OSError(f"Expected `out` to be a file, but {out} is a folder.")
        _check_folder("out", out.parent)


_COMMANDS = {"demo": _demo, "evaluate": _evaluate, "compare": _compare, "threshold": _threshold}
"""Subcommands by name. Each adds its options to a parser, and returns an exit code."""
