"""What counting co-occurrences costs in memory under a budget: each budget in a process of its own.

The ids lie in a file and are mapped; the counts go to a file of records. The figure is the peak of the process's
resident memory, less that of a bare process that imported fastnlp and Numba. Only Linux tells. Stanford's cooccur, if
it is found, gets the same budgets; its whole peak is told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastnlp
from bench import stanford, words

BUDGETS = (None, 512, 256, 128)  # MB
_BARE = "import fastnlp, numba"
_PEAK = """
import re
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
_COUNT = """
import fastnlp
corpus = fastnlp.Corpus.load({corpus!r})
fastnlp.cooccurrence(corpus, window={window}, memory={memory!r}, out={out!r})
"""
_STANFORD = """
from pathlib import Path
from bench import stanford
stanford.cooccur(Path({text!r}), Path({vocab!r}), Path({out!r}), memory={memory})
import resource
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main(corpus: Path | None = None) -> None:
    """Print a line a budget, for a file of text or for text that is made."""
    with stanford.scratch() as folder:
        text, ids, out = Path(folder, "text.txt"), Path(folder, "ids"), Path(folder, "counts.bin")
        words.write_made(text, 4_000_000) if corpus is None else words.write_given(text, corpus)
        found = fastnlp.build_corpus(text, min_count=words.MIN_COUNT)
        found.save(ids)
        vocab = Path(folder, "vocab.txt")
        found.vocab.save(vocab)
        bare = _run(_BARE + _PEAK)
        print(f"{len(found):,} tokens, {len(found.vocab):,} words; a bare process takes {bare / 1e6:.0f} MB")
        print("budget, MB   peak beyond a bare process, MB   cooccur of Stanford, MB")
        for budget in BUDGETS:
            memory = None if budget is None else f"{budget}MB"
            code = _COUNT.format(corpus=str(ids), window=words.WINDOW, memory=memory, out=str(out))
            peak = _run(code + _PEAK) - bare
            print(f"{budget or 'none':>10}   {peak / 1e6:30.0f}   {_theirs(text, vocab, out, budget):>23}")


def _run(code: str) -> int:
    """Return the bytes that a process prints, in kilobytes, after it ran `code`."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout.splitlines()[-1])


def _theirs(text: Path, vocab: Path, out: Path, budget: int | None) -> str:
    try:
        stanford.program("cooccur")
    except ImportError:
        return "absent"
    memory = 4.0 if budget is None else budget / 1000
    code = _STANFORD.format(text=str(text), vocab=str(vocab), out=str(out), memory=memory)
    return f"{_run(code) / 1e6:.0f}"
