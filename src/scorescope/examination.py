"""The main job: states → measurements → results, in cells that are written as they are done, so that a killed run continues.

    OUT/run.json                      settings; the same command continues, other settings are refused (`runs`)
    OUT/states/MODEL/paths-*.safetensors   sampling trajectories, a few paths a file
    OUT/cells/…                       one file for each (region, time, model) and each whole probe
    OUT/results.nc  copies.csv  report.html  charts/

Models are asked about the same noise, and about the same states where a region does not depend on the model; then the exact posterior
is computed once for all of them.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope import __version__, copies, forecast, plan, regions, results, runs, sampled
from scorescope.adapters import objects
from scorescope.choice import rivals
from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore
from scorescope.errors import InputError, unknown
from scorescope.evaluate.samples import as_rows, open_samples
from scorescope.files import replacing, write_tensors
from scorescope.measure import Cell, cells, measure_whole, table, together
from scorescope.plan import Plan
from scorescope.prepare import Prepared, about_bank, prepare
from scorescope.probes import StateProbe, Subject, WholeProbe, memorization
from scorescope.probes.base import Setting
from scorescope.progress import Board
from scorescope.reading import outside, readings, spill_warning, value_range, warnings_of
from scorescope.regions import REGIONS, Noised, States
from scorescope.rows import Bank
from scorescope.sampler import Solver, start_time, trajectory
from scorescope.theories.gaussian import GaussianScore
from scorescope.watched import Watched

CHUNK = 32  # paths in one file of states
RESULTS, REPORT = "results.nc", "report.html"
KIND = runs.Kind(
    "an examination",
    (
        *("states/*/paths-[0-9]*.safetensors", "cells/*/*/time-[0-9]*.npz", "cells/*/*.nc"),
        *(RESULTS, REPORT, copies.FILE, "charts/*.svg", "charts/*.png", "charts/*.csv", "charts/*.json"),
    ),
    before=("plan.json",),
)


@dataclass
class Run:
    """A finished examination.

    Attributes:
        folder: Where everything lies.
        results: Every number, per state (see `scorescope.results`).
    """

    folder: Path
    results: xr.Dataset

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report; to the run's folder unless a path is given."""
        from scorescope import report

        return report.write(self.results, self.folder / REPORT if path is None else Path(path))

    @property
    def claims(self) -> list[dict[str, Any]]:
        """Every claim and what the data say about it: name, model, region, value, low, high, n, unit, verdict, rule, text."""
        from scorescope import claims

        return claims.records(self.results)

    @property
    def copies(self) -> list[dict[str, Any]]:
        """Every sample that is a copy by any criterion: model, sample, row, name, distance, the criteria, group_size."""
        return copies.records(self.results)

    def findings(self) -> list[str]:
        """The three main findings in plain words."""
        from scorescope import claims

        return claims.three(self.results)


@dataclass(frozen=True)
class Machine:
    """How an examination is computed; changes no number beyond float32 rounding.

    Attributes:
        device: Where to compute.
        batch: Paths sampled together.
        memory: Bytes for the bank's rows (`EmpiricalScore`); a quarter of what is free unless given.
        quiet: Show no progress.
        command: Recorded in the report.
        as_is: Measure models, too, that are not read right (see `scorescope.reading`); nothing is judged of them.
    """

    device: str = "cpu"
    batch: int = 256
    memory: int | None = None
    quiet: bool = False
    command: str = ""
    as_is: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch {self.batch} is not a positive number", "--batch 256")


def examine(
    model: Any,
    bank: Bank,
    probes: Sequence[str] | None = None,
    *,
    held_out: Bank | None = None,
    preset: str = "default",
    out: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> Run:
    """Measure one or several models against the exact empirical score of their training set.

    Args:
        model: A `Denoiser`, or an object that `load` takes as it is, or a list of them: then the report compares them. Or finished
            samples, as an array (n, *shape) in model space, a bank of them or a path to them (`evaluate.open_samples`): then what needs no
            model is measured, and its name is the samples'. Of a model whose target is not E[x | z_t] (`Denoiser.samples_only`) the same
            is measured, and r* of its states.
        bank: What they were trained on.
        probes: Names of probes; all unless given.
        held_out: Rows of the same kind that training never saw: what is asked of training rows is asked of them, too.
        preset: The plan whose values hold for all that is not given: default, quick, demo or paper.
        out: Folder of the run, continued if it was cut; a temporary one unless given.
        force: Begin again, in place of the run in `out`.
        **options: Fields of `scorescope.plan.Plan` (paths, times, origins, nulls, labels, tolerance, solver, steps, shared_states, seed)
            and of `Machine` (device, batch, memory, quiet, command, as_is).

    Raises:
        InputError: Anything that does not fit, or a model that is not read right, in one line; nothing is written then.
    """
    given = {**options, **({} if probes is None else {"probes": tuple(probes)})}
    known = {field.name: kind for kind in (plan.Plan, Machine) for field in fields(kind)}
    for name in given:
        if name not in known:
            raise unknown("option of examine", name, known)
    if "labels" in given:
        labels = given["labels"]
        given["labels"] = (labels,) if isinstance(labels, str) else tuple(str(label) for label in labels)
    chosen = replace(plan.preset(preset), **{name: value for name, value in given.items() if known[name] is plan.Plan})
    machine = Machine(**{name: value for name, value in given.items() if known[name] is Machine})
    work: Callable[[Path], Run]
    if isinstance(model, Bank | np.ndarray | Tensor | str | Path):
        if held_out is not None:
            said = "finished samples are looked up among the training rows alone, so that held-out rows mean nothing"
            raise InputError(said, "leaving held_out out")
        samples = open_samples(model, bank) if isinstance(model, str | Path) else as_rows(model, bank)
        sampled.check(samples, bank, chosen, plan.preset(preset))
        work = partial(_samples_examined, samples, chosen, bank, machine, force)
    else:
        models = objects.denoisers_of(model)
        work = partial(_examined, prepare(chosen, models, bank, machine.device, held_out), bank, machine, force)
    if out is not None:
        return work(Path(out))
    folder = Path(tempfile.mkdtemp(prefix="scorescope-"))
    try:
        run = work(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _readings(prepared: Prepared, bank: Bank, folder: Path, machine: Machine, force: bool) -> dict[str, Any]:
    """Whether the models are read right; as the run that is continued has found it."""
    if runs.continues(folder, KIND, prepared.settings, force=force):
        known = (runs.record_of(folder) or {}).get("reading")
        if isinstance(known, dict) and known.keys() == prepared.models.keys():
            return known
    return readings(prepared.models, bank, prepared.classes, prepared.plan.seed, machine.device, machine.as_is, rivals)


def _examined(prepared: Prepared, bank: Bank, machine: Machine, force: bool, folder: Path) -> Run:
    reading = _readings(prepared, bank, folder, machine, force)
    truth = EmpiricalScore(bank, tolerance=prepared.plan.tolerance, device=machine.device, memory=machine.memory)

    def measured(board: Board, continued: bool) -> xr.Dataset:
        return _Job(prepared, bank, truth, folder, machine, reading).run(board, continued)

    return _finished(folder, prepared.settings, {"reading": reading}, machine, force, measured)


def _samples_examined(samples: Bank, plan: Plan, bank: Bank, machine: Machine, force: bool, folder: Path) -> Run:
    told = {"nulls": plan.nulls, "seed": plan.seed, "device": torch.device(machine.device).type}

    def measured(board: Board, continued: bool) -> xr.Dataset:
        n = len(samples.rows)
        board.say(f"examining {n:,} samples of {samples.name} on {bank.name}: {len(bank):,} rows of {bank.shape}; there is no model")
        begun = time.monotonic()
        with board.row(memorization.PROBE.title, n) as row:
            found = sampled.measure_samples(samples, bank, plan, torch.device(machine.device), row)
        pointed = {int(k) for part in memorization.PROBE.rows(found) for k in np.ravel(part)}
        about = {"name": samples.name, "file": samples.name, "sha256": samples.fingerprint, "parameters": None}
        record = _origin(bank, machine) | {
            "settings": told, "seed": plan.seed, "models": [about], "samples": {"name": samples.name, "rows": n},
            "timings": {memorization.PROBE.name: round(time.monotonic() - begun, 2)},
            "warnings": [*sampled.warnings(found, samples, bank), *about_bank(bank)], "not_measured": sampled.not_measured(),
        }  # fmt: skip
        return results.with_provenance(found.merge(_rows(bank, pointed), combine_attrs="override"), record)

    settings = {"samples": samples.fingerprint, "bank": bank.fingerprint, **told}
    return _finished(folder, settings, {}, machine, force, measured)


def _finished(
    folder: Path,
    settings: dict[str, Any],
    notes: dict[str, Any],
    machine: Machine,
    force: bool,
    measure: Callable[[Board, bool], xr.Dataset],
) -> Run:
    """The run in its folder: as it is there, or measured and written."""
    with runs.claimed(folder, KIND, settings, notes=notes, force=force) as continued:
        if continued and (folder / RESULTS).exists():
            with suppress(InputError):  # damaged: its cells are there still
                return Run(folder, results.load(folder / RESULTS))
        with Board(machine.quiet) as board:
            measured = measure(board, continued)
        if copies.measured(measured):
            copies.write(measured, folder / copies.FILE)
        results.save(measured, folder / RESULTS)
        return Run(folder, measured)


def _origin(bank: Bank, machine: Machine) -> dict[str, Any]:
    """What ran on which bank, for the provenance."""
    return {
        "version": __version__,
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": machine.command,
        "device": str(torch.device(machine.device)),
        "bank": {
            "name": bank.name,
            "rows": len(bank.rows),
            "shape": list(bank.shape),
            "classes": bank.classes,
            "class_names": list(bank.class_names or []),
            "flips": bank.flips,
            "fingerprint": bank.fingerprint,
            "radius": bank.radius,
            "low": bank.low,
            "high": bank.high,
            "source": str(bank.manifest.get("source", "")),
        },
    }


def _rows(bank: Bank, wanted: set[int]) -> xr.Dataset:
    """Pictures, classes and names of rows."""
    index = np.array(sorted(k for k in wanted if k >= 0), dtype=np.int64)
    stored = index % len(bank.rows)
    data = {
        "row_index": (("row",), index),
        "row_image": (("row", *results.image_dims(bank.shape)), bank[index].numpy()),
        "row_label": (("row",), np.full(len(index), -1) if bank.labels is None else bank.labels[stored]),
    }
    if bank.names is not None:
        data["row_name"] = (("row",), np.array([bank.names[k] for k in stored], dtype=object))
    return xr.Dataset(data)


class _Job:
    """One examination under way."""

    def __init__(
        self, prepared: Prepared, bank: Bank, truth: EmpiricalScore, folder: Path, machine: Machine, reading: dict[str, Any]
    ) -> None:
        self.prepared, self.bank, self.truth, self.folder, self.machine, self.reading = prepared, bank, truth, folder, machine, reading
        self.device, self.plan = torch.device(machine.device), prepared.plan
        self.models = {name: on_linear_axis(model.to(self.device)) for name, model in prepared.models.items()}
        self.timings: dict[str, float] = {}
        self.baseline = GaussianScore(bank, device=self.device)
        self.regions = [region for region in REGIONS if region != "held-out" or prepared.held_out is not None]
        labels = regions.path_labels(prepared.classes, self.plan.paths)
        self.labels = None if labels is None else labels.to(self.device)
        solver = Solver(self.plan.solver, self.plan.steps, batch=machine.batch)
        self.setting = Setting(
            prepared.times, self.plan.sizes, self.plan.seed, prepared.classes, solver, {}, self.plan.returns, not prepared.samples_only
        )

    def run(self, board: Board, continued: bool) -> xr.Dataset:
        state_probes = [probe for probe in self.prepared.probes if isinstance(probe, StateProbe)]
        whole_probes = [probe for probe in self.prepared.probes if isinstance(probe, WholeProbe)]
        board.say(f"examining {', '.join(self.models)} on {self.bank.name}: {len(self.bank):,} rows of {self.bank.shape}")
        names = ", ".join(probe.name for probe in self.prepared.probes)
        board.say(f"{self.plan.paths} paths × {len(self.prepared.times)} times, probes {names}")
        board.say(f"run folder {self.folder} (killed, the same command continues)")
        if continued:
            board.say(f"continuing: {len(list(self.folder.glob('cells/**/*.n*')))} cells done")
        sampling = [probe for probe in state_probes if {"extrapolation", "renoised"} & {*probe.regions}]
        needs_samples = bool(sampling) or any(not probe.of_bank for probe in whole_probes)
        if not board.quiet and (state_probes or needs_samples):
            board.say(self._forecast(state_probes, whole_probes, needs_samples))
        if needs_samples:
            for name in self.models:
                self._sample(board, name)
        parts: list[xr.Dataset] = []
        for region in self.regions:
            wanted = [probe for probe in state_probes if region in probe.regions]
            if wanted:
                self._measure_region(board, region, wanted)
        if state_probes:
            parts.append(table(state_probes, list(self.models), self.regions, self.prepared.times, self._read))
        parts += [self._measure_whole(board, probe) for probe in whole_probes]
        if needs_samples:
            parts.append(self._pictures())
        parts.append(self._paths())
        merged = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
        merged = merged.merge(self._rows(merged), combine_attrs="override")
        low, high = value_range(self.bank)
        share = {name: outside(self._states(name, -1).cpu(), low, high) for name in (self.models if needs_samples else ())}
        return results.with_provenance(merged, self._provenance(share, (low, high)))

    def _forecast(self, state_probes: list[StateProbe], whole_probes: list[WholeProbe], sampled: bool) -> str:
        """How long what is not done yet will take, from a few evaluations and cells."""
        paths, times, count = self.plan.paths, self.prepared.times, len(self.models)
        few, middle = self._pairs().to(self.device).at(0.5)[:CHUNK], len(times) // 2
        label = None if self.labels is None else self.labels[: len(few)]
        with torch.inference_mode():
            model = sum(forecast.seconds_each(one, few, 0.5, label) for one in self.models.values()) / count
        asked = 1 + (self.labels is not None and any(probe.needs_guidance for probe in state_probes))
        cell, inside = asked * paths * model, [probe for probe in state_probes if "supervision" in probe.regions]
        if inside and cell * count < forecast.SHORT:
            states = self._region("supervision", "")

            def some(which: list[int]) -> None:  # not kept: in a sweep of few times the last digits are others
                list(cells(self.models, self.truth, states, inside, which))

            some([middle])  # what is made once is made now
            both = [len(times) // 4, 3 * len(times) // 4]
            took = forecast.timed(lambda: some(both))
            if took > forecast.COMPILED:
                took = min(took, forecast.timed(lambda: some(both)))
            cell = took / (len(both) * count)
        left = sum(len(times) - len(list(self._cell(name, r, 0).parent.glob("time-*.npz"))) for name in self.models for r in self.regions)
        drawn = sum(len(list((self.folder / "states" / file_name(name)).glob("*.safetensors"))) for name in self.models)
        chunks = count * -(-paths // CHUNK) - drawn
        stages = {"sampling": sampled * chunks * min(CHUNK, paths) * model * forecast.evaluations(self.plan.solver, self.plan.steps)}
        stages |= {"measuring along paths": left * cell} if state_probes else {}
        first, held_out = next(iter(self.models.values())), self.prepared.held_out
        subject = Subject(first, self.truth, self.bank, few.new_zeros(paths), None, self.setting, held_out)
        costs = {probe.name: probe.cost(subject) for probe in whole_probes if probe.cost is not None}
        exact = forecast.seconds_each(self.truth, few, 0.5, label) if any(of_truth for _, of_truth in costs.values()) else 0.0
        for part, (of_model, of_truth) in costs.items():
            lacking = sum(not (self.folder / "cells" / file_name(name) / f"{part}.nc").exists() for name in self.models)
            stages[part] = lacking * (of_model * model + of_truth * exact)
        names = [probe.name for probe in self.prepared.probes]
        return forecast.words(stages, {probe.name: [name for name in names if name != probe.name] for probe in whole_probes})

    # ---- states -----------------------------------------------------------------------------------------------------------------

    def _owner(self, model: str) -> str:
        """The model whose trajectories `model` is asked about."""
        return self.plan.shared_states or model

    def _sample(self, board: Board, name: str) -> None:
        """The trajectories of one model, a file for every `CHUNK` paths; the finished sample is time 0."""
        model, total, begun = self.models[name], self.plan.paths, time.monotonic()
        grid = [0.0, *self.prepared.times.tolist()]
        with board.row(f"sampling {name}", total) as row:
            for first in range(0, total, CHUNK):
                items = list(range(first, min(first + CHUNK, total)))
                path = self.folder / "states" / file_name(name) / f"paths-{first:06d}.safetensors"
                if not _whole(path, (len(items), len(grid), *self.bank.shape)):
                    start = start_time(model)
                    noise = regions.path_starts(self.bank, total, self.plan.seed, self.labels, start)[items].to(self.device)
                    label = None if self.labels is None else self.labels[items]
                    solver, seed = self.setting.solver, self.plan.seed
                    states = trajectory(Watched(model, row), noise, grid, label, start=start, solver=solver, seed=seed, items=items)
                    write_tensors(path, {"states": states})
                row(len(items))
        self.timings[f"sampling {name}"] = time.monotonic() - begun

    def _states(self, model: str, k: int) -> Tensor:
        """(P, *shape) states of a model's own paths at time k; k = −1 gives its finished samples."""
        parts = []
        for first in range(0, self.plan.paths, CHUNK):
            with safe_open(self.folder / "states" / file_name(model) / f"paths-{first:06d}.safetensors", framework="pt") as opened:
                parts.append(opened.get_slice("states")[:, k + 1])
        return torch.cat(parts).to(self.device)

    def _region(self, region: str, owner: str) -> States:
        """The states of a region, where trajectories and samples are those of `owner`."""
        times = self.prepared.times
        if region == "extrapolation":
            return States(region, times, self.labels, along=lambda k: self._states(owner, k))
        noised = {"supervision": self._pairs, "renoised": lambda: self._renoised(owner), "held-out": self._held_out}[region]()
        return States.noised(region, times, noised.to(self.device))

    def _held_out(self) -> Noised:
        assert self.prepared.held_out is not None
        return regions.held_out(self.prepared.held_out, self._pairs(), self.plan.seed)

    def _pairs(self) -> Noised:
        return regions.supervision(self.bank, self.plan.paths, self.plan.seed, self.prepared.classes)

    def _renoised(self, owner: str) -> Noised:
        return regions.renoised(self._states(owner, -1).cpu(), self.labels, self.plan.seed)

    # ---- measurements -------------------------------------------------------------------------------------------------------------

    def _cell(self, model: str, region: str, k: int) -> Path:
        return self.folder / "cells" / file_name(model) / region / f"time-{k:04d}.npz"

    def _read(self, model: str, region: str, k: int) -> Cell | None:
        """A cell; None where there is none, or a damaged one."""
        try:
            with open(self._cell(model, region, k), "rb") as opened, np.load(opened) as cell:
                return dict(cell)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def _measure_region(self, board: Board, region: str, probes: Sequence[StateProbe]) -> None:
        """All cells of a region that are not there yet."""
        begun, times = time.monotonic(), self.prepared.times
        same_states = region in ("supervision", "held-out") or self.plan.shared_states is not None
        groups = [list(self.models)] if same_states else [[name] for name in self.models]
        asked = {name for probe in probes for name in probe.variables}
        with board.row(f"{region}: {', '.join(probe.name for probe in probes)}", len(times) * len(self.models)) as row:
            for names in groups:
                done = {(name, k) for name in names for k in range(len(times)) if asked <= (self._read(name, region, k) or {}).keys()}
                todo = [k for k in range(len(times)) if any((name, k) not in done for name in names)]
                row.skip(len(names) * (len(times) - len(todo)))
                models = {name: self.models[name] for name in names}
                for k, name, found in cells(models, self.truth, self._region(region, self._owner(names[0])), probes, todo, self.baseline):
                    with replacing(self._cell(name, region, k)) as temporary, open(temporary, "wb") as opened:
                        np.savez(opened, **found)  # type: ignore[arg-type]
                    row(1, f"t = {times[k]:.2f}")
        self.timings[region] = time.monotonic() - begun

    def _r_star(self, model: str) -> np.ndarray | None:
        """(P, T) of the extrapolation paths, where a probe has measured it."""
        read = [(self._read(model, "extrapolation", k) or {}).get("r_star") for k in range(len(self.prepared.times))]
        known = [one for one in read if one is not None]
        return np.stack(known, 1) if len(known) == len(read) else None

    def _measure_whole(self, board: Board, probe: WholeProbe) -> xr.Dataset:
        """What a whole probe says of all models, or of the bank."""
        begun, parts = time.monotonic(), {}
        for name in list(self.models)[:1] if probe.of_bank else list(self.models):
            path = self.folder / "cells" / ("bank" if probe.of_bank else file_name(name)) / f"{probe.name}.nc"
            with suppress(InputError):
                parts[name] = results.load(path)
                continue
            samples = torch.zeros(0, *self.bank.shape) if probe.of_bank else self._states(name, -1)
            subject = Subject(self.models[name], self.truth, self.bank, samples, self.labels, self.setting, self.prepared.held_out)
            if not probe.of_bank:
                subject.states, subject.r_star = partial(self._states, self._owner(name)), self._r_star(name)
            title = probe.name if probe.of_bank or len(self.models) == 1 else f"{probe.name} {name}"
            with board.row(title, probe.work(subject)) as row:
                subject.tick = row
                parts[name] = measure_whole(probe, subject)
            results.save(parts[name], path)
        self.timings[probe.name] = time.monotonic() - begun
        return together(probe, parts)

    # ---- what the report needs besides numbers --------------------------------------------------------------------------------------

    def _pictures(self) -> xr.Dataset:
        samples = np.stack([self._states(name, -1).float().cpu().numpy() for name in self.models])
        dims = ("model", "path", *results.image_dims(self.bank.shape))
        return xr.Dataset({"sample": (dims, samples)}, coords={"model": list(self.models)})

    def _paths(self) -> xr.Dataset:
        """Which rows and classes the paths have."""
        source = self._pairs()
        label = np.full((len(self.models), len(self.regions), self.plan.paths), -1)
        if source.label is not None and self.labels is not None:
            for k, region in enumerate(self.regions):
                label[:, k] = (source.label if region in ("supervision", "held-out") else self.labels.cpu()).numpy()
        data = {"label": (("model", "region", "path"), label), "supervision_row": (("path",), source.row)}
        if self.prepared.held_out is not None:
            data["held_out_row"] = (("path",), self._held_out().row)
        return xr.Dataset(data, coords={"model": list(self.models), "region": self.regions})

    def _rows(self, measured: xr.Dataset) -> xr.Dataset:
        """Pictures of the rows that the probes point at."""
        return _rows(self.bank, {int(k) for probe in self.prepared.probes for part in probe.rows(measured) for k in np.ravel(part)})

    def _provenance(self, share: dict[str, float], span: tuple[float, float]) -> dict[str, Any]:
        settings = self.prepared.settings
        return _origin(self.bank, self.machine) | {
            "settings": settings,
            "seed": self.plan.seed,
            "tolerance": self.truth.tolerance,
            "dtype": "float32 networks, float64 statistics",
            "models": [_about(name, model, settings["models"][name]) for name, model in self.prepared.models.items()],
            "held_out": _rows_of(self.prepared.held_out),
            "timings": {name: round(seconds, 2) for name, seconds in self.timings.items()},
            "reading": self.reading,
            "outside": share,
            "warnings": [
                *warnings_of(self.reading),
                *(line for name in share for line in spill_warning(name, share[name], *span)),
                *self.prepared.warnings,
            ],
            "not_measured": self.prepared.not_measured,
        }


def _rows_of(held_out: Bank | None) -> dict[str, Any] | None:
    """What the results say of held-out rows."""
    if held_out is None:
        return None
    return {"name": held_out.name, "rows": len(held_out.rows), "fingerprint": held_out.fingerprint}


def _about(name: str, model: Denoiser, identity: Any) -> dict[str, Any]:
    """What the results say of a model."""
    return {
        "name": name,
        "file": model.about.get("file", ""),
        "sha256": model.about.get("sha256") or sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "parameters": model.parameters_count,
        "schedule": repr(model.schedule)[:200],
        "prediction": getattr(model, "prediction", "posterior mean"),
        "start": round(start_time(model), 4),
        "recipe": model.about.get("recipe", {}),
        "weights": model.about.get("weights", ""),
        "left_out": model.about.get("left_out", ""),
        "samples_only": model.samples_only,
        "read_as": str(model.about.get("read_as", "")),
    }


def file_name(model: str) -> str:
    """A model's name as a folder; other characters become underscores, told apart by a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"
    return plain if plain == model else f"{plain}-{sha256(model.encode()).hexdigest()[:6]}"


def _whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of states can be read, and holds what it should."""
    try:
        with safe_open(path, framework="pt") as opened:
            return tuple(opened.get_slice("states").get_shape()) == shape
    except (OSError, SafetensorError):
        return False


__all__ = ["Machine", "Run", "examine"]
