"""The files that word vectors are judged by: pairs of words with scores, and analogies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice

from fastnlp.text import reading

Path = str | os.PathLike[str]


def holds_analogies(file: Path) -> bool:
    """Tell whether a file holds analogies rather than pairs of words: sections, or lines of four words.

    Raises
    ------
    OSError, ValueError
        The file cannot be read as text.
    """
    head = [line for _, line in islice(_lines(file), 2)]  # the first line of pairs may be a heading
    return bool(head) and (head[0].startswith(":") or all(map(_is_question, head)))


def read_pairs(file: Path) -> list[tuple[str, str, float]]:
    """Return pairs of words and their scores.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        A line is malformed, or there are none. The message names the path and the line.
    """
    name = os.fspath(file)
    judged = []
    for number, line in _lines(file):
        a, b, score, *_ = [*_fields(line), "", "", ""]
        if not score:
            raise ValueError(f"{name}, line {number}: two words and a score are wanted, got {line!r:.80}")
        if _is_number(score):
            judged.append((a, b, float(score)))
        elif number > 1:
            raise ValueError(f"{name}, line {number}: a score is wanted, got {score!r:.80}")
    if not judged:
        raise ValueError(f"{name} holds no pairs of words")
    return judged


def read_questions(file: Path) -> list[tuple[str, list[list[str]]]]:
    """Return the sections of a file of analogies: their names, and the four words of their questions.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        A line is malformed, or there are none. The message names the path and the line.
    """
    name = os.fspath(file)
    sections: list[tuple[str, list[list[str]]]] = []
    for number, line in _lines(file):
        if line.startswith(":"):
            sections.append((line[1:].strip(), []))
        else:
            words = line.split()
            if len(words) != 4:
                raise ValueError(f"{name}, line {number}: four words are wanted, or `: section`, got {line!r:.80}")
            if not sections:
                sections.append(("", []))
            sections[-1][1].append(words)
    if not any(questions for _, questions in sections):
        raise ValueError(f"{name} holds no analogies")
    return sections


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not empty and no remark."""
    reading.check(file)
    with reading.open_bytes(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise ValueError(f"{os.fspath(file)}, line {number}: UTF-8 is wanted, got {line!r:.80}") from None
            if text and not text.startswith(("#", "//")):
                yield number, text


def _is_question(line: str) -> bool:
    words = line.split()
    return len(words) == 4 and "," not in line and not _is_number(words[2])


def _fields(line: str) -> list[str]:
    for divider in ("\t", ","):
        if line.count(divider) >= 2:
            return [field.strip() for field in line.split(divider)]
    return re.split("[ \t]+", line)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
