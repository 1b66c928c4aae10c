"""Charts tell the truth about the results that they are drawn from, for every kind of examination, and leave out what was not measured."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import altair as alt
import numpy as np
import pytest
from altair.utils.schemapi import validate_jsonschema
from jsonschema import ValidationError

from scorescope import charts
from scorescope.charts.grammar import REGIONS, Vertical, each, percent, words
from scorescope.charts.tables import cut
from scorescope.results import first_losses, models
from scorescope.statistics import bootstrap_mean, chi_band, held_until, integrated_error, leaving_bracket, median_band, wilson
from tests.synthetic import results

EVERY = [
    "r_star_small",
    "r_star",
    "guidance_gap",
    "score_error_time",
    "held_out",
    "score_error_models",
    "decomposition",
    "return_to_origin",
    "overlap",
    "memorization",
    "supervision_loss",
    "posterior",
]
SMALL = {"models": ("small", "large"), "paths": 6, "times": 8}


@pytest.fixture(scope="module")
def measured():
    return results(**SMALL)


@pytest.fixture(scope="module")
def drawn(measured):
    return {chart.id: chart for chart in charts.available(measured)}


def fragments(chart):
    """Everything that a spec's data holds, as text."""
    return json.dumps(chart.spec["datasets"], allow_nan=False, ensure_ascii=False)


def test_every_chart_is_found_in_reading_order(drawn):
    assert list(drawn) == EVERY
    for chart in drawn.values():
        assert len(chart.caption) == 3
        assert chart.name
        assert chart.legend
        assert chart.spec["description"].startswith(chart.name)
        assert chart.title in chart.spec["description"]


def test_joined_panels_keep_to_the_schema(drawn):
    for made in (drawn["r_star_small"].spec, drawn["memorization"].spec):
        schema = {"$ref": "#/definitions/TopLevelVConcatSpec"}
        validate_jsonschema(made, schema, rootschema=alt.VConcatChart._rootschema)
    with pytest.raises(ValidationError):
        validate_jsonschema({**made, "spacing": "wide"}, schema, rootschema=alt.VConcatChart._rootschema)


@pytest.mark.parametrize("alone", [False, True])
def test_specs_are_json_without_nan_and_draw(drawn, alone):
    for chart in drawn.values():
        text = json.dumps(chart.spec, allow_nan=False)
        assert "NaN" not in text
        picture = chart.svg(alone)
        ElementTree.fromstring(picture)
        assert "NaN" not in picture
        if alone:
            seen = re.sub(r"<[^>]*>", " ", picture).replace("\u00a0", " ")
            assert all(part in seen for part in chart.title.split()[:3])
            assert chart.legend[0].label in seen


def copier(measured):
    """A perfect copier: no error, on the shells, every sample a row."""
    r = measured.copy(deep=True)
    for name in ("score_error", "mean_to_nearest", "ratio_second", "ratio_calibrated", "gap_learned", "gap_empirical"):
        r[name] = r[name] * 0
    r = r.drop_vars(["left_outside", "left_inside"])
    return r.assign(r_star=r["r_star"] * 0 + 1, returned=r["returned"] * 0 + 1, dsm_loss=r["dsm_optimum"])


def without_first(measured):
    """One model's probes crashed."""
    r = measured.copy(deep=True)
    for name in ("r_star", "score_error", "ess", "gap_learned", "mean_to_nearest", "dsm_loss"):
        r[name][0] = np.nan
    return r


def unsized(measured):
    record = json.loads(measured.attrs["provenance"])
    for model in record["models"]:
        model["parameters"] = None
    return measured.assign_attrs(provenance=json.dumps(record))


CASES = {
    "one model": lambda r: results(models=("only",), paths=6, times=8),
    "many models": lambda r: results(models=tuple("abcd"), paths=3, times=3),
    "unconditional": lambda r: results(classes=0, **SMALL),
    "vectors": lambda r: results(shape=(16,), **SMALL),
    "names with signs, unsized": lambda r: unsized(results(models=('sit, "b" [2]', "l'été / 0.1.b"), paths=4, times=3)),
    "one path": lambda r: results(models=("small", "large"), paths=1, times=8),
    "one time": lambda r: results(models=("small", "large"), paths=6, times=1),
    "supervision only": lambda r: r.sel(region=["supervision"]),
    "extrapolation only": lambda r: r.sel(region=["extrapolation"]),
    "copier": copier,
    "one model failed": without_first,
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_examination_is_drawn(measured, case):
    found = charts.available(CASES[case](measured))
    ids = {chart.id for chart in found}
    assert {"r_star", "score_error_time", "overlap"} <= ids
    assert ("guidance_gap" in ids) == (case not in ("unconditional", "supervision only", "extrapolation only"))
    assert ("score_error_models" in ids) == (case not in ("one model", "one model failed"))
    for chart in found:
        assert "NaN" not in json.dumps(chart.spec, allow_nan=False)
        assert chart.svg().startswith("<svg")
        assert "nan" not in chart.title.lower().split()
        assert "unknown" not in chart.title


def test_missing_variables_leave_their_chart_out():
    tiny = {"models": ("small", "large"), "paths": 3, "times": 3}
    for gone, without in (
        (("r_star", "returned", "dsm_loss"), {"r_star", "r_star_small", "return_to_origin", "supervision_loss", "held_out"}),
        (("gap_learned", "ratio_second", "mean_to_nearest", "ess"), {"guidance_gap", "memorization", "decomposition", "posterior"}),
        (("null_second", "overlap_class_distinct", "overlap_distinct", "duplicates"), set()),
    ):
        found = charts.available(results(**tiny, **dict.fromkeys(gone, False)))
        assert {c.id for c in found} == set(EVERY) - without
        assert all(c.svg().startswith("<svg") for c in found)


def test_nothing_measured_draws_nothing(measured):
    floats = {name: v * np.nan for name, v in measured.data_vars.items() if v.dtype.kind == "f"}
    assert charts.available(measured.assign(floats)) == []


@pytest.mark.parametrize(("chart", "variable"), [("r_star", "r_star"), ("score_error_time", "score_error")])
def test_bands_are_median_and_quantiles_of_the_paths(measured, drawn, chart, variable):
    for region in REGIONS:
        band = median_band(measured[variable].sel(model="large", region=region).values, axis=0)
        rows = [row for row in drawn[chart].table if row["model"] == "large" and row["region"] == region]
        for field in ("median", "low", "high"):
            np.testing.assert_allclose([row[field] for row in rows], getattr(band, field), rtol=1e-3)


def test_fig_1b_names_both_bands_and_when_sampling_leaves(measured, drawn):
    low, high = chi_band(784)
    r_star = measured["r_star"].sel(region="extrapolation").values
    ends = np.median(leaving_bracket(r_star, measured["time"].values, (low, high)), axis=2)
    for k, model in enumerate(("small", "large")):
        t = f"{ends[:, k].mean():.2f}"
        assert t in drawn["r_star"].title
        if model == "large":
            assert t in drawn["r_star_small"].title
    assert f"{low:.3f}–{high:.3f}" in fragments(drawn["r_star"])
    assert "vacuous" in fragments(drawn["r_star"])
    stays = {c.id: c for c in charts.available(copier(measured))}
    assert stays["r_star"].title == "Sampling stays on the training shells to the end"


def test_the_scrubbers_rule_hides_until_it_is_set(drawn):
    for name in ("r_star", "r_star_small"):
        moved = json.loads(json.dumps(drawn[name].spec))
        (signal,) = [p for p in moved["params"] if p["name"] == "scrub_t"]
        signal["value"] = 0.5
        before = drawn[name].svg()
        after = str(charts.vl_convert.vegalite_to_svg(json.dumps(moved), vl_version=charts.VEGA_LITE))
        panels = 4 if name == "r_star" else 1
        assert after.count("<line") - before.count("<line") == panels


def test_fig_3_shows_the_time_averages_and_their_paired_change(measured, drawn):
    table = drawn["score_error_models"].table
    for row in table:
        part = measured["score_error"].sel(region=row["region"], model=row["model"]).values
        mean = bootstrap_mean(integrated_error(part, measured["time"].values))
        np.testing.assert_allclose([row["mean"], row["low"], row["high"]], mean, rtol=1e-3)
    means = {(row["region"], row["model"]): row["mean"] for row in table}
    fall = 1 - means["supervision", "large"] / means["supervision", "small"]
    assert f"falls by {percent(fall)} in supervision" in drawn["score_error_models"].title
    same = measured.copy(deep=True)
    same["score_error"][1] = same["score_error"][0]
    again = {c.id: c for c in charts.available(same)}["score_error_models"]
    assert again.title.count("does not change measurably") == 2


@pytest.mark.parametrize(("suffix", "images"), [("", "training"), ("_held_out", "held out")])
def test_return_to_origin_is_a_ratio_with_wilsons_interval(measured, drawn, suffix, images):
    back = measured[f"returned{suffix}"].sel(model="small").values
    low, high = wilson(back.sum(0), len(back))
    rows = [row for row in drawn["return_to_origin"].table if (row["model"], row["images"]) == ("small", images)]
    np.testing.assert_allclose([row["share"] for row in rows], back.mean(0), atol=1e-4)
    np.testing.assert_allclose([row["low"] for row in rows], low, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose([row["high"] for row in rows], high, rtol=1e-3)


def test_return_to_origin_counts_what_was_measured_and_says_the_finding_s_number(measured):
    few = measured.copy(deep=True)
    few["return_distance"][:, 3:] = np.nan
    drawn = {c.id: c for c in charts.available(few)}["return_to_origin"]
    assert {row["measured"] for row in drawn.table if row["images"] == "training"} == {3}
    for name in models(few):
        for suffix in ("", "_held_out"):
            assert f"{held_until(first_losses(few, name, suffix)[0]):.2f}" in drawn.title


def test_memorization_counts_every_sample_once_and_copies_by_the_rule(measured, drawn):
    for group, count in (("small", 6), ("large", 6), ("real rows", measured.sizes["null"])):
        bars = [row for row in drawn["memorization"].table if row["group"] == group and row["criterion"].startswith("nearest")]
        assert sum(row["count"] for row in bars) == count
    mixed = measured.copy(deep=True)
    mixed["ratio_second"][0, :2] = 0.1
    assert {c.id: c for c in charts.available(mixed)}["memorization"].title.startswith("2 samples are copies")
    assert drawn["memorization"].title.startswith("No sample is a copy")


def test_supervision_loss_agrees_in_expectation_and_not_when_one_is_off():
    right = results(models=("only",), paths=60, times=10)
    wrong = right.assign(dsm_optimum=right["dsm_optimum"] * 0.8)
    titles = [{c.id: c for c in charts.available(r)}["supervision_loss"].title for r in (right, wrong)]
    assert "optimum agree" in titles[0]
    assert "optimum do not agree" in titles[1]


def test_overlap_says_how_the_bank_looks_without_exact_duplicates(drawn):
    curves = {row["curve"] for row in drawn["overlap"].table}
    assert {"whole", "distinct", "class 0"} <= curves
    assert all(row["value"] == 1 for row in drawn["overlap"].table if row["curve"] == "whole")
    assert "3 exact duplicates set aside" in drawn["overlap"].title


def test_a_new_probe_shows_up_without_a_chart(measured):
    extra = measured.assign(curvature=measured["score_error"] - 1, winner=measured["top_index"])
    extra["curvature"].attrs.update(long_name="curvature of the path", units="1/σ")
    (new,) = [c for c in charts.available(extra) if c.id not in EVERY]
    assert new.id == "extra_curvature"
    assert "curvature of the path (1/σ)" in json.dumps(new.spec, ensure_ascii=False)
    assert new.svg().startswith("<svg")


def test_specs_stay_small_for_a_large_run():
    found = charts.available(results(paths=100, times=100))
    assert sum(len(json.dumps(chart.spec)) for chart in found) < 1.5e6


def test_export_writes_three_files_a_chart(tmp_path):
    only = results(models=("only",), paths=3, times=4)[["r_star", "overlap", "time", "region", "model"]]
    written = charts.export(only, tmp_path / "charts")
    names = {f"{name}.{suffix}" for name in ("r_star", "r_star_small", "overlap") for suffix in ("svg", "png", "csv")}
    assert {path.name for path in written} == names == {path.name for path in (tmp_path / "charts").iterdir()}
    assert (tmp_path / "charts" / "overlap.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "charts" / "r_star.csv").read_text())))
    assert {row["region"] for row in rows} == set(REGIONS)
    assert all(float(row["low"]) <= float(row["median"]) <= float(row["high"]) for row in rows)


def test_drawing_is_repeatable(measured, drawn):
    again = {chart.id: chart for chart in charts.available(measured)}
    assert [json.dumps(c.spec) for c in again.values()] == [json.dumps(c.spec) for c in drawn.values()]


def test_log_axis_has_a_floor_that_says_so():
    rows = [{"median": 1e-12, "low": 0.0, "high": 5.0}]
    y = Vertical.positive(rows, "error")
    assert y.floor
    assert y.drawn(rows)[0]["low"] == y.low > 0
    assert "≤" in json.dumps(y.of("median").to_dict(), ensure_ascii=False)
    assert not Vertical.positive([{"median": 0.0, "low": 0.0, "high": 0.0}], "error").log


def test_words_are_for_reading():
    assert words(-0.000012345) == "−1.23·10⁻⁵"
    assert words(0.871) == "0.871"
    assert (percent(-0.0271), percent(0.004, signed=True), percent(-0.00001, signed=True), percent(0.26)) == (
        "−2.7 %",
        "+0.4 %",
        "0.0 %",
        "26 %",
    )
    assert each({"a": "0.8", "b": "0.8"}) == "0.8"
    assert each({"a": "0.8", "b": "0.9"}) == "0.8 (a) and 0.9 (b)"
    assert each({k: f"−{k} %" for k in "12345"}) == "−5 % to −1 % (5 models)"


def test_a_curve_is_cut_where_it_leaves_the_axis_and_parted_where_it_comes_back():
    def shown(values):
        rows = [{"model": "m", "t": float(t), "value": v} for t, v in enumerate(values)]
        return [(round(row["t"], 6), row["value"]) for row in cut(rows, 1.0, 2.0, "value", ("model",))]

    assert shown([1.0, 1.5, 2.0]) == [(0, 1.0), (1, 1.5), (2, 2.0)]
    assert shown([1.5, 2.5, 3.0]) == [(0, 1.5), (0.5, 2.0)]
    assert shown([1.5, 2.5, 3.0, 1.0]) == [(0, 1.5), (0.5, 2.0), (2, None), (2.5, 2.0), (3, 1.0)]
    assert shown([0.5, 2.5]) == [(0.25, 1.0), (0.75, 2.0)]
    assert shown([5.0, 6.0]) == []


def test_a_file_that_travels_alone_holds_the_very_picture_of_the_page(drawn):
    chart = drawn["return_to_origin"]
    alone, inside = chart.svg(alone=True), chart.svg()
    assert inside.split(">", 1)[1] in alone
    assert chart.title.split(";")[0][:20] in re.sub(r"<[^>]*>", " ", alone).replace("\u00a0", " ")
    height = [float(re.search(r'height="([\d.]+)"', text)[1]) for text in (alone, inside)]
    assert height[0] > height[1] + 30
