"""The page: what each part of the template is given. Everything comes from the results; nothing is measured here."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

import vl_convert
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from scorescope import __version__, charts, claims, copies
from scorescope.charts import VEGA_LITE, Chart
from scorescope.claims import Finding, Verdict
from scorescope.claims.fit import INTEGRALS, integrals
from scorescope.claims.sizes import short_count
from scorescope.files import cache_folder, write_text
from scorescope.report import figures, gallery, scrubber
from scorescope.report.pictures import Rows, painter
from scorescope.results import largest, misread, models, not_measured, provenance, starts_from_rows

TILE_EDGE = 64  # largest width or height of a picture, in pixels
MODEL_KEYS = ("name", "parameters", "schedule", "prediction", "sha256")


def render(results: xr.Dataset, drawn: Sequence[Chart] | None = None) -> str:
    """The report of `results` as one HTML document, with the charts that are `drawn` already, if given.

    Raises:
        InputError: The results are not an examination's, or are damaged.
    """
    return template().render(context(results, charts.available(results) if drawn is None else drawn))


@functools.cache
def template() -> Template:
    """The page as it is before it is filled in; a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("scorescope", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html.j2")


def context(results: xr.Dataset, charts_drawn: Sequence[Chart]) -> dict[str, Any]:
    """All that the template reads."""
    found = claims.judge(results)
    record, model = provenance(results), largest(results)
    paint = painter(results, TILE_EDGE)
    rows = Rows(results, paint)
    names = models(results)
    drawn = figures.figures(charts_drawn, found)
    small = figures.small(results, model, "first-r_star")
    scrub = scrubber.data(results, rows, paint)
    beside = {name: figures.small(results, name, f"scrub-r_star-{k}") for k, name in enumerate(names)} if scrub else {}
    specs = {f.id: f.chart.spec for f in [*drawn, small, *beside.values()] if f}
    return {
        "record": record,
        "bank": bank_facts(record),
        "models": model_facts(record, names),
        "alone": "samples" in record,
        "model": model,
        "states": states(results),
        "sentence": claims.sentence(results, found),
        "headline": claims.headline(results, found),
        "groups": groups(found),
        "comparison": comparison(found, names),
        "figures": drawn,
        "integral_columns": list(INTEGRALS),
        "integrals": integrals(results) if "score_error" in results else [],
        "figure_ids": {f.id for f in drawn},
        "small": small,
        "start": starts_from_rows(results, model),
        "four": gallery.first_four(results, model, rows, paint),
        "strips": {name: gallery.strips(results, name, paint) for name in names},
        "closest": gallery.closest(results, rows),
        "galleries": {name: gallery.samples(results, name, rows, paint, gallery.shown(results, paint)) for name in names},
        "nulls": gallery.nulls(results, rows),
        "named": "row_name" in results,
        "copied": {name: gallery.copied(results, name, rows) for name in names},
        "near_duplicate": float(results.get("near_duplicate_distance", math.nan)),
        "calibrated_threshold": copies.calibrated_threshold(results),
        "scrub": scrub,
        "scrub_small": beside,
        "stills": scrubber.stills(results, model, rows, paint),
        "paint": paint,
        "specs": specs,
        "settings": settings(record),
        "versions": {k: str(record[k]) for k in ("version", "torch", "numpy") if k in record} | record.get("versions", {}),
        "misread": misread(results),
        "outside": {name: share for name, share in record.get("outside", {}).items() if share >= 0.0005},
        "warnings": [str(w) for w in record.get("warnings", [])],
        "not_judged": not_judged(results, found),
        "provenance_uri": figures.data_uri(json.dumps(record, indent=2, sort_keys=True, allow_nan=False), "application/json"),
        "bug_report": bug_report(results, found),
        "verdicts": Verdict,
        "version": __version__,
        "style": asset("report.css"),
        "script": asset("report.js"),
        "bundle": bundle(),
    }


def asset(name: str) -> Markup:
    """One of the files beside this module, as it is."""
    return Markup((resources.files("scorescope.report") / name).read_text(encoding="utf-8"))


@functools.cache
def bundle() -> Markup:
    """Vega, Vega-Lite and vega-embed as one script; kept in the user's cache, since putting it together takes seconds."""
    place = cache_folder() / f"vega-{VEGA_LITE}-{metadata.version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return Markup(place.read_text(encoding="utf-8"))
    script = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]  # its stub forgets that the snippet is optional
    script = script.replace("</script", "<\\/script")
    with contextlib.suppress(OSError):
        write_text(place, script)
    return Markup(script)


# ---- what was examined --------------------------------------------------------------------------------------------------------


def bank_facts(record: dict[str, Any]) -> dict[str, str]:
    """The bank in words."""
    bank = record["bank"]
    shape = " × ".join(str(n) for n in bank["shape"])
    flips = " and their mirror images" if bank.get("flips") else ""
    classes = f", {bank['classes']} classes" if bank.get("classes") else ", no classes"
    return {
        "name": str(bank.get("name", "bank")),
        "rows": f"{int(bank['rows']):,} rows of {shape}{flips}{classes}",
        "fingerprint": str(bank.get("fingerprint", "")),
    }


def model_facts(record: dict[str, Any], names: list[str]) -> list[dict[str, str]]:
    """The models in words, in the order of the results."""
    told = {str(m.get("name")): m for m in record.get("models", [])}
    found = []
    for name in names:
        one = told.get(name, {})
        size = one.get("parameters")
        size = f"{short_count(size)} parameters" if size else "size unknown"
        if "samples" in record:
            size = f"{record['samples'].get('rows', '?'):,} samples"
        told_of = ("file", "sha256", "schedule", "prediction", "weights", "left_out", "read_as")
        found.append({"name": name, "size": size, **{key: str(one.get(key) or "") for key in told_of}})
    return found


def states(results: xr.Dataset) -> str:
    """How many states were looked at, in words."""
    sizes = results.sizes
    if not {"path", "time", "region"} <= set(sizes):
        return "none"
    return f"{sizes['path']:,} paths × {sizes['time']} times × {sizes['region']} regions"


def settings(record: dict[str, Any]) -> dict[str, str]:
    """What was asked for, one level deep; fingerprints stand elsewhere on the page."""
    told = {k: v for k, v in record.get("settings", {}).items() if k not in ("models", "bank") and v is not None}
    flat = {k: v for k, v in told.items() if not isinstance(v, dict)} | {
        k: v for one in told.values() if isinstance(one, dict) for k, v in one.items()
    }
    return {k: ", ".join(str(x) for x in v) if isinstance(v, list) else str(v) for k, v in flat.items()}


# ---- findings -----------------------------------------------------------------------------------------------------------------


def groups(found: list[Finding]) -> list[list[Finding]]:
    """Findings by claim, in order: one claim's findings, one for each model, stand together."""
    return [list(alike) for _, alike in itertools.groupby(found, key=lambda finding: finding.claim.name)]


def comparison(found: list[Finding], names: list[str]) -> list[list[Finding]]:
    """The lines of the table of models: one claim each, in the order of the models. Empty for a single model."""
    if len(names) < 2:
        return []
    return [line for line in groups(found) if line[0].claim.about == "model" and line[0].claim.short]


def not_judged(results: xr.Dataset, found: list[Finding]) -> list[tuple[str, str]]:
    """What could not be judged and why: variables that were not measured, those of one reason together, then claims; each pair once."""
    alike: dict[str, list[str]] = {}
    for name, why in not_measured(results).items():
        alike.setdefault(why, []).append(name)
    pairs = [(", ".join(names), why) for why, names in alike.items()]
    for group in groups(found):
        reasons = [f.judged.reason if f.judged.verdict is Verdict.NOT_JUDGED else "" for f in group]
        for finding, why in zip(group, reasons, strict=True):
            if why:
                pairs.append((f"{finding.claim.sentence}{f' ({finding.model})' if len(set(reasons)) > 1 else ''}", why))
    return list(dict.fromkeys(pairs))


def bug_report(results: xr.Dataset, found: list[Finding]) -> str:
    """A block of text that tells a maintainer what ran and what came out."""
    record = provenance(results)
    bank = record["bank"]
    lines = [
        f"scorescope {record.get('version', __version__)}, {record.get('date', 'unknown date')}",
        f"command: {record.get('command', 'unknown')}",
        "; ".join(f"{key}: {record.get(key, 'unknown')}" for key in ("device", "seed", "tolerance")),
        f"settings: {json.dumps(record.get('settings', {}), sort_keys=True)}",
        ", ".join(f"{key}: {record[key]}" for key in ("torch", "numpy", "dtype") if key in record),
        f"bank: {bank.get('rows')} × {bank.get('shape')}, {bank.get('classes')} classes, {str(bank.get('fingerprint', ''))[:16]}",
        *(f"model: {', '.join(str(m.get(key)) for key in MODEL_KEYS)}" for m in record.get("models", [])),
        *(f"warning: {w}" for w in record.get("warnings", [])),
        *(f"not measured: {name}: {why}" for name, why in not_measured(results).items()),
        *(f"finding: {f'{f.model}: ' if f.model else ''}{f.line}" for f in found),
    ]
    return "\n".join(lines)
