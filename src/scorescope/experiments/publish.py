"""What an experiment leaves for readers: NAME.nc, NAME.svg, NAME.png, NAME.csv, NAME.json, and README.md, the table of all verdicts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import xarray as xr

from scorescope import results
from scorescope.charts import Chart
from scorescope.claims import Finding, NotJudged
from scorescope.claims.claim import Judged, Verdict
from scorescope.experiments.experiment import Experiment, Reading
from scorescope.files import replacing, write_json, write_text
from scorescope.progress import span

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
    write_text(out / "README.md", table(out))
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


def table(out: Path) -> str:
    """README.md of a folder of results, from the records of all experiments in it."""
    records = sorted((json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")), key=lambda one: one["order"])
    scales = sorted({one["scale"] for one in records})
    lines = [
        HEAD,
        f"Made by `scorescope reproduce {' '.join(one['name'] for one in records)} --scale {' '.join(scales)}`. Each claim was tested by a "
        "rule that was fixed before; what did not come out as in the paper is said so.",
        "",
        "| experiment | the paper's claim | the paper | here | verdict |",
        "|---|---|---|---|---|",
    ]
    for one in records:
        for k, claim in enumerate(one["claims"]):
            first = f"[{one['title']}](#{one['name']})" if not k else ""
            symbol = Verdict(claim["verdict"]).symbol
            lines.append(f"| {first} | {claim['claim']} | {claim['paper']} | {claim['found']} | {symbol} {claim['verdict']} |")
    for one in records:
        lines += ["", f'<a name="{one["name"]}"></a>', f"## {one['title']}", "", f"**{one['question']}** {one['expected']}", ""]
        lines += [f"![{one['shown']}]({one['name']}.png)", "", f"*{one['shown']}.* {one['caption']}", ""]
        lines += [f"{one['setting']} {one['date']}, scorescope {one['version']}, {span(one['seconds'])} of computing.", ""]
        for claim in one["claims"]:
            lines += [f"- **{claim['claim']}**: {claim['verdict']}. {claim['found']}. {claim['note']}".rstrip(), f"  Rule: {claim['rule']}"]
        lines += ["", one["settled"]] if one["settled"] else []
    return "\n".join(lines) + "\n"
