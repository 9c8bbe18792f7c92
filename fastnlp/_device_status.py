"""What kernels leave word of: a target that is no class, found on the device, told without waiting for it.

A kernel cannot raise. It makes the loss of the row NaN and writes the row and its target to memory of the host; the
next call on that device, or `checked_now`, raises. With the environment variable ``FASTNLP_CHECK=1`` every call waits
for the device and raises at once.
"""

from __future__ import annotations

import os

from fastnlp._device import DeviceArray, Library, Pinned

_words: dict[Library, Pinned] = {}


def word(library: Library) -> Pinned | None:
    """Return where kernels on a device write: a wrong row + 1, its target, how many rows count + 1 (see `count_rows`).

    None in a first call that a graph captures: no time to allocate.
    """
    found = _words.get(library)
    if found is None and not library.capturing():
        found = _words.setdefault(library, library.pinned(3))
    return found


def raise_pending(library: Library) -> None:
    """Raise what an earlier call on this device left word of; once.

    Raises
    ------
    ValueError
        A target was no class, or `num_valid` was not the number of rows that count.
    """
    found = _words.get(library)
    if found is None:
        return
    row, target, counted = found.host.tolist()
    if not row and not counted:
        return
    found.host[:] = 0
    if row:
        raise ValueError(
            f"target holds {target} at row {row - 1}, which is neither a class nor ignore_index (seen on {library}, in "
            "this call or one before it; FASTNLP_CHECK=1 makes each call wait and tell): check the labels"
        )
    raise ValueError(
        f"num_valid is not the number of rows that count, which is {counted - 1} (seen on {library}, in this call or "
        "one before it): the loss of that call is NaN"
    )


def checked_now(library: Library) -> None:
    """Wait and raise, if ``FASTNLP_CHECK`` asks for it."""
    if os.environ.get("FASTNLP_CHECK", "0") not in ("", "0") and not library.capturing():
        library.synchronize()
        raise_pending(library)


def count(library: Library, tally: DeviceArray) -> int:
    """Return how many rows count: the host waits for the device.

    Raises
    ------
    RuntimeError
        The stream is being captured, and nothing may wait.
    """
    if library.capturing():
        raise RuntimeError(
            "compact=True reads from the GPU how many rows count, which a CUDA graph cannot capture: "
            "give num_valid=, or leave compact out"
        )
    return int(library.read(tally)[0])
