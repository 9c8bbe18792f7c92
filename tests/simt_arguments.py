"""The arrays of a launch as the pointers that a kernel gets, and what the kernel wrote back in the arrays."""

from __future__ import annotations

import ctypes

import numpy as np

from tests.simt_memory import Memory, Pointer, SimtError, fail

FAR = 1 << 28
"""Bytes from which on the rows of a view are apart for the sake of their addresses: no list holds what is between."""
_LARGE = 1 << 14


def word(x):
    """Return what declarations call an argument."""
    if isinstance(x, np.ndarray):
        names = {"float32": "f32*", "float64": "f64*", "float16": "f16*", "bfloat16": "bf16*", "bool": "u8*"}
        return names.get(x.dtype.name) or f"{x.dtype.kind}{8 * x.itemsize}*"
    return None if x is None else "i64" if isinstance(x, (int, np.integer)) else "f32"


class Arguments:
    """The arguments of a launch: `values` are what the kernel gets. Views that overlap share their cells."""

    def __init__(self, names, args):
        self.memories, self._views = [], []
        self.values = [self._argument(name, x) for name, x in zip(names, args, strict=False)]
        self._views.sort(key=lambda view: view[:2])
        group, end = [], 0
        for view in self._views:
            if group and view[0] >= end:
                self._share(group)
                group, end = [], 0
            end = max(end, view[1])
            group.append(view)
        if group:
            self._share(group)

    def _argument(self, name, x):
        if not isinstance(x, np.ndarray):
            return x if x is None else int(x) if isinstance(x, (int, np.integer)) else np.float32(x)
        low, high = np.lib.array_utils.byte_bounds(x) if x.size else (x.ctypes.data, x.ctypes.data)
        if low != x.ctypes.data:
            raise SimtError(f"{name} has a negative stride")
        pointer = Pointer.__new__(Pointer)
        self._views.append((low, high, name, x, pointer))
        return pointer

    def _share(self, group):
        """Give the pointers of some views their memory."""
        low, high, dtype = group[0][0], max(view[1] for view in group), group[0][3].dtype
        if any(view[3].dtype != dtype or (view[0] - low) % dtype.itemsize for view in group):
            raise SimtError(f"{[view[2] for view in group]} overlap in memory and differ in dtype")
        far = high - low > FAR
        if far and any(view[3].shape != group[0][3].shape or view[:2] != group[0][:2] for view in group):
            raise SimtError(f"{[view[2] for view in group]}: more than {FAR} bytes, in different views")
        flat = group[0][3] if far else np.frombuffer((ctypes.c_char * (high - low)).from_address(low), dtype)
        memory = Memory("/".join(view[2] for view in group), _FarRows(flat) if far else _cells(flat), flat)
        self.memories.append(memory)
        for start, _, name, x, pointer in group:
            strides = [s // x.itemsize for s in x.strides]
            size = sum((m - 1) * s for m, s in zip(x.shape, strides, strict=True)) + 1 if x.size else 0
            holes = None
            if size > x.size and not far:
                view = np.zeros(size, np.uint8)
                np.lib.stride_tricks.as_strided(view, x.shape, strides)[...] = 1
                holes = view.tobytes()
            phase = start % 16 // x.itemsize
            Pointer.__init__(pointer, name, memory, (start - low) // x.itemsize, size, holes, phase, x)
            if far:
                pointer.touch = None

    def write_back(self):
        """Write what the kernel wrote to the arrays."""
        for memory in self.memories:
            if memory.written and memory.cells is not memory.flat:
                memory.flat[...] = np.array([*memory.cells], _in_cells(memory.flat.dtype)).reshape(memory.flat.shape)


def _in_cells(dtype):
    """Return the dtype of elements while a kernel runs."""
    return dtype if dtype.kind in "iub" or dtype == np.float64 else np.dtype(np.float32)


def _cells(x):
    """Return the elements as a list, or as an array where that is large and serves as well."""
    if x.dtype == np.float32 and x.size > _LARGE:
        return x
    wide = x.astype(_in_cells(x.dtype))
    return wide.tolist() if wide.dtype.kind in "iub" else list(wide)


class _FarRows:
    """The cells of a matrix whose rows are gigabytes apart."""

    def __init__(self, x):
        self.pitch, self.rows = x.strides[0] // x.itemsize, [_cells(row) for row in x]

    def _place(self, at):
        """Return the row, and the place in it, of an index or a slice."""
        first = at.start if isinstance(at, slice) else at
        count = at.stop - at.start if isinstance(at, slice) else 1
        row, column = divmod(first, self.pitch)
        if column + count > len(self.rows[row]):
            fail(f"element {first} is out of range: between the rows of the view")
        return self.rows[row], slice(column, column + count) if isinstance(at, slice) else column

    def __getitem__(self, at):
        row, place = self._place(at)
        return row[place]

    def __setitem__(self, at, values):
        row, place = self._place(at)
        row[place] = values

    def __iter__(self):
        return iter(self.rows)
