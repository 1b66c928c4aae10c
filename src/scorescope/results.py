"""What a run measured, as one labelled `xarray.Dataset`: the only thing that charts, claims and the report read.

An examination writes it as `results.nc`. Training under the microscope writes the same variables as `watch.nc`, for one model and with a
leading dimension `step`: that is another file, of which there is no report. Every value is kept per state, so that a new statistic needs
no second run. Dimensions:

    model    the examined models, in the order given (names)
    region   "supervision", "extrapolation", "renoised", and "held-out" where there were held-out rows
    path     one training pair (x, ε), or one sampling trajectory, seen at every time; the same noise for every model
    time     the paper's linear time, ascending: 0 is data ("image"), 1 is noise
    class    the bank's classes
    axis_*   the axes of one row, e.g. channel, height, width

Variables (one that was not asked for, or could not be measured, is left out; NaN means "not measured here"):

    of the states            dims (model, region, path, time)
      r_star                 ratio of Eq. 4 over the whole bank: 1 on a training shell
      score_error            weighted score error ‖x̂_θ − x̂*‖² / (t² d): the velocity error per dimension (C.5)
      gaussian_error         the same of the bank's Gaussian denoiser, at the same states
      mean_to_nearest        ‖x̂_θ − x_k‖ / √d, k the row with the largest posterior weight: what drives the error off the shells
      top_index, top_weight, ess, entropy     of the exact posterior that the model is compared with
      gap_empirical          ‖s*^c − s*^∅‖ (Fig. 2), in units of the score
      gap_learned            ‖s_θ^c − s_θ^∅‖
      score_norm             ‖s*^c‖, what the gaps are small or large against
      dsm_loss               supervision and held-out regions: ‖x̂_θ − x‖²/(t² d); gaussian_loss: the same of the Gaussian denoiser
      dsm_optimum            supervision region only: (‖x‖² − ‖x̂*‖²)/(t² d), whose mean is the optimum
    of the paths
      label                  (model, region, path) class of the path, −1 for none
      supervision_row        (path,) the training row of each supervision pair
      held_out_row           (path,) the row, in the held-out bank, of each held-out pair
      sample                 (model, path, axis_*) the finished samples: the ends of the extrapolation paths, t = 0
      sample_name            (path,) names of finished samples that were examined without a model, where they have some
    leaving the shells       dims (model, path): of the extrapolation paths, as sampling runs from 1 to 0
      left_inside            the last t at which the path had not left the 99 % χ band around r* = 1, yet
      left_outside           the first t at which it was above or below; 0 if it never was
    memorization             dims (model, path): of the finished samples
      nearest_index          (model, path, near) the nearest rows, nearest first (over the whole bank)
      nearest_distance       (model, path, near) their Euclidean distances
      ratio_second           nearest distance over that to the nearest row outside the nearest row's group of near-duplicates; below 1/3 the
                             sample is called a copy; 0 for an exact copy. ratio_second_plain: over second-nearest, whatever row that is
      ratio_calibrated       squared nearest distance over the mean of the n nearest squared ones (C.7); 0 copy, 1 new
      group_size             rows in the nearest row's group: it, its near-duplicates, and their mirror images counted with them
      exact_copy             1 if every value is the nearest row's up to rounding (8 bits for rows of 8 bits), else 0
      near_duplicate_distance ()  rows nearer to each other than this are near-duplicates (`search.groups`)
      sample_outside         share of the sample's values that are outside the rows' range by more than a tenth of it
      copier_row             (model, path) the row at which a perfect copier (the exact empirical score) ends from the same noise
      null_row               (null,) real rows beside the nearest rows outside their own groups: the scale of "close"
      null_index, null_distance (null, near), null_second, null_calibrated, null_group_size (null,)
    return to origin (C.4)   dims (model, origin, origin_time)
      returned               1 if the nearest row of the denoised state is the row that it was noised from, else 0
      return_distance        ‖output − original‖ / √d; NaN where `returned` is inferred from the times around, which agree
      return_last, return_lost   (model, origin) between these times a row is first lost: it came back at one and not at the other, which
                             is NaN for a row that is never lost
      origin_row             (origin,)
      returned_held_out, return_distance_held_out, return_last_held_out, return_lost_held_out, origin_row_held_out
                             the same of as many rows that training did not see, with the same noise; their rows are of the held-out bank
      return_image           (model, strip, origin_time, axis_*) outputs of the first few origins, for the image strip
    overlap (B.2)
      overlap                (time,) C(t) over all pairs of rows; overlap_distinct: exact duplicates counted once
      overlap_class          (class, time), overlap_class_distinct
      closest_pair           (two,) indices, closest_distance; closest_pair_class (class, two), closest_distance_class (class,)
      duplicates             number of rows that repeat an earlier row exactly
    trajectories             a few paths of the extrapolation region that can be looked at
      scrub_path             (scrub,) which paths
      scrub_state, scrub_model_mean, scrub_truth_mean      (model, scrub, time, axis_*)
    pictures of rows that anything above points at, by their index in the bank; −1 points at none
      row_index (row,), row_image (row, axis_*), row_label (row,), row_name (row,) where the bank has names

`attrs["provenance"]` is one JSON string: version, command, date, settings, seed, tolerance, device, models (name, file, sha256,
parameters, schedule, prediction, start: the t at which its paths begin, samples_only: why its target is not E[x | z_t], read_as: how
what its file leaves open was chosen), bank (name, rows, shape, classes, class_names, flips,
fingerprint, radius, low, high), timings, reading ({model: verdict, reason, hint, table, outside, remarks, as_is}, of
`scorescope.reading`), outside ({model: share of the values of its samples that lie more than a tenth of the rows' range outside it}),
warnings (list of sentences), not_measured ({variable: why}). Before there was `not_measured`, not_judged (list of [name, why]) said so.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scorescope.errors import InputError
from scorescope.files import replacing

SCHEMA = 1
PURE = 0.9
"""The least t from which paths begin as noise alone."""
COPY = 1 / 3
"""Nearest distance over that to the nearest row outside the nearest row's group, below which a sample is called a copy."""
AGAIN = "scorescope examine MODEL --bank BANK with --force, which makes them again"
DIMS = {
    "model region path time": "r_star score_error gaussian_error gaussian_loss mean_to_nearest top_weight ess entropy top_index "
    "gap_empirical gap_learned score_norm dsm_loss dsm_optimum",
    "model region path": "label",
    "path": "supervision_row held_out_row sample_name",
    "model path axes": "sample",
    "model path near": "nearest_index nearest_distance",
    "model path": "left_inside left_outside ratio_second ratio_second_plain ratio_calibrated group_size exact_copy sample_outside "
    "copier_row",
    "null": "null_row null_second null_calibrated null_group_size",
    "null near": "null_index null_distance",
    "model origin origin_time": "returned return_distance returned_held_out return_distance_held_out",
    "model origin": "return_last return_lost return_last_held_out return_lost_held_out",
    "origin": "origin_row origin_row_held_out",
    "model strip origin_time axes": "return_image",
    "time": "overlap overlap_distinct",
    "class time": "overlap_class overlap_class_distinct",
    "two": "closest_pair",
    "class two": "closest_pair_class",
    "class": "closest_distance_class",
    "": "closest_distance duplicates near_duplicate_distance",
    "scrub": "scrub_path",
    "model scrub time axes": "scrub_state scrub_model_mean scrub_truth_mean",
    "row": "row_index row_label row_name",
    "row axes": "row_image",
}
INTEGERS = ("_index", "_row", "_pair", "_pair_class", "label", "scrub_path", "duplicates")  # how the names of whole numbers end
TEXTS = ("row_name", "sample_name")
NAMED = ("model", "region", "time", "origin_time", "class")  # dimensions that mean nothing without their coordinates


def provenance(results: xr.Dataset) -> dict[str, Any]:
    """The run's provenance, read from the results' attributes.

    Raises:
        InputError: There is none.
    """
    try:
        return dict(json.loads(results.attrs["provenance"]))
    except (KeyError, TypeError, ValueError) as missing:
        raise InputError("the results do not say of which run they are: they have no provenance", AGAIN) from missing


def with_provenance(results: xr.Dataset, record: Mapping[str, Any]) -> xr.Dataset:
    """The same results carrying `record` as their provenance."""
    return results.assign_attrs(schema=SCHEMA, provenance=json.dumps(record, sort_keys=True, allow_nan=False))


def not_measured(results: xr.Dataset) -> dict[str, str]:
    """Why something was not measured, by variable."""
    record = provenance(results)
    return {str(name): str(why) for name, why in {**dict(record.get("not_judged", [])), **record.get("not_measured", {})}.items()}


def misread(results: xr.Dataset) -> dict[str, dict[str, str]]:
    """The models that were measured though they are not read right: verdict, reason, hint and table of each."""
    return {str(name): one for name, one in provenance(results).get("reading", {}).items() if one["verdict"] == "refused"}


def samples_only(results: xr.Dataset) -> dict[str, str]:
    """The models whose target is not E[x | z_t], and why."""
    told = {str(m.get("name")): str(m.get("samples_only") or "") for m in provenance(results).get("models", [])}
    return {name: why for name, why in told.items() if why}


def models(results: xr.Dataset) -> list[str]:
    """Names of the examined models, in order."""
    return [str(name) for name in results["model"].values]


def finite(results: xr.Dataset, name: str) -> np.ndarray:
    """The numbers that a variable holds, as one list: without NaN, and empty where it is missing."""
    values = results[name].values if name in results else np.array([])
    return values[np.isfinite(values)]


def parameters(results: xr.Dataset) -> dict[str, float]:
    """Parameters of each model, NaN where a model does not say."""
    told = {str(m.get("name")): m.get("parameters") for m in provenance(results).get("models", [])}
    return {m: float(told.get(m) or math.nan) for m in models(results)}


def largest(results: xr.Dataset) -> str:
    """The model with the most parameters, the last given where that is not known: what has room for one is about it."""
    sizes = parameters(results)
    return max(reversed(models(results)), key=lambda name: -1.0 if math.isnan(sizes[name]) else sizes[name])


def first_losses(results: xr.Dataset, model: str, suffix: str = "") -> tuple[np.ndarray, np.ndarray, float]:
    """For each origin of a model the last time up to which it always came back, and the first at which it was lost; where the times end.

    A row that is never lost has the largest time for both. Results that hold only `returned` know the change to a step of its times.

    Args:
        results: With `returned` and `suffix`, of which some value is finite.
        model: Its name.
        suffix: "" for training rows, "_held_out" for those.

    Returns:
        (P,), (P,) and the largest time at which any was measured.
    """
    back, time = results[f"returned{suffix}"].sel(model=model).values.astype(float), results["origin_time"].values
    known = np.isfinite(back)
    here, reached = known.any(1), float(time[known.any(0)][-1])
    first = np.where((back == 0).any(1), np.argmax(back == 0, axis=1), len(time))
    last, lost = np.append(0.0, time)[first], np.append(time, np.nan)[first]
    if f"return_last{suffix}" in results and f"return_lost{suffix}" in results:
        finer, until = (results[f"return_{end}{suffix}"].sel(model=model).values for end in ("last", "lost"))
        last, lost = np.where(np.isfinite(finer), (finer, until), (last, lost))
    return np.fmin(last, reached)[here], np.where(np.isfinite(lost), lost, reached)[here], reached


def starts_from_rows(results: xr.Dataset, model: str) -> float | None:
    """The t at which a model's paths begin as noised training rows, where its noise ends too early to begin from noise alone; else None."""
    told = {str(m.get("name")): float(m.get("start") or 1.0) for m in provenance(results).get("models", [])}
    return told[model] if told.get(model, 1.0) < PURE else None


def dimension(results: xr.Dataset) -> int:
    """Dimensions d of one row of the bank."""
    return math.prod(int(n) for n in provenance(results)["bank"]["shape"])


def row_number(results: xr.Dataset, index: int) -> str:
    """Number of a row: "17", or "17 (mirrored)" for the mirror image that a bank with flips counts as a row of its own."""
    bank = provenance(results)["bank"]
    count = int(bank["rows"])
    return f"{index - count} (mirrored)" if bank.get("flips") and index >= count else str(index)


def row_names(results: xr.Dataset) -> dict[int, str]:
    """Names of the rows whose pictures the results carry, by index; empty where the bank has none."""
    if not {"row_index", "row_name"} <= set(results):
        return {}
    return {int(index): str(name) for index, name in zip(results["row_index"].values, results["row_name"].values, strict=True)}


def image_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Dimension names of one row."""
    return tuple(f"axis_{k}" for k in range(len(shape)))


def checked(results: xr.Dataset) -> xr.Dataset:
    """The results, as they are: they keep the contract above, as far as they have its variables.

    Raises:
        InputError: They do not; the line says where.
    """
    bank = provenance(results).get("bank")
    if "model" not in results.dims or not isinstance(bank, dict):
        raise InputError("the results are not of an examination: they name no models, or no bank", AGAIN)
    shape = bank.get("shape") or []
    whole = shape and all(isinstance(n, int) and n > 0 for n in [*shape, bank.get("rows")])
    if not whole or not isinstance(bank.get("radius"), int | float):
        raise InputError("the results do not say what rows their bank has", AGAIN)
    axes = dict(zip(image_dims(tuple(shape)), shape, strict=True))
    for dims, names in DIMS.items():
        wanted = tuple(name for dim in dims.split() for name in (axes if dim == "axes" else [dim]))
        for name in (name for name in names.split() if name in results):
            _check(results[name], wanted, axes)
    empty = [str(name) for name, size in results.sizes.items() if not size and name != "row"]
    if empty:
        raise InputError(f"the results have nothing along {', '.join(empty)}", AGAIN)
    for name in NAMED:
        if name in results.dims:
            _check_coordinate(results, name)
    return results


def _check(values: xr.DataArray, dims: tuple[str, ...], axes: Mapping[str, int]) -> None:
    kinds = "UO" if values.name in TEXTS else "iu" if str(values.name).endswith(INTEGERS) else "fiu"
    if values.dims != dims or any(values.sizes[axis] != n for axis, n in axes.items() if axis in dims) or values.dtype.kind not in kinds:
        has, what = ", ".join(map(str, values.dims)), {"iu": "whole numbers", "UO": "text"}.get(kinds, "numbers")
        raise InputError(f"{values.name} should be {what} over ({', '.join(dims)}), and is {values.dtype} over ({has})", AGAIN)


def _check_coordinate(results: xr.Dataset, name: str) -> None:
    values = results[name].values
    if name not in results.coords or values.dtype.kind not in {"model": "UO", "region": "UO", "class": "iu"}.get(name, "fiu"):
        raise InputError(f"the results do not say what they have along {name}", AGAIN)
    if name in ("model", "region") and (len(set(values)) < len(values) or (name == "model" and not len(values))):
        raise InputError(f"the results name a {name} twice, or none", AGAIN)
    if name.endswith("time") and not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise InputError(f"the values of {name} do not ascend", AGAIN)


def save(results: xr.Dataset, path: str | Path) -> Path:
    """Write a dataset as NetCDF under a temporary name, then rename: a reader sees the old file or the new one, never half of one."""
    packed = {
        name: {"zlib": True, "complevel": 4}
        for name, variable in results.variables.items()
        if variable.dtype.kind in "fiu" and variable.ndim
    }
    # Made in memory first: on a full disk HDF5 itself would crash when it closes the file.
    written = io.BytesIO()
    whole = results.drop_encoding()  # of a file that it came from: it would cut words to their length there
    whole.to_netcdf(written, engine="h5netcdf", encoding=packed)
    with replacing(path) as temporary:
        temporary.write_bytes(written.getbuffer())
    return Path(path)


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset into memory, as it is; `checked` says whether it can be drawn.

    Raises:
        InputError: The file is missing, damaged, or of a newer version.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no results at {source}", "the folder of a finished run")
    try:
        results = xr.load_dataset(source, engine="h5netcdf")
        schema = int(results.attrs.get("schema", SCHEMA))
    except Exception as problem:  # what is raised for damaged files, by HDF5 and its readers, has no common base
        why = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise InputError(f"{source} can't be read as results ({why})", AGAIN) from problem
    if schema > SCHEMA:
        raise InputError(f"{source} was written by a newer version", "upgrading scorescope")
    return results
