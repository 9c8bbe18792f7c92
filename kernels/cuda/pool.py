"""Pooling of the vectors of a sequence to one, and its gradients (the equations: ``reference/pool.py``).

Where sequences begin and end may be known on the device alone: `packed` and `padded` make bounds of it that cannot lead
out of the rows, whatever the values, and the host learns nothing of them. An empty sequence is NaN, its gradient 0.

Schedule: see ``_pool_tiles.py`` and ``_pool_rows.py``. Bytes: one read of the rows that count; for the gradient one
write of all rows. A single sequence of many rows is read by ``D / 64`` blocks, so with few features not by the whole
device.
"""

from __future__ import annotations

from fastnlp.kernels.cuda import _pool_rows, _pool_tiles
from fastnlp.kernels.cuda._pool_tiles import THREADS, TILE
from fastnlp.kernels.cuda._schedule import grid, spread, whole

_BLOCKS_A_PROCESSOR = 32


def packed(cu_seqlens, rows, begin, end):  # (N + 1,) int64, (N + 1,), (N,)
    """Write the bounds of sequences that lie one after another in so many rows."""
    n = end.size
    begin.library.launch(
        _pool_rows.packed_bounds, spread(begin.library, n + 1, 128), 128, cu_seqlens, n, rows, begin, end
    )


def padded(lengths, width, begin, end):  # (N,) int64 or None, (N + 1,), (N,)
    """Write the bounds of sequences that lie in rows of one width; without lengths all of it counts."""
    n = end.size
    begin.library.launch(
        _pool_rows.padded_bounds, spread(begin.library, n + 1, 128), 128, lengths, n, width, begin, end
    )


def mean(x, begin, end, out):  # (R, D), (N + 1,), (N,), (N, D)
    """out = the mean of each sequence, summed in float32."""
    args = (x, x.pitch, begin, end, x.shape[1], whole(x), end.size, out, out.pitch)
    x.library.launch(_pool_tiles.mean_tiles, *_tiles(x, end), *args)


def mean_backward(dout, begin, end, dx):  # (N, D), (N + 1,), (N,), (R, D)
    """dx = the gradient of `mean`."""
    if not end.size:
        dx.library.clear(dx)
    args = (dout, dout.pitch, begin, end, dx.shape[1], whole(dx, dout), end.size, dx, dx.pitch)
    dx.library.launch(_pool_rows.hand_out_mean, *_tiles(dx, end), *args)


def max(x, begin, end, out, place):  # (R, D), (N + 1,), (N,), (N, D), (N, D) in C order
    """out = the maximum of each sequence, NaN where it holds one; place = where it stands first, from begin[n]."""
    args = (x, x.pitch, begin, end, x.shape[1], whole(x), end.size, out, out.pitch, place)
    x.library.launch(_pool_tiles.max_tiles, *_tiles(x, end), *args)


def max_backward(dout, begin, end, place, dx):  # (N, D), (N + 1,), (N,), (N, D), (R, D)
    """dx = the gradient of `max`."""
    _hand_out(dout, begin, end, place, False, dx)


def ends(x, begin, end, last, out):  # (R, D), (N + 1,), (N,), (N, D)
    """out = the first row of each sequence, or the last."""
    blocks, threads = grid(x.library, end.size, x.shape[1], 256)
    args = (x, x.pitch, begin, end, int(last), x.shape[1], whole(x, out), end.size, out, out.pitch)
    x.library.launch(_pool_rows.end_rows, blocks, threads, *args)


def ends_backward(dout, begin, end, last, dx):  # (N, D), (N + 1,), (N,), (R, D)
    """dx = the gradient of `ends`."""
    _hand_out(dout, begin, end, None, last, dx)


def _hand_out(dout, begin, end, place, last, dx):
    if not end.size:
        dx.library.clear(dx)
    at = (begin, end, place, int(last), dx.shape[1], whole(dx, dout), end.size)
    dx.library.launch(_pool_rows.hand_out_at, *_tiles(dx, end), dout, dout.pitch, *at, dx, dx.pitch)


def _tiles(x, end):
    """Return blocks and threads: a block a tile at a time, a line of eight threads for four rows of a mean sequence."""
    n = end.size
    jobs, threads = n * -(-x.shape[1] // TILE), 128
    while threads < THREADS and threads * n < 2 * x.shape[0]:
        threads *= 2
    blocks = x.library.processors * _BLOCKS_A_PROCESSOR
    return (jobs if jobs < blocks else blocks), threads
