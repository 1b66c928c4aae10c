"""Made-up results that keep the contract of `scorescope.results`: for tests of everything that reads results alone.

Values are plausible, not measured: r* stays on the shell in the supervision region and leaves it below t ≈ 0.9 while sampling; the score
error falls with the model's size in supervision and rises a little in extrapolation; the empirical guidance gap vanishes below t ≈ 0.8;
nothing is copied.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope.results import with_provenance
from scorescope.statistics import chi_band, leaving_bracket

REGIONS = ("supervision", "extrapolation", "renoised", "held-out")
STATE, PATHS = ("model", "region", "path", "time"), ("model", "path")
NEAR, SCRUB, STRIP, NULLS = 5, 3, 3, 16


def results(
    models: tuple[str, ...] = ("small", "medium", "large"),
    paths: int = 24,
    times: int = 25,
    classes: int = 10,
    shape: tuple[int, ...] = (1, 28, 28),
    seed: int = 0,
    **drop: bool,
) -> xr.Dataset:
    """A full dataset of made-up values.

    Args:
        models: Names, smallest first.
        paths: Paths of every region.
        times: Number of times, from 1/times to 1.
        classes: Classes of the bank; 0 makes an unconditional examination (no guidance gap, no classes, labels −1).
        shape: Shape of one row: (channels, height, width), or (d,).
        seed: Of the values.
        **drop: Variables to leave out: `results(r_star=False)`.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(1, times + 1) / times
    d = int(np.prod(shape))
    rows = np.sort(rng.choice(5000, size=60, replace=False))  # the rows of the bank that anything points at
    axes = tuple(f"axis_{k}" for k in range(len(shape)))
    kinds = rng.integers(classes, size=paths) if classes else np.full(paths, -1)
    parameters = [300_000 * 4**k for k in range(len(models))]

    variables = {
        **_states(rng, len(models), paths, t, d, rows, classes),
        **_memorization(rng, len(models), paths, d, rows),
        **_origins(rng, len(models), rows, shape, axes, d),
        **_overlap(rng, t, classes, rows),
        "label": (("model", "region", "path"), np.broadcast_to(kinds, (len(models), len(REGIONS), paths)).copy()),
        "supervision_row": (("path",), rng.choice(rows, size=paths)),
        "held_out_row": (("path",), np.arange(paths)),
        "sample": (("model", "path", *axes), _blobs(rng, (len(models), paths), shape)),
        "sample_name": (("path",), np.array([f"{k}.png" for k in range(paths)], dtype=object)),
        "scrub_path": (("scrub",), np.arange(min(SCRUB, paths))),
    }
    ends = leaving_bracket(np.asarray(variables["r_star"][1])[:, 1], t, chi_band(d))  # as the grid of times has it
    variables |= {name: (PATHS, end) for name, end in zip(("left_outside", "left_inside"), ends, strict=True)}
    clean = _blobs(rng, (len(models), min(SCRUB, paths), 1), shape)
    ramp = t.reshape(-1, *[1] * len(shape))
    noise = rng.standard_normal((1, min(SCRUB, paths), 1, *shape))
    for name, picture in (
        ("scrub_state", (1 - ramp) * clean + ramp * noise),
        ("scrub_model_mean", (1 - ramp**2) * clean - 0.6 * ramp**2),
        ("scrub_truth_mean", (1 - ramp**3) * clean - 0.6 * ramp**3),
    ):
        variables[name] = (("model", "scrub", "time", *axes), picture.astype(np.float32))
    pointed = (
        "nearest_index",
        "null_row",
        "null_index",
        "origin_row",
        "copier_row",
        "supervision_row",
        "closest_pair",
        "closest_pair_class",
        "top_index",
    )
    index = np.unique(np.concatenate([np.ravel(variables[name][1]) for name in pointed if name in variables]))
    variables["row_index"] = (("row",), index)
    variables["row_image"] = (("row", *axes), _blobs(rng, (len(index),), shape))
    variables["row_name"] = (("row",), np.array([f"digit/{k:04d}.png" for k in index], dtype=object))
    variables["row_label"] = (("row",), index % classes if classes else np.full(len(index), -1))

    coordinates = {
        "model": list(models),
        "region": list(REGIONS),
        "path": np.arange(paths),
        "time": t,
        "origin_time": np.linspace(0, 1, 21),
    }
    if classes:
        coordinates["class"] = np.arange(classes)
    measured = xr.Dataset({name: v for name, v in variables.items() if drop.get(name, True)}, coords=coordinates)
    record = {
        "version": "0.1.0",
        "command": "scorescope examine small.safetensors medium.safetensors large.safetensors --bank digits.bank",
        "date": "2026-01-02T03:04:05+00:00",
        "settings": {"paths": paths, "times": times, "guidance": 1.0},
        "seed": seed,
        "tolerance": 1e-5,
        "device": "cpu",
        "models": [
            {"name": m, "file": f"{m}.safetensors", "sha256": f"{k:064x}", "parameters": n, "schedule": "linear", "prediction": "v"}
            for k, (m, n) in enumerate(zip(models, parameters, strict=True))
        ],
        "bank": {
            "name": "digits",
            "rows": 5000,
            "shape": list(shape),
            "classes": classes,
            "class_names": [str(k) for k in range(classes)] or None,
            "flips": False,
            "fingerprint": "f" * 64,
            "radius": 0.5 * d**0.5,
            "low": -1.0,
            "high": 1.0,
        },
        "timings": {"states": 12.3, "r_star": 4.5, "score_error": 6.7},
        "warnings": ["3 rows repeat an earlier row exactly", "the largest model was trained for fewer steps"],
        "not_judged": [["quality", "no feature extractor was given"], ["novelty", "this criterion has no threshold"]],
    }
    return with_provenance(measured, record)


def _states(rng: np.random.Generator, models: int, paths: int, t: np.ndarray, d: int, rows: np.ndarray, classes: int) -> dict:
    """Variables over (model, region, path, time)."""
    shell = 1 + rng.standard_normal((1, paths, 1)) / (2 * d) ** 0.5
    leave = 0.9 + 0.03 * rng.standard_normal((models, paths, 1))
    gain = rng.uniform(0.7, 3.2, (models, paths, 1))
    supervised = 1 + (shell - 1) * np.clip(4 * (1.1 - t), 0, 1) + 0.002 * rng.standard_normal((models, paths, len(t)))
    sampled = 1 + 0.004 * rng.standard_normal((models, paths, len(t))) + gain * np.clip((leave - t) / leave, 0, None) ** 1.6
    again = 1 + (shell - 1) * np.clip(4 * (1.1 - t), 0, 1) + 0.4 * gain * np.clip(0.6 - t, 0, None) ** 1.4
    size = np.arange(models).reshape(-1, 1, 1)
    pair = rng.lognormal(0, 0.25, (1, paths, 1))
    bump = np.exp(-(((t - 0.55) / 0.3) ** 2)) + 0.25
    off = pair[:, ::-1] * 1.01**size  # how far off the shells the model's mean lies from the row that carries the empirical one
    near = np.stack([0.35 * t * 0.93**size * pair * bump, 0.4 * off * (1.02 - t) ** 0.5, 0.2 * off * (1.02 - t)], axis=1)
    near = near * rng.lognormal(0, 0.02, near.shape)
    error = (near / t) ** 2 * rng.lognormal(0, 0.02, near.shape)
    onset = np.array([0.75, 0.6, 0.7]).reshape(1, 3, 1, 1) + 0.02 * rng.standard_normal((models, 3, paths, 1))
    weight = 1 - np.clip((t - onset) / (1 - onset), 0, 1) ** 1.5 * 0.999
    noise = 0.3 * rng.standard_normal((models, 1, paths, len(t))) * np.array([1, np.nan, np.nan]).reshape(1, 3, 1, 1)
    optimum = 0.4 / (0.2 + t) * np.ones_like(error)
    found = {
        "r_star": np.stack([supervised, sampled, again], axis=1),
        "score_error": error,
        "mean_to_nearest": near,
        "top_index": rng.choice(rows, size=error.shape),
        "top_weight": weight,
        "ess": 1 / weight,
        "entropy": -np.log(weight),
        "dsm_loss": (error + optimum) * (1 + 0.05 * noise),
        "dsm_optimum": optimum * (1 + 0 * noise),
    }
    if classes:
        scale = d**0.5 * rng.lognormal(0, 0.3, error.shape)
        found["gap_empirical"] = (
            scale * 0.2 * np.exp(-40 * np.clip(0.85 - t, 0, None)) * (1.0 - t) * np.array([1, 2, 1]).reshape(1, 3, 1, 1)
        )
        found["gap_learned"] = scale * 0.15 * (1.0 - t) / (0.1 + t)
        found["score_norm"] = d**0.5 / t * np.ones_like(error)
    found["gaussian_error"] = pair * np.ones_like(error) * np.array([1, 8, 4]).reshape(1, 3, 1, 1)
    found["gaussian_loss"] = (pair[:, None] + optimum) * np.array([1, np.nan, np.nan]).reshape(1, 3, 1, 1)
    # Held-out rows: on the shells of no training row, and denoised a little worse than training rows.
    for name, value in found.items():
        unseen = value[:, :1] if value.dtype.kind == "i" else value[:, :1] * (np.nan if name == "dsm_optimum" else 1.1)
        found[name] = np.concatenate([value, unseen], axis=1)
    return {name: (STATE, value if value.dtype.kind == "i" else value.astype(np.float32)) for name, value in found.items()}


def _memorization(rng: np.random.Generator, models: int, paths: int, d: int, rows: np.ndarray) -> dict:
    """Variables of the finished samples and of the null rows."""

    def nearest(*lead: int) -> np.ndarray:
        return np.sort(d**0.5 * rng.uniform(0.25, 0.4, (*lead, NEAR)), axis=-1).astype(np.float32)

    samples, nulls = nearest(models, paths), nearest(NULLS)
    found = {}
    for names, distances, dims in (
        (("nearest_index", "nearest_distance", "ratio_second", "ratio_calibrated"), samples, PATHS),
        (("null_index", "null_distance", "null_second", "null_calibrated"), nulls, ("null",)),
    ):
        values = (
            rng.choice(rows, size=distances.shape),
            distances,
            distances[..., 0] / distances[..., 1],
            (distances[..., 0] ** 2 / (distances**2).mean(-1)),
        )
        found |= {n: ((*dims, "near") if v.ndim > len(dims) else dims, v) for n, v in zip(names, values, strict=True)}
    return found | {
        "ratio_second_plain": (PATHS, samples[..., 0] / samples[..., 1]),
        "group_size": (PATHS, np.ones((models, paths), np.int64)),
        "exact_copy": (PATHS, np.zeros((models, paths), np.int64)),
        "sample_outside": (PATHS, np.zeros((models, paths))),
        "near_duplicate_distance": ((), float(nulls.min()) / 2),
        "null_group_size": (("null",), np.ones(NULLS, np.int64)),
        "copier_row": (PATHS, rng.choice(rows, size=(models, paths))),
        "null_row": (("null",), rng.choice(rows, size=NULLS)),
    }


def _origins(rng: np.random.Generator, models: int, rows: np.ndarray, shape: tuple[int, ...], axes: tuple[str, ...], d: int) -> dict:
    """The return-to-origin experiment: rows come back for t up to about 0.8."""
    t, origins = np.linspace(0, 1, 21), 20
    back = (rng.uniform(size=(models, origins, 1)) < 1 / (1 + np.exp((t - 0.75) * 25))).astype(np.float32)
    start = _blobs(rng, (1, STRIP, 1), shape)
    other = _blobs(rng, (models, STRIP, 1), shape)
    kept = back[:, :STRIP].reshape(models, STRIP, 21, *[1] * len(shape))
    unseen = (rng.uniform(size=(models, origins, 1)) < 1 / (1 + np.exp((t - 0.6) * 25))).astype(np.float32)
    found = {}
    for suffix, which in (("", back), ("_held_out", unseen)):
        lost = np.append(t, np.nan)[np.where((which == 0).any(-1), np.argmin(which, -1), 21)]
        found |= {
            f"returned{suffix}": (("model", "origin", "origin_time"), which),
            f"return_distance{suffix}": (("model", "origin", "origin_time"), (0.02 + 0.3 * (1 - which) + 0.1 * t).astype(np.float32)),
            f"return_last{suffix}": (("model", "origin"), np.where(np.isfinite(lost), lost - 0.0125, 1)),
            f"return_lost{suffix}": (("model", "origin"), lost),
            f"origin_row{suffix}": (("origin",), rng.choice(rows, size=origins)),
        }
    return found | {
        "return_image": (("model", "strip", "origin_time", *axes), (kept * start + (1 - kept) * other).astype(np.float32)),
    }


def _overlap(rng: np.random.Generator, t: np.ndarray, classes: int, rows: np.ndarray) -> dict:
    """Shell overlap C(t) = exp(−(α D)² / (8 σ²)) of the closest pair; the bank has exact duplicates, so that of all rows is 1."""

    def coefficient(distance: np.ndarray) -> np.ndarray:
        return np.exp(-((1 - t) ** 2) * np.asarray(distance)[..., None] ** 2 / (8 * t**2))

    found = {
        "overlap": (("time",), np.ones_like(t)),
        "overlap_distinct": (("time",), coefficient(np.float64(1.9))),
        "closest_pair": (("two",), rows[:2]),
        "closest_distance": ((), np.float64(0.0)),
        "duplicates": ((), np.int64(3)),
    }
    if classes:
        apart = rng.uniform(1.9, 5.5, classes)
        with_copy = np.where(np.arange(classes) == 1, 0.0, apart)
        found |= {
            "overlap_class": (("class", "time"), coefficient(with_copy)),
            "overlap_class_distinct": (("class", "time"), coefficient(apart)),
            "closest_pair_class": (("class", "two"), rng.choice(rows, size=(classes, 2))),
            "closest_distance_class": (("class",), with_copy),
        }
    return found


def _blobs(rng: np.random.Generator, lead: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Pictures of two soft spots each (smooth bumps for vectors), in [−1, 1]."""
    grids = np.meshgrid(*[np.linspace(-1, 1, n) for n in (shape[-2:] if len(shape) >= 2 else shape)], indexing="ij")
    picture = np.zeros((*lead, *grids[0].shape))
    for _ in range(2):
        centre = rng.uniform(-0.5, 0.5, (len(grids), *lead, *[1] * grids[0].ndim))
        picture = picture + np.exp(-sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) / 0.06)
    full = picture.reshape(*lead, *[1] * (len(shape) - grids[0].ndim), *grids[0].shape)
    return (2 * np.clip(np.broadcast_to(full, (*lead, *shape)), 0, 1) - 1).astype(np.float32)
