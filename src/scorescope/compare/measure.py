"""What is measured of each run: supervision loss on training pairs that all runs share, and the Fréchet distance of its samples.

The supervision loss (C.8) is the score error over training pairs, averaged over t from 0.1 to 1, per dimension:

    L = E ‖x̂_θ − x̂*‖²/(t² d) = DSM loss − its optimum

The first form is the loss of the table, since the second has a cross term as noise; that, and the plain DSM loss, stand beside it. `share`
is L over that of the bank's Gaussian denoiser at the same states: the same in any unit. States, noise and the numbers of samples are the
same for all runs, and so are bootstrap draws.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope import forecast, recipes, regions, runs
from scorescope.choice import rivals
from scorescope.compare import KIND, grouping
from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore
from scorescope.evaluate.comparison import check
from scorescope.evaluate.drawing import generate, settings_of
from scorescope.evaluate.extractors import Extractor
from scorescope.evaluate.features import Features
from scorescope.evaluate.frechet import frechet_distance, influence
from scorescope.evaluate.options import Sampling
from scorescope.evaluate.samples import open_samples
from scorescope.examination import file_name
from scorescope.files import cache_folder, replacing
from scorescope.measure import cells
from scorescope.plan import Plan
from scorescope.prepare import Prepared, prepare
from scorescope.probes import score_error, supervision_loss
from scorescope.progress import Board, span
from scorescope.reading import readings
from scorescope.regions import States
from scorescope.rows import Bank
from scorescope.statistics import integrated_error, resampled_means
from scorescope.theories.gaussian import GaussianScore

PROBES = (score_error.PROBE, supervision_loss.PROBE)
NAMES = ("score_error", "gaussian_error", "dsm_loss", "dsm_optimum")
DRAWS = 500
K = 3  # neighbours of `evaluate`, which are not asked for here


@dataclass(frozen=True)
class Measuring:
    """How runs are measured.

    Attributes:
        sampling: Which samples, and how.
        extractor: Features of the Fréchet distance.
        paths: Training pairs.
        times: On each, even, and 0.01, 0.02, 0.05, 0.1, 0.2.
        reference: Most rows of the bank that samples are compared with.
        cache: Folder for features.
        device: Where to compute.
        quiet: Show no progress.
    """

    sampling: Sampling
    extractor: Extractor
    paths: int = 200
    times: int = 25
    reference: int = 10_000
    cache: str | None = None
    device: str = "cpu"
    quiet: bool = False

    def settings(self, bank: Bank) -> dict[str, Any]:
        """What a continued comparison must share."""
        told = {"paths": self.paths, "times": self.times, "reference": self.reference, "extractor": self.extractor.identity}
        return {"bank": bank.fingerprint, "sampling": asdict(self.sampling), "device": torch.device(self.device).type, **told}


def measured(
    models: Sequence[Denoiser], bank: Bank, how: Measuring, out: str | Path, named: Sequence[str] | None = None, force: bool = False
) -> xr.Dataset:
    """The table of runs, in a folder that is continued if it was cut: see `Comparing`, and `Comparing.run`."""
    comparing = Comparing(models, bank, how, named)
    with runs.claimed(out, KIND, how.settings(bank), force=force):
        return comparing.run(out)


def _enough(kinds: Mapping[str, str]) -> None:
    """Refuse before anything is measured what `recipes.checked` would refuse at the end."""
    told = list(kinds.values())
    recipes.table([recipes.Point(kind, name, 1.0 + told[:k].count(kind), 1.0) for k, (name, kind) in enumerate(kinds.items())])


def _key(name: str, identity: Any) -> str:
    """A run's name in the folder: with other weights it is another."""
    return f"{file_name(name)}-{sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"


class Comparing:
    """Runs to be compared, held against the bank; nothing is written yet.

    Args:
        models: The runs' networks.
        bank: What they were trained on.
        how: How they are measured.
        named: The recipe of each; found from their records unless given.

    Raises:
        InputError: Anything that does not fit, or no recipe with three runs.
    """

    def __init__(self, models: Sequence[Denoiser], bank: Bank, how: Measuring, named: Sequence[str] | None = None) -> None:
        self.how, self.bank, self.folder, self.device = how, bank, Path(), torch.device(how.device)
        plan = Plan(tuple(probe.name for probe in PROBES), paths=how.paths, times=how.times, seed=how.sampling.seed)
        self.prepared: Prepared = prepare(plan, list(models), bank, how.device)
        self.times, known = self.prepared.times, self.prepared.models
        self.kinds = grouping.grouped(known) if named is None else dict(zip(known, named, strict=True))
        _enough(self.kinds)
        for model in known.values():
            settings_of(model, how.sampling, bank, how.device)
        n = len(how.sampling.numbers())
        check(f"--n {n}", n, bank, how.extractor, how.reference, K)
        self.keys = {name: _key(name, self.prepared.settings["models"][name]) for name in known}

    def run(self, out: str | Path) -> xr.Dataset:
        """Measure what is not there yet, and return the table of runs (`scorescope.recipes`), which has beside what that says `share`,
        `dsm_loss`, `dsm_minus_optimum`, `gaussian`, `parameters` and `step`.

        Args:
            out: A folder that the caller has claimed.
        """
        self.folder = Path(out)
        with Board(self.how.quiet) as board:
            board.say(f"comparing {', '.join(f'{name} ({kind})' for name, kind in self.kinds.items())} on {self.bank.name}")
            for line in self.prepared.warnings:
                board.say(f"warning: {line}")
            board.say(f"folder {self.folder} (killed, the same command continues)")
            self._losses(board)
        return recipes.checked(self._table(self._distances()))

    def _place(self, name: str, cell: str) -> Path:
        return self.folder / "cells" / self.keys[name] / f"{cell}.npz"

    # ---- loss -------------------------------------------------------------------------------------------------------------------

    def _losses(self, board: Board) -> None:
        """Every run's cells that are not there yet; the exact posterior is found once for all."""
        done = {(name, k) for name in self.keys for k in range(len(self.times)) if _read(self._place(name, f"time-{k:04d}")) is not None}
        todo = [k for k in range(len(self.times)) if any((name, k) not in done for name in self.keys)]
        lacking = [name for name in self.keys if any((name, k) not in done for k in todo)]
        models = {name: self.prepared.models[name] for name in lacking}
        if not models:
            return
        outside = {name: model for name, model in models.items() if not model.about.get("recipe")}  # ours say how they are read
        readings(outside, self.bank, self.prepared.classes, self.how.sampling.seed, self.how.device, False, rivals)
        pairs = regions.supervision(self.bank, self.how.paths, self.how.sampling.seed, self.prepared.classes).to(self.device)
        states = States.noised("supervision", self.times, pairs)
        asked = {name: on_linear_axis(model.to(self.device)) for name, model in models.items()}
        board.say(self._forecast(asked, states, todo))
        truth, baseline = EmpiricalScore(self.bank, device=self.device), GaussianScore(self.bank, device=self.device)
        with board.row(f"supervision loss of {len(models)} runs", len(todo) * len(models)) as row:
            for k, name, found in cells(asked, truth, states, PROBES, todo, baseline):
                _write(self._place(name, f"time-{k:04d}"), {key: found[key] for key in NAMES})
                row(1, f"t = {self.times[k]:.2f}")

    def _forecast(self, models: Mapping[str, Denoiser], states: States, todo: Sequence[int]) -> str:
        """How long the networks will take; the exact score and features come on top."""
        sampling, middle = self.how.sampling, len(self.times) // 2
        label = None if states.label is None else states.label[:32]
        with torch.inference_mode():
            each = {name: forecast.seconds_each(model, states.at(middle)[:32], 0.5, label) for name, model in models.items()}
        asked = len(sampling.numbers()) * forecast.evaluations(sampling.solver, sampling.steps)
        drawing = sum(one * asked for name, one in each.items() if _read(self._place(name, "frechet")) is None)
        along = sum(each.values()) * self.how.paths * len(todo)
        parts = f"sampling {span(drawing)}, supervision loss {span(along)}"
        return f"the networks will take about {span(drawing + along)}: {parts}; the exact score and features come on top"

    def _errors(self, name: str) -> dict[str, np.ndarray]:
        """(P,) averages over t from 0.1 to 1 by name."""
        read = [_read(self._place(name, f"time-{k:04d}")) or {} for k in range(len(self.times))]
        return {key: integrated_error(np.stack([one[key] for one in read], 1), self.times) for key in NAMES}

    # ---- distance -----------------------------------------------------------------------------------------------------------------

    def _distances(self) -> dict[str, dict[str, np.ndarray]]:
        """Every run's Fréchet distance, and the influence of each sample on it; samples are drawn where they are not there."""
        known = Features(self.bank, self.how.extractor, cache_folder(self.how.cache), self.how.device)
        n = len(self.how.sampling.numbers())
        for place, name in enumerate(self.keys):
            if _read(self._place(name, "frechet")) is not None:
                continue
            model = self.prepared.models[name]
            if not self.how.quiet:
                with Board() as board:
                    board.say(f"run {place + 1} of {len(self.keys)}: {name}")
            samples = self.folder / "samples" / self.keys[name]
            rows = open_samples(
                generate(model, self.how.sampling, samples, bank=self.bank, device=self.how.device, quiet=self.how.quiet), self.bank
            )
            with Board(self.how.quiet) as board, board.row(f"{self.how.extractor.title} of {name}", n + self._reference) as row:
                known.tick = row
                folder = cache_folder(self.how.cache)
                own = Features(rows, self.how.extractor, folder, self.how.device, tick=row, real=self.bank).first(n)
                value, moved = influence(own, known.moments(self._reference))
            _write(self._place(name, "frechet"), {"value": np.array(value), "influence": moved.cpu().numpy().astype(np.float32)})
        known.tick = None
        return {name: _read(self._place(name, "frechet")) or {} for name in self.keys}

    @property
    def _reference(self) -> int:
        return min(len(self.bank.rows), self.how.reference)

    def _floor(self) -> tuple[float, int, int]:
        """The distance of real rows from others, as many as there are samples, or half of the bank if it has too few; both numbers."""
        known = Features(self.bank, self.how.extractor, cache_folder(self.how.cache), self.how.device)
        n = len(self.how.sampling.numbers())
        pool = min(len(self.bank.rows), n + self._reference)
        drawn = min(n, pool // 2)
        with Board(self.how.quiet) as board, board.row(f"{self.how.extractor.title} of real rows", pool) as row:
            known.tick = row
            value = frechet_distance(known.first(pool, pool - drawn), known.moments(pool - drawn))
        return value, drawn, pool - drawn

    # ---- together -------------------------------------------------------------------------------------------------------------------

    def _table(self, distances: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
        """The table; draw k resamples the same training pairs and samples in every run."""
        seed = self.how.sampling.seed
        errors = {name: self._errors(name) for name in self.keys}

        def over(make: Any) -> np.ndarray:
            return np.array([make(name) for name in self.keys])

        loss = over(lambda name: errors[name]["score_error"].mean())
        gaussian = over(lambda name: errors[name]["gaussian_error"].mean())
        loss_draw = over(lambda name: resampled_means(errors[name]["score_error"], seed, DRAWS))
        gaussian_draw = over(lambda name: resampled_means(errors[name]["gaussian_error"], seed, DRAWS))
        score = over(lambda name: float(distances[name]["value"]))
        score_draw = score[:, None] + over(lambda name: resampled_means(distances[name]["influence"].astype(float), seed + 1, DRAWS))
        models = self.prepared.models
        per_run = {
            "recipe": np.array([self.kinds[name] for name in self.keys], object), "name": np.array(list(self.keys), object),
            "loss": loss, "score": score,
            "compute": over(lambda name: grouping.compute(models[name])), "gaussian": gaussian, "share": loss / gaussian,
            "dsm_loss": over(lambda name: errors[name]["dsm_loss"].mean()),
            "dsm_minus_optimum": over(lambda name: (errors[name]["dsm_loss"] - errors[name]["dsm_optimum"]).mean()),
            "parameters": over(lambda name: models[name].parameters_count),
            "step": over(lambda name: grouping.step_of(models[name]) or -1),
        }  # fmt: skip
        drawn = {"loss_draw": loss_draw, "share_draw": loss_draw / gaussian_draw, "score_draw": score_draw}
        value, n, m = self._floor()
        data: dict[str, Any] = {name: (("run",), values) for name, values in per_run.items()}
        data |= {name: (("run", "draw"), values.astype(np.float32)) for name, values in drawn.items()}
        sampling = self.how.sampling
        attrs = {
            "score": self.how.extractor.title, "loss": "supervision loss", "floor_of": f"{n:,} real rows against {m:,}",
            "samples": f"{len(sampling.numbers()):,} by {sampling.solver}"
            + ("" if sampling.solver == "dopri5" else f", {sampling.steps} steps"),
        }  # fmt: skip
        return xr.Dataset({**data, "floor": ((), value)}, attrs=attrs)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """A cell; None where there is none, or a damaged one."""
    try:
        with open(path, "rb") as opened, np.load(opened) as cell:
            return dict(cell)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
