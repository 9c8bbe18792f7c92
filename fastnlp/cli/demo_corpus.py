"""Text for the demo: the documentation that every machine with this library has, or the user's own lines.

The documentation is that of Python (the language reference and the docstrings of the standard library), NumPy and
SciPy. It is read from the sources and parsed, never imported: no code runs.

A passage is a sentence of a docstring, or a line of a user's file. It has a part (the area, file or titled piece that
it comes from, which the demo's classifier must tell) and a document (the module, topic or block of lines that it stands
in, by which passages are held out).
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastnlp.cli.titles import pieces

if TYPE_CHECKING:
    from fastnlp.text.sources import Progress

LANGUAGE_REFERENCE = "language reference"
PARTS = 8  # that one file of a user's is cut into where it has no titles
TITLED_PARTS = 16  # at most, where it has: the longest pieces
SHORTEST_PIECE = 20  # lines that a titled piece needs in order to be a part
FEWEST_PIECES = 4  # of them
BLOCKS = 25  # of lines, in a part of a user's text: its documents
SHORTEST_BLOCK = 4  # lines, in a titled piece
SMALLEST_PART = 400  # passages and
FEWEST_DOCUMENTS = 4  # documents that an area of the documentation needs in order to be a class


class Passages(NamedTuple):
    """Passages of text, each with its part and its document; an empty part is text for the vectors alone."""

    text: list[str]
    part: list[str]
    document: list[str]
    note: str = ""  # what the parts and documents are, a sentence


def documentation(packages: Mapping[str, Path] | None = None, progress: Progress | None = None) -> Passages:
    """Return the sentences of the documentation on this machine, each different sentence once.

    Parameters
    ----------
    packages
        Folders of packages by name, "" being the standard library; default: those of this Python.
    progress
        Called after each file.

    Returns
    -------
    Passages
        The part is the package or subpackage, such as "asyncio" or "scipy.stats", or empty where that is too small to
        be a class. The document is the module or the topic.

    Raises
    ------
    ValueError
        There is no documentation on this machine.
    """
    files = list(source_files(package_folders() if packages is None else packages))
    passages = Passages([], [], [])
    seen: set[str] = set()
    for done, (names, path) in enumerate(files, 1):
        area = area_of(names)
        for document, text in texts_of(names, path):
            new = [sentence for sentence in sentences(text) if sentence not in seen]
            seen.update(new)
            passages.text.extend(dict.fromkeys(new))
            missing = len(passages.text) - len(passages.part)
            passages.part.extend([area] * missing)
            passages.document.extend([document] * missing)
        if progress is not None:
            progress(done, len(files))
    if not passages.text:
        raise ValueError("this Python has no documentation to read (its sources are not installed): pass --corpus FILE")
    return _without_small_parts(passages)._replace(
        note="The parts are packages and subpackages, and the language reference; the documents are modules and topics."
    )


def package_folders() -> dict[str, Path]:
    """Find the folders of the standard library (under the name ""), NumPy and SciPy, without importing them."""
    folders = {"": Path(sysconfig.get_path("stdlib"))}
    for name in ("numpy", "scipy"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folders[name] = Path(spec.origin).parent
    return folders


_SKIPPED = re.compile(r"_?tests?|_?test_.*|conftest.*|idlelib|lib2to3|site-packages|dist-packages|__pycache__")


def source_files(packages: Mapping[str, Path]) -> Iterator[tuple[tuple[str, ...], Path]]:
    """List the names and paths of packages' modules in a fixed order, without tests and packages of third parties."""
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            names = path.relative_to(folder).with_suffix("").parts
            if not any(_SKIPPED.fullmatch(name) for name in names):
                yield ((package, *names) if package else names), path


def area_of(names: Sequence[str]) -> str:
    """Name the area of a module: its package, below NumPy and SciPy its subpackage."""
    if names[0] == "pydoc_data":
        return LANGUAGE_REFERENCE
    if names[0] in ("numpy", "scipy"):
        return ".".join(names[:2]) if len(names) > 2 else names[0]
    return names[0]


def texts_of(names: Sequence[str], path: Path) -> Iterator[tuple[str, str]]:
    """Yield (document, text) for each docstring of a module, or for each topic of the language reference.

    A file that cannot be read or parsed gives nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's sources
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    if names[0] == "pydoc_data":
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                        yield f"{LANGUAGE_REFERENCE}: {key.value!r}", str(value.value)
    else:
        for docstring in _docstrings(tree):
            yield ".".join(names).removesuffix(".__init__"), docstring


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child)


_ROLE = re.compile(r":[a-zA-Z:]+:(?=`)")
_MARKUP = re.compile(r"[`*|]+|\[\d+\]_?|(?<=\w)_(?=\s)")
_BETWEEN = re.compile(r"(?<=[.!?:])\s+(?=[^a-z\s])")
_WORD = re.compile(r"[^\W\d_]{2,}")


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a docstring: without examples, formulas, directives, headings and markup."""
    for paragraph in _paragraphs(text):
        for sentence in _BETWEEN.split(_MARKUP.sub("", _ROLE.sub("", paragraph))):
            words = _WORD.findall(sentence)
            # At least four words, and mostly words: no tables, signatures or formulas.
            if len(words) >= 4 and sum(map(len, words)) >= 0.6 * len(sentence) and "\\" not in sentence:
                yield sentence


def _paragraphs(text: str) -> Iterator[str]:
    """Join lines of equal indentation; a blank line, a heading's underline or another indentation ends a paragraph."""
    lines: list[str] = []
    indentation = 0
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        underline = bool(stripped) and not any(character.isalnum() for character in stripped)
        # An example's output stands below it, indented alike, up to a blank line.
        if not stripped or underline or (lines and indent != indentation and not lines[0].startswith(">>>")):
            if lines and not underline and not lines[0].startswith((">>>", "..")):
                yield " ".join(lines)
            lines = []
        if stripped and not underline:
            lines.append(stripped)
            indentation = indent


def _without_small_parts(passages: Passages) -> Passages:
    size = Counter(passages.part)
    documents = Counter(part for part, _ in set(zip(passages.part, passages.document, strict=True)))
    large = {part for part in size if size[part] >= SMALLEST_PART and documents[part] >= FEWEST_DOCUMENTS}
    return passages._replace(part=[part if part in large else "" for part in passages.part])


def user_text(paths: Sequence[str], progress: Progress | None = None) -> Passages:
    """Return the lines of a user's files, lower-cased, without empty ones; long ones are cut.

    The part of a line is its file. In one file with titles the longest pieces that they head are parts, and the rest is
    for the vectors alone; without titles the parts are eighths. The document is a block of consecutive lines.

    Raises
    ------
    OSError, ValueError
        A file cannot be read, is empty, is not text or holds only white space.
    """
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(paths) == 1:
        return _one_file(names[0], _lines(paths[0], progress))
    passages = Passages([], [], [], "The parts are the files, the documents blocks of their lines.")
    for path, name in zip(paths, names, strict=True):
        lines = _lines(path, progress)
        passages.text.extend(map(str.lower, lines))
        passages.part.extend([name] * len(lines))
        passages.document.extend(_blocks(name, len(lines), BLOCKS))
    return passages


def _one_file(name: str, lines: Sequence[str]) -> Passages:
    text = [line.lower() for line in lines]
    found = pieces(lines, shortest=SHORTEST_PIECE, fewest=FEWEST_PIECES)
    if not found:
        part = [f"part {i * PARTS // len(lines) + 1}" for i in range(len(lines))]
        note = "The text has no titles to go by: its parts are eighths, the documents blocks of their lines."
        return Passages(text, part, _blocks(name, len(lines), PARTS * BLOCKS), note)

    longest = sorted((piece for piece in found if piece.size >= SHORTEST_PIECE), key=lambda piece: -piece.size)
    chosen = set(longest[:TITLED_PARTS])
    part, document = [""] * len(lines), [name] * len(lines)
    for piece in found:
        inside = slice(piece.begin, piece.end)
        blocks = min(BLOCKS, piece.size // SHORTEST_BLOCK) if piece in chosen else 1
        part[inside] = [piece.title if piece in chosen else ""] * piece.size
        document[inside] = _blocks(piece.title, piece.size, blocks)
    longest_of = f"the {len(chosen)} longest of {len(found)} titled pieces"
    return Passages(text, part, document, f"The parts are {longest_of}, the documents blocks of their lines.")


def _blocks(name: str, lines: int, blocks: int) -> list[str]:
    """Name the block of each line."""
    return [f"{name}: block {i * blocks // lines + 1}" for i in range(lines)]


_CUT = re.compile(r".{1,1000}(?=\s|$)|.{1,1000}")


def _lines(path: str, progress: Progress | None) -> list[str]:
    from fastnlp.text.sources import Source

    source = Source(path)
    lines: list[str] = []
    for batch in source.batches(progress):
        for line in batch.lines:
            lines.extend(piece for cut in _CUT.findall(line) if (piece := cut.strip()))
    source.warn()
    if not lines:
        raise ValueError(f"{path} holds only white space: give a file that holds text")
    return lines


def tokenizer_of(text: Sequence[str]) -> str:
    """Name the tokenizer for a user's text by its beginning.

    "characters" for Chinese or Japanese without spaces, "whitespace" where punctuation already stands apart from words,
    else "words".
    """
    from fastnlp.text.tokenizers import suggest

    sample = "\n".join(text[:1000])[: 1 << 16]
    if suggest(sample) == "characters":
        return "characters"
    apart = len(re.findall(r"\s[^\w\s](?=\s|$)", sample))
    attached = len(re.findall(r"\w[^\w\s](?=\s|$)", sample))
    return "whitespace" if apart > attached else "words"
