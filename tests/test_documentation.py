"""The documentation's examples, word for word: the README's run, those of docs/contributing.md stand in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def examples():
    """The Python code blocks of the README, by the heading above them."""
    text = README.read_text(encoding="utf-8")
    return dict(re.findall(r"^## ([^\n]+)\n+```python\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE))


TITLES = ["With NumPy", "With torch", "With text", "With batches"]


def test_all_are_run():
    assert list(examples()) == TITLES


@pytest.mark.parametrize("title", TITLES)
def test_example_runs(title, tmp_path, monkeypatch, capsys):
    if title == "With torch":
        pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    text = "the king and the queen of the land saw the king and the queen of the sea"
    lines = [text[text.index(" ", i % 30) + 1 :] for i in range(60)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    exec(compile(examples()[title], str(README), "exec"), {})
    assert capsys.readouterr().out


def test_the_page_on_batches_runs(capsys):
    page = ROOT / "docs" / "batches.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    exec(compile("\n".join(blocks), str(page), "exec"), {})  # each goes on where the one before stopped
    assert "lower bound" in capsys.readouterr().out


def test_the_operation_shown_to_contributors_is_the_one_in_the_code():
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    shown = [
        part.strip() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) for part in block.split("\n\n\n")
    ]
    files = [
        *ROOT.glob("kernels/*/softmax.py"),
        ROOT / "fastnlp" / "ops" / "softmax.py",
        ROOT / "fastnlp" / "__init__.pyi",
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert len(shown) == 8
    for part in shown:
        assert part in code, part
