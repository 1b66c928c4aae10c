"""Fig. 3: the score error against model size, in supervision and in extrapolation, each on its own axis."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, REGIONS, Drawing, Key, Row, Vertical, percent
from scorescope.charts.layers import panel, rule
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import number
from scorescope.results import models, parameters
from scorescope.statistics import Estimate, bootstrap_mean, integrated_error, paired_bootstrap

NAME = "Score error against model size (Fig. 3)"
ORDER = 30
NEEDS = ("score_error",)
CAPTION = (
    "The weighted squared score error of each model, averaged over t from 0.1 to 1 and over paths, per dimension. Thin bars: 95 % "
    "bootstrap interval of the mean. Thick bars: of its change from the smallest model, path by path, which says whether the curve rises "
    "or falls. Every model sees the same noise; in extrapolation each is measured on its own trajectories. Dashed: the best linear "
    "denoiser, the Gaussian of the bank, at the smallest model's states. The axes differ, and do not start at 0.",
    "A copier's error is 0 in both panels, so a family that turns into copiers falls in both.",
    "Selective underfitting: the larger the model, the smaller the error in supervision and the larger in extrapolation.",
)


def draw(results: xr.Dataset) -> Drawing | None:
    """Two panels, if there are two models to compare."""
    if results.sizes["model"] < 2:
        return None
    sizes = parameters(results)
    known = all(math.isfinite(s) for s in sizes.values())
    order = sorted(models(results), key=lambda m: sizes[m]) if known else models(results)
    changes, panels, rows = {}, [], []
    regions = [r for r in ("supervision", "extrapolation") if r in results["region"].values]
    for region in regions:
        means = _errors(results, "score_error", region)
        of = {m: means[models(results).index(m)] for m in order}
        if not all(np.isfinite(v).any() for v in of.values()):
            return None
        changes[region] = paired_bootstrap(of[order[0]], of[order[-1]], relative=True)
        here: list[Row] = []
        gaussian = _gaussian(results, region, order[0])
        for m in order:
            mean, step = bootstrap_mean(of[m]), paired_bootstrap(of[order[0]], of[m])
            base = mean.value - step.value
            values = {"mean": number(mean.value), "low": number(mean.low), "high": number(mean.high)}
            values |= {"paired_low": number(base + step.low), "paired_high": number(base + step.high)}
            here.append({"model": m, "region": region, "parameters": number(sizes[m]), **values, "paths": int(np.isfinite(of[m]).sum())})
        panels.append(_panel(here, order, REGIONS[region], (changes[region], gaussian), known, width_of(len(regions))))
        rows += here
    fall = " and ".join(f"{_verb(change, [row['mean'] for row in rows if row['region'] == r])} in {r}" for r, change in changes.items())
    thin = Key("mean", "95 % interval of the mean", BLACK, kind="thin")
    thick = Key("paired", "95 % interval of the paired change from the smallest", BLACK)
    best = Key("gaussian", "Gaussian denoiser of the bank", BLACK, (4, 3))
    return Drawing(f"From {order[0]} to {order[-1]} the score error {fall}", grid([panels]), rows, (thin, thick, best))


def _errors(results: xr.Dataset, name: str, region: str) -> np.ndarray:
    """(model, path) averages over t from 0.1 to 1."""
    return integrated_error(results[name].sel(region=region).transpose("model", "path", "time").values, results["time"].values)


def _gaussian(results: xr.Dataset, region: str, model: str) -> float | None:
    """The mean error of the Gaussian denoiser at a model's states; None where it was not measured."""
    if "gaussian_error" not in results:
        return None
    found = _errors(results.sel(model=[model]), "gaussian_error", region)
    return number(np.nanmean(found)) if np.isfinite(found).any() else None


def _verb(change: Estimate, means: list[float]) -> str:
    if not means[0]:
        return "stays 0" if not means[-1] else "rises from 0"
    if not math.isfinite(change.low):
        return f"changes by {percent(change.value, signed=True)} (too few paths for an interval)"
    if change.low <= 0 <= change.high:
        return f"does not change measurably ({percent(change.value, signed=True)})"
    return f"{'falls' if change.value < 0 else 'rises'} by {percent(abs(change.value))}"


def _panel(rows: list[Row], order: list[str], key: Key, beside: tuple[Estimate, float | None], known: bool, width: int) -> Any:
    change, gaussian = beside
    ends = [row[f] for row in rows for f in ("mean", "low", "high") if row[f] is not None]
    ends += [] if gaussian is None else [gaussian]
    margin = 0.18 * (max(ends) - min(ends)) or 0.1 * max(ends) or 0.5
    y = Vertical(min(ends) - margin, max(ends) + margin, "score error per dimension (data units²)")
    if known:
        counts = [row["parameters"] for row in rows]
        scale = alt.Scale(type="log", domain=[min(counts) / 1.8, max(counts) * 1.8], nice=False)
        ticks = alt.Axis(title="parameters (log)", values=sorted(set(counts)), format=".2s", grid=False, labelOverlap="greedy")
        x: Any = alt.X("parameters:Q", scale=scale, axis=ticks)
    else:
        x = alt.X("model:N", sort=order, title="model", axis=alt.Axis(labelAngle=0, grid=False))
    told = [
        alt.Tooltip("model:N", title="model"),
        alt.Tooltip("parameters:Q", title="parameters", format=",.0f"),
        alt.Tooltip("mean:Q", title="mean error per dimension"),
        alt.Tooltip("low:Q", title="95 % interval from"),
        alt.Tooltip("high:Q", title="to"),
        alt.Tooltip("paths:Q", title="paths"),
    ]
    here, bars = panel(rows), panel([r for r in rows if r["low"] is not None])
    layers = [
        here.mark_line(color=key.colour, strokeDash=list(key.dash), aria=False).encode(x=x, y=y.of("mean")),
        bars.mark_rule(color=key.colour, strokeWidth=1, strokeOpacity=0.6, aria=False).encode(x=x, y=y.of("low"), y2="high:Q"),
        bars.mark_rule(color=key.colour, strokeWidth=4, aria=False).encode(x=x, y=y.of("paired_low"), y2="paired_high:Q"),
        here.mark_point(filled=True, size=80, opacity=1, color=key.colour, shape=key.shape).encode(x=x, y=y.of("mean"), tooltip=told),
    ]
    if gaussian is not None:
        layers.insert(0, rule(gaussian, y))
    if known:
        layers.append(here.mark_text(dx=9, dy=-9, align="left", aria=False).encode(x=x, y=y.of("mean"), text="model:N"))
    interval = f" [{percent(change.low, True, 1)}, {percent(change.high, True, 1)}]" if math.isfinite(change.low) else ""
    said = f"paired change {percent(change.value, True, 1)}{interval}" if math.isfinite(change.value) else "paired change from 0: no ratio"
    title = alt.TitleParams(
        text=key.label, subtitle=f"{order[0]} → {order[-1]}: {said}", color=key.colour if key.name == "supervision" else "#A84600"
    )
    return alt.layer(*layers).properties(width=width, height=240, title=title)
