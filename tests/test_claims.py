"""Findings follow from numbers that are known here: each rule is shown a case for every verdict that it can reach."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scorescope import claims
from scorescope.claims import Verdict
from scorescope.claims.claim import decimals, interval_text, number_text
from scorescope.claims.sentence import compose
from scorescope.results import largest, provenance, with_provenance
from scorescope.statistics import Estimate, chi_band, wilson
from tests.synthetic import results as synthetic_results

ONE, SUPPORTED, ALARM, CONTRADICTED, UNDECIDED, NOT_JUDGED = ("only",), *Verdict


@pytest.fixture(scope="module")
def three() -> xr.Dataset:
    return synthetic_results()


def one(**options) -> xr.Dataset:
    plain = dict.fromkeys(("return_last", "returned_held_out", "return_last_held_out", "left_outside", "left_inside"), False)
    return synthetic_results(models=ONE, paths=40, **{**plain, **options})


def found(results: xr.Dataset, name: str, model: str = "only") -> claims.Judged:
    return next(f.judged for f in claims.judge(results) if f.claim.name == name and f.model in (model, ""))


def altered(results: xr.Dataset, name: str, values, **where) -> xr.Dataset:
    """The results with one variable replaced where `where` selects."""
    changed = results.copy(deep=True)
    changed[name].loc[where] = values
    return changed


def recorded(results: xr.Dataset, **changes) -> xr.Dataset:
    return with_provenance(results, provenance(results) | changes)


# ---- sampling leaves the shells ----


@pytest.mark.parametrize(("last", "verdict"), [(0.8, SUPPORTED), (0.2, CONTRADICTED)])
@pytest.mark.parametrize("away", [1.5, 0.5])
def test_a_path_leaves_between_two_times_on_either_side_of_the_band(last, verdict, away):
    results = one()
    t = results["time"].values
    leaves = found(altered(results, "r_star", np.where(t >= last, 1.0, away), region="extrapolation"), "leaves")
    assert (leaves.estimate.low, leaves.estimate.high) == pytest.approx((last - 0.04, last))
    assert leaves.estimate.value == pytest.approx(last - 0.02)
    assert (leaves.verdict, leaves.n) == (verdict, 40)


def test_a_path_below_the_band_that_crosses_it_later_does_not_stay():
    results = one()
    t = results["time"].values
    r_star = np.select([t > 0.9, t > 0.4, t > 0.35], [1.0, 0.5, 1.0], 3.0)
    leaves = found(altered(results, "r_star", r_star, region="extrapolation"), "leaves")
    assert leaves.verdict is SUPPORTED
    assert "nearer to a row than its shell" in leaves.note


def test_a_bracket_across_half_way_is_undecided_until_it_is_refined():
    results = one()
    t = results["time"].values
    coarse = altered(results, "r_star", np.where(t >= 0.52, 1.0, 1.5), region="extrapolation")
    assert found(coarse, "leaves").verdict is UNDECIDED
    ends = {name: (("model", "path"), np.full((1, 40), end)) for name, end in (("left_outside", 0.51), ("left_inside", 0.515))}
    refined = found(coarse.assign(ends), "leaves")
    assert refined.verdict is SUPPORTED
    assert (refined.estimate.low, refined.estimate.high) == (0.51, 0.515)


def test_paths_that_leave_on_both_sides_of_half_way_are_undecided():
    results = one()
    left = np.where(np.arange(40) % 2, 0.8, 0.2)[:, None]
    leaves = found(altered(results, "r_star", np.where(results["time"].values >= left, 1.0, 1.5), region="extrapolation"), "leaves")
    assert leaves.verdict is UNDECIDED
    assert leaves.estimate.low < 0.5 < leaves.estimate.high
    assert leaves.reason


def test_a_copier_stays_in_the_shells():
    results = one()
    leaves = found(altered(results, "r_star", 1.0, region="extrapolation"), "leaves")
    assert leaves.verdict is CONTRADICTED
    assert "stays" in leaves.says


def test_the_edge_of_the_band_counts_as_inside():
    results = one()
    band = chi_band(28 * 28)
    assert found(altered(results, "r_star", band[1] * 0.9999, region="extrapolation"), "leaves").verdict is CONTRADICTED
    assert found(altered(results, "r_star", band[1] * 1.0001, region="extrapolation"), "leaves").estimate.value == 1.0


def test_in_few_dimensions_leaving_the_shells_is_not_judged():
    leaves = found(one(shape=(2,)), "leaves")
    assert leaves.verdict is NOT_JUDGED
    assert "2 dimensions" in leaves.reason
    assert math.isfinite(leaves.estimate.value)


# ---- score errors ----


@pytest.mark.parametrize(("factor", "verdict"), [(3.0, SUPPORTED), (0.5, CONTRADICTED)])
def test_the_ratio_of_errors_is_paired(factor, verdict):
    results = one()
    inside = results["score_error"].sel(region="supervision").values
    departs = found(altered(results, "score_error", factor * inside, region="extrapolation"), "departs")
    assert (departs.estimate.value, departs.estimate.low, departs.estimate.high) == pytest.approx((factor, factor, factor), rel=1e-5)
    assert departs.verdict is verdict


def test_equal_errors_with_noise_are_undecided():
    results = one()
    inside = results["score_error"].sel(region="supervision").values
    noise = np.random.default_rng(1).lognormal(0, 0.3, (1, 40, 1))
    departs = found(altered(results, "score_error", inside * noise / noise.mean(), region="extrapolation"), "departs")
    assert departs.verdict is UNDECIDED
    assert "across 1" in departs.reason


def test_a_model_without_error_follows_the_score_everywhere():
    results = altered(one(), "score_error", 0.0)
    departs = found(results, "departs")
    assert departs.verdict is CONTRADICTED
    assert "everywhere" in departs.says
    assert found(results, "fits").verdict is SUPPORTED
    assert found(results, "renoised").verdict is NOT_JUDGED


def test_perfect_inside_and_wrong_outside_departs():
    assert found(altered(one(), "score_error", 0.0, region="supervision"), "departs").verdict is SUPPORTED


@pytest.mark.parametrize(("share", "verdict"), [(0.1, SUPPORTED), (0.4, CONTRADICTED), (1.1, CONTRADICTED)])
@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_fit_is_a_share_of_what_the_gaussian_leaves_in_any_unit(share, verdict, unit):
    results = one()
    results["gaussian_error"][...] *= unit**2
    linear = results["gaussian_error"].sel(region="supervision").values
    fits = found(altered(results, "score_error", share * linear, region="supervision"), "fits")
    assert fits.estimate.value == pytest.approx(1 - share, rel=1e-4, abs=1e-4)
    assert fits.verdict is verdict
    assert ("worse than the best linear" in fits.says) == (share > 1)


@pytest.mark.parametrize(("factor", "verdict", "says"), [
    (1.2, SUPPORTED, "better than rows it never saw"), (0.8, CONTRADICTED, "was not trained on these rows"), (1.0, UNDECIDED, "no sign")
])  # fmt: skip
def test_memory_is_what_the_loss_on_held_out_rows_has_more(factor, verdict, says):
    results = one()
    noise = np.random.default_rng(0).lognormal(0, 0.2, (1, 40, 1))
    loss = results["dsm_loss"].sel(region="supervision").values
    remembers = found(altered(results, "dsm_loss", factor * loss * noise / noise.mean(), region="held-out"), "remembers")
    assert remembers.verdict is verdict
    assert says in remembers.says
    assert remembers.estimate.value == pytest.approx(factor - 1, abs=0.05)


def test_what_a_run_did_not_measure_is_not_listed_and_what_it_could_not_is_not_judged():
    results = one().drop_vars("held_out_row")
    assert "remembers" not in {finding.claim.name for finding in claims.judge(results)}
    told = with_provenance(results, provenance(results) | {"not_measured": {"held_out_row": "the held-out rows have no such class"}})
    assert (found(told, "remembers").verdict, found(told, "remembers").reason) == (NOT_JUDGED, "the held-out rows have no such class")


def test_a_sentence_is_made_of_what_was_asked():
    samples = one()[["ratio_second", "null_second"]]
    assert claims.sentence(samples, claims.judge(samples)).startswith("Copies ")
    paths = one()[["r_star"]]
    assert claims.sentence(paths, claims.judge(paths)) == "Samples far from its training images."


def test_what_contradicts_a_claim_says_which(three):
    findings = claims.judge(three)
    assert {finding.judged.verdict for finding in findings} > {SUPPORTED, CONTRADICTED}
    for finding in findings:
        assert (finding.judged.verdict is CONTRADICTED) == (f"contradicts “{finding.claim.sentence}”" in finding.line)


def test_the_first_screen_does_not_depend_on_the_order_of_the_models(three):
    other = three.isel(model=[2, 0, 1])
    assert claims.sentence(other, claims.judge(other)) == claims.sentence(three, claims.judge(three))
    assert claims.three(other) == claims.three(three)


def test_what_verdicts_mean_is_said_of_verdicts_that_there_are():
    for claim in claims.every():
        assert set(claim.means) <= {verdict.value for verdict in Verdict}


def test_losses_that_do_not_add_up_are_reported():
    results = one()
    assert found(results, "adds-up").verdict is SUPPORTED
    shifted = altered(results, "dsm_loss", results["dsm_loss"].values + 0.01)
    assert found(shifted, "adds-up").verdict is CONTRADICTED
    assert found(shifted, "adds-up").estimate.value == pytest.approx(0.01, abs=0.002)


# ---- copies ----


@pytest.mark.parametrize(("copied", "verdict"), [(0, SUPPORTED), (30, ALARM), (5, ALARM), (1, UNDECIDED)])
def test_copies_are_counted_below_a_third(copied, verdict):
    results = one()
    ratio = np.where(np.arange(40) < copied, 0.3333, 0.3334)
    copies = found(altered(results, "ratio_second", ratio), "copies")
    assert copies.estimate.value == copied / 40
    assert (copies.estimate.low, copies.estimate.high) == pytest.approx(tuple(float(end) for end in wilson(copied, 40)))
    assert copies.verdict is verdict


@pytest.mark.parametrize(
    ("copied", "of", "says"),
    [
        (0, 64, "Samples are new: none of 64 copies a training row (at most 5.7 %)"),
        (1, 64, "Few samples copy a training row: 1 of 64 (at most 8.3 %)"),
        (1, 1000, "Samples are new: almost none of 1,000 copies a training row (1, at most 0.56 %)"),
        (64, 64, "Samples copy training rows: 64 of 64 (at least 94 %)"),
        (0, 20, "Too few samples to say how often it copies: none of 20 (at most 16 %)"),
    ],
)
def test_the_sentence_on_copies_carries_its_bound(copied, of, says):
    results = synthetic_results(models=ONE, paths=of)
    judged = found(altered(results, "ratio_second", np.where(np.arange(of) < copied, 0.1, 0.9)), "copies")
    assert judged.says == says
    assert (judged.verdict is ALARM) == (copied == of)


def test_copies_are_no_alarm_where_real_rows_are_as_close_to_each_other():
    results = altered(one(), "ratio_second", np.where(np.arange(40) < 8, 0.1, 0.9))
    assert found(results, "copies").verdict is ALARM
    assert found(altered(results, "null_second", 0.1), "copies").verdict is UNDECIDED


def test_too_few_samples_are_no_proof_of_novelty():
    results = synthetic_results(models=ONE, paths=6)
    copies = found(altered(results, "ratio_second", 0.9), "copies")
    assert copies.verdict is UNDECIDED
    assert "too few to tell" in claims.sentence(results, claims.judge(results))


def test_samples_that_were_not_measured_are_no_copies_and_no_originals():
    results = one()
    ratio = np.where(np.arange(40) < 4, np.nan, 0.9)
    assert found(altered(results, "ratio_second", ratio), "copies").n == 36


def test_criteria_without_threshold_are_not_judged():
    results = one()
    for name in ("calibrated", "copier"):
        assert found(results, name).verdict is NOT_JUDGED
        assert found(results, name).figure
    same = altered(results, "copier_row", results["nearest_index"].values[..., 0])
    assert found(same, "copier").estimate.value == 1


# ---- memorization in the shells, guidance, the bank ----


def with_unseen(results, until):
    """The same with held-out rows that come back up to `until`."""
    back = np.broadcast_to((results["origin_time"].values <= until + 1e-9).astype(float), results["returned"].shape)
    return results.assign(returned_held_out=(results["returned"].dims, back))


@pytest.mark.parametrize(
    ("until", "unseen", "verdict", "says"),
    [
        (0.8, None, UNDECIDED, r"gives its training rows back: up to t = 0\.80 .*\(no held-out rows to compare with\)"),
        (0.8, 0.5, SUPPORTED, r"back, further than unseen ones: up to t = 0\.80 \[0\.80, 0\.85\], unseen .* 0\.50 \[.*difference of 0\.30"),
        (0.8, 0.8, CONTRADICTED, "gives its training rows back, and unseen ones alike"),
        (0.8, 0.9, CONTRADICTED, "gives its training rows back, and unseen ones alike"),
        (0.3, None, CONTRADICTED, "only from little noise"),
        (0.3, 0.1, CONTRADICTED, "only from little noise"),
    ],
)
def test_return_counts_up_to_the_first_failure_and_needs_rows_that_training_did_not_see(until, unseen, verdict, says):
    results = one()
    t = results["origin_time"].values
    back = (t <= until + 1e-9).astype(float)
    back[-1] = 1  # a return from pure noise is chance, not memory
    results = altered(results, "returned", back)
    finding = next(f for f in claims.judge(results if unseen is None else with_unseen(results, unseen)) if f.claim.name == "returns")
    assert finding.judged.estimate.value == pytest.approx(until)
    assert finding.judged.verdict is verdict
    assert re.search(says, finding.text), finding.text
    assert "20 of 20 rows, once lost, come back at a larger t" in finding.judged.note


def test_return_is_read_between_the_last_time_that_a_row_came_back_and_the_first_that_it_did_not():
    results = one()
    ends = {f"return_{end}": (("model", "origin"), np.full((1, 20), t)) for end, t in (("last", 0.61), ("lost", 0.62))}
    finer = results.assign(ends)
    assert found(finer, "returns").estimate == pytest.approx((0.61, 0.61, 0.62))
    never = finer.assign(return_lost=finer["return_lost"] * np.nan, return_last=finer["return_last"] * 0 + 1)
    assert found(never, "returns").estimate == pytest.approx((1, 1, 1))


def test_what_a_schedule_that_ends_early_can_not_reach_is_not_judged():
    results = one()
    late = results["origin_time"].values > 0.28
    back = altered(altered(results, "returned", 1.0), "returned", np.nan, origin_time=results["origin_time"].values[late])
    assert found(back, "returns").verdict is NOT_JUDGED
    assert "noised to t = 0.25 at most, short of t = 0.5" in found(back, "returns").reason
    lost = altered(back, "returned", 0.0, origin_time=[0.2, 0.25])
    assert found(lost, "returns").verdict is CONTRADICTED
    short = results.sel(time=results["time"].values <= 0.28)
    assert found(short, "leaves").verdict is NOT_JUDGED
    assert "the times measured end at t = 0.28, short of t = 0.5" in found(short, "leaves").reason


def test_nine_in_ten_are_enough_and_eight_are_not():
    results = one()
    most = np.ones((20, 21))
    most[:2] = 0
    assert found(altered(results, "returned", most), "returns").estimate.value == 1
    most[:4] = 0
    assert found(altered(results, "returned", most), "returns").estimate.value == 0


def test_guidance_gap_is_a_ratio_of_medians_in_the_middle():
    results = altered(altered(altered(one(), "gap_learned", 6.0), "gap_empirical", 2.0), "score_norm", 100.0)
    assert found(results, "guidance").estimate.value == pytest.approx(3)
    assert found(results, "guidance").verdict is SUPPORTED
    edges = results["time"].values[(results["time"].values < 0.2) | (results["time"].values > 0.8)]
    assert found(altered(results, "gap_learned", 1e6, time=edges), "guidance").estimate.value == pytest.approx(3)
    assert found(altered(results, "gap_learned", 1.0), "guidance").verdict is CONTRADICTED


def test_a_gap_too_small_to_see_gives_a_bound():
    guidance = found(altered(altered(altered(one(), "gap_learned", 5.0), "gap_empirical", 0.0), "score_norm", 10.0), "guidance")
    assert guidance.figure == "more than 5,000×"
    assert math.isfinite(guidance.estimate.high)


def test_duplicates_and_overlap_belong_to_the_bank():
    results = one()
    assert found(results, "duplicates").verdict is CONTRADICTED
    assert found(altered(results, "duplicates", 0), "duplicates").verdict is SUPPORTED
    late = altered(results, "overlap_distinct", (results["time"].values > 0.7) * 1.0)
    assert found(late, "overlap").verdict is SUPPORTED
    assert found(late, "overlap").estimate.value == pytest.approx(0.72)


# ---- across models ----


def test_growth_is_judged_by_parameters_not_by_order(three):
    names = ["large", "small", "medium"]
    for results in (three, three.sel(model=names)):
        assert found(results, "shrinks").verdict is SUPPORTED
        assert found(results, "grows").verdict is SUPPORTED
        assert largest(results) == "large"


def test_a_contradicted_growth_is_said(three):
    reversed_errors = three["score_error"].values[::-1]
    results = altered(three, "score_error", reversed_errors)
    assert found(results, "shrinks").verdict is CONTRADICTED
    assert "rises" in found(results, "shrinks").says
    assert "falls" in found(results, "grows").says


def test_models_of_one_size_are_not_compared(three):
    record = provenance(three)
    same = recorded(three, models=[m | {"parameters": 5} for m in record["models"]])
    unknown = recorded(three, models=[m | {"parameters": None} for m in record["models"]])
    assert "same number" in found(same, "grows").reason
    assert "not known" in found(unknown, "grows").reason
    assert not [f for f in claims.judge(one()) if f.claim.about == "models"]


# ---- what holds for all ----


def test_every_claim_is_listed_for_every_model(three):
    listed = {(f.claim.name, f.model) for f in claims.judge(three)}
    for claim in claims.every():
        for model in three["model"].values if claim.about == "model" else [""]:
            assert (claim.name, model) in listed


@pytest.mark.parametrize("claim", claims.every(), ids=lambda claim: claim.name)
def test_a_claim_without_its_measurement_is_listed_with_the_reason(claim, three):
    reason = "the model has no classes"
    for name in claim.needs:
        results = recorded(three.drop_vars(name), not_measured={name: reason})
        missing = found(results, claim.name, "large")
        assert (missing.verdict, missing.reason) == (NOT_JUDGED, reason)


@pytest.mark.parametrize("claim", claims.every(), ids=lambda claim: claim.name)
def test_values_that_were_never_measured_are_not_judged(claim, three):
    floats = [name for name in claim.needs if three[name].dtype.kind == "f"]
    results = three.copy(deep=True)
    for name in floats:
        results[name][...] = np.nan
    if floats:
        finding = found(results, claim.name, "large")
        assert finding.verdict is NOT_JUDGED


def test_every_source_reads_the_results(three):
    for finding in claims.judge(three):
        values = eval(finding.source, {"results": three})
        assert values.name == finding.judged.variable
        if finding.model:
            assert str(values["model"].values) == finding.model


def test_every_claim_names_a_chart_that_exists():
    for claim in claims.every():
        assert importlib.util.find_spec(f"scorescope.charts.{claim.chart}"), claim.name


def test_records_are_json_with_the_names_that_scripts_know(three):
    records = claims.records(three.assign(ratio_second=three["ratio_second"] * np.nan))
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    keys = "name claim model region value low high n unit verdict rule text means reason variable"
    assert all(list(record) == keys.split() for record in records)
    names = "leaves fits remembers departs returns guidance copies calibrated copier renoised shrinks grows adds-up overlap duplicates"
    assert list(dict.fromkeys(record["name"] for record in records)) == names.split()
    of = {(record["name"], record["model"]): record for record in records}
    fits = found(three, "fits", "large")
    assert of["fits", "large"]["region"] == "supervision"
    assert (of["fits", "large"]["value"], of["fits", "large"]["verdict"]) == (fits.estimate.value, "supported")
    assert of["copies", "large"]["verdict"] == "not judged"
    assert of["copies", "large"]["value"] is None
    assert of["overlap", ""]["low"] is None


NEW_CLAIM = """
from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, above, interval_text, measured


def heavy(results, model):
    weight = measured(results, "top_weight", model=model, region="supervision")
    estimate = statistics.bootstrap_mean(weight.mean(1))
    verdict, reason = above(estimate, 0.5, "a half")
    says, figure = "One row has most of the weight", interval_text(estimate)
    return Judged(says, verdict, "top_weight", estimate, figure, n=len(weight), reason=reason)


CLAIMS = (Claim("heavy", 99, heavy, "One row has most of the weight", "Its mean over t is above a half.", needs=("top_weight",)),)
"""


def test_a_new_claim_is_one_file(three, tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text(NEW_CLAIM)
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(tmp_path)])
    assert claims.every()[-1].name == "heavy"
    new = claims.judge(three)[-1]
    assert (new.claim.name, new.model, new.judged.verdict) == ("heavy", "large", SUPPORTED)
    assert new.text.startswith("One row has most of the weight: 0.")
    assert [f.claim.name for f in claims.judge(three, [new.claim])] == ["heavy"] * 3
    monkeypatch.delitem(sys.modules, "scorescope.claims.heavy")


def test_three_lines_about_the_most_capable_model(three):
    lines = claims.three(three)
    assert len(lines) == 3
    assert all(line[0] in "●◆▲○–" for line in lines)
    assert lines[0].startswith("● Sampling leaves the training shells early: median t = ")
    partly = claims.three(three.drop_vars("r_star"))
    assert len(partly) == 3
    assert not any(line.startswith("–") for line in partly)


def test_the_sentence_fits_every_combination_of_verdicts(three):
    judged = {f.claim.name: f.judged for f in claims.judge(three) if f.model == "large"}
    seen = set()
    shares = {SUPPORTED: (0.0, 0.02), ALARM: (0.2, 0.7, 0.95, 1.0), UNDECIDED: (0.0, 0.1), NOT_JUDGED: (math.nan,)}
    for fits, leaves, copies in itertools.product(Verdict, Verdict, shares):
        if ALARM in (fits, leaves):
            continue
        for share in shares[copies]:
            case = {
                "fits": replace(judged["fits"], verdict=fits),
                "leaves": replace(judged["leaves"], verdict=leaves),
                "copies": replace(judged["copies"], verdict=copies, estimate=Estimate(share, share, share), n=100),
            }
            text = compose(three, case)
            assert text.count(";") == 2
            assert text.endswith(".")
            assert text[0].isupper()
            assert ("copies none of 100 (at most" in text) == (share == 0.0 and copies is SUPPORTED)
            assert ("not judged" in text) == (NOT_JUDGED in (fits, leaves, copies))
            seen.add(text)
    assert len(seen) == 4 * 4 * 9
    assert compose(three, judged).startswith("Fits its training images closely; samples far from them; ")


# ---- numbers as text ----


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.8712, 0.851, 0.884), "0.871 [0.851, 0.884]"),
        ((0.8712, 0.81, 0.93), "0.87 [0.81, 0.93]"),
        ((1234.5, 800, 1700), "1,200 [800, 1,700]"),
        ((-0.0004, -0.0015, 0.0007), "−0.0004 [−0.0015, 0.0007]"),
        ((0.0, 0.0, 0.037), "0.000 [0.000, 0.037]"),
        ((3.0, math.nan, math.nan), "3.00"),
    ],
)
def test_digits_follow_the_error(estimate, text):
    assert interval_text(Estimate(*estimate)) == text


@given(value=st.floats(-1e6, 1e6), half=st.floats(1e-4, 1e5))
def test_rounding_changes_a_number_by_less_than_a_fifth_of_its_error(value, half):
    places = decimals(value, value - half, value + half)
    shown = float(number_text(value, places).replace(",", "").replace("−", "-"))
    assert abs(shown - value) <= 0.2 * half + 1e-9
    assert len(re.sub(r"\D", "", number_text(half, places)).lstrip("0")) <= max(2, 2 - places)
