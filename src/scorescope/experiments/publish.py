"""What an experiment leaves for readers: NAME.nc, NAME.svg, NAME.png, NAME.csv and NAME.json; of all of them README.md, the table of
verdicts, and results.html, one page.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from scorescope import results
from scorescope.charts import Chart
from scorescope.claims import Finding, NotJudged
from scorescope.claims.claim import Judged, Verdict
from scorescope.experiments.experiment import Experiment, Reading
from scorescope.files import replacing, write_json, write_text
from scorescope.progress import span
from scorescope.report.figures import static_svg
from scorescope.report.page import asset

NOT_REPORTED = "not reported"  # what a claim of our own has in place of the paper's finding
HEAD = "# The paper's experiments, run here\n"


def publish(experiment: Experiment, scale: str, found: xr.Dataset, out: Path) -> list[str]:
    """Write an experiment's files and the table again; returns its findings as lines."""
    out.mkdir(parents=True, exist_ok=True)
    chart = Chart(experiment.name, experiment.title, (experiment.caption, "", ""), experiment.draw(found))
    for suffix, content in (("svg", chart.svg(alone=True).encode()), ("png", chart.png()), ("csv", chart.csv().encode())):
        with replacing(out / f"{experiment.name}.{suffix}") as temporary:
            temporary.write_bytes(content)
    results.save(found, out / f"{experiment.name}.nc")
    findings = [Finding(one.claim, "", judged(one, found)) for one in experiment.readings]
    write_json(out / f"{experiment.name}.json", _record(experiment, scale, found, chart, findings))
    told = records(out)
    write_text(out / "README.md", table(told))
    write_text(out / "results.html", page(told, out))
    return [finding.line for finding in findings]


def judged(reading: Reading, found: xr.Dataset) -> Judged:
    """A claim's verdict on an experiment's dataset."""
    try:
        return reading.claim.judge(found, "")
    except NotJudged as problem:
        return Judged(reading.claim.sentence, Verdict.NOT_JUDGED, reading.claim.needs[0], reason=str(problem))


def _record(experiment: Experiment, scale: str, found: xr.Dataset, chart: Chart, findings: list[Finding]) -> dict[str, Any]:
    told = json.loads(found.attrs["reproduced"])
    return {
        **{name: getattr(experiment, name) for name in ("name", "order", "title", "question", "expected", "caption")},
        "setting": experiment.setting[scale],
        "settled": experiment.settled.get(scale, ""),
        "shown": chart.title,
        "scale": scale,
        "version": told["version"],
        "date": date.today().isoformat(),
        "seconds": sum(told["seconds"].values()),
        "claims": [
            {
                "claim": finding.claim.sentence,
                "paper": reading.paper,
                "verdict": finding.judged.verdict.value,
                "found": finding.text,
                "rule": finding.claim.rule,
                "note": finding.judged.note,
            }
            for reading, finding in zip(experiment.readings, findings, strict=True)
        ],
    }


def records(out: Path) -> list[dict[str, Any]]:
    """The records of all experiments in a folder of results, in their order."""
    return sorted((json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")), key=lambda one: one["order"])


def page(told: list[dict[str, Any]], out: Path) -> str:
    """results.html: the table, and every figure with what it shows and what was run."""
    environment = Environment(
        loader=PackageLoader("scorescope", "experiments"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    verdicts = [claim["verdict"] for one in told for claim in one["claims"] if not claim["paper"].startswith(NOT_REPORTED)]
    shown = [
        {**one, "took": span(one["seconds"]), "svg": static_svg((out / f"{one['name']}.svg").read_text(encoding="utf-8"), one["name"])}
        for one in told
    ]
    counts = {verdict: verdicts.count(verdict) for verdict in ("supported", "contradicted")}
    return environment.get_template("results.html.j2").render(
        records=shown, style=asset("report.css"), symbol=lambda verdict: Verdict(verdict).symbol, total=len(verdicts), **counts
    )


def summary(told: list[dict[str, Any]], where: str) -> str:
    """The paper's own claims and their verdicts in a few lines, for a page that links to the folder `where`."""
    lines = ["| claim of the paper | here, at the scale of a desk |", "|---|---|"]
    for one in told:
        for claim in one["claims"]:
            if not claim["paper"].startswith(NOT_REPORTED):
                symbol = Verdict(claim["verdict"]).symbol
                lines.append(f"| [{one['name']}]({where}/README.md#{one['name']}): {claim['claim']} | {symbol} {claim['verdict']} |")
    return "\n".join(lines) + "\n"


def table(told: list[dict[str, Any]]) -> str:
    """README.md of a folder of results."""
    scales = sorted({one["scale"] for one in told})
    lines = [
        HEAD,
        f"Made by `scorescope reproduce {' '.join(one['name'] for one in told)} --scale {' '.join(scales)}`. Each claim was tested by a "
        "rule that was fixed before the run, unless it says otherwise; what did not come out as in the paper is said so.",
        "",
        "| experiment | the paper's claim | the paper | here | verdict |",
        "|---|---|---|---|---|",
    ]
    for one in told:
        for k, claim in enumerate(one["claims"]):
            first = f"[{one['title']}](#{one['name']})" if not k else ""
            symbol = Verdict(claim["verdict"]).symbol
            lines.append(f"| {first} | {claim['claim']} | {claim['paper']} | {claim['found']} | {symbol} {claim['verdict']} |")
    for one in told:
        lines += ["", f'<a name="{one["name"]}"></a>', f"## {one['title']}", "", f"**{one['question']}** {one['expected']}", ""]
        lines += [f"![{one['shown']}]({one['name']}.png)", "", f"*{one['shown']}.* {one['caption']}", ""]
        lines += [f"{one['setting']} {one['date']}, scorescope {one['version']}, {span(one['seconds'])} of computing.", ""]
        for claim in one["claims"]:
            lines += [f"- **{claim['claim']}**: {claim['verdict']}. {claim['found']}. {claim['note']}".rstrip(), f"  Rule: {claim['rule']}"]
        lines += ["", one["settled"]] if one["settled"] else []
    return "\n".join(lines) + "\n"
