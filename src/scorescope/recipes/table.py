"""The table of runs, and the lines of its recipes: score against loss, loss against compute."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from scorescope.errors import InputError
from scorescope.recipes.lines import LEAST, LEVEL, Line, Straightness, Values, fit, ratio_of_residuals
from scorescope.statistics import Estimate

EXTRA = ("loss", "score", "compute")


@dataclass(frozen=True)
class Point:
    """A run: its recipe, its name, its supervision loss, the score of its samples, and its training's operations if they are known."""

    recipe: str
    name: str
    loss: float
    score: float
    compute: float = math.nan


def table(points: Sequence[Point], score: str = "FD", loss: str = "supervision loss", floor: float = math.nan) -> xr.Dataset:
    """A table of numbers that are known without draws.

    Raises:
        InputError: See `checked`.
    """
    data = {name: ("run", np.array([getattr(one, name) for one in points], float)) for name in EXTRA}
    told = {name: ("run", np.array([getattr(one, name) for one in points], object)) for name in ("recipe", "name")}
    return checked(xr.Dataset({**told, **data, "floor": ((), floor)}, attrs={"score": score, "loss": loss}))


def checked(runs: xr.Dataset) -> xr.Dataset:
    """The table, as it is.

    Raises:
        InputError: A number that can't be, or no recipe that a line could be drawn of.
    """
    for k in range(runs.sizes["run"]):
        name, loss, score = str(runs["name"].values[k]), float(runs["loss"][k]), float(runs["score"][k])
        if not (math.isfinite(loss) and loss > 0):
            raise InputError(f"the loss of {name} is {loss:g}", "a number above 0")
        if not math.isfinite(score):
            raise InputError(f"the {runs.attrs['score']} of {name} is {score:g}", "a number")
        if float(runs["compute"][k]) <= 0:
            raise InputError(f"the compute of {name} is {float(runs['compute'][k]):g}", "operations above 0, or an empty field")
    if not usable(runs):
        raise InputError(
            "no recipe has three runs of different loss, and a line through fewer points says nothing",
            "more sizes, or kept steps: RUN@STEP",
        )
    return runs


def names(runs: xr.Dataset) -> list[str]:
    """The recipes, in the order of their first runs."""
    return list(dict.fromkeys(str(name) for name in runs["recipe"].values))


def usable(runs: xr.Dataset) -> list[str]:
    """The recipes that a line can be drawn of."""
    return [name for name in names(runs) if len(np.unique(of(runs, name)["loss"].values)) >= LEAST]


def of(runs: xr.Dataset, recipe: str) -> xr.Dataset:
    """The part of a recipe."""
    return runs.isel(run=np.flatnonzero(runs["recipe"].values == recipe))


def _axis(part: xr.Dataset, name: str, log: bool) -> tuple[Values, Values | None]:
    """Values (n,) and draws (n, draws); of logarithms to first order, as the draws of a Fréchet distance are."""
    values = part[name].values.astype(float)
    drawn = part[f"{name}_draw"].transpose("run", "draw").values.astype(float) if f"{name}_draw" in part else None
    if not log:
        return values, drawn
    return np.log(values), None if drawn is None else np.log(values)[:, None] + drawn / values[:, None] - 1


def _seed(recipe: str) -> int:
    return zlib.crc32(recipe.encode())


def line(runs: xr.Dataset, recipe: str, log: bool) -> Line:
    """The score of a recipe's runs, or its logarithm, as a line of their loss (Eq. 5).

    Raises:
        InputError: Fewer than three different losses; a logarithm of scores that are not above 0.
    """
    part = of(runs, recipe)
    if log and not (part["score"].values > 0).all():
        raise InputError(f"{runs.attrs['score']} of {recipe} is not above 0, and has no logarithm", "the score itself")
    (x, xd), (y, yd) = _axis(part, "loss", False), _axis(part, "score", log)
    return _fit(recipe, x, y, xd, yd)


def efficiency(runs: xr.Dataset, recipe: str) -> Line:
    """The logarithm of the loss of a recipe's runs as a line of that of their compute: a power law.

    Raises:
        InputError: Fewer than three different, known numbers of operations.
    """
    part = of(runs, recipe)
    part = part.isel(run=np.flatnonzero(np.isfinite(part["compute"].values)))
    (x, _), (y, yd) = _axis(part, "compute", True), _axis(part, "loss", True)
    return _fit(recipe, x, y, None if yd is None else np.tile(x[:, None], yd.shape[1]), yd)


def _fit(recipe: str, x: Values, y: Values, x_draw: Values | None, y_draw: Values | None) -> Line:
    """The line, or why there is none, with the recipe's name."""
    try:
        return fit(x, y, x_draw, y_draw, _seed(recipe))
    except InputError as problem:
        raise InputError(f"{recipe}: {problem.problem}", problem.hint) from problem


def straightness(runs: xr.Dataset, recipe: str) -> Straightness:
    """Whether the score or its logarithm is the straighter line of the loss; raises as `line`."""
    plain, log = line(runs, recipe, False), line(runs, recipe, True)
    part, n = of(runs, recipe), len(plain.x)
    x, y, ratio = plain.x, plain.y, ratio_of_residuals(plain.x, plain.y)
    without = [ratio_of_residuals(np.delete(x, k), np.delete(y, k)) for k in range(n)] if n > LEAST else [math.nan]
    (_, xd), (_, yd) = _axis(part, "loss", False), _axis(part, "score", False)
    interval = Estimate(ratio, math.nan, math.nan)
    if xd is not None and yd is not None:
        again = [ratio_of_residuals(a, np.maximum(b, 1e-3 * y)) for a, b in zip(xd.T, yd.T, strict=True)]
        interval = Estimate(ratio, *(float(v) for v in np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
    return Straightness(interval, (min(without), max(without)), plain.bend, log.bend)


def logarithmic(runs: xr.Dataset) -> bool:
    """Whether ln score is, over all recipes together, the straighter line: the scale in which recipes are compared."""
    if not (runs["score"].values > 0).all():
        return False
    lines = [line(runs, name, False) for name in usable(runs)]
    return sum(len(one.x) * math.log(ratio_of_residuals(one.x, one.y)) for one in lines) > 0
