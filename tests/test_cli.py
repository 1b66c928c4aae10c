"""The command line: quick help with examples, one line for what goes wrong, and exit statuses a script can rely on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scorescope as ss
from scorescope import cli, files
from scorescope.cli import VERBS, main
from scorescope.cli.bank import VERBS as BANK_VERBS
from scorescope.cli.common import default_out
from scorescope.progress import Board, span
from scorescope.training import objectives
from scorescope.training.presets import presets

HELPS = [[], *([verb] for verb in VERBS), *(["bank", verb] for verb in BANK_VERBS)]
TINY = ["--width", "8", "--depth", "1", "--heads", "2", "--patch", "2", "--steps", "60", "--batch", "4"]


@pytest.fixture
def bank(tmp_path):
    rng = np.random.default_rng(0)
    ss.Bank.from_arrays(rng.uniform(-1, 1, (9, 1, 4, 4)).astype(np.float32), np.arange(9) % 3, name="x").save(tmp_path / "x.bank")
    return tmp_path / "x.bank"


def complaint(capsys, *words):
    """The one line on stderr of a command that fails with status 2 and says nothing else."""
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert not re.search(r"[│╭╮╰╯]|-----", said.err)
    return said.err


# ---- help ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", HELPS, ids=lambda words: " ".join(words) or "scorescope")
def test_help_is_quick_short_and_has_an_example(words):
    code = f"""
import sys
from scorescope.cli import main
try:
    main([*{words!r}, "--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "xarray", "altair", "pandas", "scipy", "h5py", "matplotlib"}} & sys.modules.keys()
heavy -= {{"torch"}} if {words!r} == ["train"] else set()  # its options are those of the networks and objectives, found by their files
assert not heavy, heavy
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") < 60
    assert re.search(rf"^  {' '.join(['scorescope', *words])}\b.*\S", done.stdout, re.MULTILINE)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert words == ["train"] or spent < 1.5  # seconds of a processor; importing torch costs more


@pytest.mark.parametrize("words", HELPS[1:], ids=" ".join)
def test_every_option_says_what_it_is_for(words, capsys):
    with contextlib.suppress(SystemExit):
        main([*words, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "scorescope" in text
    assert not re.findall(r"--[a-z-]+ (?:\S+ )?\((?:default|required)", text)


def test_help_names_every_verb_and_is_the_same_without_words(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert all(re.search(rf"^  {verb} +\w", said, re.MULTILINE) for verb in VERBS)


def test_the_help_of_train_names_every_preset_and_objective(capsys):
    with contextlib.suppress(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert all(re.search(rf"[ ,]{name}[,;\s]", said) for name in (*presets(), *objectives.names()))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scorescope {ss.__version__}\n"


def test_it_runs_as_a_module_and_a_reader_may_leave():
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-m", "scorescope", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# ---- what goes wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exmaine"], "unknown verb 'exmaine'.*'examine'"),
        (["train", "--preset", "demo-s", "--out", "x", "--wdith", "3"], r"Unrecognized options: --wdith, 3\. Try: --width"),
        (["train", "--preset", "demo-s", "--out", "x", "--sed", "1", "--wdith", "3"], r"--sed, 1, --wdith, 3\. Try: --seed"),
        (["train", "--preset", "demo-s", "--out", "x", "--watch-every", "-3"], "--watch-every -3 is not a number of steps"),
        (["train", "--preset", "demo-s", "--out", "x", "--heads", "5"], r"^error: width 48 must be divisible by heads 5 and by 4\. Try: a"),
        (["train", "--preset", "demo-s", "--out", "x", "--score-rows", "3"], "--score-rows belongs to the objective region, not to dsm"),
        (["train", "--preset", "demo-s", "--out", "x", "--objective", "regon"], "unknown objective 'regon'.*'region'"),
        (["train", "--preset", "demo-s", "--out", "x", "--schedule", "pv"], r"^error: unknown schedule 'pv'; there is cosine.*'vp'"),
        (["train", "--preset", "demo-s", "--out", "x", "--prediction", "epsilon"], r"^error: unknown prediction 'epsilon'.*'eps'"),
        (["train", "--preset", "demo-s", "--out", "x", "--condition", "clas"], r"^error: unknown condition 'clas'.*'class'"),
        (["train", "--preset", "demo-s", "--out", "x", "--qqqq"], r"Unrecognized options: --qqqq\. Try: scorescope train --help"),
        (["train", "--preset", "demo-s", "--out", "x", "--width", "wide"], r"--width.*'wide'\. Try: scorescope train --help"),
        (["train"], r"missing: --preset STR, --out STR\. Try: scorescope train --help"),
        (["train", "--preset"], "Missing value for argument '--preset'"),
        (["train", "--preset", "--out", "x"], "Missing value for argument '--preset'"),
        (["train", "--preset", "dmeo-s", "--out", "x"], "unknown preset 'dmeo-s'.*'demo-s'"),
        (["train", "--preset=dmeo-s", "--out", "x"], "unknown preset 'dmeo-s'.*'demo-s'"),
        (["train", "--preset", "demo-s", "--preset", "unet-desk", "--out", "x", "--width", "3"], "Unrecognized options: --width, 3"),
        (["train", "--preset", "sit-s", "--out", "x"], "preset sit-s needs --bank.*scorescope bank build"),
        (["train", "--preset", "demo-s", "--out", "x", "--batch", "0"], "--batch 0 is not a positive number"),
        (["train", "--preset", "demo-s", "--out", "x", "--bank", "nowhere.bank"], r"no bank at nowhere\.bank"),
        (["train", "--preset", "demo-s", "--out", "x", "--device", "abacus"], "device 'abacus' can't be used"),
        (["examine", "--bnak", "x"], "missing: --bank BANK"),
        (["examine", "--bank", "digits"], "no model is named"),
        (["examine", "m.safetensors", "--bank", "digits", "--pahts", "3"], r"Unrecognized options: --pahts, 3\. Try: --paths"),
        (["demo", "--pahts", "3"], r"Unrecognized options: --pahts, 3\. Try: --paths"),
        (["report"], "missing: RUN_FOLDER"),
        (["report", "x", "--otu", "y"], r"Unrecognized options: --otu, y\. Try: --out"),
        (["bank", "build"], r"missing: SOURCE, --out X\.bank"),
        (["bank", "chekc"], "unknown verb of bank 'chekc'.*'check'"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_bad_words_are_one_line(words, said, encoding, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60" if encoding == "ascii" else "200")
    monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
    assert re.search(said, complaint(capsys, *words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full while writing .*run.json.*free some space"),
        (errno.EDQUOT, "the disk is full while writing .*run.json"),
        (errno.EACCES, "no permission for .*run.json.*another folder"),
        (errno.EROFS, "no permission for .*run.json"),
    ],
)
def test_what_the_machine_refuses_is_one_line_that_names_the_file(bank, tmp_path, capsys, monkeypatch, number, said):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    out = tmp_path / "run"
    assert main(["train", "--preset", "demo-s", "--bank", str(bank), "--out", str(out), *TINY]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"error: {said}", last)
    assert list(out.iterdir()) == []


def test_a_full_disk_while_training_keeps_the_checkpoints_and_the_same_command_continues(bank, tmp_path, capsys, monkeypatch):
    """A real full device, under the temporary name of the finished weights."""
    command = ["train", "--preset", "demo-s", "--bank", str(bank), "--out", str(tmp_path / "run"), *TINY]
    write = Path.write_bytes

    def full(self, data):
        return write(Path("/dev/full") if "model.safetensors" in self.name else self, data)

    if not Path("/dev/full").is_char_device():
        pytest.skip("this machine has no /dev/full")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(command) == 2
    assert re.search(r"error: the disk is full while writing .*run/model\.safetensors\. Try", capsys.readouterr().err)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".tmp")]
    monkeypatch.undo()
    assert main(command) == 0
    assert f"weights  {tmp_path / 'run' / 'model.safetensors'}" in capsys.readouterr().out


def test_a_file_in_the_way_is_one_line(bank, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    for out in ("taken", "taken/run"):
        assert main(["train", "--preset", "demo-s", "--bank", str(bank), "--out", str(tmp_path / out), *TINY]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert re.match(r"error: .*taken(/run)? (is a file, not a folder for a training run\.|.*can't be used as it is)", last)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_bug_shows_its_traceback(monkeypatch):
    def broken(words):
        raise OSError(errno.EBADF, "a descriptor that was closed")

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(OSError, match="a descriptor"):
        main(["demo"])


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"


# ---- streams, processes and folders -------------------------------------------------------------------------------------------


def run(*words, **options):
    return subprocess.run([sys.executable, "-m", "scorescope", *words], capture_output="stdout" not in options, text=True, **options)


@pytest.mark.parametrize("words", [["--help"], ["report", "--help"], ["bank", "info", "x.bank"]])
def test_a_closed_stdout_is_no_fault(words, bank):
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "scorescope", *words], stderr=subprocess.PIPE, text=True, cwd=bank.parent
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("words", "status"), [(["report", "--help"], 0), (["bank", "info", "x.bank"], 0), (["dämo"], 2)])
def test_an_encoding_that_lacks_a_sign_is_no_fault(words, status, bank):
    done = run(*words, env=os.environ | {"PYTHONIOENCODING": "ascii"}, cwd=bank.parent)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()


def test_names_in_a_banks_own_language_are_escaped_where_they_cant_be_written(tmp_path):
    ss.Bank.from_arrays(np.zeros((3, 4), np.float32), name="● Ziffern").save(tmp_path / "x.bank")
    done = run("bank", "info", str(tmp_path / "x.bank"), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert r"\u25cf Ziffern" in done.stdout


def test_the_reader_of_a_verbs_help_may_leave():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "scorescope", "report", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_behind_stdout_is_one_line():
    if not Path("/dev/full").is_char_device():
        pytest.skip("this machine has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "scorescope", "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full")
    assert done.stderr.count("\n") == 1


def test_verbs_of_one_process_are_refused_under_torchrun_by_the_first(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for verb in [verb for verb in VERBS if verb != "train"]:
        said = complaint(capsys, verb, "x")
        assert f"scorescope {verb} runs in one process, and WORLD_SIZE is 2. Try: the same command without torchrun" in said
    monkeypatch.setenv("RANK", "1")
    assert main(["examine", "x"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (("../../x", "digits"), "_.._x-on-digits"),
        (("a/b\\c", ".."), "a_b_c-on-_"),
        (("/etc/passwd", ".hidden"), "_etc_passwd-on-hidden"),
        (("", "new\nline\x00"), "_-on-new_line_"),
        (("é" * 500, "猫" * 500), f"{'é' * 50}-on-{'猫' * 33}"),
    ],
)
def test_a_folder_that_nobody_named_lies_in_runs_whatever_the_names_hold(names, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = default_out("{}-on-{}", *names)
    assert made.parent == Path("runs")
    assert made.name == folder
    made.mkdir(parents=True)


# ---- train --------------------------------------------------------------------------------------------------------------------


def test_train_says_its_plan_makes_a_model_and_is_done_at_once_the_second_time(bank, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--preset", "demo-s", "--bank", str(bank), "--out", str(out), *TINY]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "training demo-s on x, 9 rows of (1, 4, 4): 60 steps of 4 examples" in said.err
    assert said.out == f"weights  {out / 'model.safetensors'}\nexamine  scorescope examine {out} --bank {bank}\n"
    recipe = json.loads((out / "recipe.json").read_text())["recipe"]
    assert (recipe["width"], recipe["steps"], recipe["rate"]) == (8, 60, 1e-3)  # told, told, the preset's
    assert ss.load(out).classes == 3
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    capsys.readouterr()
    assert re.search(r"other settings \(rate 0\.001 → 0\.5\)", last_complaint(capsys, *command, "--rate", "0.5"))


def last_complaint(capsys, *words):
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


# ---- live rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (600, "10 min"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert span(seconds) == words


def test_plain_lines_come_every_ten_seconds_and_the_pace_is_that_of_this_run(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("scorescope.progress.time.monotonic", lambda: now[0])
    with Board() as board, board.row("training [x]", 100) as row:
        row.skip(50)
        for _ in range(10):
            now[0] += 3
            row(1, "loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "training [x]: 54 of 100, 2 min 18 s left  loss 0.5",
        "training [x]: 58 of 100, 2 min 06 s left  loss 0.5",
        "training [x]: done in 30 s  loss 0.5",
    ]
    with Board(quiet=True) as board, board.row("training", 2) as row:
        now[0] += 60
        row()
    assert capsys.readouterr().err == ""
