"""``fastnlp glove``: at once and step by step, interrupted and resumed, within a budget, and what can go wrong."""

from __future__ import annotations

import lzma
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastnlp

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from tests import commands

SMALL = ("--dim", 8, "--window", 5, "--epochs", 3)
STEPS = ("vocab", "count", "train", "eval", "neighbours")


def run(*arguments, **options):
    return commands.run("glove", *arguments, **options)


def succeeds(*arguments, **options):
    return commands.succeeds("glove", *arguments, **options)


def fails(*arguments, **options):
    return commands.fails("glove", *arguments, **options)


@pytest.fixture
def vectors(text, tmp_path):
    path = tmp_path / "v.txt"
    succeeds(text, "-o", path, "--dim", 8, "--window", 5, "--epochs", 100)
    return path


def test_help_tells_the_steps_and_the_options():
    shown = succeeds("--help").stdout
    assert all(step in shown for step in STEPS)
    assert all(option in shown for option in ("--memory", "--threads", "--seed", "--resume", "--output"))
    for step in STEPS:
        assert "Usage" in succeeds(step, "--help").stdout


def test_step_by_step_gives_the_bytes_of_all_at_once(text, tmp_path):
    vocab, counts, stepwise, at_once = (tmp_path / name for name in ("vocab.txt", "counts.bin", "a.txt", "b.txt"))
    succeeds("vocab", text, "-o", vocab, "--min-count", 10, "--lower")
    assert vocab.read_text(encoding="utf-8").startswith(". 600\nthe 600\n")
    succeeds("count", text, "--vocab", vocab, "-o", counts, "--window", 5, "--lower")
    assert counts.stat().st_size % 16 == 0
    succeeds("train", counts, "--vocab", vocab, "-o", stepwise, "--dim", 8, "--epochs", 3)
    succeeds(text, "-o", at_once, *SMALL, "--min-count", 10, "--lower")
    assert stepwise.read_bytes() == at_once.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "vocab.txt", "counts.bin", "a.txt", "b.txt"}


def test_counts_in_a_folder(text, tmp_path):
    vocab, counts = tmp_path / "vocab.txt", tmp_path / "counts.csr"
    succeeds("vocab", text, "-o", vocab)
    assert "counts of 17 words" in succeeds("count", text, "--vocab", vocab, "-o", counts).stdout
    assert counts.is_dir()
    succeeds("train", counts, "--vocab", vocab, "-o", tmp_path / "v.txt", "--epochs", 1, "--dim", 2)


def test_a_budget_changes_no_byte(text, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    succeeds(text, "-o", first, *SMALL)
    succeeds(text, "-o", second, *SMALL, "--memory", "256MB")
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "first.txt", "second.txt"}


def test_only_what_was_written_for_the_budget_is_removed(text, tmp_path):
    folder = tmp_path / "v.txt.counts"
    folder.mkdir()
    (folder / "thesis").touch()
    succeeds(text, "-o", tmp_path / "v.txt", *SMALL, "--memory", "256MB")
    assert [path.name for path in folder.iterdir()] == ["thesis"]


@pytest.mark.parametrize("size", ["much", "-1", "1KB"])
def test_a_bad_budget(size, text, tmp_path):
    assert "memory" in fails(text, "-o", tmp_path / "v.txt", *SMALL, "--memory", size)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_standard_input_and_packed_files_and_wildcards(text, tmp_path):
    plain, piped, packed = tmp_path / "plain.txt", tmp_path / "piped.txt", tmp_path / "packed.txt"
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = text.read_bytes().splitlines(keepends=True)
    (folder / "a.xz").write_bytes(lzma.compress(b"".join(lines[:300])))
    (folder / "b.txt").write_bytes(b"".join(lines[300:]))
    succeeds(text, "-o", plain, *SMALL)
    succeeds("-", "-o", piped, *SMALL, input=text.read_bytes())
    succeeds(folder / "*", "-o", packed, *SMALL)
    assert plain.read_bytes() == piped.read_bytes() == packed.read_bytes()
    assert "stands alone" in fails("-", text, "-o", piped)
    assert "does not exist" in fails(folder / "*.gz", "-o", piped)


def test_words_are_excluded(text, tmp_path):
    vocab = tmp_path / "vocab.txt"
    succeeds("vocab", text, "-o", vocab, "--exclude", "The", "--exclude", ".", "--max-size", 3)
    assert [line.split()[1] for line in vocab.read_text(encoding="utf-8").splitlines()] == ["400"] * 3


def test_interrupted_and_resumed(text, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.txt", tmp_path / "broken.txt"
    checkpoint = tmp_path / "broken.txt.checkpoint"
    succeeds(text, "-o", whole, *SMALL)

    fit = fastnlp.GloVe.fit

    def interrupted(self, counts, vocab, *, progress, **options):
        def stop(done, epochs, loss):
            progress(done, epochs, loss)
            if done == 2:
                raise KeyboardInterrupt

        return fit(self, counts, vocab, progress=stop, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fastnlp.GloVe, "fit", interrupted)
        result = run(text, "-o", broken, *SMALL)
    assert result.exit_code == 130
    assert "--resume goes on from there" in result.stderr
    assert checkpoint.exists()
    assert not broken.exists()
    assert "add --resume" in fails(text, "-o", broken, *SMALL)
    succeeds(text, "-o", broken, *SMALL, "--resume")
    assert broken.read_bytes() == whole.read_bytes()
    assert not checkpoint.exists()


def test_resume_with_nothing_to_resume_starts_anew(text, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    succeeds(text, "-o", first, *SMALL)
    succeeds(text, "-o", second, *SMALL, "--resume")
    assert first.read_bytes() == second.read_bytes()


def test_counting_is_resumed_only_when_asked(text, tmp_path):
    vocab, counts = tmp_path / "vocab.txt", tmp_path / "counts.bin"
    succeeds("vocab", text, "-o", vocab)
    (tmp_path / "counts.bin.runs").mkdir()
    assert "add --resume" in fails("count", text, "--vocab", vocab, "-o", counts)
    succeeds("count", text, "--vocab", vocab, "-o", counts, "--resume")
    assert not (tmp_path / "counts.bin.runs").exists()


def test_training_from_given_vectors(text, vectors, tmp_path):
    vocab, counts, warm = tmp_path / "vocab.txt", tmp_path / "counts.bin", tmp_path / "warm.txt"
    succeeds("vocab", text, "-o", vocab)
    succeeds("count", text, "--vocab", vocab, "-o", counts, "--window", 5)
    train = ("train", counts, "--vocab", vocab, "-o", warm, "--dim", 8, "--epochs", 1)
    given = fastnlp.KeyedVectors.load(vectors)
    off = []
    for options in ((), ("--initial", vectors), ("--initial", vectors, "--pull", 100)):
        succeeds(*train, *options)
        off.append(np.abs(fastnlp.KeyedVectors.load(warm).vectors - given.vectors).mean())
    assert off[2] < off[1] / 2 < off[0] / 2
    assert "--initial" in fails(*train, "--pull", 1)


def test_report(text, tmp_path):
    page = tmp_path / "report.html"
    succeeds(text, "-o", tmp_path / "v.txt", *SMALL, "--report", page)
    shown = page.read_text(encoding="utf-8")
    assert all(word in shown for word in ("fastnlp glove", "tiger", "co-occurrences", "last loss", "--report"))
    assert "What the vectors know" not in shown
    assert "folder" in fails(text, "-o", tmp_path / "v.txt", *SMALL, "--report", tmp_path / "nowhere" / "r.html")


def test_eval_of_pairs_and_analogies(vectors, tmp_path):
    pairs, analogies = tmp_path / "pairs.txt", tmp_path / "analogies.txt"
    pairs.write_text("lion tiger 9\ntrain rail 8\nlion bread 2\nmilk station 1\ndog cat 5\n", encoding="utf-8")
    analogies.write_text(
        ": animals\nlion tiger cat paw\nlion tiger dog paw\n: gram1\nmilk oven bread cheese\n", "utf-8"
    )
    shown = succeeds("eval", vectors, pairs, analogies).stdout
    assert "4 of 5" in shown
    assert "1 of 2" in shown
    assert "2 of 3" in shown
    similarity = fastnlp.text.evaluate_similarity(fastnlp.KeyedVectors.load(vectors), pairs)
    assert f"{100 * similarity.spearman:.1f}" in shown
    assert "3CosMul" in succeeds("eval", vectors, analogies, "--method", "3CosMul").stdout
    analogies.write_text(": animals\nlion tiger cat\n", encoding="utf-8")
    assert "line 2" in fails("eval", vectors, analogies)


def test_neighbours(vectors):
    shown = succeeds("neighbours", vectors, "lion", "milk", "--topn", 4).stdout
    lion, milk = shown.split("milk\n", 1)
    assert set(lion.split()[1::2]) >= {"tiger", "cat", "paw", "fur"}
    assert len(milk.split()) == 8
    assert "lion + milk - bread" in succeeds("neighbours", vectors, "lion", "milk", "--negative", "bread").stdout
    assert "'tiger'" in fails("neighbours", vectors, "tigre")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("count", "TEXT", "-o", "c.bin"), "--vocab"),
        (("count", "TEXT", "--vocab", "TEXT", "-o", "c.bin"), "line 1"),
        (("train", "TEXT", "--vocab", "TEXT", "-o", "v.txt"), "line 1"),
        (("train", "c.bin", "--vocab", "TEXT", "-o", "v.txt"), "c.bin"),
        (("train", "TEXT", "--vocab", "TEXT", "-o", "TEXT"), "would be overwritten"),
        (("eval", "TEXT", "TEXT"), "line 1"),
        (("neighbours", "TEXT", "lion"), "line 1"),
        (("vocab", "TEXT", "-o", "vocab.txt", "--min-count", "100000"), "min_count"),
        (("TEXT", "-o", "v.txt", "--window", "0"), "--window"),
    ],
)
def test_bad_arguments_are_one_line(arguments, says, text, monkeypatch):
    monkeypatch.chdir(text.parent)
    before = text.read_bytes()
    assert says in fails(*(str(text) if argument == "TEXT" else argument for argument in arguments))
    assert text.read_bytes() == before
    assert [path.name for path in text.parent.iterdir()] == ["text.txt"]


def test_a_bad_setting_is_told_before_the_text_is_read(text, tmp_path):
    result = run(text, "-o", tmp_path / "v.txt", "--lr", "nan")
    assert result.stderr.strip() == "fastnlp: lr must be a positive finite number, got nan"


@pytest.mark.skipif(os.name != "posix", reason="cannot fork: no signals of POSIX here")
def test_ctrl_c_keeps_what_was_trained(text, tmp_path):
    output = tmp_path / "v.txt"
    arguments = [sys.executable, "-m", "fastnlp", "glove", str(text), "-o", str(output), "--dim", "8"]
    process = subprocess.Popen([*arguments, "--epochs", "1000000"], stderr=subprocess.PIPE, text=True)
    while "counting" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(2)  # kernels are loaded, or compiled
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "--resume goes on from there" in said
    assert not output.exists()
    done = len(fastnlp.GloVe.load(f"{output}.checkpoint").loss_)
    assert done >= 1
    resumed, unbroken = tmp_path / "resumed.txt", tmp_path / "unbroken.txt"
    os.rename(f"{output}.checkpoint", f"{resumed}.checkpoint")
    for path in (resumed, unbroken):
        succeeds(text, "-o", path, "--dim", 8, "--epochs", done + 2, *(["--resume"] if path == resumed else []))
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_vectors_that_cannot_be_saved_are_kept_in_the_checkpoint(text, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole.txt", tmp_path / "v.txt"
    succeeds(text, "-o", whole, *SMALL)

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(output))

    with monkeypatch.context() as patch:
        patch.setattr(fastnlp.GloVe, "save", full)
        assert "No space left" in fails(text, "-o", output, *SMALL)
    assert not output.exists()
    succeeds(text, "-o", output, *SMALL, "--resume")
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "v.txt.checkpoint").exists()


def test_what_is_read_is_not_overwritten(text, tmp_path):
    vocab, counts, vectors = tmp_path / "vocab.bin", tmp_path / "counts.bin", tmp_path / "v.txt"
    succeeds("vocab", text, "-o", vocab)
    succeeds("count", text, "--vocab", vocab, "-o", counts)
    train = ("train", counts, "--vocab", vocab, "-o", vectors, "--dim", 2, "--epochs", 1)
    succeeds(*train)
    assert "would be overwritten" in fails("count", text, "--vocab", vocab, "-o", vocab)
    assert "would be overwritten" in fails(*train, "--initial", vectors)
    assert "--report" in fails(text, "-o", vectors, "--report", vectors)


def test_a_folder_of_counts_may_be_counted_anew_but_nothing_else_is_replaced(text, tmp_path):
    vocab, counts, other = tmp_path / "vocab.txt", tmp_path / "counts", tmp_path / "other"
    succeeds("vocab", text, "-o", vocab)
    for _ in range(2):
        succeeds("count", text, "--vocab", vocab, "-o", counts)
    other.mkdir()
    (other / "thesis").touch()
    assert "holds no counts" in fails("count", text, "--vocab", vocab, "-o", other)
    result = run("count", text, "--vocab", vocab, "-o", tmp_path / "counts.txt")
    assert "must end in .bin" in result.stderr
    assert "reading" not in result.stderr  # before any work
    assert (other / "thesis").exists()


def test_nothing_covered_is_a_dash(vectors, tmp_path):
    pairs, analogies = tmp_path / "pairs.txt", tmp_path / "analogies.txt"
    pairs.write_text("king queen 9\nman woman 8\n", encoding="utf-8")
    analogies.write_text(": family\nking queen man woman\n", encoding="utf-8")
    shown = succeeds("eval", vectors, pairs, analogies).stdout
    assert "nan" not in shown
    assert "0 of 2" in shown


def test_defaults_are_those_of_the_library(text, tmp_path, monkeypatch):
    seen = []
    fit = fastnlp.GloVe.fit
    monkeypatch.setattr(fastnlp.GloVe, "fit", lambda self, *a, **k: (seen.append(self), fit(self, *a, **k))[1])
    succeeds(text, "-o", tmp_path / "v.txt", *SMALL)
    default = fastnlp.GloVe()
    assert all(getattr(seen[0], name) == getattr(default, name) for name in ("alpha", "lr", "bias_lr", "seed"))
