"""The guidance paradox (Example 3.1, Fig. 2): classes matter while sampling, although in training they hardly do."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, above, interval_text, measured, number_text
from scorescope.statistics import Estimate

MIDDLE = (0.2, 0.8)
FLOOR = 1e-4  # of the score's norm: a gap below this is counted as this


def gap(results: xr.Dataset, model: str, name: str, region: str) -> Estimate:
    """Median over paths of the median over t from 0.2 to 0.8 of a gap, as a share of the norm of the exact score at the same states."""
    time = results["time"].values
    middle = (time >= MIDDLE[0]) & (time <= MIDDLE[1])
    if not middle.any():
        raise NotJudged("no time between 0.2 and 0.8 was measured")
    values, norm = (measured(results, one, model=model, region=region)[:, middle] for one in (name, "score_norm"))
    share = np.divide(values, norm, out=np.full(values.shape, np.nan), where=norm > 0)
    return statistics.median_interval(statistics.median_band(share, axis=1).median)


def guidance(results: xr.Dataset, model: str) -> Judged:
    """Median learned gap in extrapolation over median empirical gap in supervision (C.2), each relative to the score's norm."""
    learned, known = gap(results, model, "gap_learned", "extrapolation"), gap(results, model, "gap_empirical", "supervision")
    least = Estimate(*(max(float(v), FLOOR) if np.isfinite(v) else v for v in known))
    estimate = Estimate(learned.value / least.value, learned.low / least.high, learned.high / least.low)
    verdict, reason = above(estimate, 1, "1")
    says = {
        Verdict.SUPPORTED: "The class matters while sampling, though in training it hardly does",
        Verdict.CONTRADICTED: "The class matters less while sampling than in training",
        Verdict.UNDECIDED: "The class matters as much while sampling as in training",
    }
    unseen = known.value <= FLOOR
    figure = f"more than {number_text(float(f'{estimate.value:.2g}'), 0)}×" if unseen else interval_text(estimate, suffix="×")
    phrase, n, region = "learned gap {} the empirical one", int(results.sizes["path"]), "extrapolation"
    others = [gap(results, model, *pair).value for pair in (("gap_learned", "supervision"), ("gap_empirical", "extrapolation"))]
    note = (
        f"Median gap as a share of the score's norm, t from 0.2 to 0.8: in training {_small(known.value)} empirical and "
        f"{_small(others[0])} learned; while sampling {_small(others[1])} empirical and {_small(learned.value)} learned."
    )
    return Judged(says[verdict], verdict, "gap_learned", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def _small(share: float) -> str:
    """A share in three digits, as far as it is counted."""
    return f"below {100 * FLOOR:g} %" if share < FLOOR else f"{100 * share:.3g} %"


CLAIMS = (
    Claim(
        "guidance",
        45,
        guidance,
        "The class matters while sampling, though in training it hardly does",
        "Over t from 0.2 to 0.8, median gap between scores with and without the class, as a share of the exact score's norm: learned, "
        "while sampling, over empirical, in training (at least a ten-thousandth). Supported if the ratio of the 95 % intervals of the two "
        "medians lies above 1, contradicted if below.",
        needs=("gap_learned", "gap_empirical", "score_norm"),
        chart="guidance_gap",
        short="class gap, sampling ÷ training",
        means={
            "supported": "What a class, or guidance, does to samples is not what training showed of it; the training loss does not tell.",
            "contradicted": "What a class does to samples is what training showed of it.",
            "undecided": "More paths (--paths) would narrow the interval.",
        },
    ),
)
