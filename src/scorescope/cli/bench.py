"""`scorescope bench empirical --bank BANK`: the exact empirical score beside what else one could use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from scorescope.cli.parse import parse, size
from scorescope.errors import unknown

VERBS = {"empirical": "the empirical score of a bank: time and error of every method"}

HELP = """Compare ways to the same number on your own data and machine: a table, bench.json and one chart.

  scorescope bench empirical --bank photos.bank

verbs (scorescope bench VERB --help tells more):
{verbs}
"""

EMPIRICAL = """Time the exact empirical score of a bank against plain torch, faiss and KeOps, and judge every answer by a float64 reference.

examples:
  scorescope bench empirical --bank photos.bank
  scorescope bench empirical --bank photos.bank --workloads random --methods naive-float32 faiss-flat-64 scorescope-1e-6
"""


@dataclass(frozen=True)
class Empirical:
    """Arguments of `scorescope bench empirical`."""

    bank: Annotated[str, arg(metavar="BANK")]
    """The bank; digits for the demo's."""
    pairs: int = 256
    """Training pairs, trajectories, and states in a random batch."""
    times: int = 100
    """Timesteps of a sweep."""
    workloads: Annotated[tuple[str, ...], arg(metavar="WORKLOAD")] = ()
    """supervision, trajectory, random; all unless given."""
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
    """Folder for the results; runs/bench-BANK unless given."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""


def main(argv: list[str]) -> int:
    """Run `scorescope bench` with the words after `bench`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<11}{summary}" for verb, summary in VERBS.items())), end="")
        return 0
    if argv[0] not in VERBS:
        raise unknown("verb of bench", argv[0], VERBS)
    return _empirical(argv[1:])


def _empirical(argv: list[str]) -> int:
    told = parse(Empirical, argv, "scorescope bench empirical", EMPIRICAL)
    memory = None if told.memory is None else size(told.memory)
    import torch

    from scorescope.adapters import load
    from scorescope.bench import chart, table
    from scorescope.bench.measure import Setting, measure
    from scorescope.cli.examine import check_device
    from scorescope.demo import named_bank
    from scorescope.progress import Board

    threads = torch.get_num_threads() if told.threads is None else told.threads
    setting = Setting(
        told.pairs, told.times, told.workloads, told.methods, told.repeats, threads, told.seed, memory, told.device, told.full
    )  # fmt: skip
    bank = named_bank(told.bank)
    check_device(told.device)
    model = None if told.model is None else load(told.model, trust=told.trust)
    out = Path(told.out or f"runs/bench-{bank.name}")
    content = measure(bank, setting, out, model, Board())
    table.show(content)
    drawn = chart.save(content, out)
    print("\n".join([f"results  {out / 'bench.json'}", f"chart    {drawn[0]}, {drawn[1].name}"]))
    return 0
