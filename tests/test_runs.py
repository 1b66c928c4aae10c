"""A folder belongs to a run: free, the same, another, damaged, of an older version, or in use by another process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scorescope import runs
from scorescope.errors import InputError

KIND = runs.Kind("a test", ("part-[0-9].txt", "sub/x.bin"), before=("old.json",))
SETTINGS = {"seed": 1, "models": {"a": {"prediction": "v"}}}


def start(folder, settings=SETTINGS, **options):
    with runs.claimed(folder, KIND, settings, **options) as continued:
        return continued


def test_a_fresh_folder_is_made_and_the_same_command_continues(tmp_path):
    assert not start(tmp_path / "new" / "run", notes={"name": "x"})
    assert start(tmp_path / "new" / "run")
    record = runs.record_of(tmp_path / "new" / "run")
    assert (record["kind"], record["name"], record["settings"]["seed"]) == ("a test", "x", 1)
    assert runs.is_run(tmp_path / "new" / "run", KIND)
    assert runs.record_of(tmp_path) is None


def test_what_differs_is_named_down_to_the_value(tmp_path):
    start(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"holds a test with other settings \(models\.a\.prediction v → x\)\. Try: another --out, or --force"
    ):
        start(tmp_path / "run", {"seed": 1, "models": {"a": {"prediction": "x"}}})
    with pytest.raises(InputError, match=r"models .* → \[3\], seed 1 → 2|seed 1 → 2, models .* → \[3\]"):
        start(tmp_path / "run", {"seed": 2, "models": [3]})


def test_another_version_of_the_code_is_another_run(tmp_path, monkeypatch):
    start(tmp_path / "run")
    monkeypatch.setattr(runs, "__version__", "99")
    with pytest.raises(InputError, match=r"other settings \(version .* → 99\)"):
        start(tmp_path / "run")


def test_force_removes_what_the_run_wrote_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    start(run)
    own, theirs = ["part-1.txt", "sub/x.bin"], ["thesis.tex", "part-10.txt", "sub/y.bin", "sub/deep/z"]
    for name in (*own, *theirs):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    (run / "empty").mkdir()
    assert not start(run, {"seed": 2}, force=True)
    assert not any((run / name).exists() for name in own)
    assert all((run / name).read_text() == "mine" for name in theirs)
    assert (run / "empty").is_dir()
    assert start(run, {"seed": 2})
    assert not start(run, {"seed": 2}, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_something_else_is_never_taken(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty and does not hold a test"):
        start(tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        start(tmp_path / "file", force=force)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / runs.RECORD).write_text(json.dumps({"kind": "a training run", "settings": {}}))
    with pytest.raises(InputError, match="holds a training run, not a test"):
        start(tmp_path / "other", force=force)


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"kind": "a test"}', '{"kind": "a test", "settings": 3}', "\x00\xff"])
def test_a_damaged_record_is_one_line_and_force_helps(tmp_path, damage):
    start(tmp_path / "run")
    (tmp_path / "run" / runs.RECORD).write_text(damage)
    with pytest.raises(InputError, match=r"run\.json is .*--force"):
        start(tmp_path / "run")
    assert not start(tmp_path / "run", force=True)
    assert start(tmp_path / "run")


def test_a_folder_of_an_earlier_version_is_said_to_be_one(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "part-1.txt").write_text("")
    with pytest.raises(InputError, match="holds a test of an earlier version, which can't be continued"):
        start(tmp_path)
    assert not start(tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == [runs.RECORD]


HOLD = """
import sys
from scorescope import runs
with runs.claimed(sys.argv[1], runs.Kind("a test", ()), {"seed": 1}):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_two_processes_in_one_folder_are_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        for force in (False, True):
            with pytest.raises(InputError, match="another process is writing"):
                start(tmp_path / "run", {"seed": 1}, force=force)
        other.kill()
        other.wait()
    assert start(tmp_path / "run", {"seed": 1})
