"""Training: killed at any instant it ends with the same weights; what can't work is refused, and never spoils what was saved."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

import scorescope as ss
from scorescope.cli import main
from scorescope.nets.mlp import MLPSize
from scorescope.nets.sit import SiTSize
from scorescope.nets.unet import UNetSize
from scorescope.training import loop
from scorescope.training.examples import Batch, batch
from scorescope.training.keep import Keep
from scorescope.training.loop import Hooks, train
from scorescope.training.objectives import dsm
from scorescope.training.presets import preset, presets
from scorescope.training.recipe import Recipe

TINY = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), steps=60, batch=4, rate=3e-3, ema=0.99, seed=3)


def tiny_bank(n=12, classes=3, **options):
    rng = np.random.default_rng(5)
    return ss.Bank.from_arrays(rng.uniform(-1, 1, (n, 1, 4, 4)).astype(np.float32), np.arange(n) % classes if classes else None, **options)


class Cut(Exception):
    """The run is cut short here."""


def cut_at(step):
    def report(progress):
        if progress.step >= step:
            raise Cut

    return report


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of the tiny recipe."""
    return train(TINY, tiny_bank(), tmp_path_factory.mktemp("whole") / "run")


# ---- weights of asked steps ---------------------------------------------------------------------------------------------------


def test_the_weights_of_asked_steps_are_models(whole, tmp_path):
    keeping = Keep(TINY, tiny_bank(), (20, 60))
    assert keeping.every == 20
    with pytest.raises(Cut):
        train(TINY, tiny_bank(), tmp_path / "run", hooks=Hooks(save_every=0.0, report=cut_at(50), watchers=[keeping]))
    file = train(TINY, tiny_bank(), tmp_path / "run", hooks=Hooks(watchers=[keeping]))
    early, late, last = (ss.load(path) for path in (f"{tmp_path}/run@20", f"{tmp_path}/run@60", file))
    assert (early.name, early.classes, early.about["recipe"]["steps"]) == ("run@20", 3, 60)
    z, t = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    with torch.no_grad():
        torch.testing.assert_close(late(z, t), last(z, t), rtol=0, atol=0)
        assert not torch.allclose(early(z, t), last(z, t))
    assert file.read_bytes() == whole.read_bytes()
    with pytest.raises(ss.InputError, match=r"did not keep the weights of step 30.*run@20, .*run@60"):
        ss.load(f"{tmp_path}/run@30")
    train(replace(TINY, steps=20), tiny_bank(), tmp_path / "run", force=True)
    assert not (tmp_path / "run" / "kept").exists()


def test_a_step_that_is_none_or_has_passed_is_not_kept_quietly(whole, tmp_path):
    for wrong in (0, 61):
        with pytest.raises(ss.InputError, match=f"--keep {wrong} is no step of a training of 60"):
            Keep(TINY, tiny_bank(), (20, wrong))
    with pytest.raises(ss.InputError, match=r"step 20 of .* had passed"):
        Keep(TINY, tiny_bank(), (20,)).check(whole.parent)
    with pytest.raises(ss.InputError, match="there is no model at"):
        ss.load(f"{tmp_path}/nothing@20")


def test_the_command_line_keeps_steps(tmp_path, capsys):
    tiny_bank().save(tmp_path / "x.bank")
    words = ["--width", "8", "--depth", "1", "--heads", "2", "--patch", "2", "--steps", "20", "--batch", "4", "--watch-every", "0"]
    line = ["train", "--preset", "sit-desk", *words, "--bank", str(tmp_path / "x.bank"), "--out", str(tmp_path / "run")]
    assert main([*line, "--keep", "5", "20"]) == 0
    assert ss.load(f"{tmp_path}/run@5").shape == (1, 4, 4)
    assert main([*line, "--keep", "7"]) == 2
    assert "step 7 of" in capsys.readouterr().err


# ---- killed, it continues -----------------------------------------------------------------------------------------------------

KILLED_AT_RANDOM = """
import os, random, signal, sys, time
import torch
from scorescope.rows import Bank
from scorescope.nets.sit import SiTSize
from scorescope.training.loop import Hooks, train
from scorescope.training.recipe import Recipe

torch.set_num_threads(1)
bank, whole, cut = Bank.open(sys.argv[1]), sys.argv[2], sys.argv[3]
recipe = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), steps=120, batch=4, rate=3e-3, seed=3)
train(recipe, bank, whole)


def newest():
    names = os.listdir(cut + "/checkpoints") if os.path.isdir(cut + "/checkpoints") else []
    return max((name for name in names if name.startswith("step-")), default="")


chance, kills, continued = random.Random(0), 0, 0
while not os.path.exists(cut + "/model.safetensors"):
    before = newest()
    child = os.fork()
    if not child:
        try:
            train(recipe, bank, cut, hooks=Hooks(save_every=0.0))
            os._exit(0)
        finally:
            os._exit(1)
    if kills < 20:
        while kills and newest() == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)  # the first is killed before anything was saved, the others once they have got further
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL), ended
    kills += ended != 0
    continued += before != ""
print(kills, continued)
"""


def test_killed_at_random_instants_it_ends_with_the_same_files(tmp_path):
    tiny_bank(flips=True).save(tmp_path / "x.bank")
    words = [str(tmp_path / name) for name in ("x.bank", "whole", "cut")]
    done = subprocess.run([sys.executable, "-c", KILLED_AT_RANDOM, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    kills, continued = map(int, done.stdout.split())
    assert kills >= 20
    assert continued >= 19
    for name in ("model.safetensors", "loss.csv", "recipe.json", "run.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 2  # the last one, to go on from


ASKED_TO_STOP = """
import os, signal, sys
from dataclasses import replace
import torch
from scorescope.rows import Bank
from scorescope.nets.sit import SiTSize
from scorescope.training.loop import Hooks, train
from scorescope.training.recipe import Recipe

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without
bank, out = Bank.open(sys.argv[1]), sys.argv[2]
endless = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), steps=10**6, batch=4, rate=3e-3)
for name in ("SIGTERM", "SIGINT"):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            train(endless, bank, f"{out}/{name}", hooks=Hooks(report=lambda progress: os.write(writing, b"."), save_every=1e9))
        except SystemExit as leaving:
            status = leaving.code
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.read(reading, 1)
    os.kill(child, getattr(signal, name))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    saved = [file for file in os.listdir(f"{out}/{name}/checkpoints") if file.endswith(".safetensors")]
    assert len(saved) == 1, saved
    steps = int(saved[0].removeprefix("step-").removesuffix(".safetensors"))
    train(replace(endless, steps=steps), bank, f"{out}/{name}-straight")
    print(name, status, saved[0])
"""


def test_asked_to_stop_it_saves_the_step_that_it_was_at(tmp_path):
    tiny_bank().save(tmp_path / "x.bank")
    words = [str(tmp_path / "x.bank"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", ASKED_TO_STOP, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in told] == [["SIGTERM", "143"], ["SIGINT", "130"]]
    step = int(told[0][2].removeprefix("step-").removesuffix(".safetensors"))
    assert done.stderr.splitlines() == [f"stopped; step {step:,} is saved, and the same command (without --force) continues"]
    for name, _, checkpoint in told:
        saved = load_file(tmp_path / name / "checkpoints" / checkpoint)
        straight = load_file(tmp_path / f"{name}-straight" / "model.safetensors")
        assert all(torch.equal(saved[f"ema:{key}"], value) for key, value in straight.items())


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path):
    path.write_bytes(b"")


def overwritten(path):
    path.write_bytes(b"{}" * 500)


def without_its_step(path):
    save_file(load_file(path), path)


def without_its_record(path):
    path.with_suffix(".json").unlink()


def with_half_a_record(path):
    truncated(path.with_suffix(".json"))


@pytest.mark.parametrize("damage", [truncated, emptied, overwritten, without_its_step, without_its_record, with_half_a_record])
@pytest.mark.parametrize("how_many", [1, 2])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, whole, damage, how_many, monkeypatch):
    with pytest.raises(Cut):
        train(TINY, tiny_bank(), tmp_path, hooks=Hooks(report=cut_at(50), save_every=0.0))
    saved = sorted((tmp_path / "checkpoints").glob("step-*.safetensors"))
    assert [path.stem for path in saved] == ["step-00000048", "step-00000049"]
    for path in saved[-how_many:]:
        damage(path)
    made = []
    once = loop._step
    monkeypatch.setattr(loop, "_step", lambda state, *rest: [made.append(state.step), once(state, *rest)][1])
    assert train(TINY, tiny_bank(), tmp_path).read_bytes() == whole.read_bytes()
    assert made[0] == {1: 48, 2: 0}[how_many]


def test_a_checkpoint_of_a_newer_schema_is_refused(tmp_path):
    with pytest.raises(Cut):
        train(TINY, tiny_bank(), tmp_path, hooks=Hooks(report=cut_at(50), save_every=0.0))
    newest = max((tmp_path / "checkpoints").glob("*.json"))
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"schema": 99}))
    with pytest.raises(ss.InputError, match=r"is of schema 99, this version knows up to \d+\. Try: a newer scorescope"):
        train(TINY, tiny_bank(), tmp_path)


def test_a_fork_with_more_steps_ends_as_a_run_of_that_many(tmp_path, whole):
    longer = replace(TINY, steps=100)
    straight = train(longer, tiny_bank(), tmp_path / "straight")
    forked = train(longer, tiny_bank(), tmp_path / "forked", fork=whole.parent)
    ours, theirs = load_file(forked), load_file(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((forked.parent / "run.json").read_text())["forked"] == {"run": "run", "step": 60}
    assert (forked.parent / "loss.csv").read_bytes() == (straight.parent / "loss.csv").read_bytes()


def test_a_fork_of_nothing_or_of_another_network_is_refused(tmp_path, whole):
    with pytest.raises(ss.InputError, match="holds no checkpoint to begin with"):
        train(TINY, tiny_bank(), tmp_path / "run", fork=tmp_path)
    wider = replace(TINY, net=replace(TINY.net, width=16))
    with pytest.raises(ss.InputError, match=r"weights do not fit the network.*size mismatch"):
        train(wider, tiny_bank(), tmp_path / "run", fork=whole.parent)
    assert not (tmp_path / "run").exists()


def test_two_processes_never_write_one_folder(tmp_path):
    def second(progress):
        with pytest.raises(ss.InputError, match=r"another process is writing .*run\. Try: waiting for it, or another --out"):
            train(TINY, tiny_bank(), tmp_path / "run")

    assert train(TINY, tiny_bank(), tmp_path / "run", hooks=Hooks(report=second)).exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(Cut):
        train(TINY, tiny_bank(), tmp_path, hooks=Hooks(report=cut_at(50), save_every=0.0))
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    written = type(tmp_path).write_bytes

    def half(path, data):
        written(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(type(tmp_path), "write_bytes", half)
        with pytest.raises(OSError, match="No space left") as caught:
            train(TINY, tiny_bank(), tmp_path, hooks=Hooks(save_every=0.0))
    assert Path(caught.value.filename).name == "step-00000050.safetensors"
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    assert train(TINY, tiny_bank(), tmp_path).exists()


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_changes_nothing_but_rounding(tmp_path, whole, parts):
    train(replace(TINY, accumulate=parts), tiny_bank(), tmp_path)
    one, other = (np.loadtxt(path / "loss.csv", delimiter=",", skiprows=1) for path in (tmp_path, whole.parent))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_gradient_is_clipped_to_the_norm_that_is_asked_for(tmp_path, monkeypatch):
    norms = []
    once = torch.optim.AdamW.step

    def watched(optimizer, *rest):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return once(optimizer, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(replace(TINY, steps=5), tiny_bank(), tmp_path / "free")
    free, norms[:] = norms[:], []
    train(replace(TINY, steps=5, clip=min(free) / 2), tiny_bank(), tmp_path / "clipped")
    np.testing.assert_allclose(norms, min(free) / 2, rtol=1e-3)


def test_bf16_stays_near_float32_and_keeps_its_weights_in_float32(tmp_path, whole):
    half = train(replace(TINY, precision="bf16"), tiny_bank(), tmp_path)
    ours, theirs = load_file(half), load_file(whole)
    assert all(value.dtype == torch.float32 and bool(value.isfinite().all()) for value in ours.values())
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)
    curves = [np.loadtxt(path.parent / "loss.csv", delimiter=",", skiprows=1)[:, 1] for path in (half, whole)]
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.02)


def test_a_watcher_sees_the_average_and_changes_nothing(tmp_path, whole):
    class Watch:
        every = 25

        def __init__(self):
            self.seen = []

        def __call__(self, snapshot):
            assert not snapshot.network.training
            weights = {name: value.clone() for name, value in snapshot.network.state_dict().items()}
            self.seen.append((snapshot.step, weights))
            torch.rand(7)

    watch = Watch()
    path = train(TINY, tiny_bank(), tmp_path, hooks=Hooks(watchers=[watch]))
    assert path.read_bytes() == whole.read_bytes()
    assert [step for step, _ in watch.seen] == [25, 50, 60]
    last, final = watch.seen[-1][1], load_file(path)
    assert all(torch.equal(last[name], final[name]) for name in final)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(ss.InputError, match=r"--batch 4 can't be shared evenly by 1 ranks × --accumulate 3"):
        train(replace(TINY, accumulate=3), tiny_bank(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_done_again(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(loop, "_step", lambda *rest: pytest.fail("a step was made"))
    before = whole.stat().st_mtime_ns
    assert train(TINY, tiny_bank(), whole.parent) == whole
    assert whole.stat().st_mtime_ns == before


def test_it_trains_in_a_thread_which_may_not_listen_to_signals(tmp_path, whole):
    paths = []
    thread = threading.Thread(target=lambda: paths.append(train(TINY, tiny_bank(), tmp_path)))
    thread.start()
    thread.join()
    assert paths[0].read_bytes() == whole.read_bytes()


def test_a_live_line_comes_within_a_window_when_steps_are_slow(tmp_path, monkeypatch):
    clock = itertools.count(step=6.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    told = []
    train(replace(TINY, steps=10), tiny_bank(), tmp_path, hooks=Hooks(report=told.append, save_every=1e9))
    assert [progress.step for progress in told] == [0, 2, 4, 6, 8, 10]
    assert all(0.1 < progress.loss < 10 for progress in told[1:])


# ---- examples -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_an_example_does_not_know_its_batch(flips):
    bank = tiny_bank(7, flips=flips)
    together = batch(bank, 4, 3, 30, 0.3)
    parts = [batch(bank, 4, start, size, 0.3) for start, size in ((3, 1), (4, 13), (17, 16))]
    assert together.item.tolist() == list(range(3, 33))
    assert torch.equal(together.x, bank[together.row])
    for name in Batch._fields:
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(together, name))


@pytest.mark.parametrize("flips", [False, True])
def test_every_epoch_visits_every_row_once_in_an_order_of_its_own(flips):
    bank = tiny_bank(9, flips=flips)
    n = len(bank)
    rows = bank[np.arange(n)].flatten(1)
    orders = []
    for epoch in range(3):
        x = batch(bank, 0, epoch * n, n, 0.0).x.flatten(1)
        orders.append((x[:, None] == rows[None]).all(2).float().argmax(1).tolist())
        assert sorted(orders[-1]) == list(range(n))
    assert orders[0] != orders[1] != orders[2]


def test_labels_stay_with_their_rows_and_are_dropped_at_the_stated_rate():
    bank = ss.Bank.from_arrays(np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1).repeat(2, 3), np.arange(6), flips=True)
    examples = batch(bank, 1, 0, 12_000, 0.1)
    dropped = examples.label == bank.classes
    assert abs(float(dropped.double().mean()) - 0.1) < 4 * (0.1 * 0.9 / 12_000) ** 0.5
    assert torch.equal(examples.label[~dropped], examples.x[~dropped][:, 0, 0, 0].long())
    assert stats.kstest(examples.t.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(examples.eps.flatten().numpy(), "norm").pvalue > 1e-3
    # Whether a label is dropped tells nothing about the time, nor about the noise.
    assert abs(np.corrcoef(dropped, examples.t)[0, 1]) < 4 / 12_000**0.5
    assert abs(np.corrcoef(examples.eps[:, 0, 0, 0], examples.t)[0, 1]) < 4 / 12_000**0.5


def test_another_seed_gives_other_examples():
    bank = tiny_bank()
    assert not torch.equal(batch(bank, 0, 0, 4, 0.1).eps, batch(bank, 1, 0, 4, 0.1).eps)


# ---- what is learned ----------------------------------------------------------------------------------------------------------


def test_the_loss_falls(tmp_path):
    rows = np.sign(np.random.default_rng(0).standard_normal((4, 1, 1, 1))).astype(np.float32) * np.ones((1, 1, 4, 4), np.float32)
    train(replace(TINY, net=SiTSize(width=16, depth=1, heads=2), steps=250, batch=16), ss.Bank.from_arrays(rows), tmp_path)
    curve = np.loadtxt(tmp_path / "loss.csv", delimiter=",", skiprows=1)
    assert curve[:, 0].tolist() == [50, 100, 150, 200, 250]
    assert curve[-1, 1] < 0.6 * curve[0, 1]
    assert json.loads((tmp_path / "recipe.json").read_text())["final_loss"] == pytest.approx(curve[-1, 1], abs=1e-6)


@pytest.mark.parametrize("cap", [0.9999, 0.25])
def test_the_average_warms_up(cap):
    bank, recipe = tiny_bank(), replace(TINY, ema=cap)
    state, _ = loop._start(recipe, recipe.net.on(bank.shape, bank.classes), bank, "cpu")
    name = "blocks.0.attn.qkv.weight"
    expected = state.net.state_dict()[name].double().clone()
    task, examples = loop.Task(state.net, state.loss, "float32"), (batch(bank, 3, 4 * n, 4, 0.1) for n in range(7))
    for n in range(1, 8):
        assert not loop._step(state, task, recipe, examples, loop._hardware("cpu"), False)
        decay = min(cap, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * state.net.state_dict()[name].double()
        torch.testing.assert_close(state.ema.state_dict()[name].double(), expected, rtol=1e-6, atol=1e-8)


def test_a_labelled_bank_makes_a_conditional_model_with_a_null_row(whole):
    model = ss.load(whole.parent)
    assert (model.classes, model.has_null) == (3, True)
    assert load_file(whole)["y_embedder.embedding_table.weight"].shape == (4, 8)
    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model(z, 0.5), model(z, 0.5, 1))


def test_a_bank_without_labels_makes_an_unconditional_model(tmp_path):
    path = train(replace(TINY, steps=2), tiny_bank(classes=0), tmp_path)
    model = ss.load(path)
    assert (model.classes, model.has_null) == (0, True)
    assert not any("y_embedder" in name for name in load_file(path))
    assert json.loads((tmp_path / "recipe.json").read_text())["architecture"]["classes"] == 0


def test_a_labelled_bank_makes_an_unconditional_model_where_labels_are_not_to_be_shown(tmp_path):
    blind = train(replace(TINY, condition="none"), tiny_bank(), tmp_path / "blind")
    plain = train(replace(TINY, condition="none"), tiny_bank(classes=0), tmp_path / "plain")
    assert ss.load(blind).classes == 0
    ours, theirs = load_file(blind), load_file(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((blind.parent / "recipe.json").read_text())["bank"]["fingerprint"] == tiny_bank().fingerprint


def test_a_conditional_model_needs_labels(tmp_path):
    with pytest.raises(ss.InputError, match="bank bank has no labels to condition on"):
        train(replace(TINY, condition="class"), tiny_bank(classes=0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_of_the_version_before_is_a_model_or_is_gone_on_with_elsewhere(tmp_path, whole, finished):
    run = tmp_path / "run"
    shutil.copytree(whole.parent, run)
    (run / "run.json").write_text(json.dumps({"recipe": TINY.record(), "bank": {"fingerprint": tiny_bank().fingerprint}}))
    if finished:
        assert ss.load(run).classes == 3
    else:
        (run / "model.safetensors").unlink()
        with pytest.raises(ss.InputError, match="is not finished"):
            ss.load(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ss.InputError, match=r"a training run of an earlier version.*Try: another --out, with --fork .*run to begin where"):
        train(TINY, tiny_bank(), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert train(TINY, tiny_bank(), tmp_path / "elsewhere", fork=run).read_bytes() == whole.read_bytes()
    assert train(TINY, tiny_bank(), run, force=True).read_bytes() == whole.read_bytes()


def foreign(folder):
    """A user's own files in a folder, by names that a run might have used."""
    names = ("checkpoints/best.pt", "checkpoints/epoch1.pt", "checkpoints/step-1.safetensors", "loss.csv", "recipe.json", "notes.txt")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return {folder / name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("record", [None, "{}", '{"name": "an experiment of mine"}', '{"kind": "samples", "settings": {}}'])
def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(tmp_path, record, force):
    mine = foreign(tmp_path)
    if record is not None:
        (tmp_path / "run.json").write_text(record)
    with pytest.raises(ss.InputError, match=r"does not hold a training run\. Try: another --out|holds samples, not a training run"):
        train(TINY, tiny_bank(), tmp_path, force=force)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.json"} == mine
    assert (tmp_path / "run.json").exists() == (record is not None)


def test_files_that_a_user_puts_beside_those_of_a_run_stay(tmp_path, whole):
    shutil.copytree(whole.parent, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    own = {name: text for name in ("checkpoints/best.pt", "checkpoints/step-x.json", "notes.txt") for text in [f"mine: {name}"]}
    left = {"checkpoints/.step-00000007.json.123.tmp", ".loss.csv.77.tmp"}
    for name in (*own, *left):
        (tmp_path / "run" / name).write_text(f"mine: {name}")
    for force in (False, True):
        assert train(TINY, tiny_bank(), tmp_path / "run", force=force).read_bytes() == whole.read_bytes()
        files = {str(path.relative_to(tmp_path / "run")): path for path in (tmp_path / "run").rglob("*") if path.is_file()}
        assert {name: files[name].read_text() for name in own} == own
        assert not left & files.keys()
        assert len(list((tmp_path / "run").glob("checkpoints/step-0*"))) == 2


def test_forced_it_begins_again(tmp_path, whole, monkeypatch):
    shutil.copytree(whole.parent, tmp_path / "run")
    made = []
    once = loop._step
    monkeypatch.setattr(loop, "_step", lambda state, *rest: [made.append(state.step), once(state, *rest)][1])
    other = replace(TINY, seed=4)
    forced = train(other, tiny_bank(), tmp_path / "run", force=True)
    assert made == list(range(60))
    assert forced.read_bytes() != whole.read_bytes()
    assert train(other, tiny_bank(), tmp_path / "run") == forced
    with pytest.raises(ss.InputError, match="seed 4 → 3"):
        train(TINY, tiny_bank(), tmp_path / "run")


def test_a_window_that_the_run_ends_in_is_in_its_curve(tmp_path):
    train(replace(TINY, steps=53), tiny_bank(), tmp_path)
    curve = np.loadtxt(tmp_path / "loss.csv", delimiter=",", skiprows=1)
    assert curve[:, 0].tolist() == [50, 53]
    assert json.loads((tmp_path / "recipe.json").read_text())["final_loss"] == pytest.approx(curve[1, 1], abs=1e-6)


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(replace(TINY, steps=2), tiny_bank(), tmp_path)
    assert torch.equal(torch.rand(3), expected)


# ---- what is refused ----------------------------------------------------------------------------------------------------------


def test_another_recipe_in_the_same_folder_is_refused_by_name(whole):
    before = sorted(whole.parent.iterdir())
    with pytest.raises(ss.InputError, match=r"other settings \(rate 0.003 → 0.1, width 8 → 16\).*another --out, with --fork"):
        train(replace(TINY, rate=0.1, net=replace(TINY.net, width=16)), tiny_bank(), whole.parent)
    with pytest.raises(ss.InputError, match=r"other settings \(bank \w{12} → \w{12}\)"):
        train(TINY, tiny_bank(11), whole.parent)
    assert sorted(whole.parent.iterdir()) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "a training run", "settings": 3}'])
def test_a_damaged_record_is_one_line_and_force_helps(tmp_path, whole, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ss.InputError, match=r"run\.json is (damaged|of a training run of an earlier version).*or --force to begin again"):
        train(TINY, tiny_bank(), tmp_path)
    assert train(TINY, tiny_bank(), tmp_path, force=True).read_bytes() == whole.read_bytes()


def test_an_exploding_loss_stops_the_run_and_keeps_what_was_good(tmp_path):
    with pytest.raises(ss.InputError, match=r"the loss is (nan|inf) at step \d+; the last good checkpoint is kept.*a smaller --rate"):
        train(replace(TINY, rate=1e30), tiny_bank(), tmp_path, hooks=Hooks(save_every=0.0))
    kept = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert kept
    assert all(value.isfinite().all() for path in kept for value in load_file(path).values())
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("last", [False, True])
def test_broken_weights_are_never_written(tmp_path, monkeypatch, last):
    """A gradient of NaN beside a loss that is finite: the step breaks the weights, and nothing has noticed yet."""
    steps = 6 if last else 60
    true_loss = dsm.DSMLoss.forward

    def treacherous(self, net, examples):
        treacherous.calls += 1
        nothing = net.final_layer.linear.bias - net.final_layer.linear.bias.detach()
        extra = nothing.square().sum().sqrt() * 0 if treacherous.calls == 6 else 0
        return {"loss": true_loss(self, net, examples)["loss"] + extra}

    treacherous.calls = 0
    monkeypatch.setattr(dsm.DSMLoss, "forward", treacherous)
    with pytest.raises(ss.InputError, match="weights are not finite after step 6; the last good checkpoint is kept"):
        train(replace(TINY, steps=steps), tiny_bank(), tmp_path, hooks=Hooks(save_every=1e9 if last else 0.0))
    assert not (tmp_path / "model.safetensors").exists()
    assert sorted(path.stem for path in tmp_path.glob("checkpoints/*.safetensors")) == ([] if last else ["step-00000004", "step-00000005"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch": 3}, "side 4 are not divisible by patch 3"),
        ({"width": 10}, "width 10 must be divisible by heads 2 and by 4"),
        ({"heads": 3}, "width 8 must be divisible by heads 3"),
        *(({name: 0}, f"--{name} 0 is not a positive number") for name in ("width", "depth", "heads", "patch", "steps", "batch")),
        ({"rate": 0.0}, "--rate 0 is not a learning rate"),
        ({"rate": float("nan")}, "--rate nan is not a learning rate"),
        ({"ema": 1.0}, "--ema 1 is no decay"),
        ({"class_dropout": 1.5}, "--class-dropout 1.5 is not a share"),
        ({"seed": -1}, "--seed -1 is not a seed"),
        ({"steps": 10**8}, r"--steps 100000000 is too large"),
        ({"depth": 10**9}, r"a network can't have depth = 1000000000"),
    ],
)
def test_a_recipe_that_no_run_can_follow_is_refused_before_anything_is_written(tmp_path, change, said):
    size = {name: change[name] for name in change.keys() & vars(TINY.net)}
    own = {name: change[name] for name in change.keys() - size}
    with pytest.raises(ss.InputError, match=said):
        train(replace(TINY, net=replace(TINY.net, **size), **own), tiny_bank(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "shape", "said"),
    [
        (TINY.net, (16,), r"a SiT takes square images.*Try: --preset mlp-desk, for vectors"),
        (TINY.net, (4, 4), r"a SiT takes square images.*--size"),
        (TINY.net, (1, 4, 6), r"a SiT takes square images.*--size"),
        (UNetSize(), (16,), r"a U-Net takes square images.*Try: --preset mlp-desk, for vectors"),
        (MLPSize(), (1, 4, 4), r"an MLP takes vectors \(d,\); the bank's rows are \(1, 4, 4\)\. Try: --preset sit-desk or unet-desk"),
    ],
)
def test_rows_that_a_network_does_not_take_are_refused(tmp_path, size, shape, said):
    bank = ss.Bank.from_arrays(np.zeros((3, *shape), np.float32))
    with pytest.raises(ss.InputError, match=said):
        train(replace(TINY, net=size), bank, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_presets_are_sound_and_an_unknown_one_gets_its_near_match():
    for name, recipe in presets().items():
        recipe.validate()
        assert preset(name) == recipe
    with pytest.raises(ss.InputError, match=r"unknown preset 'demo-xs'.*'demo-s'"):
        preset("demo-xs")


def test_one_process_may_name_its_device_and_ranks_may_not(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    loop._hardware("cuda:1")
    assert chosen == ["cuda:1"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ss.InputError, match="--device cuda:1 names one device"):
        loop._hardware("cuda:1")
