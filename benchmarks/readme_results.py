"""Write the verdicts of docs/results into README.md.

python benchmarks/readme_results.py
"""

from __future__ import annotations

from pathlib import Path

from scorescope.experiments.publish import records, summary

ROOT = Path(__file__).parents[1]
OPENED, CLOSED = "<!-- results -->\n", "<!-- /results -->"


def main() -> None:
    """Put them between the marks."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(OPENED)
    after = rest.split(CLOSED)[1]
    readme.write_text(before + OPENED + summary(records(ROOT / "docs" / "results"), "docs/results") + CLOSED + after, encoding="utf-8")


if __name__ == "__main__":
    main()
