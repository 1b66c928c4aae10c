"""The bench: the same answers from every method, errors judged by the definition, records that continue, a chart that names its marks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import seeds
from scorescope.bench import banks_chart, chart, gaussian, judge, load, summary, synthetic, workloads
from scorescope.bench import measure as measuring
from scorescope.bench.measure import Setting, measure
from scorescope.bench.methods import all_methods
from scorescope.bench.methods.base import Ready
from scorescope.cli import main
from scorescope.cli.bench import size
from scorescope.empirical.reference import reference_posterior
from scorescope.sampler import Solver, trajectory
from tests.problems import Gaussian

CPU = torch.device("cpu")
MINE = ("naive-float32", "scorescope-1e-3", "scorescope-1e-8")
SMALL = Setting(pairs=5, times=20, methods=MINE, repeats=2)


def make_bank(n=90, shape=(1, 3, 4), flips=False, **options):
    return ss.Bank.from_arrays(np.random.default_rng(3).uniform(-1, 1, (n, *shape)).astype(np.float32), flips=flips, **options)


@cache
def made(name, bank=None):
    bank = bank or make_bank()
    if name == "supervision":
        return workloads.pairs(bank, 5, 20, 0, CPU)
    return workloads.batches(bank, 5, 0, CPU) if name == "random" else gaussian.trajectories(bank, 5, 20, 0, CPU)


def complaint(capsys, *words):
    assert main(["bench", "empirical", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: .*\n", said.err)
    return said.err


# ---- workloads ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", workloads.NAMES)
def test_a_part_of_a_workload_asks_the_same_states(name):
    whole = made(name)
    part = whole.narrow(2, slice(1, None, 2))
    assert (part.steps, part.states) == (len(range(whole.steps)[1::2]), 2)
    for k in range(part.steps):
        for some, every in zip(part.step(k), whole.step(1 + 2 * k), strict=True):
            assert torch.equal(some, every[:2])


@pytest.mark.parametrize("name", workloads.NAMES)
def test_judged_states_span_all_times(name):
    whole = made(name)
    queries = whole.audited(12, 0)
    times = torch.cat([whole.step(k)[1] for k in range(whole.steps)])
    asked = whole.gather(queries).times.flatten()
    assert (asked.min(), asked.max()) == (times.min(), times.max())
    assert len(set(queries)) == len(queries) == 12
    for (k, p), z in zip(queries, whole.gather(queries).z[0], strict=True):
        assert torch.equal(z, whole.step(k)[0][p])


def test_more_pairs_leave_the_first_as_they_are():
    few, many = workloads.pairs(make_bank(), 3, 7, 0, CPU), workloads.pairs(make_bank(), 6, 7, 0, CPU)
    assert torch.equal(few.x, many.x[:3])
    assert torch.equal(few.eps, many.eps[:3])


def test_closed_form_trajectories_are_what_a_solver_finds():
    rows = 0.5 * torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    found = gaussian.trajectories(ss.Bank.from_arrays(rows), 4, 10, 0, CPU)
    mean, covariance = rows.double().mean(0), torch.cov(rows.double().T, correction=0)

    class Fitted(Gaussian):
        def forward(self, z, t, label=None):
            alpha, sigma = 1 - t[0], t[0]
            gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(6))
            return (mean + (z.double() - alpha * mean) @ gain.T).to(z.dtype)

    noise = seeds.normal(0, "bench path", range(4), (6,))
    exact = trajectory(Fitted(6, 1.0), noise, found.times, solver=Solver("heun", 400))
    torch.testing.assert_close(found.z, exact, rtol=0, atol=2e-4)


# ---- methods ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_the_batched_reference_is_the_definition(flips):
    bank = make_bank(n=1100, flips=flips)
    for name in workloads.NAMES:
        z, t = made(name, bank).gather(made(name, bank).audited(16, 0)).step(0)
        exact = reference_posterior(bank, ss.LinearSchedule(), z, t).mean
        assert max(judge.relative_errors(judge.reference_means(bank, z, t), exact.flatten(1))) < 1e-11


@pytest.mark.parametrize(
    ("name", "most"), [("naive-float32", 1e-4), ("naive-bfloat16", 0.1), ("faiss-flat-64", 1e-4), ("scorescope-1e-8", 1e-6)]
)
@pytest.mark.parametrize("flips", [False, True])
def test_every_method_answers_every_workload(name, most, flips):
    method = all_methods()[name]
    if why := method.lacking(CPU):
        pytest.skip(why)
    bank = make_bank(n=30, flips=flips)  # fewer rows than faiss searches, so that its answer is whole
    ready = method.prepare(bank, CPU, None)
    for name in workloads.NAMES:
        whole, seen = made(name, bank), set()
        for k, means in ready.answers(whole):
            seen.add(k)
            if k % 4 == 0 or not whole.swept:
                assert float(np.median(judge.relative_errors(means.flatten(1), judge.reference_means(bank, *whole.step(k))))) < most
        assert seen == set(range(whole.steps))


def test_the_streaming_softmax_of_the_peer_agrees_across_chunks(monkeypatch):
    from scorescope.bench.methods import naive

    bank, whole = make_bank(), made("random")
    monkeypatch.setattr(naive, "CHUNK", 7)
    for k, means in all_methods()["naive-float32"].prepare(bank, CPU, None).answers(whole):
        assert max(judge.relative_errors(means, judge.reference_means(bank, *whole.step(k)))) < 1e-4


def test_errors_are_relative():
    reference = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    assert judge.relative_errors(reference + torch.tensor([[0.0, 1.0], [0.0, 2.0]]), reference) == [0.2, 2.0]


# ---- records ------------------------------------------------------------------------------------------------------------------


def test_what_is_timed_in_part_is_scaled_and_our_own_is_whole(tmp_path):
    content = measure(make_bank(), replace(SMALL, times=40), tmp_path)
    assert len(content["measurements"]) == 3 * 3 * 2
    for found in content["measurements"]:
        part = found["measured_steps"] * found["measured_states"] / (found["steps"] * found["states"])
        assert part == (0.25 if found["method"] == "naive-float32" and found["workload"] != "random" else 1)
        assert found["seconds"] == pytest.approx(found["measured_seconds"] / part)
        assert found["repeat"] or all(error < 1e-2 for error in found["errors"])
    whole = measure(make_bank(), replace(SMALL, times=40, full=True, workloads=("supervision",)), tmp_path / "full")
    assert all(found["measured_steps"] == 40 for found in whole["measurements"])


def test_a_killed_run_continues_and_repeats_nothing(tmp_path, monkeypatch):
    bank, calls = make_bank(), []
    original = measuring._Run._measured

    def killed(self, name, method, repeat, row):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append((name, method.name, repeat))
        return original(self, name, method, repeat, row)

    monkeypatch.setattr(measuring._Run, "_measured", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(bank, SMALL, tmp_path)
    kept = json.loads((tmp_path / "bench.json").read_text())["measurements"]
    assert [(m["workload"], m["method"], m["repeat"]) for m in kept] == calls
    monkeypatch.setattr(measuring._Run, "_measured", original)
    whole = measure(bank, SMALL, tmp_path)["measurements"]
    assert whole[:7] == kept
    assert len({(m["workload"], m["method"], m["repeat"]) for m in whole}) == len(whole) == 3 * 3 * 2
    assert json.loads((tmp_path / "bench.json").read_text())["measurements"] == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bank: (bank, replace(SMALL, pairs=6)), "pairs 5 → 6"),
        (lambda bank: (bank, replace(SMALL, methods=MINE[:2])), r"methods \[.*\] → \[.*\]"),
        (lambda bank: (make_bank(n=91), SMALL), "bank.rows 90 → 91"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(tmp_path, change, said):
    setting = replace(SMALL, workloads=("random",), repeats=1)
    measure(make_bank(), replace(setting), tmp_path)
    before = (tmp_path / "bench.json").read_bytes()
    bank, other = change(make_bank())
    with pytest.raises(ss.InputError, match=rf"holds a benchmark with other settings \(.*{said}.*Try: another --out"):
        measure(bank, replace(other, workloads=("random",), repeats=1), tmp_path)
    assert (tmp_path / "bench.json").read_bytes() == before


def test_a_method_that_fails_to_prepare_is_listed(tmp_path, monkeypatch):
    def refuse(bank, device, memory) -> Ready:
        raise ss.InputError("does not work here")

    monkeypatch.setattr(
        measuring, "chosen", lambda names: [replace(all_methods()["naive-float32"], prepare=refuse), all_methods()[MINE[1]]]
    )
    content = measure(make_bank(), replace(SMALL, workloads=("random",), repeats=1), tmp_path)
    assert content["lacking"] == {"naive-float32": "does not work here"}
    assert {m["method"] for m in content["measurements"]} == {MINE[1]}


# ---- what is shown ------------------------------------------------------------------------------------------------------------


def content_of(times, errors):
    measurements = [
        {
            "workload": "random", "method": name, "ours": "scorescope" in name, "repeat": repeat,
            "seconds": seconds * (1 + repeat),
            "measured_seconds": seconds, "others_share": 0.0, "measured_steps": 4, "steps": 4, "measured_states": 8, "states": 8,
            "path": "",
            **({"errors": [errors[name], errors[name] / 2]} if not repeat else {}),
        }
        for repeat in range(3)
        for name, seconds in times.items()
    ]  # fmt: skip
    return {"measurements": measurements, "prepare_seconds": dict.fromkeys(times, 1.0), "lacking": {}, "default": "scorescope-1e-5"}


def test_medians_ratios_and_the_verdict():
    times = {"naive-float32": 8.0, "faiss-flat-64": 1.0, "scorescope-1e-5": 2.0}
    made = summary.lines(content_of(times, {"naive-float32": 1e-4, "faiss-flat-64": 0.5, "scorescope-1e-5": 1e-6}))
    assert [(line["seconds"], line["speedup"], line["worst_error"]) for line in made] == [(16, 1, 1e-4), (2, 8, 0.5), (4, 4, 1e-6)]
    assert summary.verdict(made).startswith("No other method")
    made = summary.lines(content_of(times, {"naive-float32": 1e-4, "faiss-flat-64": 1e-9, "scorescope-1e-5": 1e-6}))
    assert summary.verdict(made) == "Both faster and more exact: faiss-flat-64 than scorescope-1e-5 (random)."


def test_a_machine_that_was_busy_with_other_work_is_told_and_nothing_claimed():
    content = content_of({"naive-float32": 8.0, "scorescope-1e-5": 1.0}, {"naive-float32": 1e-4, "scorescope-1e-5": 1e-6})
    assert summary.disturbance(content) == ""
    assert "8×" in chart.draw(content).title
    content["measurements"][3]["others_share"] = 0.45
    assert re.search("up to 45% of the processors during 1 of 6 measurements.*not to be trusted", summary.disturbance(content))
    assert "×" not in chart.draw(content).title


def test_a_stopwatch_tells_own_work_from_that_of_others(monkeypatch):
    readings = iter([(10.0, 5.0, 100.0), (14.0, 8.0, 105.0)])
    monkeypatch.setattr(load.Stopwatch, "_now", staticmethod(lambda: next(readings)))
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    assert load.Stopwatch().stop() == (4.0, 3.0, 0.25)


def test_the_chart_names_every_method_once_and_no_names_collide():
    times = {
        "naive-float32": 8.0,
        "naive-bfloat16": 8.1,
        "faiss-flat-64": 7.9,
        "keops": 8.05,
        "scorescope-1e-3": 8.0,
        "scorescope-1e-5": 1.0,
    }
    errors = {**dict.fromkeys(times, 1e-4), "naive-float32": 1.1e-4, "scorescope-1e-5": 0.0}
    content = content_of(times, errors)
    made = summary.lines(content)
    x, y = chart.Log(0.5, 50, 640), chart._errors(made)
    names = chart._names([chart._row(line, y) for line in made], x, y, hint=True)
    boxes = [
        (x.place(n["seconds"]), y.place(n["place"]) - 6, x.place(n["seconds"]) + 6 * len(n["method"]), y.place(n["place"]) + 6)
        for n in names
    ]
    assert not [(a, b) for a in boxes for b in boxes if a is not b and chart._overlap(a, b)]
    drawing = chart.draw(content)
    assert "scorescope-1e-5 is 8× as fast as naive-float32" in drawing.title
    svg = chart.Chart("bench", "x", ("", "", ""), drawing).svg(alone=True)
    assert all(len(re.findall(rf">{name}<", svg)) == 1 for name in times)
    assert "0: none seen" in svg
    assert ">0<" in svg


def test_the_command_prints_a_table_and_writes_the_files(tmp_path, capsys, monkeypatch):
    make_bank(name="x").save(tmp_path / "x.bank")
    words = ["--bank", tmp_path / "x.bank", "--pairs", 4, "--times", 20, "--repeats", 1, "--threads", 1, "--methods", *MINE]
    before = torch.get_num_threads()
    assert main([*map(str, ["bench", "empirical", *words, "--out", tmp_path / "out"])]) == 0
    said = capsys.readouterr().out
    assert torch.get_num_threads() == before
    assert all(len(re.findall(rf"^{method} ", said, re.MULTILINE)) == 3 for method in MINE)
    assert said.count("measured on 10 of 20 timesteps") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "bench.json", "bench.svg", "bench.png"}
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["machine"]["processor"]


# ---- several banks ------------------------------------------------------------------------------------------------------------


def record_of(name, plain, own, **looks):
    """A record of one bank: seconds of plain PyTorch and of scorescope in each repeat, the same in every workload."""
    measurements = [
        {
            "workload": workload, "method": method, "ours": "scorescope" in method, "repeat": repeat, "seconds": seconds,
            "measured_seconds": seconds, "others_share": 0.0, "measured_steps": 4, "steps": 8, "measured_states": 3, "states": 3,
            "path": "", **({"errors": [1e-6]} if not repeat else {}),
        }
        for workload in workloads.NAMES
        for method, times in (("naive-float32", plain), ("scorescope-1e-4", own))
        for repeat, seconds in enumerate(times)
    ]  # fmt: skip
    return {
        "measurements": measurements, "prepare_seconds": {"naive-float32": 1.0, "scorescope-1e-4": 1.0}, "lacking": {},
        "default": "scorescope-1e-4", "bank": {"name": name, "rows": 90, "shape": [1, 3, 4], "stored": "float32"} | looks,
        "arguments": {"threads": 1}, "trajectories_of": None, "machine": {"processor": "abacus", "device": "cpu"},
    }  # fmt: skip


def test_gains_are_ratios_of_medians_within_those_of_single_repeats():
    made = summary.gains([record_of("x", [8, 2, 10], [2, 4, 1]), record_of("y", [3], [6])])
    assert [(line["bank"], line["workload"]) for line in made] == [(bank, name) for bank in "xy" for name in summary.WORKLOADS]
    assert {(line["times_as_fast"], line["lowest"], line["highest"], line["repeats"]) for line in made} == {
        (4, 0.5, 10, 3),
        (0.5, 0.5, 0.5, 1),
    }


def test_the_chart_over_banks_says_what_it_shows():
    slow, fast = record_of("[x]", [1, 1], [2, 4]), record_of("[x]", [40, 60], [2, 2], rows=1000)
    drawn = banks_chart.chart([slow, fast])
    assert drawn.title == (
        "The exact empirical score of 2 training sets: scorescope is 0.33 to 25× (single states), "
        "0.33 to 25× (supervision sweeps) and 0.33 to 25× (trajectory sweeps) as fast as plain float32 PyTorch"
    )
    svg = drawn.svg(alone=True)
    for said in (
        r"\[x\]: 90 rows of 1×3×4 \(float32\)", r"\[x\]: 1,000 rows of", "as fast as", "← slower", "faster than plain PyTorch →",
        "0.33×", "3.0 s instead of 1.0 s", "median times of 2 repeats", "3 pairs × 8 timesteps; plain PyTorch measured on 4 of 8",
        "Machine: abacus, 1 thread", "1e-6",
    ):  # fmt: skip
        assert re.search(f">[^<]*{said}", svg), said
    assert len(drawn.csv().splitlines()) == 1 + 2 * 3
    assert "how much these numbers vary is not known" in banks_chart.chart([record_of("x", [3], [6])]).svg(alone=True)
    fast["measurements"][0]["others_share"] = 0.5
    assert banks_chart.chart([slow, fast]).title.startswith("Not to be quoted")


def test_several_banks_are_one_table_and_chart_and_a_bank_more_measures_that_bank_alone(tmp_path, capsys, monkeypatch):
    calls, original = [], measuring._Run._measured

    def counted(self, name, method, repeat, row):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(self.bank.name)
        return original(self, name, method, repeat, row)

    for name in "xyz":
        make_bank(name=name).save(tmp_path / f"{name}.bank")
    x, y, z = (tmp_path / f"{name}.bank" for name in "xyz")
    small = ["--pairs", 2, "--times", 4, "--repeats", 1, "--threads", 1, "--workloads", "random", "--methods", *MINE[:2]]
    words = [*small, "--out", tmp_path / "out"]
    monkeypatch.setattr(measuring._Run, "_measured", counted)
    assert main([*map(str, ["bench", "empirical", "--bank", x, y, *words])]) == 130
    monkeypatch.setattr(measuring._Run, "_measured", original)
    kept = json.loads((tmp_path / "out" / "x-90x1x3x4-float32" / "bench.json").read_text())["measurements"]
    capsys.readouterr()
    assert main([*map(str, ["bench", "empirical", "--bank", x, y, "--bank", z, *words])]) == 0
    said = capsys.readouterr()
    assert calls == ["x", "x", "y"]
    assert json.loads((tmp_path / "out" / "x-90x1x3x4-float32" / "bench.json").read_text())["measurements"] == kept
    assert all(len(re.findall(rf"^{name} +90 +1×3×4 float32 +single states +\d", said.out, re.MULTILINE)) == 1 for name in "xyz")
    assert "bank 3 of 3: z" in said.err
    folders = {f"{name}-90x1x3x4-float32" for name in "xyz"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "banks.csv", "banks.svg", "banks.png", *folders}
    assert [line.split(",")[0] for line in (tmp_path / "out" / "banks.csv").read_text().splitlines()] == ["bank", "x", "y", "z"]

    (tmp_path / "out" / "mine.txt").write_text("kept")
    other = ["--bank", x, y, *words, "--pairs", 3]
    assert re.search(r"holds a benchmark of several banks with other settings \(arguments.pairs 2 → 3\)", complaint(capsys, *other))
    assert main([*map(str, ["bench", "empirical", *other, "--force"])]) == 0
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"run.json", "banks.csv", "banks.svg", "banks.png", "mine.txt", *(folders - {"z-90x1x3x4-float32"})}


# ---- what goes wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing: --bank BANK"),
        (["--bank"], "missing: --bank BANK"),
        (["--bank", "x.bank", "--bank", "x.bank"], "two banks are called 'bank', with rows of the same kind"),
        (["--bank", "x.bank", "synthetic:smal"], "unknown synthetic bank 'smal'.*'small'"),
        (["--bank", "x.bank", "synthetic:small:9", "--methods", MINE[1]], "compared with naive-float32, and --methods lacks one"),
        (["--bank", "x.bank", "synthetic:huge:9000000000"], "synthetic huge: .* hold all rows in memory.*fewer --methods"),
        (["--bank", "nowhere.bank"], r"no bank at nowhere\.bank"),
        (["--bank", "x.bank", "--methods", "naive-flaot32"], "unknown method 'naive-flaot32'.*'naive-float32'"),
        (["--bank", "x.bank", "--workloads", "supervison"], "unknown workload 'supervison'.*'supervision'"),
        (["--bank", "x.bank", "--pairs", "0"], "pairs must be at least 1, got 0. Try: --pairs 256"),
        (["--bank", "x.bank", "--repeats", "-1"], "repeats must be at least 1"),
        (["--bank", "x.bank", "--threads", "0"], "threads must be at least 1"),
        (["--bank", "x.bank", "--memory", "much"], "--memory 'much' is not a size. Try: --memory 2GB"),
        (["--bank", "x.bank", "--model", "nowhere.safetensors"], r"no model at nowhere\.safetensors"),
        (["--bank", "x.bank", "--device", "abacus"], "device 'abacus' can't be used"),
    ],
)
def test_bad_words_are_one_line_and_write_nothing(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_bank().save("x.bank")
    assert re.search(said, complaint(capsys, *words))
    assert [path.name for path in tmp_path.iterdir()] == ["x.bank"]


def test_a_method_that_is_asked_for_but_missing_or_too_large_is_refused(tmp_path, monkeypatch):
    wanting = replace(all_methods()["naive-float32"], lacking=lambda device: "not installed (pip install it)")
    monkeypatch.setattr(measuring, "chosen", lambda names: [wanting])
    with pytest.raises(ss.InputError, match=r"method naive-float32: not installed \(pip install it\)"):
        measure(make_bank(), SMALL, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(measuring, "free_memory", lambda device: 100)
    with pytest.raises(ss.InputError, match=r"naive-float32 hold all rows in memory.*fewer --methods"):
        measure(make_bank(), SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_record_of_the_version_before_is_refused_and_a_broken_one_begun_again(tmp_path):
    setting = replace(SMALL, workloads=("random",), methods=MINE[:1], repeats=1)
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(ss.InputError, match=r"holds a benchmark of an earlier version.*--force to replace it"):
        measure(make_bank(), setting, tmp_path)
    assert (tmp_path / "bench.json").read_text() == "{}"
    measure(make_bank(), setting, tmp_path, force=True)
    for broken in ("[1, 2", "[]", '{"schema": 1, "measurements": 3}'):
        (tmp_path / "bench.json").write_text(broken)
        assert len(measure(make_bank(), setting, tmp_path)["measurements"]) == 1


@pytest.mark.parametrize(("text", "bytes_"), [("2GB", 2e9), ("500 mb", 5e8), ("1.5GiB", 1.5 * 2**30), ("4096", 4096)])
def test_sizes(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize("kind", sorted(synthetic.KINDS))
def test_banks_of_noise_are_those_of_their_kind_whatever_their_number(kind):
    few, more = (synthetic.synthetic(f"synthetic:{kind}:{n}") for n in (20, 40))
    assert few.shape == synthetic.KINDS[kind][1]
    assert few.rows.dtype == (np.uint8 if synthetic.KINDS[kind][2] else np.float16)
    assert (few.rows[:2] == more.rows[:2]).all()
    variance = more[np.arange(40)].flatten(1).var(1).mean() * (1 if few.rows.dtype == np.float16 else (127.5 / 40) ** 2)
    assert 0.5 < variance < 1.5
