"""Identity: all that answers depend on, and nothing else; what can't be told from another has none."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import threading

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import results
from scorescope.denoiser import OnLinearAxis, Wrapped
from scorescope.empirical.ranks import Alone
from scorescope.identity import NoIdentity, identity_of
from scorescope.monitor import RememberedBaseline
from scorescope.theories.gaussian import GaussianScore
from scorescope.watched import Watched


def a_bank(seed=0, classes=2):
    rows = np.random.default_rng(seed).standard_normal((12, 1, 2, 2)).astype(np.float32)
    return ss.Bank.from_arrays(rows, np.arange(12) % classes if classes else None)


class Scale(torch.nn.Module):
    """A network of one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1, 1, 1), weight))

    def forward(self, z, t, label):
        return self.weight * z


def network(weight=1.0):
    return Scale(weight)


def a_model(**options):
    return ss.NetworkDenoiser(network(), **{"classes": 2, "null_label": 2, **options})


# For each public Denoiser: how to build one, and for each of its arguments another value. An argument that is missing fails the test.
CASES = {
    "NetworkDenoiser": (
        lambda net=None, **given: ss.NetworkDenoiser(net or network(), **({"classes": 2, "null_label": 2} | given)),
        {
            "net": network(2.0),
            "schedule": ss.CosineSchedule(),
            "prediction": "eps",
            "time": "none",
            "classes": 3,
            "null_label": 1,
            "shape": (1, 2, 2),
            "name": "another",
        },
    ),
    "Guided": (lambda model=None, weight=2.0: ss.Guided(model or a_model(), weight), {"model": a_model(prediction="x"), "weight": 3.0}),
    "OnLinearAxis": (lambda model=None: OnLinearAxis(model or a_model()), {"model": a_model(schedule=ss.VPSchedule())}),
    "Watched": (
        lambda model=None, row=None: Watched(model or a_model(), row),
        {"model": a_model(prediction="x"), "row": lambda *told: None},
    ),
    "RememberedBaseline": (
        lambda bank=None, **given: RememberedBaseline(bank or a_bank(), **given),
        {"bank": a_bank(1), "device": "cpu"},
    ),
    "GaussianScore": (
        lambda bank=None, **given: GaussianScore(bank or a_bank(), **given),
        {"bank": a_bank(1), "schedule": ss.VESchedule(), "device": "cpu"},
    ),
    "EmpiricalScore": (
        lambda bank=None, **given: ss.EmpiricalScore(bank or a_bank(), **given),
        {"bank": a_bank(1), "schedule": ss.VESchedule(), "tolerance": 1e-6, "device": "cpu", "memory": 1 << 30, "ranks": Alone()}
        | {"arithmetic": "floats"},
    ),
}
INDIFFERENT = ("name", "row", "device", "memory", "ranks", "arithmetic")  # no answer depends on these


def public_denoisers():
    """Every concrete Denoiser that the package defines."""
    for found in pkgutil.walk_packages(ss.__path__, "scorescope."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    pending, known = [ss.Denoiser], {}
    while pending:
        for kind in pending.pop().__subclasses__():
            pending.append(kind)
            own = getattr(sys.modules.get(kind.__module__), "__file__", "").startswith(tuple(ss.__path__))
            if own and not inspect.isabstract(kind) and kind is not Wrapped:
                known[kind.__name__] = kind
    return known


def test_every_constructor_argument_of_every_denoiser_is_part_of_identity_or_said_not_to_be():
    known = public_denoisers()
    assert known.keys() == CASES.keys()
    for name, kind in known.items():
        build, others = CASES[name]
        assert set(inspect.signature(kind).parameters) == set(others), name
        usual = build().identity()
        assert build().identity() == usual
        for argument, other in others.items():
            assert (build(**{argument: other}).identity() == usual) == (argument in INDIFFERENT), f"{name}({argument}=…)"


def test_a_time_map_is_told_by_its_source_and_what_it_uses():
    made = [a_model(time=lambda t: 2 * t), a_model(time=lambda t: 3 * t)]

    def scaled(k):
        return a_model(time=lambda t: k * t)

    scale = [scaled(2.0), scaled(3.0)]
    assert made[0].identity() != made[1].identity()
    assert scale[0].identity() != scale[1].identity()
    assert made[0].identity() == made[0].identity()


def test_the_hash_of_the_file_and_every_weight_count_and_the_name_does_not():
    first, second = a_model(), a_model()
    second.name = "renamed"
    assert first.identity() == second.identity()
    second.about = {"sha256": "0" * 64, "file": "somewhere"}
    assert first.identity() != second.identity()
    third = a_model()
    with torch.no_grad():
        third.net.weight[0, 0, 0] = torch.nextafter(third.net.weight[0, 0, 0], torch.tensor(9.0))
    assert third.identity() != first.identity()


SOURCE = """
import torch
SCALE = {scale}
def helper(x):
    return SCALE * x {more}
class Net(torch.nn.Module):
    def forward(self, z, t, label):
        return helper(z)
"""


def test_code_that_a_network_runs_counts_even_in_another_function(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    seen = set()
    for k, (scale, more) in enumerate([(1.0, ""), (2.0, ""), (1.0, "+ 0")]):
        (tmp_path / f"own_{k}.py").write_text(SOURCE.format(scale=scale, more=more))
        net = importlib.import_module(f"own_{k}").Net()
        type(net).__module__ = "own"
        seen.add(str(ss.NetworkDenoiser(net).identity()["net"]["structure"]))
        del sys.modules[f"own_{k}"]
    assert len(seen) == 3


def test_what_can_not_be_told_from_another_has_no_identity_and_is_named():
    with pytest.raises(NoIdentity, match=r"it\['a'\] is a "):
        identity_of({"a": threading.Lock()})
    broken = a_model(time=lambda t: t)
    broken.source = iter([1, 2])
    with pytest.raises(NoIdentity, match=r"network\.source is a list_iterator"):
        broken.identity()


def test_a_model_without_identity_is_examined_but_never_taken_for_another(tmp_path):
    broken = a_model()
    broken.source = iter([1, 2])
    options = {"paths": 2, "times": 2, "origins": 1, "nulls": 2, "quiet": True, "solver": "euler", "steps": 2}
    run = ss.examine(broken, a_bank(), ["relative-distance"], **options, out=tmp_path / "run")
    assert "this run can't be continued: network.source is a list_iterator" in " ".join(results.provenance(run.results)["warnings"])
    with pytest.raises(ss.InputError, match=r"other settings \(models\.network none"):
        ss.examine(broken, a_bank(), ["relative-distance"], **options, out=tmp_path / "run")


def test_values_and_containers():
    assert identity_of(torch.zeros(3)) != identity_of(torch.zeros(3, dtype=torch.float64))
    assert identity_of(np.zeros(3)) != identity_of(np.zeros((3, 1)))
    assert identity_of({3, 1, 2}) == identity_of({2, 3, 1})
    assert identity_of(list(range(100))) != identity_of([*range(99), 0])
    loop = []
    loop.append(loop)
    assert identity_of(loop) == ["itself"]
    assert identity_of(float("inf")) == "inf"
