"""What a run measured, as one labelled `xarray.Dataset`: the only thing that charts, findings and the report read.

Every value is kept per state, so that a new statistic needs no second run. Dimensions:

    model    the examined models, in the order given (names)
    region   "supervision", "extrapolation", "renoised"
    path     one training pair (x, ε), or one sampling trajectory, seen at every time; the same noise for every model
    time     the paper's linear time, ascending: 0 is data ("image"), 1 is noise
    class    the bank's classes
    axis_*   the axes of one row, e.g. channel, height, width

Variables (a probe that was not asked for, or could not be judged, leaves its variables out; NaN means "not measured here"):

    of the states            dims (model, region, path, time)
      r_star                 ratio of Eq. 4 over the whole bank: 1 on a training shell
      score_error            weighted score error ‖x̂_θ − x̂*‖² / (t² d): the velocity error per dimension (C.5)
      mean_to_nearest        ‖x̂_θ − x_k‖ / √d, k the row with the largest posterior weight: what drives the error off the shells
      top_index, top_weight, ess, entropy     of the exact posterior that the model is compared with
      gap_empirical          ‖s*^c − s*^∅‖ (Fig. 2), in units of the score
      gap_learned            ‖s_θ^c − s_θ^∅‖
      dsm_loss, dsm_optimum  supervision region only: ‖x̂_θ − x‖²/(t² d), and (‖x‖² − ‖x̂*‖²)/(t² d) whose mean is the optimum
    of the paths
      label                  (model, region, path) class of the path, −1 for none
      supervision_row        (path,) the training row of each supervision pair
      sample                 (model, path, axis_*) the finished samples: the ends of the extrapolation paths, t = 0
    memorization             dims (model, path): of the finished samples
      nearest_index          (model, path, near) the nearest rows, nearest first (over the whole bank)
      nearest_distance       (model, path, near) their Euclidean distances
      ratio_second           nearest distance over second-nearest; below 1/3 the sample is called a copy
      ratio_calibrated       squared nearest distance over the mean of the n nearest squared ones (C.7); 0 copy, 1 new
      copier_row             (model, path) the row at which a perfect copier (the exact empirical score) ends from the same noise
      null_row               (null,) real rows beside their own nearest neighbours: the scale of "close"
      null_index, null_distance (null, near), null_second, null_calibrated (null,)
    return to origin (C.4)   dims (model, origin, origin_time)
      returned               1 if the nearest row of the denoised state is the row that it was noised from, else 0
      return_distance        ‖output − original‖ / √d
      origin_row             (origin,)
      return_image           (model, strip, origin_time, axis_*) outputs of the first few origins, for the image strip
    overlap (B.2)
      overlap                (time,) C(t) over all pairs of rows; overlap_distinct: exact duplicates counted once
      overlap_class          (class, time), overlap_class_distinct
      closest_pair           (two,) indices, closest_distance; closest_pair_class (class, two), closest_distance_class (class,)
      duplicates             number of rows that repeat an earlier row exactly
    trajectories             a few paths of the extrapolation region that can be looked at
      scrub_path             (scrub,) which paths
      scrub_state, scrub_model_mean, scrub_truth_mean      (model, scrub, time, axis_*)
    pictures of rows that anything above points at
      row_index (row,), row_image (row, axis_*), row_label (row,)

`attrs["provenance"]` is one JSON string: version, command, date, settings, seed, tolerance, device, models (name, file, sha256,
parameters, schedule, prediction), bank (name, rows, shape, classes, class_names, flips, fingerprint, radius, low, high), timings,
warnings (list of sentences), not_judged (list of [probe, reason]).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from scorescope.errors import InputError
from scorescope.files import replacing

SCHEMA = 1


def provenance(results: xr.Dataset) -> dict[str, Any]:
    """The run's provenance, read from the results' attributes."""
    return dict(json.loads(results.attrs["provenance"]))


def with_provenance(results: xr.Dataset, record: Mapping[str, Any]) -> xr.Dataset:
    """The same results carrying `record` as their provenance."""
    return results.assign_attrs(schema=SCHEMA, provenance=json.dumps(record, sort_keys=True, allow_nan=False))


def save(results: xr.Dataset, path: str | Path) -> Path:
    """Write a dataset as NetCDF under a temporary name, then rename: a reader sees the old file or the new one, never half of one."""
    packed = {
        name: {"zlib": True, "complevel": 4}
        for name, variable in results.variables.items()
        if variable.dtype.kind in "fiu" and variable.ndim
    }
    # Made in memory first: on a full disk HDF5 itself would crash when it closes the file.
    written = io.BytesIO()
    results.to_netcdf(written, engine="h5netcdf", encoding=packed)
    with replacing(path) as temporary:
        temporary.write_bytes(written.getbuffer())
    return Path(path)


def load(path: str | Path) -> xr.Dataset:
    """Read results into memory.

    Raises:
        InputError: The file is missing, or is not a results file that this version reads.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no results at {source}", "the folder of a finished run")
    try:
        results = xr.load_dataset(source, engine="h5netcdf")
    except (OSError, ValueError) as problem:
        raise InputError(f"{source} can't be read as results ({problem})", "running the examination again") from problem
    if int(results.attrs.get("schema", SCHEMA)) > SCHEMA:
        raise InputError(f"{source} was written by a newer version", "upgrading scorescope")
    return results


def image_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Dimension names of one row."""
    return tuple(f"axis_{k}" for k in range(len(shape)))
