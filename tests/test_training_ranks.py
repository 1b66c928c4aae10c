"""Training under torchrun: any number of ranks with the same global batch goes through the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scorescope as ss
from scorescope.cli import main


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    rng = np.random.default_rng(5)
    rows = rng.uniform(-1, 1, (40, 1, 4, 4)).astype(np.float32)
    path = tmp_path_factory.mktemp("banks") / "tiny.bank"
    ss.Bank.from_arrays(rows, np.arange(40) % 3, flips=True, name="tiny").save(path)
    return path


RECIPE = [
    "--watch-every",
    "0",
    "--preset",
    "sit-desk",
    "--width",
    "8",
    "--depth",
    "1",
    "--heads",
    "2",
    "--patch",
    "2",
    "--batch",
    "8",
    "--rate",
    "3e-3",
]


def run(ranks, out, *words):
    """`scorescope train` by so many ranks; what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone", "-m", "scorescope"]
    words = [*command, "train", *RECIPE, "--steps", "60", "--out", str(out), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200)


def curve(out):
    return np.loadtxt(out / "loss.csv", delimiter=",", skiprows=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory, bank):
    """Where runs of 2 and of 4 ranks are, in folders of these names."""
    root = tmp_path_factory.mktemp("ranks")
    for ranks, words in ((2, ("--accumulate", 2)), (4, ())):
        done = run(ranks, root / str(ranks), "--bank", bank, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("weights ") == 1
    return root


def test_any_number_of_ranks_goes_through_the_same_losses(root, bank):
    assert main(["train", *RECIPE, "--steps", "60", "--out", str(root / "1"), "--bank", str(bank)]) == 0
    for ranks in (2, 4):
        np.testing.assert_allclose(curve(root / str(ranks)), curve(root / "1"), rtol=1e-4)
        one, many = (json.loads((root / name / "recipe.json").read_text()) for name in ("1", str(ranks)))
        assert one["recipe"] | {"accumulate": 0} == many["recipe"] | {"accumulate": 0}
        z, t = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.5)
        with torch.no_grad():
            torch.testing.assert_close(ss.load(root / str(ranks))(z, t, 1), ss.load(root / "1")(z, t, 1), rtol=1e-3, atol=1e-3)


def test_a_run_may_go_on_with_another_number_of_ranks(tmp_path, root, bank):
    straight = tmp_path / "straight"
    for out, words in ((straight, ()), (tmp_path / "rest", ("--fork", str(root / "2")))):
        assert main(["train", *RECIPE, "--bank", str(bank), "--steps", "120", "--out", str(out), *words]) == 0
    np.testing.assert_allclose(curve(tmp_path / "rest"), curve(straight), rtol=1e-4)
    assert load_file(tmp_path / "rest" / "model.safetensors").keys() == load_file(straight / "model.safetensors").keys()


def test_a_batch_that_the_ranks_cannot_share_is_one_line(tmp_path, bank):
    done = run(2, tmp_path / "x", "--bank", bank, "--batch", "7")
    assert done.returncode != 0
    assert "error: --batch 7 can't be shared evenly by 2 ranks × --accumulate 1" in done.stderr
    assert not (tmp_path / "x").exists()
