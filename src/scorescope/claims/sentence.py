"""The one sentence about a model, put together from verdicts: how well it fits, how far from the data it samples, what it copies."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from scorescope.claims.claim import Judged, Verdict, percent
from scorescope.results import largest, provenance, samples_only

FITS = {
    Verdict.SUPPORTED: "fits its training {rows} closely",
    Verdict.CONTRADICTED: "fits its training {rows} only loosely",
    Verdict.UNDECIDED: "fits its training {rows}, whether closely is undecided",
    Verdict.NOT_JUDGED: "how closely it fits its training {rows} was not judged",
}
LEAVES = {
    Verdict.SUPPORTED: "samples far from them",
    Verdict.CONTRADICTED: "samples close to them",
    Verdict.UNDECIDED: "how far from them it samples is undecided",
    Verdict.NOT_JUDGED: "how far from them it samples was not judged",
}


def rows_word(results: xr.Dataset) -> str:
    """What to call the bank's rows: images, latents, or rows."""
    shape = provenance(results).get("bank", {}).get("shape", [])
    if len(shape) == 3 and shape[0] in (1, 3):
        return "images"
    return "latents" if len(shape) == 3 and shape[0] == 4 else "rows"


def copies_clause(found: Judged) -> str:
    """What the samples copy, in words that fit the share and its interval."""
    if found.verdict is Verdict.NOT_JUDGED:
        return "whether it copies was not judged"
    share, n = found.estimate.value, found.n
    count, most = round(share * n), f"at most {percent(found.estimate.high)}"
    if found.verdict is Verdict.UNDECIDED:
        return f"copies {count or 'none'} of the {n:,} samples looked at, too few to tell"
    if found.verdict is Verdict.SUPPORTED:
        return f"copies none of {n:,} ({most})" if share == 0 else f"copies few ({count:,} of {n:,}, {most})"
    amount = "all" if share == 1 else "nearly all" if share >= 0.9 else "most" if share > 0.5 else "some"
    return f"copies {amount} ({count:,} of {n:,})"


def compose(results: xr.Dataset, found: Mapping[str, Judged]) -> str:
    """The sentence, from what was found of one model, by the names of the claims."""
    if "samples" in provenance(results):  # examined without a model, of which more could be said
        text = copies_clause(found["copies"]) if "copies" in found else "whether they copy was not judged"
        return f"Whatever made these samples {text}." if text.startswith("copies") else f"{text[0].upper()}{text[1:]}."
    if why := samples_only(results).get(largest(results)):
        text = copies_clause(found["copies"]) if "copies" in found else "whether it copies was not judged"
        return f"{text[0].upper()}{text[1:]}; the rest is not judged, since its target is not the posterior mean ({why})."
    parts = [FITS[found["fits"].verdict].format(rows=rows_word(results))] if "fits" in found else []
    parts += (
        [LEAVES[found["leaves"].verdict].replace("them", "them" if parts else f"its training {rows_word(results)}")]
        if "leaves" in found
        else []
    )
    parts += [copies_clause(found["copies"])] if "copies" in found else []
    text = "; ".join(parts) or "nothing was asked that a sentence could be made of"
    return f"{text[0].upper()}{text[1:]}."
