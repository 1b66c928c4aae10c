"""Comparisons that can't be made."""

from __future__ import annotations

from functools import partial

from tests.bad_inputs import Case
from tests.bad_inputs.cli import both

DICO = "recipe,name,loss,fid,compute\nd,S,0.153,50,1e20\nd,B,0.149,27,\nd,L,0.146,14,4e20\n"


def table(folder, text=DICO):
    (folder / "t.csv").write_text(text)


def case(name, says, *words, text=DICO):
    return Case(f"a comparison {name}", ["compare", *words], says, partial(table, text=text))


def changed(old, new):
    return DICO.replace(old, new)


RUNS = ["zero.py:build", "zero.py:build", "zero.py:build"]
BANK = ("--bank", "x.bank")


def runs(name, says, *words):
    return Case(name, ["compare", *words], says, both)


CASES = [
    case("of nothing", r"no run is named"),
    case("of a table that is not there", r"no\.csv can't be read as a table \(FileNotFoundError\)", "no.csv"),
    case("of a table and a run", r"t\.csv is a table, which is given in place of runs", "t.csv", "runs/x"),
    case("of a table without losses", r"has no column loss", "t.csv", text=changed("loss", "cost")),
    case("of an empty table", r"has no column recipe", "t.csv", text=""),
    case("of a table with two scores", r"has fid, kid for a score.*--score fid", "t.csv", text=changed("compute", "kid")),
    case("by a score that is not there", r"unknown column 'fit'.*'fid'", "t.csv", "--score", "fit"),
    case("of a loss in words", r"t\.csv, line 3: loss is 'low'. Try: a number", "t.csv", text=changed("0.149", "low")),
    case("of a loss of 0", r"the loss of B is 0\. Try: a number above 0", "t.csv", text=changed("0.149", "0")),
    case("of a score that is none", r"the fid of B is nan", "t.csv", text=changed("27", "nan")),
    case("of a compute below 0", r"the compute of L is -4e\+20", "t.csv", text=changed("4e20", "-4e20")),
    case("of two sizes", r"no recipe has three runs of different loss", "t.csv", text=DICO[: DICO.index("d,L")]),
    case("by a score of runs", r"--score names a column of a table", "runs/x", "--score", "fid"),
    runs("runs without a bank", r"none is given. Try: --bank", *RUNS),
    runs("runs that do not say their recipe", r"zero does not say by what recipe.*--recipe NAME=zero", *RUNS, *BANK),
    runs("two runs to be compared", r"no recipe has three runs", "--recipe", "a=zero.py,zero.py", *BANK, "--n", "8"),
    runs("a recipe without runs", r"--recipe 'a=' is not of the form", "--recipe", "a=", *BANK),
    runs("runs with and without a recipe", r"both with and without", "zero.py", "--recipe", "a=zero.py", *BANK),
    runs("a loss that is not measured", r"--loss size is no loss", "zero.py", *BANK, "--loss", "size"),
]
