"""Results with holes are drawn without what is missing, or refused in one line; the contract and the table of dimensions say the same."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import xarray as xr

from scorescope import charts, claims, report, results
from scorescope.errors import InputError
from scorescope.results import DIMS, TEXTS, checked, not_measured, provenance, with_provenance
from tests.synthetic import results as synthetic

WHOLE = synthetic(models=("only",), paths=3, times=3, shape=(1, 2, 2))
READ_WHERE_THERE = ["overlap_distinct", "overlap_class", "overlap_class_distinct", "duplicates", "null_second", "null_calibrated"]


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(charts, "available", lambda results: [])
    monkeypatch.setattr(report.figures, "small", lambda results, model, id: None)


def rendered_or_refused(changed):
    """The page and no refusal, or no page and the refusal's line."""
    try:
        return report.render(changed), ""
    except InputError as refused:
        return "", str(refused)


def test_the_docstring_names_every_variable_and_the_table_its_dimensions():
    names = [name for some in DIMS.values() for name in some.split()]
    assert sorted(names) == sorted(WHOLE.data_vars)
    for name in names:
        assert re.search(rf"\b{name}\b", results.__doc__), name
    assert checked(WHOLE) is WHOLE


@pytest.mark.parametrize("hole", ["left out", "NaN", "below 0"])
def test_every_variable_may_be_missing_from_claims_and_page(undrawn, hole):
    """Whole numbers have no NaN: −1 stands for none."""
    for name in WHOLE.data_vars:
        values = WHOLE[name]
        none = (
            values.where(False, "")
            if name in TEXTS
            else values * 0 - 1
            if hole == "below 0" or values.dtype.kind == "i"
            else values * np.nan
        )
        page = report.render(WHOLE.drop_vars(name) if hole == "left out" else WHOLE.assign({name: none}))
        assert page.count("</article>") >= 12, name


@pytest.mark.parametrize("name", READ_WHERE_THERE)
def test_a_chart_does_without_what_it_does_not_need(name, monkeypatch):
    readers = [module for module in charts._modules() if module.__name__.endswith(("overlap", "memorization", "return_to_origin"))]
    monkeypatch.setattr(charts, "_modules", lambda: readers)
    for holes in (WHOLE.drop_vars(name), WHOLE.assign({name: WHOLE[name] * 0})):
        assert {"overlap", "memorization", "return_to_origin"} <= {chart.id for chart in charts.available(holes)}


@pytest.mark.parametrize("name", [*WHOLE.coords, "near", "two", "null", "origin", "scrub", "strip", "row", "axis_1"])
def test_a_dimension_may_be_empty_or_without_coordinate_only_where_that_can_be_told(name, undrawn):
    for changed in (WHOLE.isel({name: slice(0)}), WHOLE.drop_vars(name, errors="ignore"), WHOLE.isel({name: 0}, drop=True)):
        page, refused = rendered_or_refused(changed)
        assert "</html>" in page or results.AGAIN in refused


@pytest.mark.parametrize("region", WHOLE["region"].values)
def test_a_region_may_be_missing(region, undrawn):
    assert "</html>" in report.render(WHOLE.sel(region=[r for r in WHOLE["region"].values if r != region]))
    assert "</html>" in report.render(WHOLE.sel(region=[region]))


@pytest.mark.parametrize("key", [*provenance(WHOLE), *provenance(WHOLE)["bank"]])
def test_a_provenance_may_be_short(key, undrawn):
    record = provenance(WHOLE)
    record.pop(key, None)
    record.get("bank", {}).pop(key, None)
    page, refused = rendered_or_refused(with_provenance(WHOLE, record))
    assert "</html>" in page or key in ("bank", "rows", "shape", "radius"), refused


def test_why_something_was_not_measured_is_read_as_earlier_versions_wrote_it():
    record = {**provenance(WHOLE), "not_judged": [["guidance-gap", "no classes"]], "not_measured": {"returned": "the user said so"}}
    assert not_measured(with_provenance(WHOLE, record)) == {"guidance-gap": "no classes", "returned": "the user said so"}
    del record["not_judged"], record["not_measured"]
    assert not_measured(with_provenance(WHOLE, record)) == {}


def test_results_of_the_first_schema_are_read_as_they_are(tmp_path):
    path = results.save(WHOLE, tmp_path / "results.nc")
    again = results.load(path)
    assert (again.attrs["schema"], json.loads(again.attrs["provenance"])) == (1, provenance(WHOLE))
    assert again.identical(WHOLE)
    assert claims.records(again) == claims.records(WHOLE)


def test_names_are_kept_whole_when_results_of_short_and_of_long_ones_are_joined(tmp_path):
    for name in ("short", "much longer"):
        results.save(xr.Dataset({"x": ("run", [1.0])}, {"run": [name]}), tmp_path / f"{len(name)}.nc")
    joined = xr.concat([results.load(tmp_path / "5.nc"), results.load(tmp_path / "11.nc")], "run")
    results.save(joined, tmp_path / "both.nc")
    assert results.load(tmp_path / "both.nc")["run"].values.tolist() == ["short", "much longer"]
