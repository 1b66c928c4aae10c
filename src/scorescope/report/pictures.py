"""Rows as small pictures: states, samples and training rows of any shape become 8-bit tiles in data URIs.

Images of one or three channels are shown as they are, over the bank's value range; of latents the first three channels; vectors of two
numbers as a dot in a square; other vectors and waveforms as lines. Large images are shrunk: a report is read, not zoomed.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from PIL import Image, ImageDraw

from scorescope.results import finite, provenance, row_names

LINES = (96, 64)  # width and height of a line picture
INK, PAPER, GRID = 40, 246, 222


@dataclass(frozen=True)
class Painter:
    """Draws rows of one shape over one value range.

    Attributes:
        shape: Of a row.
        low, high: Model-space values drawn as black and as white (for lines: the bottom and the top).
        edge: Largest width or height in pixels.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    edge: int

    @property
    def kind(self) -> str:
        """One of "gray", "colour", "latent", "dot" or "lines"."""
        if len(self.shape) == 3 and min(self.shape[1:]) > 1:
            return "colour" if self.shape[0] == 3 else "latent" if self.shape[0] > 3 else "gray"
        if len(self.shape) == 2 and min(self.shape) >= 8:
            return "gray"
        return "dot" if self.shape == (2,) else "lines"

    @property
    def remark(self) -> str:
        """What a reader must know about how rows are drawn; empty for plain images."""
        if self.kind == "latent":
            return f"Rows are latents of {self.shape[0]} channels; the first three are shown as red, green and blue."
        if self.kind == "gray" and len(self.shape) == 3 and self.shape[0] > 1:
            return f"Rows have {self.shape[0]} channels; the first is shown."
        if self.kind == "dot":
            return f"A row is two numbers, drawn as a point in the square from {self.low:.3g} to {self.high:.3g}."
        if self.kind == "lines":
            return f"A row is drawn as a line, from {self.low:.3g} at the bottom to {self.high:.3g} at the top."
        return ""

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of a tile in pixels."""
        if self.kind in ("dot", "lines"):
            scale = min(1.0, self.edge / LINES[0])
            width, height = LINES if self.kind == "lines" else (LINES[1], LINES[1])
            return round(width * scale), round(height * scale)
        height, width = self.shape[-2:]
        scale = min(1.0, self.edge / max(height, width))
        return max(1, round(width * scale)), max(1, round(height * scale))

    @property
    def pixelated(self) -> bool:
        """Whether enlarging should keep the pixels' edges."""
        return self.kind not in ("dot", "lines")

    @property
    def weight(self) -> float:
        """Bytes of a tile as PNG, roughly."""
        return math.prod(self.size) * (3 if self.kind in ("colour", "latent") else 1) * (1.0 if self.pixelated else 0.15)

    def tile(self, row: np.ndarray) -> np.ndarray:
        """One row as 8-bit pixels, (height, width) or (height, width, 3)."""
        values = np.nan_to_num(np.asarray(row, dtype=np.float64).reshape(self.shape), nan=self.low)
        span = (self.high - self.low) or 1.0
        unit = (values - self.low) / span
        if not self.pixelated:
            return self._drawn(unit)
        plane = unit if len(self.shape) == 2 else unit[0] if self.kind == "gray" else np.moveaxis(unit[:3], 0, -1)
        pixels = np.clip(np.rint(255 * plane), 0, 255).astype(np.uint8)
        if pixels.shape[:2] == self.size[::-1]:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(self.size, Image.Resampling.BOX))

    def _drawn(self, unit: np.ndarray) -> np.ndarray:
        """Values in [0, 1] as a dot or as lines, drawn three times as large and shrunk, so that edges are smooth."""
        width, height = (3 * n for n in self.size)
        picture = Image.new("L", (width, height), PAPER)
        pen = ImageDraw.Draw(picture)
        if self.kind == "dot":
            pen.line([(width / 2, 0), (width / 2, height)], fill=GRID, width=2)
            pen.line([(0, height / 2), (width, height / 2)], fill=GRID, width=2)
            x, y = np.clip(unit[0], 0.03, 0.97) * width, (1 - np.clip(unit[1], 0.03, 0.97)) * height
            pen.ellipse([x - 9, y - 9, x + 9, y + 9], fill=INK)
        else:
            pen.line([(0, height / 2), (width, height / 2)], fill=GRID, width=2)
            for wave in unit.reshape(-1, self.shape[-1]):
                x = np.linspace(0.03, 0.97, len(wave)) * width
                y = (1 - np.clip(wave, 0.02, 0.98)) * height
                pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=INK, width=4, joint="curve")
        return np.asarray(picture.resize(self.size, Image.Resampling.LANCZOS))

    def uri(self, row: np.ndarray) -> str:
        """One row as a PNG in a data URI."""
        return png(self.tile(row))

    def sprite(self, rows: Sequence[Sequence[np.ndarray]], gap: int = 0) -> str:
        """Rows laid out as a table in one PNG, `gap` white pixels between the columns."""
        lines = []
        for row in rows:
            tiles = [self.tile(cell) for cell in row]
            space = np.full((tiles[0].shape[0], gap, *tiles[0].shape[2:]), 255, np.uint8)
            parts = [part for tile in tiles for part in (space, tile)][1:] if gap else tiles
            lines.append(np.concatenate(parts, axis=1))
        return png(np.concatenate(lines, axis=0))


def png(pixels: np.ndarray) -> str:
    """8-bit pixels as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()


def png_bytes(pixels: np.ndarray) -> bytes:
    """8-bit pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def painter(results: xr.Dataset, edge: int) -> Painter:
    """A painter for the results' rows.

    The value range is the bank's own, unless the rows at hand do not fill it or leave it (a bank of floats need not know its range):
    then it is theirs, without the outermost half percent.
    """
    bank = provenance(results)["bank"]
    low, high = float(bank.get("low", -1.0)), float(bank.get("high", 1.0))
    values = finite(results, "row_image")
    if len(values):
        ends = np.quantile(values, [0.005, 0.995])
        span = high - low
        if ends[0] < low - 0.05 * span or ends[1] > high + 0.05 * span or ends[1] - ends[0] < 0.3 * span:
            low, high = float(ends[0]), float(ends[1])
    shape = tuple(int(n) for n in bank["shape"])
    margin = 0.1 * (high - low) if shape == (2,) else 0.0
    return Painter(shape, low - margin, high + margin, edge)


class Rows:
    """The bank's rows that the results carry: pictures and labels by index."""

    def __init__(self, results: xr.Dataset, paint: Painter) -> None:
        self._paint = paint
        self._names = provenance(results)["bank"].get("class_names")
        self._at: dict[int, int] = {}
        self._row_names = row_names(results)
        if "row_index" in results and "row_image" in results:
            self._at = {int(index): place for place, index in enumerate(results["row_index"].values)}
            self._images = results["row_image"].values
            self._labels = results["row_label"].values if "row_label" in results else np.full(len(self._images), -1)

    def __contains__(self, index: int) -> bool:
        return index in self._at

    def values(self, index: int) -> np.ndarray | None:
        """The row itself, None where the results do not carry it."""
        return self._images[self._at[index]] if index in self._at else None

    def uri(self, index: int) -> str:
        """Its picture; empty where the results do not carry it."""
        return self._paint.uri(self._images[self._at[index]]) if index in self._at else ""

    def label(self, index: int) -> str:
        """Its class by name; empty without one."""
        return self.name(int(self._labels[self._at[index]])) if index in self._at else ""

    def named(self, index: int) -> str:
        """Its own name; empty where the bank has none."""
        return self._row_names.get(index, "")

    def name(self, label: int) -> str:
        """What to call a class; empty for −1, which stands for none."""
        if label < 0:
            return ""
        return str(self._names[label]) if self._names and label < len(self._names) else str(label)
