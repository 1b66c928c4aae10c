"""Every bad input of `tests.bad_inputs` ends in one line and status 2, and leaves the folder as it was."""

from __future__ import annotations

import re

import pytest

from scorescope.cli import main
from scorescope.errors import InputError
from tests.bad_inputs import every


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_a_bad_input_is_one_line_and_changes_nothing(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case.make(tmp_path)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    if callable(case.run):
        with pytest.raises(InputError) as caught:
            case.run(tmp_path)
        said = str(caught.value)
    else:
        assert main(list(case.run)) == 2
        out, said = capsys.readouterr()
        assert out == ""
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said
    assert re.search(case.says, said), said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if not path.is_dir()} == {
        path: time for path, time in before.items() if not path.is_dir()
    }
