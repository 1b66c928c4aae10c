"""Loops over logits as machine code, by numba; `compiled` calls them with arrays and shares states among threads.

Every function works on the states `first` … `last` − 1 and touches nothing of others. Logits are made for `BLOCK` rows at a time, in
memory that the first cache holds, and each loop over them is simple enough to become vector instructions: maxima and minima are those of
integers, since the bits of floats are in the floats' order, and no index is a sum, which might be negative. All stand in one file, since
numba, which keeps machine code on disk, notices changes of a loop's own file alone.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

BLOCK = 1024  # rows whose logits are made at a time
LANES = 8  # states that are rounded at a time
PART = 64  # of these whose extremes are noted: only where they are within the limits is each row looked at
RUN = 8  # states of a group that share the conversion of its products
SOON = 32  # rows that float32 adds up before float64 takes over, eight at a time
DEPTH = 9 + SOON // 8  # roundings that a row's share of such a sum passes at most
ABS = np.int32(0x7FFFFFFF)  # bits of a float32 but its sign
FAR = np.int32(0x7F800000)  # the bits of infinity
NEAR = 256  # rows that caches hold while several states take theirs
STEPS = 160  # half logits below the largest that listed rows are told apart by
SLACK = 1e-6  # of itself, more than what a list in float32 rounds a value by
PLANES, BASE = 4, 254  # of the digits of a state whose products with single rows are those of 8-bit integers
WIDE = 64  # bytes of a vector
# What numba compiles for, which need not be this processor.
VNNI = hasattr(llvm, "initialize_native_asmparser") and "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2]
if VNNI:
    llvm.initialize_native_asmparser()
LEFT = 0.5 / (127 * float(BASE) ** (PLANES - 1)) if VNNI else 0.0  # of a state's largest value, what these digits leave of each
HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "contract", "nnan"}}
F32, I32 = np.float32, np.int32


def loop(function: Any) -> Any:
    """Compile at the first call, for the processor at hand, and keep the code on disk where there is a place for it."""
    try:
        return njit(cache=True, **HOW)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(**HOW)(function)


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda ctx, builder, signature, values: builder.bitcast(values[0], ir.IntType(32))


@intrinsic
def _float(context: Any, x: Any) -> Any:
    """The float32 of the bits of an int32."""
    return types.float32(types.int32), lambda ctx, builder, signature, values: builder.bitcast(values[0], ir.FloatType())


@njit(inline="always")
def _ranked(x: Any) -> Any:
    """An int32 in the order of float32 x; maxima of integers are vectors' work, those of floats are not. Its own inverse."""
    b = _bits(x)
    return b ^ ((b >> I32(31)) & ABS)


@njit(inline="always")
def _unranked(b: Any) -> Any:
    return _float(b ^ ((b >> I32(31)) & ABS))


@njit(inline="always")
def _exp(x: Any) -> Any:
    """e^x of a float64 between −80 and 80 as float32, to 2.4e-7 of itself; what lies beyond is as these."""
    x = x if x > -80.0 else -80.0
    x = x if x < 80.0 else 80.0
    k = np.floor(x * 1.4426950408889634 + 0.5)
    r = F32(x - k * 0.6931471805599453)
    p = F32(1 / 720) * r + F32(1 / 120)
    p = p * r + F32(1 / 24)
    p = p * r + F32(1 / 6)
    p = p * r + F32(0.5)
    p = p * r + F32(1.0)
    p = p * r + F32(1.0)
    return p * _float((I32(k) + I32(127)) << I32(23))


@loop
def _logits(columns: Any, room: Any, square: Any, out: Any) -> None:
    """Σ_r columns_r room_r + columns_R square, for as many rows as `out` has."""
    count, rows = room.shape[0], len(out)
    last = columns[count]
    for j in range(rows):
        out[j] = last * square[j]
    r = 0
    while r + 4 <= count:
        a, b, c, d = columns[r], columns[r + 1], columns[r + 2], columns[r + 3]
        one, two, three, four = room[r], room[r + 1], room[r + 2], room[r + 3]
        for j in range(rows):
            out[j] += a * one[j] + b * two[j] + c * three[j] + d * four[j]
        r += 4
    while r < count:
        a, one = columns[r], room[r]
        for j in range(rows):
            out[j] += a * one[j]
        r += 1


@loop
def _convert(exact: Any, begin: int, rows: int, room: Any) -> None:
    """A block of products as floats."""
    for r in range(room.shape[0]):
        source, target = exact[r, begin : begin + rows], room[r]
        for j in range(rows):
            target[j] = source[j]


@njit(inline="always")
def _end_of_run(group: Any, first: int, last: int) -> int:
    """Where the states of the group of state `first` end, at most `RUN` of them."""
    end = first + 1
    while end < last and end - first < RUN and group[end] == group[first]:
        end += 1
    return end


@loop
def _inside(y: float) -> float:
    y = min(y, 1.0)
    return y / (1 + math.sqrt(1 - y))


@loop
def _outside(y: float) -> float:
    y = min(y, 1e30)
    return y / (1 + math.sqrt(1 + y))


@loop
def _limits(above: float, below: float, off: float, blur: float, d: int) -> Any:
    """As `Nominator._limits`, for one state."""
    high, low = (above + off) * 2 / d, (below + off) * 2 / d
    unsure = 2 * blur + off
    near_above = np.inf if above == np.inf else max(_inside(high), 0.0 if above > unsure else _outside(high))
    near_below = max(_outside(low), 0.0 if below > unsure else _inside(low))
    away = min(near_above, near_below) * (1 + 1e-5)
    inner = min(away, 1.0)
    return d * away * (2 + away) / 2 + off, d * inner * (2 - inner) / 2 + off


@loop
def _within(s: int, least: float, most: float, rows: Any, values: Any, used: Any) -> None:
    """Leave in the list of state s what is within the limits."""
    kept = 0
    for i in range(used[s]):
        if values[s, i] >= least and values[s, i] <= most:
            values[s, kept], rows[s, kept] = values[s, i], rows[s, i]
            kept += 1
    used[s] = kept


@loop
def _room(s: int, least: float, most: float, rows: Any, values: Any, used: Any, dropped: Any, near: bool, patient: bool) -> None:
    """Make room in the full list of state s: what is beyond the limits goes, and if that is not enough the worse half, or all of it.

    All goes if not `patient`. The largest values are the best, or if `near` those nearest to 0; `dropped` learns the best of what went,
    as a distance with its sign turned if `near`.
    """
    cap = rows.shape[1]
    _within(s, least, most, rows, values, used)
    kept = used[s]
    if kept < cap - cap // 8:
        return
    if not patient:
        dropped[s], used[s] = np.inf, 0
        return
    worth = -np.abs(values[s, :kept]) if near else values[s, :kept].copy()
    dropped[s], kept = np.partition(worth, kept // 2)[kept // 2], 0
    for i in range(used[s]):
        if (-abs(values[s, i]) if near else values[s, i]) > dropped[s]:
            values[s, kept], rows[s, kept] = values[s, i], rows[s, i]
            kept += 1
    used[s] = kept


@loop
def shape(
    z: Any, unit: Any, lot: Any, bits: Any, back: Any, share: Any, inside: Any, digits: Any, left: Any, first: int, last: int
) -> None:  # fmt: skip
    """As `compiled.shape`, for `LANES` states at a time: place by place, where each state waits for its own errors alone."""
    d = z.shape[1]
    error = np.empty((d, LANES), np.float64)
    value, rest = np.empty(LANES, np.float64), np.empty(LANES, np.float64)
    for group in range(first, last):
        begin = group * LANES
        count = min(LANES, len(z) - begin)
        rest[:] = 0
        value[:] = 0
        for j in range(d):
            for i in range(count):
                value[i] = z[begin + i, j] / unit[begin + i]
            taken = error[j]
            taken[:] = 0
            for k in range(len(bits)):
                if inside[j] & bits[k] == bits[k]:
                    a, other = share[k], error[j - back[k]]
                    for i in range(LANES):
                        taken[i] += a * other[i]
            for i in range(LANES):
                whole = np.floor(value[i] - taken[i] + lot[j])
                gone = value[i] - whole
                rest[i] += gone * gone
                value[i], taken[i] = whole, gone - taken[i]
            for i in range(count):
                digits[begin + i, j] = np.int8(value[i])
        for i in range(count):
            left[begin + i] = math.sqrt(rest[i]) * unit[begin + i]


@loop
def nominate(
    exact: Any, place: Any, columns: Any, first: int, last: int, square: Any, index: Any, blur: Any, most_blur: Any, rounded: Any,
    shell: Any, steep: Any, margin: Any, off: Any, d: int, peak: Any, best: Any, many: Any, many_near: Any,
    rows: Any, values: Any, used: Any, dropped: Any, near_rows: Any, near_values: Any, near_used: Any, near_dropped: Any,
) -> None:  # fmt: skip
    """The rows that can matter to the posterior or to r*, as `Nominator` keeps them; states (P, T) flat, their logits in float32."""
    t, count, n = columns.shape[1], exact.shape[1], exact.shape[2]
    blocks = (n + BLOCK - 1) // BLOCK
    room = np.empty((count, BLOCK), np.float32)
    keep = np.empty((RUN, n), np.float32)
    parts = (n + PART - 1) // PART
    high = np.empty((RUN, parts), np.float32)
    above = np.empty((RUN, parts), np.float32)
    below = np.empty((RUN, parts), np.float32)
    s0 = first
    while s0 < last:
        p = s0 // t
        end = min(s0 + RUN, last, (p + 1) * t)
        idle = True
        for s in range(s0, end):
            idle = idle and many_near[s] and (many[s] or dropped[s] == np.inf)
        if idle:
            s0 = end
            continue
        for b in range(blocks):
            begin = b * BLOCK
            size = min(BLOCK, n - begin)
            _convert(exact[place[p]], begin, size, room)
            for s in range(s0, end):
                i = s - s0
                out = keep[i, begin : begin + size]
                _logits(columns[p, s - p * t], room, square[begin : begin + size], out)
                for c in range(begin // PART, (begin + size + PART - 1) // PART):
                    part = keep[i, c * PART : min(c * PART + PART, n)]
                    top, inner, outer, level = -FAR, FAR, FAR, shell[s]
                    if len(rounded):
                        sure_top, sure_inner, sure_outer, wide = -FAR, FAR, FAR, blur[s]
                        vague = rounded[c * PART : c * PART + len(part)]
                        for j in range(len(part)):
                            blurred, a = wide * vague[j], part[j] - level
                            top = max(top, _ranked(part[j] + blurred))
                            sure_top = max(sure_top, _ranked(part[j] - blurred))
                            inner = min(inner, _ranked(a - blurred) if a >= 0 else FAR)
                            outer = min(outer, _ranked(-a - blurred) if a < 0 else FAR)
                            sure_inner = min(sure_inner, _bits(a + blurred) if a >= 0 else FAR)
                            sure_outer = min(sure_outer, _bits(blurred - a) if a < 0 else FAR)
                    else:
                        for j in range(len(part)):
                            top = max(top, _ranked(part[j]))
                            a = _bits(part[j] - level)
                            inner = min(inner, a if a >= 0 else FAR)
                            outer = min(outer, a & ABS if a < 0 else FAR)
                        sure_top, sure_inner, sure_outer = top, inner, outer
                    peak[s] = max(peak[s], _unranked(sure_top))
                    best[0, s], best[1, s] = min(best[0, s], _float(sure_inner)), min(best[1, s], _float(sure_outer))
                    high[i, c], above[i, c], below[i, c] = _unranked(top), _unranked(inner), _unranked(outer)
        for s in range(s0, end):
            if many[s] and many_near[s]:
                continue
            i = s - s0
            floor = max(F32(peak[s] - margin[s]), dropped[s])
            low, top_limit = _limits(best[0, s], best[1, s], off[s], most_blur[s], d)
            for b in range(parts):
                begin = b * PART
                stop = min(begin + PART, n)
                if high[i, b] >= floor and not many[s]:
                    for j in range(begin, stop):
                        value = keep[i, j] + (blur[s] * rounded[j] if len(rounded) else F32(0))
                        if value < floor:
                            continue
                        if used[s] == rows.shape[1]:
                            _room(s, floor, np.inf, rows, values, used, dropped, False, len(rounded) > 0)
                            floor = max(floor, dropped[s])
                            if floor == np.inf:
                                many_near[s] = True  # who sums all rows looks for the nearest to the shell, too
                                break
                        rows[s, used[s]], values[s, used[s]] = index[j], value
                        used[s] += 1
                if (above[i, b] <= top_limit or below[i, b] <= low) and not many_near[s] and not steep[s]:
                    for j in range(begin, stop):
                        a, wide = keep[i, j] - shell[s], blur[s] * rounded[j] if len(rounded) else F32(0)
                        a = max(a - wide, F32(0)) if a >= 0 else min(a + wide, F32(0))
                        if a > top_limit or a < -low or abs(a) > -near_dropped[s]:
                            continue
                        if near_used[s] == near_rows.shape[1]:
                            _room(s, -low, top_limit, near_rows, near_values, near_used, near_dropped, True, True)
                        near_rows[s, near_used[s]], near_values[s, near_used[s]] = index[j], a
                        near_used[s] += 1
        s0 = end


@loop
def highest(columns: Any, exact: Any, square: Any, index: Any, best: Any, top: Any, first: int, last: int) -> None:
    """The largest logit of each state, and its row, by `columns` for the product and the squared norm."""
    n = exact.shape[1]
    logit = np.empty(BLOCK, np.float32)
    for s in range(first, last):
        a, b, own = columns[s, 0], columns[s, 1], exact[s]
        for begin in range(0, n, BLOCK):
            size, high = min(BLOCK, n - begin), -FAR
            x, norm = own[begin : begin + size], square[begin : begin + size]
            for j in range(size):
                logit[j] = a * F32(x[j]) + b * norm[j]
                high = max(high, _ranked(logit[j]))
            if _unranked(high) > best[s]:
                best[s] = _unranked(high)
                for j in range(size):
                    if logit[j] == best[s]:
                        top[s] = index[begin + j]
                        break


@loop
def above(
    columns: Any, exact: Any, square: Any, lost: Any, index: Any, floor: Any, row: Any, used: Any, first: int, last: int
) -> None:  # fmt: skip
    """The rows of each state whose logit, with all that may have been lost of it, is not below `floor`."""
    n = exact.shape[1]
    logit = np.empty(PART, np.float32)
    for s in range(first, last):
        a, b, c, own = columns[s, 0], columns[s, 1], columns[s, 2], exact[s]
        for begin in range(0, n, PART):
            size, high = min(PART, n - begin), -FAR
            x, norm, left = own[begin : begin + size], square[begin : begin + size], lost[begin : begin + size]
            for j in range(size):
                logit[j] = a * F32(x[j]) + b * norm[j] + c * left[j]
                high = max(high, _ranked(logit[j]))
            if _unranked(high) >= floor[s]:
                for j in range(size):
                    if logit[j] >= floor[s]:
                        if used[s] < row.shape[1]:
                            row[s, used[s]] = index[begin + j]
                        used[s] += 1


@loop
def weigh(
    exact: Any, place: Any, columns: Any, group: Any, which: Any, first: int, last: int, square: Any, square32: Any, index: Any,
    start: Any, shell: Any, levels: Any, sums: Any, high: Any, top: Any, best: Any, row: Any, below: Any, above: Any,
) -> None:  # fmt: skip
    """What `Dense` learns of its states in the first pass: sums of weights by level, the largest logit, the nearest rows to the shell."""
    count, n = exact.shape[1], exact.shape[2]
    room = np.empty((count, BLOCK), np.float64)
    logit = np.empty(BLOCK, np.float64)
    weight = np.empty(BLOCK, np.float32)
    lean = np.empty(BLOCK, np.float32)
    s0 = first
    while s0 < last:
        end = _end_of_run(group, s0, last)
        p = group[s0]
        for begin in range(0, n, BLOCK):
            size = min(BLOCK, n - begin)
            _convert(exact[place[p]], begin, size, room)
            for s in range(s0, end):
                _logits(columns[p, which[s]], room, square[begin : begin + size], logit[:size])
                peak, level = start[s], shell[s]
                inner, outer, most = FAR, FAR, -FAR
                for j in range(size):
                    b = _bits(F32(logit[j] - level))
                    inner = min(inner, b if b >= 0 else FAR)
                    outer = min(outer, b & ABS if b < 0 else FAR)
                for j in range(size):
                    x = logit[j] - peak
                    weight[j] = _exp(x)
                    lean[j] = F32(x)
                m, tilt, m2, sq = F32(0), F32(0), F32(0), F32(0)
                norm = square32[begin : begin + size]
                for j in range(size):
                    e = weight[j]
                    m += e
                    tilt += e * lean[j]
                    m2 += e * e
                    sq += e * norm[j]
                    most = max(most, _ranked(lean[j]))
                sums[0, s] += m
                sums[1, s] += tilt
                sums[2, s] += m2
                sums[3, s] += sq
                for side in range(2):
                    found = _float(inner if side == 0 else outer)
                    if found < best[side, s]:
                        best[side, s] = found
                        for j in range(size):
                            away = F32(logit[j] - level)
                            if away == (found if side == 0 else -found):
                                row[side, s] = index[begin + j]
                                break
                rise = _unranked(most)
                if rise >= F32(high[s]):
                    for j in range(size):
                        if lean[j] == rise:
                            x = logit[j] - peak
                            if x > high[s] or (x == high[s] and index[begin + j] < top[s]):
                                high[s], top[s] = x, index[begin + j]
                for k in range(len(levels)):
                    under, total, over = -levels[k], F32(0), I32(0)
                    for j in range(size):
                        total += weight[j] if lean[j] < under else F32(0)
                        over += I32(0) if lean[j] < under else I32(1)
                    below[k, s] += total
                    above[k, s] += over
        s0 = end


@njit(inline="always")
def _hash(key: Any, row: Any) -> Any:
    """The 53 bits of `chance.uniform`."""
    x = np.uint64(key) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) >> np.uint64(11))


@loop
def draw(
    exact: Any, columns: Any, first: int, last: int, square: Any, index: Any, key: Any, steep: Any, wide: Any,
    best: Any, rows: Any, values: Any, used: Any, dropped: Any,
) -> None:  # fmt: skip
    """The rows that may be largest in logit + Gumbel number, as `draw.Candidates` keeps them."""
    count, n = exact.shape[1], exact.shape[2]
    room = np.empty((count, BLOCK), np.float64)
    logit = np.empty(BLOCK, np.float64)
    lot = np.empty(BLOCK, np.int64)
    for s in range(first, last):
        for begin in range(0, n, BLOCK):
            size = min(BLOCK, n - begin)
            _convert(exact[s], begin, size, room)
            _logits(columns[s], room, square[begin : begin + size], logit[:size])
            top = -FAR
            for j in range(size):
                top = max(top, _ranked(F32(logit[j])))
            high = float(_unranked(top))
            high += 2.0**-23 * abs(high)
            need = best[s] - wide[s] - high  # what its number must be at least for the highest
            if need > (0.0 if steep[s] else 38.0):
                continue
            least = np.int64(0)
            if not steep[s]:
                least = np.int64(math.exp(-math.exp(-need)) * 2.0**53 * (1 - 1e-12)) - 4 if need > -7 else np.int64(0)
                for j in range(size):
                    lot[j] = _hash(key[s], index[begin + j])
            for j in range(size):
                if lot[j] >= least or steep[s]:
                    value = logit[j]
                    if not steep[s]:
                        value -= math.log(-math.log((lot[j] + 0.5) * 2.0**-53))
                    best[s] = max(best[s], value)
                    floor = best[s] - wide[s]
                    floor -= SLACK * abs(floor)  # lists are in float32
                    if value < max(floor, dropped[s]):
                        continue
                    if used[s] == rows.shape[1]:
                        _room(s, floor, np.inf, rows, values, used, dropped, False, True)
                    rows[s, used[s]], values[s, used[s]] = index[begin + j], value
                    used[s] += 1


@loop
def _gather(q: Any, rows: Any, weights: Any, count: int, room: Any, total: Any) -> None:
    """Add Σ weights·q[rows] to `total`."""
    d, i = q.shape[1], 0
    while i < count:
        stop = min(i + SOON, count)
        for k in range(d):
            room[k] = 0
        while i + 8 <= stop:
            a0, a1, a2, a3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
            a4, a5, a6, a7 = weights[i + 4], weights[i + 5], weights[i + 6], weights[i + 7]
            q0, q1, q2, q3 = q[rows[i]], q[rows[i + 1]], q[rows[i + 2]], q[rows[i + 3]]
            q4, q5, q6, q7 = q[rows[i + 4]], q[rows[i + 5]], q[rows[i + 6]], q[rows[i + 7]]
            for k in range(d):
                one = a0 * F32(q0[k]) + a1 * F32(q1[k]) + a2 * F32(q2[k]) + a3 * F32(q3[k])
                two = a4 * F32(q4[k]) + a5 * F32(q5[k]) + a6 * F32(q6[k]) + a7 * F32(q7[k])
                room[k] += one + two
            i += 8
        while i < stop:
            a0, q0 = weights[i], q[rows[i]]
            for k in range(d):
                room[k] += a0 * F32(q0[k])
            i += 1
        for k in range(d):
            total[k] += room[k]


@loop
def cut(
    exact: Any, place: Any, columns: Any, group: Any, which: Any, first: int, last: int, square: Any, start: Any,
    deep: Any, unit: Any, planes: Any, base: int, dither: Any, slot: Any, digits: Any, q: Any,
    whole: Any, mass: Any, lost: Any, moment: Any,
) -> None:  # fmt: skip
    """Weights of `Dense`'s second pass: as digits for the states that have planes, and else, or where too large, summed at once.

    All states are done with a block of rows before any goes on to the next: rows are brought from memory once for many.
    """
    count, n = exact.shape[1], exact.shape[2]
    room = np.empty((count, BLOCK), np.float64)
    logit = np.empty(BLOCK, np.float64)
    weight = np.empty(BLOCK, np.float32)
    number = np.empty(BLOCK, np.int32)
    acc = np.empty(q.shape[1], np.float32)
    listed = np.empty(BLOCK, np.int32)
    heavy = np.empty(BLOCK, np.float32)
    for begin in range(0, n, BLOCK):
        size, held = min(BLOCK, n - begin), -1
        for s in range(first, last):
            p, peak, used = group[s], start[s], 0
            if p != held:
                _convert(exact[place[p]], begin, size, room)
                held = p
            _logits(columns[p, which[s]], room, square[begin : begin + size], logit[:size])
            for j in range(size):
                weight[j] = _exp(logit[j] - peak)
            if planes[s] == 0:  # the rows that matter, one by one
                under, gone = F32(deep[s]), F32(0)
                for j in range(size):
                    gone += weight[j] if weight[j] < under else F32(0)
                lost[s] += gone
                for j in range(size):
                    if weight[j] >= under:
                        listed[used], heavy[used] = begin + j, weight[j]
                        mass[s] += weight[j]
                        used += 1
            else:
                inverse, largest, total = F32(1 / unit[s]), I32(0), np.int64(0)
                limit = F32((base // 2 - 1) * float(base) ** (planes[s] - 1))
                lot = dither[begin : begin + size]
                for j in range(size):
                    w = weight[j] * inverse
                    largest = max(largest, _bits(w))
                    w = w if w <= limit else F32(0)
                    number[j] = I32(np.floor(w + lot[j]))
                    total += number[j]
                for k in range(planes[s]):
                    digit = digits[slot[s] + k, begin : begin + size]
                    if k + 1 == planes[s]:
                        for j in range(size):
                            digit[j] = number[j]
                    else:
                        for j in range(size):
                            upper = I32(np.floor(F32(number[j]) * F32(1 / base) + F32(0.5)))
                            digit[j], number[j] = number[j] - upper * I32(base), upper
                whole[s] += total
                if _float(largest) > limit:
                    for j in range(size):
                        if weight[j] * inverse > limit:
                            listed[used], heavy[used] = begin + j, weight[j]
                            mass[s] += weight[j]
                            used += 1
            if used:
                _gather(q, listed, heavy, used, acc, moment[s])


@loop
def prune(rows: Any, values: Any, used: Any, first: int, last: int, least: Any, most: Any) -> None:
    """Leave in the lists of some states what is within the limits."""
    for s in range(first, last):
        _within(s, least[s], most[s], rows, values, used)


@loop
def thin(rows: Any, values: Any, used: Any, which: Any, first: int, last: int, may: Any) -> None:
    """Drop the least of the listed rows of each state of `which`, as many as together have no more than a share `may` of all."""
    steps = np.empty(STEPS, np.float64)
    for i in range(first, last):
        s, largest = which[i], F32(-np.inf)
        count = used[s]
        for j in range(count):
            largest = max(largest, values[s, j])
        # How much the rows weigh that lie so many steps below the largest, by what is known of their logits so far.
        steps[:] = 0
        for j in range(count):
            below = largest - values[s, j]
            steps[min(STEPS - 1, int(below * 2))] += _exp(-np.float64(below))
        total, gone, cut = steps.sum(), 0.0, STEPS
        while cut > 1 and gone + steps[cut - 1] <= may[i] * total:
            cut -= 1
            gone += steps[cut]
        kept = 0
        for j in range(count):
            if min(STEPS - 1, int((largest - values[s, j]) * 2)) < cut:
                values[s, kept], rows[s, kept] = values[s, j], rows[s, j]
                kept += 1
        used[s] = kept


@intrinsic
def _products(context: Any, planes: Any, one: Any, two: Any, next_one: Any, next_two: Any, count: Any, sums: Any) -> Any:
    """Sums over the first `count` places, a multiple of `WIDE`, of each plane times (two rows + 128): int32, plane by plane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, word, place = ir.IntType(8), ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(word, WIDE // 4)
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args[:5], values, strict=False)]
        digits, *rows = (array.data for array in arrays)
        length = builder.extract_value(arrays[1].shape, 0)
        out = context.make_array(signature.args[6])(context, builder, values[6]).data
        ask = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte.as_pointer()], ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        )
        multiply = ir.FunctionType(vector, [vector] * 3)
        signs = ir.Constant(vector, [ir.Constant(word, -0x7F7F7F80)] * (WIDE // 4))  # 0x80 in every byte
        total = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(2 * PLANES)]

        def load(data: Any, at: Any) -> Any:
            found = builder.load(builder.bitcast(builder.gep(data, [at]), vector.as_pointer()))
            found.align = 1
            return found

        with cgutils.for_range_slice(builder, ir.Constant(place, 0), values[5], ir.Constant(place, WIDE)) as (at, _):
            unsigned = [builder.xor(load(row, at), signs) for row in rows[:2]]
            for row in rows[2:]:
                builder.call(ask, [builder.gep(row, [at]), *(ir.Constant(word, how) for how in (0, 3, 1))])
            for k in range(PLANES):
                digit = load(digits, builder.add(at, builder.mul(length, ir.Constant(place, k))))
                for side in range(2):
                    held = total[2 * k + side]
                    own = [builder.load(held), unsigned[side], digit]
                    builder.store(builder.asm(multiply, "vpdpbusd $3, $2, $0", "=v,0,v,v", own, False), held)
        for k, held in enumerate(total):
            found = builder.load(held)
            parts = [builder.extract_element(found, ir.Constant(word, lane)) for lane in range(WIDE // 4)]
            while len(parts) > 1:
                parts = [builder.add(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            builder.store(parts[0], builder.gep(out, [ir.Constant(place, k)]))
        return context.get_dummy_value()

    return types.void(planes, one, two, next_one, next_two, count, sums), generate


@loop
def _split_digits(state: Any, planes: Any, steps: Any) -> None:
    """Digits of a state (PLANES, d), and for each plane its unit and 128 times the sum of what `_products` takes of it."""
    d = len(state)
    unit, end = max(np.abs(state).max(), 1e-300) / 127, d - d % WIDE
    rest = state.copy()
    for k in range(PLANES):
        total = np.int64(0)
        for i in range(d):
            whole = np.floor(rest[i] / unit + 0.5)
            planes[k, i] = np.int8(whole)
            rest[i] -= whole * unit
            if i < end:
                total += np.int64(whole)
        steps[0, k], steps[1, k] = unit, 128.0 * total
        unit /= BASE


@loop
def _dots_digits(state: Any, planes: Any, steps: Any, q: Any, rows: Any, out: Any) -> None:
    count, d, j = len(rows), q.shape[1], 0
    end = d - d % WIDE
    sums = np.empty(2 * PLANES, np.int32)
    while j < count:
        other = min(j + 1, count - 1)  # the last one of an odd count is made twice
        one, two = q[rows[j]], q[rows[other]]
        _products(planes, one, two, q[rows[min(j + 2, count - 1)]], q[rows[min(j + 3, count - 1)]], end, sums)
        a, b = 0.0, 0.0
        for i in range(end, d):
            a += state[i] * one[i]
            b += state[i] * two[i]
        for k in range(PLANES):
            a += steps[0, k] * (sums[2 * k] - steps[1, k])
            b += steps[0, k] * (sums[2 * k + 1] - steps[1, k])
        out[j], out[other] = a, b
        j += 2


@loop
def _split_nothing(state: Any, planes: Any, steps: Any) -> None:
    """States are as they are."""


@loop
def _dots_float64(state: Any, planes: Any, steps: Any, q: Any, rows: Any, out: Any) -> None:
    count, d, j = len(rows), q.shape[1], 0
    while j < count:
        last = min(j + 3, count - 1)  # the last ones of a count that is not a multiple of four are made twice
        x0, x1, x2, x3 = q[rows[j]], q[rows[min(j + 1, last)]], q[rows[min(j + 2, last)]], q[rows[last]]
        a, b, c, e = 0.0, 0.0, 0.0, 0.0
        for i in range(d):
            z = state[i]
            a += z * x0[i]
            b += z * x1[i]
            c += z * x2[i]
            e += z * x3[i]
        out[j], out[min(j + 1, last)], out[min(j + 2, last)], out[last] = a, b, c, e
        j += 4


_split, _dots = (_split_digits, _dots_digits) if VNNI else (_split_nothing, _dots_float64)


@loop
def _exact_dots(state: Any, q: Any, rows: Any, base: float, step: float, out: Any) -> None:
    """⟨state, value of q[row]⟩ of some rows, the values as float32 has them."""
    count, j = len(rows), 0
    while j < count:
        k = min(j + 1, count - 1)
        x0, x1 = q[rows[j]], q[rows[k]]
        a, b = 0.0, 0.0
        for i in range(len(state)):
            z = state[i]
            a += z * F32(base + step * x0[i])
            b += z * F32(base + step * x1[i])
        out[j], out[k] = a, b
        j += 2


@loop
def listed(
    z: Any, rows: Any, values: Any, used: Any, which: Any, first: int, last: int, slope: Any, curve: Any, known: Any,
    centre: Any, rough: Any, q: Any, place: Any, square: Any, own: int, stored: int, base: float, step: float,
    high: Any, top: Any, mass: Any, square_mass: Any, tilt: Any, mass2: Any, moment: Any,
) -> None:  # fmt: skip
    """Sums over the listed rows of each state, as `listed.listed` wants them; z (sides, B, d) are states and their mirror images.

    All states take their rows from one stretch of the bank before any goes on to the next: a row is brought from memory once for many.
    """
    sides, d, count, entries = len(z), q.shape[1], last - first, 0
    for i in range(first, last):
        entries += used[which[i]]
    at, named = np.empty(entries, np.int64), np.empty(entries, np.int64)
    ends, now = np.zeros((count, sides + 1), np.int64), np.empty((count, sides), np.int64)
    planes, steps = np.empty((count, sides, PLANES, d), np.int8), np.empty((count, sides, 2, PLANES), np.float64)
    level, about, unknown, kept = np.empty(count, np.float64), np.zeros(count, np.float64), False, 0
    for i in range(first, last):
        s, k = which[i], i - first
        for c in range(d):
            about[k] += z[0, i, c] * centre[c]
        largest = F32(-np.inf)
        for j in range(used[s]):
            largest = max(largest, values[s, j])
        # Weights are relative to the largest logit, or to one that is known to be about as large: then rows are asked but once.
        level[k], unknown = largest, unknown or not known[i]
        ends[k, 0] = kept
        for side in range(sides):
            for j in range(used[s]):
                row = rows[s, j]
                if (row >= stored) == (side == 1):
                    at[kept], named[kept] = place[row - side * stored - own], row
                    kept += 1
            ends[k, side + 1] = kept
            if rough[i]:
                _split(z[side, i], planes[k, side], steps[k, side])
    high[first:last] = -np.inf
    acc, logit, weight = np.empty(d, np.float32), np.empty(SOON, np.float64), np.empty(SOON, np.float32)
    for summed in range(0 if unknown else 1, 2):
        now[:] = ends[:, :sides]
        for stretch in range(NEAR, len(q) + NEAR, NEAR):
            for i in range(first, last):
                k = i - first
                if known[i] and not summed:
                    continue
                for side in range(sides):
                    begin, stop = now[k, side], now[k, side]
                    while stop < ends[k, side + 1] and at[stop] < stretch:
                        stop += 1
                    now[k, side] = stop
                    while begin < stop:
                        some = at[begin : min(begin + SOON, stop)]
                        if rough[i]:
                            _dots(z[side, i], planes[k, side], steps[k, side], q, some, logit)
                        else:
                            _exact_dots(z[side, i], q, some, base, step, logit)
                        for j in range(len(some)):
                            dot = step * logit[j] if rough[i] else logit[j] - about[k]
                            norm, name = square[some[j]], named[begin + j]
                            value = slope[i] * dot - 0.5 * curve[i] * norm
                            if value > high[i] or (value == high[i] and name < top[i]):
                                high[i], top[i] = value, name
                            below = value - level[k]
                            w = F32(math.exp(below))
                            weight[j] = w
                            if summed:
                                mass[i] += w
                                mass2[i] += w * w
                                square_mass[i] += w * norm
                                tilt[i] += w * below
                        if summed:
                            _gather(q, some, weight, len(some), acc, moment[side, i])
                        begin += len(some)
        for i in range(first, last):
            level[i - first] = level[i - first] if known[i] else high[i]
    for i in range(first, last):
        if used[which[i]] == 0:
            continue
        gap = level[i - first] - high[i]
        factor = math.exp(gap)
        tilt[i] = factor * (tilt[i] + mass[i] * gap)
        mass[i] *= factor
        mass2[i] *= factor * factor
        square_mass[i] *= factor
        for side in range(sides):
            for c in range(d):
                moment[side, i, c] *= factor


@loop
def differences(
    z: Any, rows: Any, values: Any, used: Any, which: Any, first: int, last: int, slope: Any, curve: Any, shell: Any,
    q: Any, place: Any, square: Any, own: int, stored: int, step: float, away: Any,
) -> None:  # fmt: skip
    """As `compiled.differences`; z (sides, Q, d) are states and their mirror images."""
    most = rows.shape[1]
    at, slot, found = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float64)
    planes, steps = np.empty((PLANES, q.shape[1]), np.int8), np.empty((2, PLANES), np.float64)
    for i in range(first, last):
        s = which[i]
        for side in range(len(z)):
            count = 0
            for j in range(used[s]):
                if (rows[s, j] >= stored) == (side == 1):
                    at[count], slot[count] = place[rows[s, j] - side * stored - own], j
                    count += 1
            _split(z[side, i], planes, steps)
            _dots(z[side, i], planes, steps, q, at[:count], found[:count])
            for j in range(count):
                a = slope[i] * step * found[j] - 0.5 * curve[i] * square[at[j]] - shell[i]
                values[s, slot[j]] = a
                if a >= 0:
                    away[0, i] = min(away[0, i], a)
                else:
                    away[1, i] = min(away[1, i], -a)


@loop
def _square(state: Any, a: float, x: Any) -> float:
    total = 0.0
    for k in range(len(x)):
        difference = state[k] - a * x[k]
        total += difference * difference
    return total


@loop
def _values(row: Any, mirrored: bool, width: int, table: Any, base: float, step: float, out: Any) -> None:
    """The values of a row of digits: those of the table, which are base + step·digit as float32 has them."""
    if mirrored:
        for begin in range(0, len(row), width):
            for k in range(width):
                out[begin + k] = table[I32(row[begin + width - 1 - k]) + 128]
    else:
        for k in range(len(row)):
            out[k] = F32(base + step * row[k])


@loop
def fetch(
    q: Any, place: Any, mirrored: Any, width: int, table: Any, base: float, step: float, first: int, last: int, out: Any
) -> None:  # fmt: skip
    """Rows of digits as values."""
    for i in range(first, last):
        _values(q[place[i]], mirrored[i], width, table, base, step, out[i])


@loop
def apart(
    q: Any, place: Any, mirrored: Any, width: int, table: Any, base: float, step: float, z: Any, alpha: Any, which: Any,
    first: int, last: int, out: Any,
) -> None:  # fmt: skip
    """‖z − αx‖² of pairs, x rows of digits."""
    x = np.empty(q.shape[1])
    for i in range(first, last):
        _values(q[place[i]], mirrored[i], width, table, base, step, x)
        out[i] = _square(z[which[i]], alpha[which[i]], x)
