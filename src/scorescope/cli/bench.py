"""`scorescope bench empirical --bank BANK`: the exact empirical score beside what else one could use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from scorescope.cli.parse import parse, size
from scorescope.errors import InputError, unknown

if TYPE_CHECKING:
    from scorescope.bench.banks import Source
    from scorescope.bench.measure import Setting
    from scorescope.denoiser import Denoiser

VERBS = {
    "empirical": "the empirical score of a bank: time and error of every method",
    "training": "training and sampling steps beside those of diffusers",
}

HELP = """Compare ways to the same number on your own data and machine: a table, bench.json and one chart.

  scorescope bench empirical --bank photos.bank
  scorescope bench training --presets sit-desk unet-desk

verbs (scorescope bench VERB --help tells more):
{verbs}
"""

EMPIRICAL = """Time the exact empirical score of a bank against plain torch, faiss and KeOps, and judge every answer by a float64 reference.

examples:
  scorescope bench empirical --bank photos.bank
  scorescope bench empirical --bank photos.bank synthetic:latents synthetic:huge --methods naive-float32 scorescope-1e-4
  scorescope bench empirical --bank photos.bank --workloads random --methods naive-float32 faiss-flat-64 scorescope-1e-6
"""


@dataclass(frozen=True)
class Empirical:
    """Arguments of `scorescope bench empirical`."""

    bank: Annotated[tuple[tuple[str, ...], ...], arg(metavar="BANK"), UseAppendAction]
    """The bank, or several for one table and chart; digits for the demo's, synthetic:latents (photographs, small, wide, huge) for noise,
    :5000 for so many rows."""
    pairs: int = 256
    """Training pairs, trajectories, and states in a random batch."""
    times: int = 100
    """Timesteps of a sweep."""
    workloads: Annotated[tuple[str, ...], arg(metavar="WORKLOAD")] = ()
    """supervision, trajectory, random (single states); all unless given."""
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD")] = ()
    """What to compare; all that are installed unless given."""
    repeats: int = 3
    """Repeats of everything, one method after another within each; medians are shown."""
    full: bool = False
    """Time every method on every timestep; otherwise all but scorescope's own on a part, scaled."""
    model: Annotated[str | None, arg(metavar="MODEL")] = None
    """A trained model for the trajectories; a Gaussian fitted to the bank unless given."""
    memory: Annotated[str | None, arg(metavar="SIZE")] = None
    """Memory for rows in each of scorescope's own methods, such as 2GB; they choose unless given."""
    threads: Annotated[int | None, arg(metavar="INT")] = None
    """Threads of the CPU; all its cores unless given."""
    seed: int = 0
    """Names every random stream."""
    device: str = "cpu"
    """cpu or cuda."""
    out: str | None = None
    """Folder for the results; runs/bench-BANK unless given, runs/bench-banks for several."""
    force: bool = False
    """Replace another benchmark in that folder."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""

    @property
    def banks(self) -> tuple[str, ...]:
        """All that were named, by one --bank or by several."""
        return tuple(name for names in self.bank for name in names)


def main(argv: list[str]) -> int:
    """Run `scorescope bench` with the words after `bench`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<11}{summary}" for verb, summary in VERBS.items())), end="")
        return 0
    if argv[0] not in VERBS:
        raise unknown("verb of bench", argv[0], VERBS)
    return {"empirical": _empirical, "training": _training}[argv[0]](argv[1:])


def _empirical(argv: list[str]) -> int:
    told = parse(Empirical, argv, "scorescope bench empirical", EMPIRICAL)
    if not told.banks:
        raise InputError("missing: --bank BANK", "scorescope bench empirical --help")
    memory = None if told.memory is None else size(told.memory)
    import torch

    from scorescope.adapters import load
    from scorescope.bench.measure import Setting
    from scorescope.cli.common import check_device

    threads = torch.get_num_threads() if told.threads is None else told.threads
    setting = Setting(
        told.pairs, told.times, told.workloads, told.methods, told.repeats, threads, told.seed, memory, told.device, told.full
    )  # fmt: skip
    sources = [_source(name) for name in told.banks]
    check_device(told.device)
    model = None if told.model is None else load(told.model, trust=told.trust)
    return (_one if len(sources) == 1 else _several)(sources, setting, model, told)


def _source(name: str) -> Source:
    """The bank of that name; one of noise is made when its turn comes."""
    from scorescope.bench.banks import Source
    from scorescope.bench.synthetic import PREFIX, looks, synthetic
    from scorescope.demo import named_bank

    return Source(*looks(name), lambda: synthetic(name)) if name.startswith(PREFIX) else Source.of(named_bank(name))


def _one(sources: list[Source], setting: Setting, model: Denoiser | None, told: Empirical) -> int:
    from scorescope.bench import chart, table
    from scorescope.bench.measure import measure
    from scorescope.cli.common import default_out
    from scorescope.progress import Board

    out = Path(told.out or default_out("bench-{}", sources[0].name))
    content = measure(sources[0].open(), setting, out, model, Board(), told.force)
    table.show(content)
    drawn = chart.save(content, out)
    print("\n".join([f"results  {out / 'bench.json'}", f"chart    {drawn[0]}, {drawn[1].name}"]))
    return 0


def _several(sources: list[Source], setting: Setting, model: Denoiser | None, told: Empirical) -> int:
    from scorescope.bench import table
    from scorescope.bench.banks import compare
    from scorescope.cli.common import safe_name
    from scorescope.progress import Board

    out = Path(told.out or "runs/bench-banks")
    folders = [out / f"{safe_name(source.name)}-{source.looks}" for source in sources]
    table.show_gains(compare(sources, setting, folders, model, Board, told.force))
    print(f"results  {out / 'banks.csv'}; of each bank: {folders[0] / 'bench.json'}, …")
    print(f"chart    {out / 'banks.svg'}, banks.png")
    return 0


TRAINING = """Time training and sampling steps of our networks and of diffusers', taking turns: ratio, peak memory and MFU of each.

examples:
  scorescope bench training
  scorescope bench training --presets sit-b --batch 32 --device cuda --precision bf16
"""


@dataclass(frozen=True)
class Training:
    """Arguments of `scorescope bench training`."""

    presets: Annotated[tuple[str, ...], arg(metavar="PRESET")] = ("sit-desk", "unet-desk", "sit-s", "sit-b")
    """Whose networks are compared; sit-* and unet-*."""
    batch: int = 8
    """States of a step."""
    repeats: int = 5
    """Steps of each kind and side, taking turns; medians are shown."""
    threads: Annotated[int | None, arg(metavar="INT")] = None
    """Threads of the CPU; all its cores unless given."""
    precision: str = "float32"
    """float32, or bf16 by autocast."""
    compile: bool = False
    """Compile both sides' networks by torch.compile."""
    device: str = "cpu"
    """cpu or cuda."""
    out: str = "runs/bench-training"
    """Folder for the results."""
    force: bool = False
    """Replace another benchmark in that folder."""


def _training(argv: list[str]) -> int:
    told = parse(Training, argv, "scorescope bench training", TRAINING)
    import torch

    from scorescope.bench.training import Case, compare
    from scorescope.cli.common import check_device
    from scorescope.progress import Board
    from scorescope.training.recipe import PRECISIONS

    if told.precision not in PRECISIONS:
        raise unknown("precision", told.precision, PRECISIONS)
    threads = torch.get_num_threads() if told.threads is None else told.threads
    for name, value in (("batch", told.batch), ("repeats", told.repeats), ("threads", threads)):
        if value < 1:
            raise InputError(f"--{name} {value} is not a positive number", f"--{name} 1 or more")
    check_device(told.device)
    cases = [Case(name, told.batch, told.device, told.precision, threads, told.compile) for name in told.presets]
    with Board() as board, board.row("steps beside diffusers", len(cases) * told.repeats) as row:
        found = compare(cases, told.repeats, Path(told.out), lambda: row(1), told.force)
    print(f"{'network':<12}{'step':<8}{'side':<12}{'seconds':>9}{'ratio':>7}{'MFU':>6}{'peak GB':>9}{'parameters':>13}")
    for case in found:
        for kind in ("train", "sample"):
            for side, ratio in (("scorescope", f"{case[f'{kind}_ratio']:.2f}"), ("diffusers", "1")):
                one = case[side]
                line = f"{case['preset']:<12}{kind:<8}{side:<12}{one[f'{kind}_seconds']:>9.4f}{ratio:>7}{one[f'{kind}_mfu']:>6.0%}"
                print(f"{line}{one['memory'] / 1e9:>9.2f}{one['parameters']:>13,}")
    how = f"batch {told.batch}, {threads} threads, {told.precision}{', both compiled' if told.compile else ''}"
    print(f"ratio: times as fast as diffusers, median of {told.repeats} turns; {how}")
    for case in found if told.compile else ():
        own, other = (sum(case[side][f"{kind}_first"] for kind in ("train", "sample")) for side in ("scorescope", "diffusers"))
        print(f"{case['preset']}: compiled in {own:.0f} s, diffusers' in {other:.0f} s")
    print(f"results  {Path(told.out) / 'training.json'}")
    return 0
