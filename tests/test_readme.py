"""The README's examples, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def examples():
    """The Python code blocks of the README, by the heading above them."""
    text = README.read_text(encoding="utf-8")
    return dict(re.findall(r"^## ([^\n]+)\n+```python\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE))


def test_there_are_three():
    assert list(examples()) == ["With NumPy", "With torch", "With text"]


@pytest.mark.parametrize("title", ["With NumPy", "With torch", "With text"])
def test_example_runs(title, tmp_path, monkeypatch, capsys):
    if title == "With torch":
        pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    text = "the king and the queen of the land saw the king and the queen of the sea"
    lines = [text[text.index(" ", i % 30) + 1 :] for i in range(60)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    exec(compile(examples()[title], str(README), "exec"), {})
    assert capsys.readouterr().out
