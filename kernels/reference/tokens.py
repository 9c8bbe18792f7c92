"""Words between white space, numbered in the order in which they first occur, and the numbers changed for others.

    text = "b a\\na c\\n"    ids = 0 1 1 2    words = b a c    counts = 1 2 1    ends = 2 4

White space is that of `str.split`: ASCII 9 to 13 and 28 to 32, and U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028,
U+2029, U+202F, U+205F, U+3000.

Schedule: a dictionary of the words so far, made anew for each piece of text.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, islice, repeat

import numpy as np

DONE, FULL, NOT_UTF8 = 0, 1, 2


def number(text, slots, arena, starts, counts, ids, ends, state, grow):
    # (N,), (S, 2), (A,), (W + 1,), (W,), (T,), (L,), (5,), bool
    """Number the words of `text`, UTF-8 that ends with eight spaces.

    `state` holds where to begin in `text`, and how many words, ids and ends there are; here they are raised. Its last
    is DONE, or what stopped before the place that is in the first: FULL, no room for another word in `counts` and
    `starts`, or NOT_UTF8. A call with the same arguments, room made or the text mended, goes on from there.

    Word w is ``arena[starts[w]:starts[w + 1]]``, a space at its end; `arena` must have room for all of `text`. `slots`
    belongs to the kernel. `ids` get the word of each occurrence, `ends` how many ids there are at each line feed.
    Without `grow` no words are added, nothing is counted, and the id of another word is their number.
    """
    begin, n_words, n_ids, n_ends, _ = state.tolist()
    state[4] = DONE
    try:
        lines = text[begin:].tobytes().decode().split("\n")
    except UnicodeDecodeError:
        state[4] = NOT_UTF8
        return
    tokens = [line.split() for line in lines]
    words = chain.from_iterable(tokens)
    index = defaultdict(int, zip(arena[: starts[n_words]].tobytes().decode().split(), range(n_words), strict=True))
    if grow:
        index.default_factory = index.__len__  # a new word gets the next number
        found = np.fromiter(map(index.__getitem__, words), np.int32)
        if len(index) > counts.size:
            state[4] = FULL
            return
        new = [word.encode() + b" " for word in islice(index, n_words, None)]
        text_of_new = np.frombuffer(b"".join(new), np.uint8)
        place, size = starts[n_words], len(index)
        arena[place : place + text_of_new.size] = text_of_new
        starts[n_words + 1 : size + 1] = place + np.cumsum([len(word) for word in new], dtype=np.int64)
        counts[n_words:size] = 0
        counts[:size] += np.bincount(found, minlength=size)
    else:
        found, size = np.fromiter(map(index.get, words, repeat(n_words)), np.int32), n_words
    ids[n_ids : n_ids + found.size] = found
    ends[n_ends : n_ends + len(lines) - 1] = n_ids + np.cumsum([len(line) for line in tokens[:-1]], dtype=np.int64)
    state[:4] = text.size - 8, size, n_ids + found.size, n_ends + len(lines) - 1


def renumber(ids, ends, numbers, gaps, sizes):  # (T,), (L,), (W,), bool, (2,)
    """Put ``numbers[id]`` in the place of each of `ids`, and without `gaps` close up where that is negative.

    `ends` are moved along. `sizes` get how many ids are left, at the front of `ids`, and how many are not negative.
    """
    new = numbers[ids]
    keep = np.ones(new.size, bool) if gaps else new >= 0
    before = np.concatenate(([0], np.cumsum(keep)))  # (T + 1,): how many stay before each
    ends[:] = before[ends]
    sizes[:] = before[-1], np.count_nonzero(new >= 0)
    ids[: sizes[0]] = new[keep]
