"""Files that are written whole or not at all, and what the import of the library leaves alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastnlp
from fastnlp import build_vocab
from fastnlp._files import atomic_folder, atomic_write
from tests.texts import TEXT, text_file


def test_atomic_write_replaces_and_keeps_permissions_and_links(tmp_path):
    path = text_file(tmp_path)
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    with atomic_write(link) as file:
        file.write(b"new")
        assert path.read_text() == TEXT
    assert path.read_bytes() == b"new"
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "text.txt"]


@pytest.mark.parametrize("step", ["body", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = text_file(tmp_path)
    if step != "body":
        monkeypatch.setattr(os, step, full)
    failing = pytest.raises(OSError, match=r"could not be written \(No space left on device\).*text\.txt")
    with failing as raised, atomic_write(path) as file:
        file.write(b"new")
        if step == "body":
            full()
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == TEXT
    assert os.listdir(tmp_path) == ["text.txt"]


def test_other_errors_pass_through_a_failed_write(tmp_path):
    path = text_file(tmp_path)
    with pytest.raises(KeyboardInterrupt), atomic_write(path):
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match=r"'other\.txt'"), atomic_write(path):
        os.stat("other.txt")
    assert os.listdir(tmp_path) == ["text.txt"]


def test_places_that_cannot_be_written_to(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_write(tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"), atomic_write(tmp_path / "none" / "a"):
        pass
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match=r"No space left on device.*'/dev/full'"):
            build_vocab([TEXT], min_count=1).save("/dev/full")
        build_vocab([TEXT], min_count=1).save("/dev/null")
        assert not os.path.isfile("/dev/null")


def test_nothing_heavy_is_imported():
    heavy = ["numba", "scipy", "lzma", "bz2", "gzip", "tempfile", "difflib", "unicodedata"]
    # numba-cuda, where it is installed, imports some of them when Python starts
    code = f"import sys; before = {{*sys.modules}}; import fastnlp; print(*{{*{heavy}}} & {{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert fastnlp.build_vocab is build_vocab


def test_a_folder_without_a_name_is_not_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="the name of a folder is wanted"), atomic_folder(""):
        pass
    with pytest.raises(FileNotFoundError, match="the name of a folder is wanted"):
        fastnlp.cooccurrence([0, 1], vocab_size=2, out="")
    with pytest.raises(FileNotFoundError, match="the name of a folder is wanted"):
        fastnlp.build_corpus(["a b a b"], min_count=1).save("")
    assert os.listdir(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("step", [1, 2])
def test_an_interruption_between_two_names_leaves_one_folder(tmp_path, monkeypatch, step):
    rename, done = os.rename, []

    def interrupted(*names):
        rename(*names)
        done.append(names)
        if len(done) == step:
            raise KeyboardInterrupt

    with atomic_folder(tmp_path / "a") as folder:
        Path(folder, "text").write_text("old")
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a") as folder:
        Path(folder, "text").write_text("new")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a/text").read_text() == ("old" if step == 1 else "new")
