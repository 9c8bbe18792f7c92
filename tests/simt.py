"""A simulator of CUDA blocks: the source of a kernel, one greenlet a thread, in a random order between barriers.

    launch(kernel, blocks, threads, args)     args: views (NumPy arrays), None, ints, floats

runs the function of a `prims.Kernel` as it is. Raised as `SimtError`: an index out of the bounds of a view, a wide
access that is misaligned, a race between two threads or two blocks, a barrier that not all threads reach, a shuffle
from a lane that is not there, shared memory read before it is written, a write to a read-only view, float64 where
float32 is meant. A shuffle orders no memory; ``syncwarp`` does.

Not modelled: the rounding of fused multiply-adds and of the device's log, float64 where an int meets a float32, and
time: blocks run one after another, and a launch is done when it returns.

The parts: ``simt_memory`` (bounds, races), ``simt_arguments`` (arrays as pointers), ``simt_prims`` and ``simt_cuda``
(what primitives and the names below them do), ``simt_rebinding`` (kernels that see those).
"""

from __future__ import annotations

import contextvars
import random

import numpy as np
from greenlet import getcurrent, greenlet

from tests.simt_arguments import Arguments, word
from tests.simt_memory import SimtError, fail, now, tag_of
from tests.simt_rebinding import Rebinding

__all__ = ["SimtError", "launch"]


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
    kernel.signature_for(tuple(words or map(word, args)))
    rng = random.Random(seed)
    now.races, now.float64, now.thread = races, kernel.float64, None
    now.blocks, now.threads = int(blocks), int(threads)
    function = Rebinding(replace or {}, shortcuts).function(kernel.function)
    names = kernel.function.__code__.co_varnames
    arguments = Arguments(names, args)
    order = list(range(now.blocks))
    rng.shuffle(order)
    with np.errstate(all="ignore"):
        for now.block in order:
            now.machine = _Block(function, arguments.values, rng, arguments.memories)
            now.machine.run()
    now.machine = now.thread = None
    for memory in arguments.memories:
        memory.check_blocks()
    arguments.write_back()


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
            self.ready += self.turned(self.at_barrier)
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
        self.ready += self.turned(waiting)
        return got

    def turned(self, threads):
        """Return threads in another order."""
        k = int(self.rng.random() * len(threads))
        return threads[k:] + threads[:k]

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
