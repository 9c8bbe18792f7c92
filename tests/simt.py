"""A simulator of CUDA blocks: the source of a kernel, one greenlet a thread, in a random order between barriers.

    launch(kernel, blocks, threads, args)     args: views (NumPy arrays), None, ints, floats

runs the function of a `prims.Kernel` as it is. Raised as `SimtError`: an index out of the bounds of a view, a wide
access that is misaligned, a race between two threads or two blocks, a barrier that not all threads reach, a shuffle
from a lane that is not there, shared memory read before it is written, a write to a read-only view, float64 where
float32 is meant. A shuffle orders no memory; ``syncwarp`` does.

Not modelled: the rounding of fused multiply-adds and of the device's log, the time that anything takes, and accesses to
memory from two launches at once. Every launch is done when it returns.
"""

from __future__ import annotations

import contextvars
import ctypes
import dis
import functools
import random
import types

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda

from fastnlp.kernels.cuda import prims
from tests.simt_memory import Memory, Pointer, SimtError, fail, now, tag_of
from tests.simt_prims import BUILTINS, SHORTCUTS, SIMULATED, Cuda, Math, Numpy

__all__ = ["SimtError", "launch"]

_MODULES = {id(cuda): Cuda(), id(np): Numpy()}
_MATH = Math()


def launch(kernel, blocks, threads, args, *, words=None, seed=0, races=True, replace=None, shortcuts=True):
    """Run a kernel; the views are written to.

    Parameters
    ----------
    words
        What each argument is called in declarations, to tell apart what NumPy does not; by default from the dtypes.
    seed
        Of the order of blocks and threads.
    races
        Whether accesses are recorded and checked.
    replace
        Other functions for names that the kernel and its parts use: a defect to be found.
    shortcuts
        Whether reductions of a warp are done in one go; otherwise their source runs.
    """
    if not 1 <= threads <= kernel.threads or threads % 32:
        raise SimtError(f"{kernel.name} is launched with {threads} threads a block, of at most {kernel.threads}")
    kernel.signature_for(tuple(words or map(_word, args)))
    rng = random.Random(seed)
    now.races, now.float64, now.thread = races, kernel.float64, None
    now.blocks, now.threads = int(blocks), int(threads)
    function = _Rebinding(replace or {}, shortcuts).function(kernel.function)
    names = kernel.function.__code__.co_varnames
    memories = _Memories()
    values = [memories.argument(name, x) for name, x in zip(names, args, strict=False)]
    memories.fill()
    order = list(range(now.blocks))
    rng.shuffle(order)
    with np.errstate(all="ignore"):
        for now.block in order:
            now.machine = _Block(function, values, rng, memories.memories)
            now.machine.run()
    now.machine = now.thread = None
    memories.write_back()


def _word(x):
    if isinstance(x, np.ndarray):
        names = {"float32": "f32*", "float64": "f64*", "float16": "f16*", "bfloat16": "bf16*", "bool": "u8*"}
        return names.get(x.dtype.name) or f"{x.dtype.kind}{8 * x.itemsize}*"
    return None if x is None else "i64" if isinstance(x, (int, np.integer)) else "f32"


class _Memories:
    """The views of a launch, as pointers into cells that views of the same memory share."""

    def __init__(self):
        self.memories, self.views, self.pointers = [], [], []

    def argument(self, name, x):
        if not isinstance(x, np.ndarray):
            return x if x is None else int(x) if isinstance(x, (int, np.integer)) else np.float32(x)
        low, high = np.lib.array_utils.byte_bounds(x) if x.size else (x.ctypes.data, x.ctypes.data)
        pointer = Pointer.__new__(Pointer)
        self.views.append((low, high, name, x, pointer))
        return pointer

    def fill(self):
        """Give each pointer its cells: one memory for all views that overlap."""
        self.views.sort(key=lambda view: view[:2])
        group, end = [], 0
        for view in [*self.views, None]:
            if group and (view is None or view[0] >= end):
                self._group(group)
                group = []
            if view is not None:
                end = max(end, view[1]) if group else view[1]
                group.append(view)

    def _group(self, group):
        low, high, dtype = group[0][0], max(view[1] for view in group), group[0][3].dtype
        if any(view[3].dtype != dtype or (view[0] - low) % dtype.itemsize for view in group):
            raise SimtError(f"{[view[2] for view in group]} overlap in memory and differ in dtype")
        flat = np.frombuffer((ctypes.c_char * (high - low)).from_address(low), dtype)
        wide = flat if flat.dtype.kind in "iub" or flat.dtype == np.float64 else flat.astype(np.float32)
        cells = wide.tolist() if wide.dtype.kind in "iub" else list(wide)
        memory = Memory("/".join(view[2] for view in group), cells)
        if now.races:
            memory.across_blocks()
        memory.flat, memory.written = flat, any(view[3].flags.writeable for view in group)
        self.memories.append(memory)
        for start, _, name, x, pointer in group:
            first = (x.ctypes.data - low) // x.itemsize
            if start != x.ctypes.data:
                raise SimtError(f"{name} has a negative stride")
            strides = [s // x.itemsize for s in x.strides]
            size = sum((m - 1) * s for m, s in zip(x.shape, strides, strict=True)) + 1 if x.size else 0
            holes = None
            if size > x.size:
                view = np.zeros(size, np.uint8)
                np.lib.stride_tricks.as_strided(view, x.shape, strides)[...] = 1
                holes = view.tobytes()
            phase = x.ctypes.data % 16 // x.itemsize
            Pointer.__init__(pointer, name, memory, first, size, holes, phase, x.dtype, x.flags.writeable)

    def write_back(self):
        for memory in self.memories:
            if memory.written:
                wide = memory.flat.dtype if memory.flat.dtype.kind in "iub" else np.result_type(memory.flat, np.float32)
                memory.flat[...] = np.array(memory.cells, wide)


class _Rebinding:
    """Copies of functions whose globals are the simulator's."""

    def __init__(self, replace, shortcuts):
        self.replace, self.made = replace, {}
        simulated = SIMULATED | (SHORTCUTS if shortcuts else {})
        self.simulated = {id(getattr(prims, name)): f for name, f in simulated.items() if hasattr(prims, name)}

    def function(self, original):
        original = getattr(original, "py_func", original)
        if original in self.made:
            return self.made[original]
        code, scope = original.__code__, dict(original.__globals__)
        if not now.float64:
            _check_literals(code)
        cells = original.__closure__
        if cells:
            cells = tuple(
                types.CellType(self.value(n, c.cell_contents)) for n, c in zip(code.co_freevars, cells, strict=True)
            )
        scope["__simulated__"] = True
        made = types.FunctionType(code, scope, original.__name__, original.__defaults__, cells)
        self.made[original] = made
        for name in code.co_names:
            if name in self.replace:
                scope[name] = self.value(name, self.replace[name])
            elif name in scope:
                scope[name] = self.value(name, scope[name])
            elif name in BUILTINS:
                scope[name] = BUILTINS[name]
        return made

    def value(self, name, x):
        """Return what stands in the simulator for a global of a kernel."""
        if id(x) in self.simulated:
            return self.simulated[id(x)]
        if id(x) in _MODULES:
            return _MODULES[id(x)]
        if isinstance(x, types.ModuleType):
            return _MATH if x.__name__ == "math" else _Module(self, x)
        if hasattr(x, "py_func") or isinstance(x, types.FunctionType):
            return self.function(x)
        if type(x).__name__ == "_Intrinsic":
            raise SimtError(f"prims.{name} has no simulated version: add it to tests/simt_prims.py")
        if isinstance(x, float) and not now.float64:
            raise SimtError(f"{name} = {x} is float64 on the device: write np.float32({x})")
        if isinstance(x, np.integer):
            return int(x)
        if isinstance(x, tuple):
            return tuple(self.value(name, one) for one in x)
        return x


@functools.cache
def _check_literals(code):
    """Raise if there is a float literal that np.float32 is not called with: it is float64 on the device."""
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_CONST" and isinstance(step.argval, float) and before != "float32":
            raise SimtError(f"the literal {step.argval} in {code.co_name} is float64 on the device")
        before = step.argval


class _Module:
    """A module whose functions are rebound as they are asked for."""

    def __init__(self, rebinding, module):
        self._rebinding, self._module = rebinding, module

    def __getattr__(self, name):
        return self._rebinding.value(name, getattr(self._module, name))


class _Thread(greenlet):
    """A thread: its index, its tag for accesses, and what it waits for."""

    def __init__(self, run, parent, index):
        super().__init__(run, parent)
        self.index, self.warp_interval, self.waits, self.reply = index, 0, None, None
        self.gr_context = contextvars.copy_context()  # NumPy keeps its error state there


class _Block:
    """A block while it runs: its threads, what they share, and who waits where."""

    def __init__(self, function, args, rng, memories):
        self.rng, self.memories, self.shared = rng, memories, {}
        self.hub = getcurrent()
        self.ready = [_Thread(lambda: function(*args), self.hub, k) for k in range(now.threads)]
        self.threads = list(self.ready)
        self.interval = 0
        self.at_barrier, self.kind, self.values = [], None, []
        self.exchanges = {}  # (warp, mask): kind, {lane: value}, threads
        for thread in self.threads:
            thread.tag = tag_of(thread.index, 0, 0)

    def run(self):
        self.rng.shuffle(self.ready)
        while self.ready:
            batch, self.ready = self.ready, []
            for now.thread in batch:
                now.thread.switch()
        now.thread = None
        if not all(thread.dead for thread in self.threads):
            self.explain()
        for memory in (*self.memories, *(one.memory for one in self.shared.values())):
            memory.check()

    def barrier(self, kind, value=None):
        """Wait for all threads of the block; return what each brought."""
        me = now.thread
        if self.at_barrier and kind != self.kind:
            fail(f"a divergent barrier: {kind} and {self.kind}")
        self.kind = kind
        self.at_barrier.append(me)
        self.values.append(value)
        if len(self.at_barrier) == now.threads:
            self.interval += 1
            for thread in self.at_barrier:
                thread.tag = tag_of(thread.index, self.interval, thread.warp_interval)
                thread.reply = self.values
            self.rng.shuffle(self.at_barrier)
            self.ready += self.at_barrier
            self.at_barrier, self.values = [], []
        self.hub.switch()
        return me.reply

    def exchange(self, kind, mask, value, combine=None):
        """Wait for the lanes of a mask; return what each brought, or what `combine` makes of it."""
        me = now.thread
        warp, lane = divmod(me.index, 32)
        if not mask >> lane & 1:
            fail(f"{kind} with mask {mask:#x}, which leaves out its own lane {lane}")
        found = self.exchanges.get((warp, mask))
        if found is None:
            found = self.exchanges[warp, mask] = (kind, {}, [])
        if found[0] != kind:
            fail(f"a divergent warp: {kind} and {found[0]}")
        got, waiting = found[1:]
        got[lane] = value
        waiting.append(me)
        if len(waiting) < mask.bit_count():
            self.hub.switch()
            return me.reply
        del self.exchanges[warp, mask]
        got = combine(got) if combine else got
        for thread in waiting:
            thread.reply = got
        if kind == "syncwarp":
            after = 1 + max(thread.warp_interval for thread in waiting)
            for thread in waiting:
                thread.warp_interval = after
                thread.tag = tag_of(thread.index, self.interval, after)
        waiting.pop()
        k = self.rng.randrange(len(waiting) + 1)
        self.ready += waiting[k:] + waiting[:k]
        return got

    def explain(self):
        """Raise for threads that wait for others in vain."""
        for (warp, mask), (kind, got, _) in self.exchanges.items():
            missing = [lane for lane in range(32) if mask >> lane & 1 and lane not in got]
            raise SimtError(
                f"a divergent warp: lanes {missing} of warp {warp} are in the mask of a {kind} and not active "
                f"there (block {now.block})"
            )
        ended = sum(thread.dead for thread in self.threads)
        raise SimtError(
            f"a divergent barrier: {len(self.at_barrier)} of {now.threads} threads wait at {self.kind}, "
            f"{ended} have returned (block {now.block})"
        )
