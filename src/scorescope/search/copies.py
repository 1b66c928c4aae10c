"""Exact copies among stored rows, by 128-bit hashes: 16 bytes a row, 32 with flips."""

from __future__ import annotations

import hashlib

import numpy as np

from scorescope.rows.bank import Bank


class Copies:
    """Which stored rows are equal to each other, or to each other's mirror images, once all rows were taken."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self._hashes = np.zeros((1 + bank.flips, len(bank.rows), 2), np.uint64)

    def take(self, start: int, stored: np.ndarray) -> None:
        """Hash the stored rows that begin at row `start`."""
        # Adding zero turns the negative zero of floats, which is equal to zero, into it.
        stored = stored + stored.dtype.type(0)
        for side, rows in zip(self._hashes, (stored, stored[..., ::-1]), strict=False):
            for i, row in enumerate(np.ascontiguousarray(rows), start):
                side[i] = np.frombuffer(hashlib.blake2b(row.data, digest_size=16).digest(), np.uint64)

    def finish(self) -> None:
        """Number the different rows: equal rows and mirror images have equal numbers."""
        every = self._hashes.reshape(-1, 2)
        order = np.lexsort(every.T)
        fresh = (every[order[1:]] != every[order[:-1]]).any(1)
        number = np.empty(len(every), np.int64)
        number[order] = np.concatenate([[0], fresh.cumsum()])
        self.number = number.reshape(len(self._hashes), -1)
        del self._hashes

    def originals(self, index: np.ndarray) -> np.ndarray:
        """For each of these stored rows (in order), the first of them that is equal to it, perhaps itself."""
        _, first, number = np.unique(self.number[0, index], return_index=True, return_inverse=True)
        return index[first[number]]

    def twins(self, index: np.ndarray) -> np.ndarray:
        """Pairs (M, 2), in order, of different stored rows i < j among these with row i equal to the mirror image of row j."""
        if not self.bank.flips:
            return np.zeros((0, 2), np.int64)
        numbers, first = np.unique(self.number[0, index], return_index=True)
        place = np.searchsorted(numbers, self.number[1, index]).clip(max=len(numbers) - 1)
        found = (numbers[place] == self.number[1, index]) & (index[first[place]] != index)
        pairs = np.stack([index[first[place[found]]], index[found]], 1)
        return np.unique(np.sort(pairs, axis=1), axis=0)
