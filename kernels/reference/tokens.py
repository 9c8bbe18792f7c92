"""Words between white space, numbered in the order in which they first occur, and the numbers changed for others.

    text = "b a\\na c\\n"    ids = 0 1 1 2    words = b a c    counts = 1 2 1    ends = 2 4

White space is that of `str.split`: ASCII 9 to 13 and 28 to 32, and U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028,
U+2029, U+202F, U+205F, U+3000.

Schedule: a dictionary of the words so far, made anew for each piece of text.
"""

from __future__ import annotations

from itertools import chain

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
    known = arena[: starts[n_words]].tobytes().decode().split()
    index = {word: i for i, word in enumerate(known)}
    tokens = [line.split() for line in lines]
    if grow:
        new = [word for word in dict.fromkeys(chain.from_iterable(tokens)) if word not in index]
        if n_words + len(new) > counts.size:
            state[4] = FULL
            return
        encoded = [word.encode() + b" " for word in new]
        place = starts[n_words]
        added = np.frombuffer(b"".join(encoded), np.uint8)
        arena[place : place + added.size] = added
        starts[n_words + 1 : n_words + 1 + len(new)] = place + np.cumsum(
            [len(word) for word in encoded], dtype=np.int64
        )
        counts[n_words : n_words + len(new)] = 0
        index.update(zip(new, range(n_words, n_words + len(new)), strict=True))
    found = [index.get(word, n_words) for word in chain.from_iterable(tokens)]
    ids[n_ids : n_ids + len(found)] = found
    ends[n_ends : n_ends + len(lines) - 1] = n_ids + np.cumsum([len(line) for line in tokens[:-1]], dtype=np.int64)
    if grow:
        n_words = len(index)
        counts[:n_words] += np.bincount(np.array(found, np.int64), minlength=n_words)
    state[:4] = text.size - 8, n_words, n_ids + len(found), n_ends + len(lines) - 1


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
