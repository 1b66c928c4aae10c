"""A chart that travels alone: its picture under its title and its legend, as one SVG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from html import escape

from scorescope.charts.grammar import FONT, Key

MARGIN, LINE, ENTRY = 5, 20, 18
SIGN, LETTER = 36, 5.9  # widths: of a legend's sign with its gap, and of a letter beside it


def framed(picture: str, title: str, legend: Sequence[Key], broken: int) -> str:
    """The SVG with title and legend above it.

    Args:
        picture: The chart's own SVG.
        title: Set in lines.
        legend: Signs and words, in lines.
        broken: Width in pixels at which lines break, roughly.
    """
    found = re.search(r'width="([\d.]+)" height="([\d.]+)"', picture)
    assert found is not None
    width, height = float(found[1]), float(found[2])
    lines = _lines(title, broken // 8)
    head = [_text(MARGIN, MARGIN + 15 + LINE * k, line, 'font-size="15" font-weight="bold" fill="#111111"') for k, line in enumerate(lines)]
    top = MARGIN + LINE * len(lines) + 8
    widest = max(8.0 * len(line) for line in lines)
    x = float(MARGIN)
    for key in legend:
        length = SIGN + LETTER * len(key.label) + 12
        if x > MARGIN and x + length > broken:
            x, top = float(MARGIN), top + ENTRY
        sign = key.swatch.replace("<svg ", f'<svg x="{x:g}" y="{top}" ', 1)
        head += [sign, _text(x + SIGN, top + 11, key.label, 'font-size="11" fill="#222222"')]
        widest, x = max(widest, x + length), x + length
    top += ENTRY + 6 if legend else 0
    whole = f"{max(width, min(widest, broken)):g}", f"{height + top:g}"
    opened = f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}" viewBox="0 0 {whole[0]} {whole[1]}">'
    inner = picture.replace("<svg ", f'<svg y="{top}" ', 1)
    return f'{opened}<rect width="{whole[0]}" height="{whole[1]}" fill="white"/>{"".join(head)}{inner}</svg>'


def _lines(title: str, longest: int) -> list[str]:
    """Lines of about the same length; "t = 0.87" and "1 %" stay on one."""
    whole = re.sub(r"(?<=[=\d]) (?=[\d%−])| (?==)", "\u00a0", title)
    return textwrap.wrap(whole, min(longest, len(whole) // -(-len(whole) // longest) + 10), break_on_hyphens=False) or [""]


def _text(x: float, y: float, words: str, look: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-family="{FONT}" {look}>{escape(words)}</text>'
