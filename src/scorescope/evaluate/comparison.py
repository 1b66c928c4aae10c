"""Samples against a bank: Fréchet distance, precision and recall, each beside what real rows score at the same n."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorescope import __version__
from scorescope.errors import InputError
from scorescope.evaluate.extractors import Extractor, extractor
from scorescope.evaluate.features import PART, Features, Tick
from scorescope.evaluate.frechet import frechet_distance
from scorescope.evaluate.grid import drawable
from scorescope.evaluate.manifold import K, precision_recall
from scorescope.evaluate.samples import as_rows
from scorescope.files import cache_folder, write_json
from scorescope.probes import memorization
from scorescope.results import COPY
from scorescope.rows import Bank
from scorescope.runs import Kind
from scorescope.statistics import wilson

SCHEMA, RESULT = 1, "evaluation.json"
KIND = Kind("an evaluation", (RESULT,), before=(RESULT,))
REFERENCE = 50_000  # rows of the bank that samples are compared with, as in publications
MANIFOLD = 10_000  # samples and rows of precision and recall, whose cost grows with their product
LOOKED, NULLS = 1000, 200  # samples, and real rows, whose nearest rows are looked up
RARE = 0.01  # share of copies up to which nothing is said
ENOUGH, TIMES = 10_000, 10  # fewer samples, or fewer than so many times the features, are warned of


@dataclass(frozen=True)
class Scores:
    """How one set of rows compares with another.

    Attributes:
        frechet: Squared Fréchet distance.
        precision, recall: Shares in [0, 1].
        n, m: Rows of the two sets; `manifold_n`, `manifold_m` those of precision and recall.
    """

    frechet: float
    precision: float
    recall: float
    n: int
    m: int
    manifold_n: int
    manifold_m: int


@dataclass(frozen=True)
class Copied:
    """How many samples are rows of the bank.

    Attributes:
        looked: Samples that were looked up, evenly chosen among all.
        copies: Those that copy a row: three times closer to it than to any row that is no near-duplicate of it.
        exact: Those that are a row, up to rounding.
        low, high: Wilson's interval of the share of copies.
        real: Share of real rows that are as close to another row.
    """

    looked: int
    copies: int
    exact: int
    low: float
    high: float
    real: float

    def warning(self, title: str) -> str:
        """What a reader of the distance must know; empty where samples are no nearer to rows than rows are to each other."""
        if not self.exact and self.low <= max(RARE, self.real):
            return ""
        share = f"{100 * self.copies / self.looked:.3g} % [{100 * self.low:.2g}, {100 * self.high:.2g}]"
        said = f"{self.copies:,} of {self.looked:,} samples looked up copy a row of the bank, {self.exact:,} of them exactly ({share})"
        return f"{said}: {title} and precision reward that."


@dataclass(frozen=True)
class Comparison:
    """Samples against a bank.

    Attributes:
        title: What the Fréchet distance is called.
        features: Numbers in a row's features.
        samples: The samples' scores.
        real: Those of real rows of the bank against others, disjoint; None where the bank has too few rows.
        k: Nearest neighbours of precision and recall.
        copied: How many of the samples are rows of the bank.
        warnings: In words.
        provenance: What was compared with what, by which extractor and version.
    """

    title: str
    features: int
    samples: Scores
    real: Scores | None
    k: int
    copied: Copied
    warnings: list[str]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {"schema": SCHEMA, **asdict(self)}

    def table(self) -> str:
        """A few lines for people."""
        ours, real = self.samples, self.real
        lines = [("", "samples", "real rows")]
        lines.append((self.title, _digits(ours.frechet), _digits(real.frechet) if real else "—"))
        lines.append((f"precision (k = {self.k})", f"{ours.precision:.3f}", f"{real.precision:.3f}" if real else "—"))
        lines.append((f"recall (k = {self.k})", f"{ours.recall:.3f}", f"{real.recall:.3f}" if real else "—"))
        lines.append(("copies of rows", f"{self.copied.copies:,} of {self.copied.looked:,}", f"{self.copied.real:.1%}"))
        lines.append(("how many against", f"{ours.n:,} / {ours.m:,}", f"{real.n:,} / {real.m:,}" if real else "—"))
        wide = [max(len(line[k]) for line in lines) for k in range(3)]
        return "\n".join(f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}".rstrip() for a, b, c in lines)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        write_json(path, self.record())
        return Path(path)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value >= 10 else f"{value:.3g}"


def default_extractor(shape: tuple[int, ...], decode: str | None = None) -> str:
    """lite0 for images, and for latents that are decoded; pixels for anything else."""
    return "lite0" if decode or drawable(shape) else "pixels"


def work(n: int, total: int, reference: int = REFERENCE) -> int:
    """How many rows will need features: n samples, and those of a bank of `total`, in whole parts."""
    wanted = min(total, n + min(total, reference))
    return n + min(total, -(-wanted // PART) * PART)


def check(name: str, n: int, bank: Bank, chosen: Extractor, reference: int, k: int) -> None:
    """Refuse what can't be compared, before samples are drawn or anything is computed; `compare` says what is refused."""
    if k < 1:
        raise InputError(f"k = {k} asks for no neighbours", f"k = {K}")
    for which, count in ((name, n), (f"bank {bank.name}", len(bank.rows))):
        if count <= k:
            raise InputError(f"{which}: {count} rows are too few: {k} nearest neighbours need at least {k + 1}", f"{k + 1} or more")
    if reference <= k:
        raise InputError(f"--reference {reference} is too few: {k} nearest neighbours need at least {k + 1}", f"--reference {REFERENCE}")
    if chosen.takes == "images" and (len(bank.shape) != 3 or bank.shape[0] not in (1, 3)):
        said = f"extractor {chosen.name} takes images of 1 or 3 channels, these rows have shape {bank.shape}"
        raise InputError(said, "--extractor pixels")


def compare(
    samples: Bank | np.ndarray | Tensor,
    bank: Bank,
    by: str | nn.Module | Extractor = "auto",
    *,
    reference: int = REFERENCE,
    k: int = K,
    cache: str | Path | None = None,
    device: str = "cpu",
    tick: Tick | None = None,
) -> Comparison:
    """How samples compare with a bank.

    Args:
        samples: (n, *shape) in model space, 8-bit images, or a bank of them.
        bank: Real rows.
        by: An extractor's name (`extractors`), a torch module that takes images (B, 3, H, W) in [0, 1], or an `Extractor`
            (`extractor(name, Options(…))` is one with its own file of weights, or side of its images).
        reference: Most rows of the bank to compare with, drawn fairly.
        k: Nearest neighbours of precision and recall.
        cache: Folder for features (`features.cache_folder`).
        device: Where to compute.
        tick: Called with the number of rows whenever some have features.

    Raises:
        InputError: NaN or Inf, other shapes, too few samples or rows, an extractor that can't be had.
    """
    rows = as_rows(samples, bank)
    n, total = len(rows.rows), len(bank.rows)
    chosen = extractor(default_extractor(bank.shape) if by == "auto" else by)
    check(rows.name, n, bank, chosen, reference, k)
    folder = cache_folder(cache)
    known = Features(bank, chosen, folder, device, tick=tick)
    m = min(total, reference)
    ours, wanted = Features(rows, chosen, folder, device, tick=tick, real=bank).first(n), known.first(min(m, MANIFOLD))
    scores = _scores(ours, wanted, known, m, k)
    real = _real(known, n, m, k)
    d = ours.shape[1]
    copied = _copied(rows, bank, device)
    warnings = [*filter(None, [copied.warning(chosen.title)]), *_warnings(n, m, d, chosen.title, real)]
    provenance = {
        "version": __version__, "torch": str(torch.__version__), "device": torch.device(device).type,
        "extractor": {"name": chosen.name, "identity": chosen.identity, "takes": chosen.takes},
        "bank": {"name": bank.name, "fingerprint": bank.fingerprint, "rows": total},
        "samples": {"name": rows.name, "fingerprint": rows.fingerprint, "rows": n},
    }  # fmt: skip
    return Comparison(chosen.title, d, scores, real, k, copied, warnings, provenance)


def _copied(samples: Bank, bank: Bank, device: str) -> Copied:
    """How many samples are rows of the bank, among at most `LOOKED`."""
    n = len(samples.rows)
    index = np.unique(np.linspace(0, n - 1, min(n, LOOKED)).astype(np.int64))
    found = memorization.nearest(bank, samples[index].to(device))
    null = memorization.null(bank, NULLS, 0, torch.device(device))["null_second"]
    hits = found["ratio_second"] < COPY  # NaN where the bank has no second row
    low, high = wilson(hits.sum(), len(hits))
    real = null[np.isfinite(null)] < COPY
    share = float(real.mean()) if len(real) else 0.0
    return Copied(len(hits), int(hits.sum()), int(found["exact_copy"].sum()), float(low), float(high), share)


def _scores(ours: Tensor, others: Tensor, known: Features, m: int, k: int) -> Scores:
    """Of features against the first m of the bank, of which `others` are the first few."""
    mine = ours[:MANIFOLD]
    found = precision_recall(mine, others, k)
    return Scores(frechet_distance(ours, known.moments(m)), *found, len(ours), m, len(mine), len(others))


def _real(known: Features, n: int, m: int, k: int) -> Scores | None:
    """Rows of the bank against others of it: as many as there are samples, or half of the bank if it has fewer than twice that."""
    pool = min(len(known.order), n + m)
    drawn = min(n, pool // 2)
    rest = min(m, pool - drawn)
    if drawn <= k:
        return None
    return _scores(known.first(pool, pool - drawn), known.first(min(rest, MANIFOLD)), known, rest, k)


def _warnings(n: int, m: int, d: int, title: str, real: Scores | None) -> list[str]:
    found = []
    least = max(ENOUGH, TIMES * d)
    if min(n, m) < least:
        what = f"{n:,} samples" if n <= m else f"{m:,} real rows"
        rule = f"rule: at least {ENOUGH:,}, and {TIMES} a feature"
        beside = "the bank is too small to say what real rows score"
        if real is not None:
            beside = f"real rows score {_digits(real.frechet)} at {real.n:,} against {real.m:,}"
        found.append(
            f"{what} are few for {title} with {d:,} features ({rule}), so it reads too high: {beside}. Compare only values of the same n."
        )
    if real is not None and real.n < n:
        found.append(f"The bank has too few rows for a second draw of {n:,}: its rows were compared {real.n:,} against {real.m:,}.")
    return found
