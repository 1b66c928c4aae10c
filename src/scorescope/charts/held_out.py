"""The denoising loss on training rows and on rows that training never saw: what of the fit is memory."""

from __future__ import annotations

import xarray as xr

from scorescope.charts.grammar import BLACK, REGIONS, Drawing, Key, Row, Vertical, each, percent
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import measured, number
from scorescope.results import models
from scorescope.statistics import STRICT, bootstrap_mean, integrated_error, paired_bootstrap

NAME = "Training rows and held-out rows"
ORDER = 27
NEEDS = ("dsm_loss", "held_out_row")
CAPTION = (
    "The denoising loss per dimension, mean over noised training rows and over rows of the same classes that training never saw, with the "
    "same noise; bands: 95 % bootstrap interval of the mean. What lies between the curves is memory of single rows. Dashed: the best "
    "linear denoiser, the Gaussian of the bank, on held-out rows.",
    "A copier's loss is the least possible on training rows, and far higher on others.",
    "A generalizer's loss is the same on both.",
)
GAUSSIAN = Key("gaussian", "Gaussian denoiser on held-out rows", BLACK, (4, 3))
INTERVAL = Key("interval", "95 % interval of the mean", REGIONS["held-out"].colour, kind="band")


def draw(results: xr.Dataset) -> Drawing | None:
    """One panel a model."""
    if "held-out" not in results["region"].values:
        return None
    rows = [row for region in ("supervision", "held-out") for row in _means(results, "dsm_loss", region, region)]
    keys = [REGIONS["supervision"], REGIONS["held-out"]]
    if measured(results, "gaussian_loss"):
        rows += _means(results, "gaussian_loss", "held-out", GAUSSIAN.name)
        keys.append(GAUSSIAN)
    y = Vertical.positive(rows, "denoising loss per dimension (data units²)")
    table = [{("mean" if f == "median" else f): v for f, v in row.items()} for row in rows]
    chart = facets(models(results), [curve_panel(rows, keys, y, 220)])
    return Drawing(_fact(results), chart, table, (*keys, INTERVAL))


def _means(results: xr.Dataset, name: str, region: str, called: str) -> list[Row]:
    """Rows of one curve; the field is called median because `curves` draws that, here it is a mean."""
    rows = []
    values = results[name].sel(region=region).transpose("model", "path", "time").values.astype(float)
    for model, part in zip(models(results), values, strict=True):
        mean = bootstrap_mean(part)
        for k, t in enumerate(results["time"].values):
            ends = {"median": number(mean.value[k]), "low": number(mean.low[k]), "high": number(mean.high[k])}
            if ends["median"] is not None:
                rows.append({"model": model, "region": called, "t": number(t), **ends})
    return rows


def _fact(results: xr.Dataset) -> str:
    """By how much the loss is higher on held-out rows, averaged over t from 0.1 to 1."""
    losses = [
        integrated_error(results["dsm_loss"].sel(region=region).transpose("model", "path", "time").values, results["time"].values)
        for region in ("supervision", "held-out")
    ]
    change = {m: paired_bootstrap(a, b, level=STRICT, relative=True) for m, a, b in zip(models(results), *losses, strict=True)}
    clear = {m: one for m, one in change.items() if one.low > 0 or one.high < 0}
    if not clear:
        return "The denoising loss is no different on held-out rows"
    said = each({m: percent(float(one.value), signed=True, digits=0) if m in clear else "not measurably" for m, one in change.items()})
    return f"From training rows to held-out rows the denoising loss changes by {said} (t from 0.1 to 1)"
