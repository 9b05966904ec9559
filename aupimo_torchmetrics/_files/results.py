"""The formats of results on disk: what is written, and what is refused when it is read.

- `aupimos.json`: scores in the format of the official package, which accepts no other keys.
- `aupimos.safetensors`, beside it: scores, settings and what was kept of the images. All other members of a result
  follow from these. If it is not known what was kept, the file holds classes, ids and mask sizes as far as they are
  known. It belongs to a JSON file with the same scores, bounds and paths, and can be read without it.
- `curves.pt`: PIMO curves, under the names that the official package uses.

This module deals in plain values and knows no result class.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.arrays import load_tensors
from aupimo_torchmetrics._files.writing import check_ending, replacing
from aupimo_torchmetrics._settings import SharedFPR, check_choice, check_fpr_bounds, check_num_thresholds

UNKNOWN = "unknown"
"""Stands for the number of thresholds if a file does not hold it."""
SHARED_FPR_METRICS: dict[SharedFPR, str] = {"mean": "mean-per-image-fpr", "max": "max-per-image-fpr"}
"""Names of the shared FPR in files; the official package knows only the first."""
_CURVE_KEYS = ("threshs", "shared_fpr", "per_image_tprs")
"""Names of thresholds, shared FPR and TPRs in files of the official package."""
JSON_SUFFIX, TENSORS_SUFFIX = ".json", ".safetensors"
_ZIP_FOLDER = 0x10
"""Attribute of a folder in an archive."""
_CURVES_SUFFIXES = (".pt", ".pth")
FORMAT = "aupimo-torchmetrics result 1"
"""Name and version of the format, which a file of tensors holds."""
MAX_THRESHOLDS = 2**24
"""Highest number of sampled thresholds that is read, so that a number in a hostile file cannot fill the memory."""
MAX_REASON = 200
"""Characters of a reason that is quoted, as it may quote the file."""
_SCORE_DTYPES = (torch.float32, torch.float64)
_KEPT = {
    "normal_scores": _SCORE_DTYPES,
    "mask_scores": _SCORE_DTYPES,
    "floor": _SCORE_DTYPES,
    "normal_min": _SCORE_DTYPES,
    "num_kept": (torch.int64,),
    "num_pixels": (torch.int64,),
    "is_anomalous": (torch.bool,),
    "image_ids": (torch.int64,),
    "max_scores": _SCORE_DTYPES,
}
"""Tensors of what was kept of the images, and their dtypes."""
_ADDED = {"max_scores"}
"""Those that earlier versions did not write."""
_KNOWN = ("image_classes", "image_ids", "mask_sizes")
"""Tensors (N,) int64 of a result of which it is not known what was kept."""
_DTYPES = {**dict.fromkeys(_KNOWN, (torch.int64,)), **_KEPT, "aupimos": (torch.float64,)}
_SETTINGS = (
    "fpr_bounds", "threshold_bounds", "num_points", "shared_fpr", "paths", "num_thresholds", "version", "warnings",
)  # fmt: skip
"""Metadata of a file of tensors, each in JSON."""
_T = TypeVar("_T")


class SavedResult(NamedTuple):
    """What a file of tensors holds of a result. A JSON file holds the first six, from which the classes follow."""

    aupimos: Tensor
    """(N,) float64, NaN for a normal image."""
    fpr_bounds: tuple[float, float]
    threshold_bounds: tuple[float, float]
    """Lower and upper threshold; NaN if the file does not hold it."""
    num_points: int | None
    shared_fpr: SharedFPR
    paths: list[str] | None
    num_thresholds: int | str | None = UNKNOWN
    version: str | None = None
    warnings: tuple[str, ...] = ()
    kept: PixelScores | None = None
    """What was kept of the images. The others follow from it, and are in a file only without it, if they are known."""
    image_classes: Tensor | None = None
    image_ids: Tensor | None = None
    mask_sizes: Tensor | None = None


def json_path(path: str | os.PathLike[str]) -> Path:
    """Path of the scores that belong to a file of either kind: `aupimos.json` beside `aupimos.safetensors`."""
    path = Path(path)
    return path.with_suffix(JSON_SUFFIX) if path.suffix.lower() == TENSORS_SUFFIX else path


def tensors_path(path: str | os.PathLike[str]) -> Path:
    """Path of the details that belong to a file of either kind: `aupimos.safetensors` beside `aupimos.json`."""
    path = Path(path)
    if path.suffix.lower() == TENSORS_SUFFIX:
        return path
    # Only the usual suffix is replaced: `model_v1.0` and `model_v1.1` are two results.
    return path.with_suffix(TENSORS_SUFFIX) if path.suffix == JSON_SUFFIX else Path(f"{path}{TENSORS_SUFFIX}")


def write_result(path: str | os.PathLike[str], saved: SavedResult) -> None:
    """Write scores and details; if that fails, neither file is left half written."""
    check_ending(path, JSON_SUFFIX, TENSORS_SUFFIX)
    with replacing(json_path(path)) as unfinished:
        unfinished.write_text(_as_text(saved), encoding="utf-8")
        with replacing(tensors_path(path)) as unfinished_tensors:
            known = {name: getattr(saved, name) for name in _KNOWN} if saved.kept is None else saved.kept._asdict()
            tensors = {name: tensor for name, tensor in known.items() if tensor is not None}
            content = as_bytes({"aupimos": saved.aupimos.cpu().double(), **tensors}, saved, FORMAT, _SETTINGS)
            # `save_file` of safetensors raises no `OSError` on a full disk, and nobody else may read what it writes.
            unfinished_tensors.write_bytes(content)


def as_bytes(tensors: Mapping[str, Tensor], record: Any, file_format: str, settings: Sequence[str]) -> bytes:
    """Content of a file of safetensors: tensors by name, and settings of a record, which are texts in JSON there."""
    tensors = {name: tensor.cpu().clone() for name, tensor in tensors.items()}  # safetensors refuses shared memory
    metadata = {"format": file_format, **{name: json.dumps(getattr(record, name)) for name in settings}}
    return save(tensors, {**metadata, "sha256": checksum(tensors, metadata, settings)})


def read_scores(path: str | os.PathLike[str]) -> SavedResult:
    """Read a JSON file of this or of the official package.

    Raises:
        ValueError: If the file is not such a JSON file, or what it holds does not fit together.
        OSError: If the file cannot be opened.

    """
    try:
        return _parse_scores(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        # Not the `repr` of the error, which holds the whole file if that is not UTF-8.
        raise ValueError(
            f"Expected `path` to be a JSON file of AUPIMO scores, but could not read {os.fspath(path)}: "
            f"{type(error).__name__}: {str(error)[:MAX_REASON]}."
        ) from error


def read_details(path: str | os.PathLike[str]) -> SavedResult:
    """Read a file of tensors of this package.

    Raises:
        ValueError: If the file is not such a file, or what it holds does not fit together.
        OSError: If the file cannot be opened.

    """
    try:
        tensors, metadata = read_tensors(path)
        tensors = {name: tensor for name, tensor in tensors.items() if name in _DTYPES}
        needed = {"aupimos", *(_KEPT if "num_kept" in tensors else ())} - _ADDED
        return _parse_details(tensors, checked_settings(tensors, metadata, FORMAT, _SETTINGS, needed))
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"Expected {os.fspath(path)} to hold the details of AUPIMO scores, but could not read it: "
            f"{str(error)[:MAX_REASON]}. The scores can be read without it: remove it."
        ) from error


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a file of safetensors, on the CPU."""
    with Path(path).open("rb"):  # raises an `OSError` that names the path; safetensors does not
        pass
    # Older versions of safetensors read to the default device, whatever `device` says.
    with torch.device("cpu"), safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  no dict


def with_scoring(scores: SavedResult, path: str | os.PathLike[str]) -> SavedResult:
    """Add to scores how images were scored, if it is known: number of thresholds, ids, and mask pixels.

    Nothing else of the file of tensors is read, so that many results can be asked quickly.
    """
    try:
        with torch.device("cpu"), safe_open(tensors_path(path), framework="pt", device="cpu") as file:
            num_thresholds = json.loads((file.metadata() or {})["num_thresholds"])
            _check_num_thresholds(num_thresholds, is_unknown_allowed=True)
            names = {"image_ids", "mask_sizes", "num_pixels", "is_anomalous"}.intersection(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        if "num_pixels" in tensors:
            tensors["mask_sizes"] = torch.where(tensors["is_anomalous"], tensors["num_pixels"], 0)
    except (SafetensorError, OSError, RuntimeError, TypeError, KeyError, ValueError):
        return scores
    known = {name: each for name, each in tensors.items() if name in _KNOWN and each.shape == scores.aupimos.shape}
    if "image_ids" in known and not bool((known["image_ids"] >= 0).any()):
        del known["image_ids"]
    return scores._replace(num_thresholds=num_thresholds, **known)


def belong_together(scores: SavedResult, details: SavedResult) -> bool:
    """Whether scores and details come from the same result."""
    return _as_text(scores) == _as_text(details)


def write_curves(path: str | os.PathLike[str], curves: Iterable[Tensor], shared_fpr: SharedFPR) -> None:
    """Write thresholds, shared FPR and TPRs, under the names that the official package uses."""
    check_ending(path, *_CURVES_SUFFIXES)
    content = {"shared_fpr_metric": SHARED_FPR_METRICS[shared_fpr], **dict(zip(_CURVE_KEYS, curves, strict=True))}
    saved = io.BytesIO()  # to a file, torch raises no `OSError` on a full disk
    torch.save(content, saved)
    with replacing(path) as unfinished:
        unfinished.write_bytes(saved.getbuffer())


def read_curves(path: str | os.PathLike[str]) -> tuple[Tensor, ...]:
    """Read thresholds (K,), shared FPR (K,) and TPRs (N, K) of this or of the official package; no code is run.

    Raises:
        ValueError: If the file is not such a file, or what it holds does not fit together.
        OSError: If the file cannot be opened.

    """
    path = os.fspath(path)
    with Path(path).open("rb"):  # raises an `OSError` if there is no such file; readers raise it for damaged ones too
        pass
    try:
        _check_checksums(path)
        content = load_tensors(path)
        curves = tuple(content[key] for key in _CURVE_KEYS)
    except Exception as error:  # torch raises errors of any kind for hostile files
        raise ValueError(
            f"Expected `path` to be a file of PIMO curves, but could not read {path}: {error!r}."
        ) from error
    if not all(isinstance(part, Tensor) and part.is_floating_point() for part in curves):
        raise ValueError(f"Expected {path} to hold floating point tensors, but got something else.")
    thresholds, shared_fpr, per_image_tprs = curves
    if thresholds.ndim != 1 or not thresholds.shape == shared_fpr.shape == per_image_tprs.shape[1:]:
        shapes = ", ".join(str(tuple(part.shape)) for part in curves)
        raise ValueError(f"Expected {path} to hold curves (K,), (K,) and (N, K), but got {shapes}.")
    return tuple(part.detach() for part in curves)  # without hooks, which a damaged file can give a tensor


def _check_checksums(path: str) -> None:
    """Raise if a file of `torch.save` was damaged: torch does not look at the checksums that it has written."""
    with zipfile.ZipFile(path) as archive:
        # Of an entry that is marked as a folder, torch reads no byte, and returns what was in the memory.
        folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _ZIP_FOLDER]
        damaged = archive.testzip() or next(iter(folders), None)
    if damaged is not None:
        raise BadDataError(f"{damaged} in it has changed since it was written")


def _as_text(scores: SavedResult) -> str:
    """JSON text that the official package reads; NaN is written as `NaN`."""
    # The official package refuses thresholds that are equal or undefined, and fewer than two sampled thresholds.
    lower_threshold, upper_threshold = scores.threshold_bounds
    has_range = lower_threshold < upper_threshold
    content: dict[str, Any] = {
        "shared_fpr_metric": SHARED_FPR_METRICS[scores.shared_fpr],
        "fpr_lower_bound": scores.fpr_bounds[0],
        "fpr_upper_bound": scores.fpr_bounds[1],
        "num_threshs": scores.num_points if (scores.num_points or 0) >= 2 else None,
        "thresh_lower_bound": lower_threshold if has_range else None,
        "thresh_upper_bound": upper_threshold if has_range else None,
        "aupimos": scores.aupimos.tolist(),
    }
    if scores.paths is not None:
        content["paths"] = scores.paths
    return json.dumps(content, indent=4)


def _parse_scores(content: Any) -> SavedResult:
    """Take scores from the content of a JSON file; raise if it is not valid."""
    aupimos = torch.tensor(content["aupimos"], dtype=torch.float64, device="cpu")
    _check_scores(aupimos)
    shared_fprs = {name: shared_fpr for shared_fpr, name in SHARED_FPR_METRICS.items()}
    if content["shared_fpr_metric"] not in shared_fprs:
        raise ValueError(f"`shared_fpr_metric` is {content['shared_fpr_metric']!r}, not {' or '.join(shared_fprs)}")
    bounds = [content.get(f"thresh_{end}_bound") for end in ("lower", "upper")]
    lower, upper = (math.nan if bound is None else float(bound) for bound in bounds)
    if lower > upper:
        raise ValueError(f"`thresh_lower_bound` {lower:g} is above `thresh_upper_bound` {upper:g}")
    has_score = ~aupimos.isnan()
    return SavedResult(
        aupimos=aupimos,
        fpr_bounds=check_fpr_bounds((content["fpr_lower_bound"], content["fpr_upper_bound"])),
        threshold_bounds=(lower, upper),
        num_points=_checked("num_threshs", content.get("num_threshs"), int),
        shared_fpr=shared_fprs[content["shared_fpr_metric"]],
        paths=check_texts("paths", content.get("paths"), len(aupimos)),
        image_classes=has_score.long() if bool(has_score.any()) else None,  # else all is NaN, also of anomalous images
    )


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], settings: Sequence[str] = _SETTINGS) -> str:
    """SHA-256 of tensors on the CPU and of settings by name, which tells a damaged file from a whole one."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    for name in settings:
        digest.update(f"{name} {metadata[name]} ".encode())
    return digest.hexdigest()


def checked_settings(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    file_format: str,
    settings: Sequence[str],
    needed: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the settings of a file; raise unless it is of a format, and whole: with them and the needed tensors."""
    if metadata.get("format") != file_format:
        raise ValueError(f"its format is {metadata.get('format')!r:.40}, not {file_format!r}")
    missing = sorted({*settings, "sha256", *needed} - tensors.keys() - metadata.keys())
    if missing:
        raise ValueError(f"there is no {', '.join(missing)}")
    if metadata["sha256"] != checksum(tensors, metadata, settings):
        raise ValueError("its content has changed since it was written")
    return {name: json.loads(metadata[name]) for name in settings}


def _parse_details(tensors: dict[str, Tensor], settings: dict[str, Any]) -> SavedResult:
    """Take details from the tensors and settings of a file; raise if they are not valid."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES[name] or tensor.ndim != (0 if name in {"floor", "normal_min"} else 1):
            raise ValueError(f"`{name}` is of dtype {tensor.dtype} and shape {tuple(tensor.shape)}")
    _check_scores(tensors["aupimos"])
    num_images = len(tensors["aupimos"])
    kept, known = None, {name: tensors[name] for name in _KNOWN if name in tensors}
    if "num_kept" in tensors:
        tensors.setdefault("max_scores", tensors["floor"].new_full((num_images,), math.nan))
        kept, known = PixelScores(**{name: tensors[name] for name in _KEPT}), {}
        _check_kept(kept, num_images)
    if any(len(tensor) != num_images or bool((tensor < NO_ID).any()) for tensor in known.values()):
        raise ValueError("tensors do not fit together")
    if "image_classes" in known and bool((known["image_classes"] | 1 != 1).any()):
        raise ValueError("`image_classes` are not 0 and 1")
    check_choice("shared_fpr", settings["shared_fpr"], SharedFPR)
    _check_num_thresholds(settings["num_thresholds"], is_unknown_allowed=kept is None)
    lower, upper = (float(bound) for bound in settings["threshold_bounds"])
    return SavedResult(
        aupimos=tensors["aupimos"],
        fpr_bounds=check_fpr_bounds(settings["fpr_bounds"]),
        threshold_bounds=(lower, upper),
        num_points=_checked("num_points", settings["num_points"], int),
        shared_fpr=settings["shared_fpr"],
        paths=check_texts("paths", settings["paths"], num_images),
        num_thresholds=settings["num_thresholds"],
        version=_checked("version", settings["version"], str),
        warnings=tuple(check_texts("warnings", settings["warnings"]) or ()),
        kept=kept,
        **{name: known.get(name) for name in _KNOWN},
    )


def _check_kept(kept: PixelScores, num_images: int) -> None:
    """Raise unless these can be the scores of as many images."""
    scores = (kept.normal_scores, kept.mask_scores, kept.floor, kept.normal_min)
    if len({each.dtype for each in (*scores, kept.max_scores)}) > 1:
        raise ValueError("tensors do not fit together")
    of_images = (kept.num_kept, kept.num_pixels, kept.is_anomalous, kept.image_ids, kept.max_scores)
    if {len(each) for each in of_images} != {num_images}:
        raise ValueError(f"tensors do not fit together: there are {num_images} scores of {len(kept.num_kept)} images")
    if bool(torch.stack([each.isnan().any() for each in scores]).any()):
        raise ValueError("there is NaN among the scores")
    if bool(((kept.num_kept > kept.num_pixels) | (kept.num_pixels < 1) | (kept.image_ids < NO_ID)).any()):
        raise ValueError("there are images of impossible size or id")
    for number, each in ((kept.num_normal_kept, kept.normal_scores), (kept.num_mask_kept, kept.mask_scores)):
        if bool(((number < 0) | (number > len(each))).any()) or int(number.sum()) != len(each):
            raise ValueError("`num_kept` does not fit the scores")


def _check_num_thresholds(num_thresholds: Any, *, is_unknown_allowed: bool) -> None:
    """Raise unless this is a number of thresholds that may be sampled; or `UNKNOWN`, if that is allowed."""
    if is_unknown_allowed and num_thresholds == UNKNOWN:
        return
    check_num_thresholds(num_thresholds)
    if (num_thresholds or 0) > MAX_THRESHOLDS:
        raise ValueError(f"`num_thresholds` is {num_thresholds}, at most {MAX_THRESHOLDS}")


def _check_scores(aupimos: Tensor) -> None:
    """Raise unless these are scores (N,), each in [0, 1] or NaN."""
    if aupimos.ndim != 1 or bool(((aupimos < 0) | (aupimos > 1)).any()):
        raise ValueError("`aupimos` are not scores in [0, 1]")


def _checked(name: str, value: Any, kind: type[_T]) -> _T | None:
    """Return a setting from a file; raise unless it is None or exactly of the type `kind`."""
    if value is not None and type(value) is not kind:
        raise TypeError(f"`{name}` is of type {type(value).__name__}")
    return value


def check_texts(name: str, texts: Any, num_images: int | None = None) -> list[str] | None:
    """Return texts from a file; raise unless they are None or a list of texts, of `num_images` texts if given."""
    if texts is None:
        return None
    if not (isinstance(texts, list) and all(isinstance(each, str) for each in texts)):
        raise TypeError(f"`{name}` are not texts")
    if num_images is not None and len(texts) != num_images:
        raise ValueError(f"there are {len(texts)} `{name}` for {num_images} `aupimos`")
    return texts
