"""Memory of the simulated GPU: pointers that know their bounds, shared arrays, and the accesses that race.

Elements live in Python lists while a kernel runs: float32 whatever is stored, as kernels see them, and ints.
"""

from __future__ import annotations

import numpy as np

READ, WRITE, ATOMIC = 0, 1, 2
_F32 = np.float32


class SimtError(Exception):
    """A kernel did what the GPU would not forgive."""


class _Now:
    """What is running: the thread, its block, the launch."""

    thread = block = blocks = threads = machine = None
    float64 = False
    races = True


now = _Now()


def fail(what):
    where = "" if now.thread is None else f" (block {now.block}, thread {now.thread.index})"
    raise SimtError(what + where)


class Memory:
    """Elements of one kind: the cells, and what was done to them since the last check for races.

    An access is three ints in `log`: the first element, how many, and the tag of the thread that did it, which holds
    the barrier interval, the warp interval, the thread and the kind.
    """

    def __init__(self, name, cells, flat=None):
        self.name, self.cells, self.flat = name, cells, flat
        self.log, self.blocks, self.written = [], [], False

    def check(self):
        """Raise if two accesses of the block that has ended are in no order."""
        if not self.log:
            return
        accesses = np.array(self.log, np.int64).reshape(-1, 3)
        self.log.clear()
        if self.written:
            self._check(*_each(accesses))
        accesses[:, 2] = accesses[:, 2] & 3 | now.block << 2
        self.blocks.append(accesses)

    def check_blocks(self):
        """Raise if one block changed what another one used: they are in no order."""
        if not self.written or len(self.blocks) < 2:
            return
        element, tag, first, ends = self._in_dispute(*_each(np.concatenate(self.blocks)))
        for a, b in zip(first, ends, strict=True):
            blocks = np.unique(tag[a:b] >> 2).tolist()
            raise SimtError(f"a race between blocks on {self.name}[{element[a]}]: {blocks[:4]}")

    def _check(self, element, tag):
        element, tag, first, ends = self._in_dispute(element, tag, tag >> 40)
        for a, b in zip(first, ends, strict=True):
            _check_pairs(f"{self.name}[{element[a]}]", np.unique(tag[a:b]).tolist())

    def _in_dispute(self, element, tag, interval=0):
        """Return the accesses to elements that several used in one interval, not all to read; and where each starts."""
        changed = np.zeros(len(self.cells), bool)
        changed[element[tag & 3 != READ]] = True
        matters = changed[element]
        element, tag = element[matters], tag[matters]
        key = element + (interval[matters] if np.ndim(interval) else 0) * len(self.cells)
        order = np.argsort(key, kind="stable")
        element, tag, key = element[order], tag[order], key[order]
        first = np.flatnonzero(np.concatenate([key[:1] == key[:1], key[1:] != key[:-1]]))
        who = tag >> 2 & 0xFFF if np.ndim(interval) else tag >> 2
        ends = np.append(first[1:], len(key))
        if len(first):
            kind = tag & 3
            several = np.minimum.reduceat(who, first) != np.maximum.reduceat(who, first)
            several &= (np.maximum.reduceat(kind, first) != READ) & (np.minimum.reduceat(kind, first) != ATOMIC)
            first, ends = first[several], ends[several]
        return element, tag, first.tolist(), ends.tolist()


def _each(accesses):
    """Return the element and the tag of each access to one element."""
    start, count, tag = accesses.T
    ends = np.cumsum(count)
    return np.repeat(start - ends + count, count) + np.arange(ends[-1]), np.repeat(tag, count)


def _check_pairs(what, tags):
    """Raise if two of the accesses to an element in one barrier interval are in no order."""
    names = ("reads", "writes", "changes")
    for i, one in enumerate(tags):
        for other in tags[:i]:
            a, b = one >> 2 & 0xFFF, other >> 2 & 0xFFF
            kinds = {one & 3, other & 3}
            if a == b or kinds in ({READ}, {ATOMIC}):
                continue
            if a // 32 == b // 32 and one >> 14 != other >> 14:
                continue  # a syncwarp stands between
            raise SimtError(
                f"a race on {what}: thread {b} {names[other & 3]} and thread {a} {names[one & 3]} it "
                f"with no barrier between (block {now.block})"
            )


def tag_of(thread, interval, warp_interval):
    """Return the tag of what a thread does between two barriers."""
    return interval << 40 | warp_interval << 14 | thread << 2


class Pointer:
    """What a kernel gets for an array: the elements of one view; anything else of its memory is out of bounds."""

    __slots__ = ("bits", "cells", "dtype", "holes", "memory", "name", "phase", "size", "start", "touch", "writeable")

    def __init__(self, name, memory, start, size, holes, phase, view):
        self.name, self.memory, self.cells, self.start, self.size = name, memory, memory.cells, start, size
        self.holes = holes  # None, or a byte an element: 1 where it is of the view
        self.phase = phase  # elements from the last multiple of 16 bytes to the first
        self.dtype, self.bits, self.writeable = view.dtype, 8 * view.itemsize, view.flags.writeable
        self.touch = memory.log.extend if now.races else None

    def at(self, index, count, kind):
        """Return where `count` elements from `index` on stand in the cells, once that is right."""
        if not 0 <= index <= self.size - count:
            fail(f"{self.name}[{index}] is out of range: {self.size} elements, {count} wanted")
        if self.holes is not None and 0 in self.holes[index : index + count]:
            fail(f"{self.name}[{index}] is out of range: between the rows of the view")
        if kind:
            if not self.writeable:
                fail(f"{self.name}[{index}] is read only")
            self.memory.written = True
        index += self.start
        if self.touch is not None:
            self.touch((index, count, now.thread.tag | kind))
        return index

    def aligned(self, index, count):
        """Raise unless `count` elements from `index` on start at a multiple of as many bytes."""
        if (index + self.phase) % count:
            fail(f"{self.name}[{index}]: a misaligned access to {count} elements")

    def __getitem__(self, index):
        if self.bits == 16:
            fail(f"{self.name}[{index}]: 16-bit elements are read with load1 and load8")
        return self.cells[self.at(index, 1, READ)]

    def __setitem__(self, index, value):
        if self.bits == 16:
            fail(f"{self.name}[{index}]: 16-bit elements are written with store1 and store8")
        self.cells[self.at(index, 1, WRITE)] = converted(self, value)

    def change(self, index, function):
        """Replace an element by a function of it, atomically; return what it was."""
        at = self.at(index, 1, ATOMIC)
        old = self.cells[at]
        self.cells[at] = converted(self, function(old))
        return old


def converted(target, value):
    """Return a value as an element of a pointer or a shared array holds it; float64 must be meant."""
    dtype = target.dtype
    if dtype.kind in "iub":
        if isinstance(value, (float, np.floating)):
            fail(f"{target.name}: a float is stored as {dtype}")
        value = int(value)
        limits = np.iinfo(dtype) if dtype.kind != "b" else np.iinfo(np.uint8)
        if not limits.min <= value <= limits.max:
            value = (value - limits.min) % (1 << limits.bits) + limits.min
        return value
    if dtype == np.float64:
        return np.float64(value)
    if type(value) is not _F32:
        if not now.float64 and not isinstance(value, (int, np.integer)):
            fail(f"{target.name}: {type(value).__name__} {value!r} is stored as {dtype}: computed in float64")
        value = _F32(value)
    return value


class Shared:
    """An array that the threads of a block share; reading what nobody wrote is an error."""

    def __init__(self, name, shape, dtype, logged=True):
        self.shape = shape if isinstance(shape, tuple) else (shape,)
        self.dtype, self.name, self.size = dtype, name, int(np.prod(self.shape))
        self.memory = Memory(name, [None] * self.size)
        self.cells = self.memory.cells
        self.touch = self.memory.log.extend if logged and now.races else None

    def at(self, index, kind):
        index = index if isinstance(index, tuple) else (index,)
        flat = 0
        if len(index) != len(self.shape):
            fail(f"{self.name}: {len(index)} indices of {len(self.shape)}")
        for i, n in zip(index, self.shape, strict=True):
            if not 0 <= i < n:
                fail(f"{self.name}{list(index)} is out of range {self.shape}")
            flat = flat * n + i
        if kind:
            self.memory.written = True
        if self.touch is not None:
            self.touch((flat, 1, now.thread.tag | kind))
        return flat

    def __getitem__(self, index):
        value = self.cells[self.at(index, READ)]
        if value is None:
            fail(f"{self.name}[{index}] is read before it is written")
        return value

    def __setitem__(self, index, value):
        self.cells[self.at(index, WRITE)] = converted(self, value)

    def change(self, index, function):
        """Replace an element by a function of it, atomically; return what it was."""
        at = self.at(index, ATOMIC)
        if self.cells[at] is None:
            fail(f"{self.name}[{index}] is changed before it is written")
        old = self.cells[at]
        self.cells[at] = converted(self, function(old))
        return old
