"""What a record says: for each workload and method the median time, the errors, and who is beaten by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

BASELINE = "naive-float32"
DISTURBED, SHORTEST = 0.1, 0.5  # share of the processors that others may have; seconds below which the share can't be told
WORKLOADS = {"random": "single states", "supervision": "supervision sweep", "trajectory": "trajectory sweep"}
Line = dict[str, Any]


def lines(content: Mapping[str, Any]) -> list[Line]:
    """One line for each workload and method, in the order of the first repeat; times in seconds for all states."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for measured in content["measurements"]:
        grouped.setdefault((measured["workload"], measured["method"]), []).append(measured)
    base = {workload: median(m["seconds"] for m in found) for (workload, method), found in grouped.items() if method == BASELINE}
    made = []
    for (workload, method), found in grouped.items():
        first, times = found[0], [m["seconds"] for m in found]
        errors = next(m["errors"] for m in found if "errors" in m)
        made.append(
            {
                "workload": workload, "method": method, "ours": first["ours"], "repeats": len(found),
                "seconds": median(times), "fastest": min(times), "slowest": max(times),
                "speedup": base[workload] / median(times) if workload in base else None,
                "worst_error": max(errors), "median_error": median(errors), "audited": len(errors),
                "steps": first["steps"], "states": first["states"],
                "measured_steps": first["measured_steps"], "measured_states": first["measured_states"],
                "prepare_seconds": content["prepare_seconds"][method], "path": found[-1]["path"],
            }
        )  # fmt: skip
    return made


def gains(contents: Sequence[Mapping[str, Any]]) -> list[Line]:
    """One line for each bank and workload: how many times as fast as plain float32 PyTorch scorescope is.

    `times_as_fast` is the ratio of median times; `lowest` and `highest` are the ratios within single repeats, between which it lies.
    """
    made = []
    for content in contents:
        measured, bank = lines(content), content["bank"]
        found = {(line["workload"], line["method"]): line for line in measured}
        own = [line["method"] for line in measured if line["ours"]]
        method = content["default"] if content["default"] in own else own[0]
        for workload in (name for name in WORKLOADS if (name, method) in found and (name, BASELINE) in found):
            mine, plain = found[workload, method], found[workload, BASELINE]
            ratios = _ratios(content, workload, method)
            made.append(
                {
                    "bank": bank["name"], "rows": bank["rows"], "shape": "×".join(map(str, bank["shape"])), "stored": bank["stored"],
                    "workload": workload, "method": method, "times_as_fast": mine["speedup"],
                    "lowest": min(ratios), "highest": max(ratios), "repeats": len(ratios),
                    "seconds": mine["seconds"], "plain_seconds": plain["seconds"],
                    "worst_error": mine["worst_error"], "plain_worst_error": plain["worst_error"],
                    "asked": size(mine), "plain_timed": measured_on(plain),
                }
            )  # fmt: skip
    return made


def _ratios(content: Mapping[str, Any], workload: str, method: str) -> list[float]:
    """How many times as fast as the baseline a method is in each repeat."""
    seconds = {(m["method"], m["repeat"]): m["seconds"] for m in content["measurements"] if m["workload"] == workload}
    return [taken / seconds[method, k] for (name, k), taken in seconds.items() if name == BASELINE and (method, k) in seconds]


def beaten(made: list[Line]) -> list[tuple[Line, Line]]:
    """(ours, other) where the other is both faster and more exact on the same workload."""
    return [
        (mine, other)
        for mine in made
        for other in made
        if mine["ours"] and not other["ours"] and mine["workload"] == other["workload"]
        if other["seconds"] < mine["seconds"] and other["worst_error"] < mine["worst_error"]
    ]


def verdict(made: list[Line]) -> str:
    """Whether any other method is both faster and more exact, in one sentence."""
    if not any(line["ours"] for line in made) or all(line["ours"] for line in made):
        return ""
    found = [f"{other['method']} than {mine['method']} ({mine['workload']})" for mine, other in beaten(made)]
    return f"Both faster and more exact: {', '.join(found)}." if found else "No other method is both faster and more exact than scorescope."


def disturbance(*contents: Mapping[str, Any]) -> str:
    """A warning where other programs had a share of the processors while something was timed, else nothing."""
    told = [m for content in contents for m in content["measurements"] if m["measured_seconds"] >= SHORTEST]
    disturbed = [m["others_share"] for m in told if m["others_share"] > DISTURBED]
    if not disturbed:
        return ""
    return (
        f"other programs had up to {max(disturbed):.0%} of the processors during {len(disturbed)} of {len(told)} measurements, "
        "which slows methods by different factors: times and ratios are not to be trusted. Try: an idle machine and another --out"
    )


def unit(line: Line) -> str:
    """What the steps of a workload are called."""
    return "batches" if line["workload"] == "random" else "timesteps"


def size(line: Line) -> str:
    """How much a workload asks."""
    of = {"supervision": "pairs", "trajectory": "trajectories", "random": "states"}[line["workload"]]
    return f"{line['states']:,} {of} × {line['steps']:,} {unit(line)}"


def measured_on(line: Line) -> str:
    """Which part was timed, where it was not all."""
    if line["measured_steps"] == line["steps"] and line["measured_states"] == line["states"]:
        return ""
    fewer = f"{line['measured_states']:,} of {line['states']:,} states, " if line["measured_states"] < line["states"] else ""
    return f"measured on {fewer}{line['measured_steps']:,} of {line['steps']:,} {unit(line)}"
