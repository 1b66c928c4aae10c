"""Every subject of the zoo is told what it is."""

from __future__ import annotations

import numpy as np
import pytest

import scorescope as ss
from tests import zoo


@pytest.mark.parametrize("name", zoo.ZOO)
def test_each_subject_is_told_what_it_is(name):
    found = zoo.told(name)
    right = zoo.ZOO[name].told
    assert {claim: found[claim]["verdict"] for claim in right} == right, {claim: found[claim]["text"] for claim in right}


@pytest.mark.parametrize("claim", ["fits", "departs", "copies", "remembers", "leaves", "reading"])
def test_no_claim_says_the_same_of_all(claim):
    """A rule that the zoo can't tell from a constant is none."""
    told = {subject.told[claim] for subject in zoo.ZOO.values() if claim in subject.told}
    assert len(told | ({"read"} if claim == "reading" else set())) > 1


def test_the_table_in_the_docs_is_this_zoo():
    written = zoo.TABLE.read_text(encoding="utf-8")
    for subject in zoo.ZOO.values():
        assert subject.what in written
        for claim, verdict in subject.told.items():
            assert f"| {claim}: {verdict} | {verdict}: " in written, "python -m tests.zoo"


def test_the_table_is_written_from_what_was_told(monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", {"copier": zoo.ZOO["copier"]})
    assert f"| fits: supported | supported: {zoo.told('copier')['fits']['text']} |" in zoo.table()


@pytest.mark.parametrize("unit", [0.5, 4.0])
def test_fits_says_the_same_of_the_same_data_in_another_unit(unit):
    """The Gaussian denoiser's share of itself, and of what half of it would be, for rows in one unit and in another."""
    shares = []
    for scale in (1.0, unit):
        bank = ss.Bank.from_arrays(np.asarray(zoo.drawn(1)[0].rows) * np.float32(scale))
        schedule = ss.VESchedule(0.01 * scale, 50 * scale)
        run = ss.examine(ss.GaussianScore(bank, schedule), bank, ["score-error"], as_is=True, **zoo.OPTIONS)
        shares.append(next(one for one in run.claims if one["name"] == "fits")["verdict"])
    assert shares[0] == shares[1]
