"""Two ways to the same number: the supervision loss, and the DSM loss minus its optimum (Eq. 3)."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, BLUE, Drawing, Key, Row, Vertical, each, percent, repeated, words
from scorescope.charts.layers import curve_panel, curves, rule
from scorescope.charts.page import facets
from scorescope.charts.tables import number
from scorescope.results import models
from scorescope.statistics import Estimate, bootstrap_mean, integrated_error, paired_bootstrap

NAME = "Supervision loss, two ways (Eq. 3)"
ORDER = 90
NEEDS = ("score_error", "dsm_loss", "dsm_optimum")
CAPTION = (
    "Per dimension, mean over noised training images: the model's distance to the empirical score (supervision loss), and its "
    "denoising loss minus the least one possible. In expectation they are equal (Eq. 3); below, their difference, paired. "
    "The title says that they agree where the difference averaged over t from 0.1 to 1 has 0 in its 99 % interval.",
    "A copier's supervision loss is 0: its denoising loss is the least possible.",
    "A generalizer's is small but not 0. A difference that leaves 0 at many t would say that one of the two is measured wrongly.",
)
LOSS = Key("loss", "supervision loss", BLUE, shape="circle")
DSM = Key("dsm", "DSM loss − its optimum", BLACK, (7, 4))
DIFFERENCE = Key("difference", "difference (DSM − supervision)", BLUE)
ENOUGH, LOOKS = 20, (LOSS, DSM, DIFFERENCE)
INTERVAL = Key("interval", "95 % interval, paired", BLUE, kind="band")


def draw(results: xr.Dataset) -> Drawing | None:
    """Two panels a model: both losses, and their difference."""
    part = results[list(NEEDS)].sel(region="supervision").transpose("model", "path", "time")
    time = results["time"].values
    rows: list[Row] = []
    differences: list[Row] = []
    wholes, levels = {}, {}
    level = 1 - 0.01 / results.sizes["model"]  # all models that are right are said to agree in 99 % of runs
    for k, model in enumerate(models(results)):
        direct, other = part["score_error"].values[k].astype(float), (part["dsm_loss"] - part["dsm_optimum"]).values[k].astype(float)
        gap, first, second = paired_bootstrap(direct, other), bootstrap_mean(direct), bootstrap_mean(other)
        if not np.isfinite(gap.value).any():
            return None
        for name, mean in ((LOSS.name, first), (DSM.name, second), (DIFFERENCE.name, gap)):
            (differences if name == DIFFERENCE.name else rows).extend(_rows(model, name, time, mean))
        wholes[model] = paired_bootstrap(integrated_error(direct, time), integrated_error(other, time), level=level)
        levels[model] = float(np.nanmean(integrated_error(direct, time)))
    losses, gaps = _axis(rows, "mean loss (data units²)", zero=True), _axis(differences, "difference (data units²)", zero=False)

    def apart(model: str, width: int, first: bool) -> Any:
        y = repeated(gaps, first)
        layers = [rule(0, y, dash=(1, 0)), *curves(differences, LOOKS, y, model=model, field="curve")]
        return alt.layer(*layers).properties(width=width, height=110)

    chart = facets(models(results), [curve_panel(rows, LOOKS, losses, 180, field="curve", band=False), apart], side_by_side=False)
    table = [{("mean" if f == "median" else f): v for f, v in row.items()} for row in rows + differences]
    return Drawing(_fact(wholes, levels, part.sizes["path"]), chart, table, (*LOOKS, INTERVAL))


def _rows(model: str, name: str, time: np.ndarray, mean: Estimate) -> list[Row]:
    """Rows of one curve; the field is called median because `curves` draws that, here it is a mean."""
    rows = []
    for k in np.flatnonzero(np.isfinite(mean.value)):
        ends = {"median": number(mean.value[k]), "low": number(mean.low[k]), "high": number(mean.high[k])}
        rows.append({"model": model, "curve": name, "t": number(time[k]), **ends})
    return rows


def _fact(wholes: dict[str, Estimate], levels: dict[str, float], paths: int) -> str:
    """Whether the two averages over t agree, and by how much of the loss they differ."""
    if all(levels[m] > max(abs(w.low), abs(w.high)) for m, w in wholes.items()):
        by = f"{each({m: percent(float(w.value) / levels[m], True) for m, w in wholes.items()})} of the loss"
    else:
        by = f"{each({m: words(float(w.value), 2) for m, w in wholes.items()})} per dimension"
    both = "Supervision loss and DSM loss minus its optimum"
    if paths < ENOUGH:
        return f"{both} differ by {by}, averaged over t from 0.1 to 1 ({paths} {'path is' if paths == 1 else 'paths are'} too few to judge)"
    apart = [m for m, w in wholes.items() if w.low > 0 or w.high < 0]
    verdict = "agree" if not apart else f"do not agree for {' and '.join(apart)}" if len(wholes) > 1 else "do not agree"
    return f"{both} {verdict}: averaged over t from 0.1 to 1 they differ by {by}"


def _axis(rows: list[Row], title: str, zero: bool) -> Vertical:
    values = [row[f] for row in rows for f in (("median",) if zero else ("median", "low", "high")) if row[f] is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.06 * (high - low) or 0.5
    return Vertical(low - (margin if low < 0 else 0), high + margin, title)
