"""Checkpoints of `GloVe`: broken off anywhere and resumed, the bits are those of an unbroken run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops import _glove_checkpoint, _glove_grid, glove

NAMES = ("word_vectors", "context_vectors", "word_bias", "context_bias")
WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_glove_grid, "_BLOCK", 7)
    monkeypatch.setattr(_glove_grid, "_VISIT", 3)


@pytest.fixture
def counts(rng):
    return sparse.csr_array(rng.exponential(size=(50, 50)) * (rng.random((50, 50)) < 0.5))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "glove.checkpoint"


def model(epochs=6, **options):
    return fastnlp.GloVe(5, x_max=2, epochs=epochs, **options)


def assert_same(a, b):
    assert a.loss_ == b.loss_
    for name in NAMES:
        assert_array_equal(getattr(a, name), getattr(b, name))


class StopError(Exception):
    """Breaks training off."""


def stop_after(epochs):
    def progress(done, _, __):
        if done == epochs:
            raise StopError

    return progress


@pytest.mark.parametrize("options", [{}, {"shuffle": "epoch"}, {"bias_lr": None, "grad_clip": None}])
@pytest.mark.parametrize("pulled", [False, True])
def test_resumed_is_unbroken(options, pulled, counts, file, backend, rng):
    start = {}
    if pulled:
        vectors = fastnlp.KeyedVectors(WORDS[:20], rng.standard_normal((20, 5)))
        start = {"initial": vectors, "pull": 0.5, "frozen": WORDS[10:20]}
    whole = model(**options).fit(counts, WORDS, backend=backend, **start)
    broken = model(**options)
    with pytest.raises(StopError):
        broken.fit(counts, WORDS, checkpoint=file, progress=stop_after(4), backend=backend, **start)
    seen = []
    resumed = model(**options).fit(
        counts, WORDS, checkpoint=file, resume=True, progress=lambda *at: seen.append(at[0]), backend=backend, **start
    )
    assert seen == [5, 6]
    assert_same(resumed, whole)


@pytest.mark.parametrize("visits", [0, 1, 5, 23])
def test_resumed_within_an_epoch_is_unbroken(visits, counts, file, backend, monkeypatch):
    """Checkpoints by time, after every visit; broken off in the midst of the third epoch."""
    whole = model().fit(counts, backend=backend)
    kernels = implementation("glove", backend)
    in_epoch = len(_glove_grid.Grid.deal(counts, np.random.default_rng(0)).order(np.random.default_rng(0)))
    assert in_epoch > 23
    train, calls = kernels.train, 0

    def break_off(*arguments):
        nonlocal calls
        calls += 1
        if calls > 2 * in_epoch + visits:
            arguments[5][...] = 7  # half done
            raise KeyboardInterrupt
        train(*arguments)

    monkeypatch.setattr(kernels, "train", break_off)
    broken = model()
    with pytest.raises(KeyboardInterrupt):
        broken.fit(counts, checkpoint=file, checkpoint_seconds=1e-9, backend=backend)
    monkeypatch.setattr(kernels, "train", train)
    assert broken.loss_ == whole.loss_[:2]
    assert_same(broken, model(2).fit(counts, backend=backend))
    saved = _glove_checkpoint.Saved.read(file)
    assert (len(saved.losses), saved.position.visits) == (2, visits)
    assert_same(model().fit(counts, resume=file, backend=backend), whole)


def test_more_epochs(counts, file, backend):
    model(2).fit(counts, WORDS, checkpoint=file, backend=backend)
    assert_same(model(6).fit(counts, WORDS, resume=file, backend=backend), model(6).fit(counts, WORDS, backend=backend))
    same = model(2).fit(counts, WORDS, resume=file, backend=backend)
    assert len(same.loss_) == 2
    with pytest.raises(ValueError, match="has 2 epochs: epochs must not be fewer"):
        model(1).fit(counts, WORDS, resume=file, backend=backend)


def test_when_checkpoints_are_written(counts, file, backend, monkeypatch):
    written = []
    write = _glove_checkpoint.Saved.write
    monkeypatch.setattr(
        _glove_checkpoint.Saved, "write", lambda saved, path: (written.append(len(saved.losses)), write(saved, path))
    )

    def of(**options):
        written.clear()
        model(7).fit(counts, checkpoint=file, backend=backend, **options)
        return list(written)

    assert of() == [1, 2, 3, 4, 5, 6, 7]
    assert of(checkpoint_every=3) == [3, 6, 7]
    assert of(checkpoint_seconds=1000) == [7]
    assert of(checkpoint_every=5, checkpoint_seconds=1000) == [5, 7]
    monkeypatch.setattr(_glove_checkpoint.time, "monotonic", iter(range(10**6)).__next__)
    assert len(of(checkpoint_seconds=10)) > 10


def test_without_a_file_resume_begins(counts, file, backend):
    assert_same(
        model(2).fit(counts, checkpoint=file, resume=True, backend=backend), model(2).fit(counts, backend=backend)
    )
    with pytest.raises(FileNotFoundError):
        model(2).fit(counts, resume=file.with_name("none"), backend=backend)


def test_load(counts, file, backend):
    fitted = model(2, seed=5, bias_lr=0.2).fit(counts, WORDS, checkpoint=file, backend=backend)
    loaded = fastnlp.GloVe.load(file)
    assert_same(loaded, fitted)
    assert repr(loaded) == repr(fitted)
    assert loaded.words == WORDS
    assert_array_equal(loaded.vectors["w3"], fitted.vectors["w3"])
    model(1).fit(counts, WORDS[::-1], initial=loaded, backend=backend)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.1}, "was trained with lr=0.05, this model has 0.1"),
        ({"seed": 1}, "was trained with seed=0, this model has 1"),
        ({"bias_lr": None}, "was trained with bias_lr=1.0, this model has None"),
        ({"shuffle": "epoch"}, "was trained with shuffle=once"),
    ],
)
def test_of_other_settings(change, message, counts, file):
    model(1).fit(counts, checkpoint=file, backend="reference")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        model(2, **change).fit(counts, checkpoint=file, resume=True, backend="reference")
    assert file.read_bytes() == before


def test_of_other_counts_or_another_start(counts, file):
    model(1).fit(counts, WORDS, checkpoint=file, backend="reference")
    other = counts.copy()
    other.data[7] *= 1.0000001
    start = {"initial": {"w1": [0.0] * 5}}
    for given, options in ((other, {}), (counts[:40, :40], {}), (counts, start), (counts, {"frozen": ["w1"]})):
        with pytest.raises(ValueError, match="was trained on other counts, or with another initial, pull or frozen"):
            model(2).fit(given, WORDS[: given.shape[0]], resume=file, backend="reference", **options)


def test_damaged(counts, file, tmp_path):
    fitted = model(1).fit(counts, checkpoint=file, backend="reference")
    whole = file.read_bytes()
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    bad = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    bad += [(tmp_path / name).read_bytes() for name in ("array.npy", "other.npz")]
    bad += [b"what is this", whole.replace(fitted.word_vectors[:1].tobytes(), bytes(20))]
    assert whole not in bad
    for contents in bad:
        file.write_bytes(contents)
        with pytest.raises(ValueError, match=r"glove\.checkpoint is no whole GloVe checkpoint"):
            model(2).fit(counts, resume=file, backend="reference")
        with pytest.raises(ValueError, match="is no whole GloVe checkpoint"):
            fastnlp.GloVe.load(file)


@pytest.mark.parametrize(
    "change",
    [
        {"header": "text"},
        {"header": None},
        {"header": [1]},
        {"settings": 5},
        {"losses": 5},
        {"position": 5},
        {"word_bias": np.ones(49, np.float32)},
        {"context_vectors": np.ones((50, 5))},
        {"word_vectors_squares": np.ones(50, np.float32)},
    ],
)
def test_a_whole_archive_of_something_else(change, counts, file):
    model(1).fit(counts, checkpoint=file, backend="reference")
    arrays = dict(np.load(file))
    header = json.loads(arrays["header"].tobytes())
    header = change["header"] if "header" in change else {**header, **{k: v for k, v in change.items() if k in header}}
    arrays |= {name: array for name, array in change.items() if name in arrays}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(file, "wb") as opened:
        np.savez(opened, **arrays)
    with pytest.raises(ValueError, match=r"glove\.checkpoint is no whole GloVe checkpoint"):
        model(2).fit(counts, resume=file, backend="reference")


def test_a_flipped_byte_is_found_or_without_effect(counts, file):
    fitted = model(1).fit(counts, checkpoint=file, backend="reference")
    whole = file.read_bytes()
    found = 0
    for at in range(5, len(whole), 97):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        file.write_bytes(flipped)
        try:
            loaded = fastnlp.GloVe.load(file)
        except ValueError:
            found += 1
        else:
            assert_same(loaded, fitted)  # the date of the file, for example
    assert found > 50


def test_bad_options(counts, file, tmp_path):
    for options, error, message in (
        ({"checkpoint_every": 2}, ValueError, "checkpoint_every and checkpoint_seconds need checkpoint"),
        ({"checkpoint": file, "checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"checkpoint": file, "checkpoint_seconds": -1}, ValueError, "checkpoint_seconds must be a positive"),
        ({"resume": True}, ValueError, "resume=True goes on from the file checkpoint"),
        ({"checkpoint": tmp_path / "no" / "file"}, FileNotFoundError, "does not exist"),
        ({"checkpoint": tmp_path}, IsADirectoryError, "is a folder"),
        ({"checkpoint": 5}, TypeError, "PathLike"),
        ({"resume": 5}, TypeError, "PathLike"),
        ({"progress": True}, TypeError, "progress must be a function"),
    ):
        bad = model(1)
        with pytest.raises(error, match=message):
            bad.fit(counts, backend="reference", **options)
        assert not hasattr(bad, "loss_")  # before any work
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_last_checkpoint(counts, file, monkeypatch):
    whole = model().fit(counts, backend="reference")
    replace, done = os.replace, 0

    def full(*arguments):
        nonlocal done
        done += 1
        if done == 3:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        model().fit(counts, checkpoint=file, backend="reference")
    assert list(file.parent.iterdir()) == [file]
    assert len(fastnlp.GloVe.load(file).loss_) == 2
    assert_same(model().fit(counts, resume=file, backend="reference"), whole)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed(counts, file):
    """A process that is killed while it trains and writes checkpoints all the time leaves a good one."""
    sparse.save_npz(file.parent / "counts.npz", counts)
    code = f"""
        import fastnlp
        from fastnlp.ops import _glove_grid
        from scipy import sparse
        _glove_grid._BLOCK, _glove_grid._VISIT = 7, 3
        fastnlp.GloVe(5, x_max=2, epochs=100000).fit(
            sparse.load_npz({str(file.parent / "counts.npz")!r}), checkpoint={str(file)!r}, checkpoint_seconds=1e-9,
            backend="reference",
        )
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = len(fastnlp.GloVe.load(file).loss_)
    assert_same(
        model(done + 1).fit(counts, resume=file, backend="reference"), model(done + 1).fit(counts, backend="reference")
    )


def test_reports_within_an_epoch_and_breaking_off_there(counts, file, monkeypatch):
    monkeypatch.setattr(glove, "_TELL", 0.0)
    seen = []

    def progress(done, epochs, loss):
        seen.append(done)
        assert epochs == 6
        assert 0 < loss < np.inf
        if 2 < done < 3:
            raise StopError

    whole = model().fit(counts)
    with pytest.raises(StopError):
        model().fit(counts, checkpoint=file, checkpoint_every=100, progress=progress)
    assert seen == sorted(set(seen))
    assert {1, 2} < set(seen)
    assert any(0 < done < 1 for done in seen)
    assert len(fastnlp.GloVe.load(file).loss_) == 2
    assert_same(model().fit(counts, checkpoint=file, resume=True), whole)


def test_other_words_are_refused(counts, file):
    model(epochs=2).fit(counts, WORDS, checkpoint=file)
    with pytest.raises(ValueError, match="another vocab"):
        model().fit(counts, WORDS[::-1], checkpoint=file, resume=True)
    model().fit(counts, checkpoint=file, resume=True)
