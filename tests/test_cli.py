"""The command: what it writes, prints and returns, and one line for each thing that can go wrong."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnlp

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from fastnlp.cli import demo_corpus
from tests.commands import fails, run

SMALL = ("--dim", 8, "--window", 5, "--epochs", 3)


def test_info():
    result = run("info")
    assert result.exit_code == 0
    for word in ("numpy", np.__version__, "reference", "NumPy arrays go to", "threads", "compiled kernels"):
        assert word in result.stdout


def test_info_shows_what_is_set_wrong(monkeypatch):
    monkeypatch.setenv("FASTNLP_BACKEND", "fast")
    result = run("info")
    assert result.exit_code == 0
    assert "FASTNLP_BACKEND must be one of" in result.stdout


def test_info_tells_what_keeps_kernels_from_the_gpu(monkeypatch):
    from fastnlp import _detect

    gpu = _detect.Gpu("NVIDIA H100", (9, 0), 80 << 30)
    monkeypatch.setattr(_detect, "toolkit", lambda: {"NVRTC": _detect.Part("/lib/libnvrtc.so", (13, 0))})
    monkeypatch.setattr(_detect, "driver", lambda: _detect.Driver((13, 0), (gpu,), None))
    monkeypatch.setattr(_detect, "torch_build", lambda: "")
    monkeypatch.setattr(_detect, "why_not_running", _detect.why_not_compiled)
    shown = run("info").stdout
    for words in ("NVIDIA H100, compute capability 9.0, 80 GiB", "runs CUDA up to 13.0", "13.0 in /lib/libnvrtc.so"):
        assert words in shown
    assert "without CUDA" in shown
    assert "libNVVM, a compiler of the CUDA toolkit, is not found: pip install 'fastnlp-kernels[cuda]'" in shown
    gone = _detect.Driver(None, (), "no NVIDIA driver is installed")
    monkeypatch.setattr(_detect, "driver", lambda: gone)
    monkeypatch.setattr(_detect, "why_not_running", lambda: gone.reason)
    assert gone.reason in run("info").stdout


def test_without_a_command_there_is_help():
    result = run()
    assert result.exit_code == 0
    for name in ("info", "warmup", "glove", "pack", "demo"):
        assert name in result.stdout
    assert "..." not in result.stdout.replace("[ARGS]...", "")  # no summary is cut
    assert fastnlp.__version__ in run("--version").stdout


def test_glove_writes_vectors_and_prints_neighbours(text, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    result = run("glove", text, "-o", first, *SMALL, "--epochs", 30, "--lower")
    assert result.exit_code == 0, result.stderr
    vectors = fastnlp.KeyedVectors.load(first)
    assert vectors.vectors.shape == (17, 8)
    assert "the" in vectors
    assert "tiger" in result.stdout
    assert "training vectors" in result.stderr
    assert run("glove", text, "-o", second, *SMALL, "--epochs", 30, "--lower").exit_code == 0
    assert first.read_bytes() == second.read_bytes()


def test_glove_options(text, tmp_path, monkeypatch):
    output = tmp_path / "vectors.bin"
    before = fastnlp.get_num_threads()
    try:
        result = run(
            "glove", text, text, "-o", output, *SMALL, "--threads", 1, "--tokenizer", "words", "--min-count", 10
        )
        assert fastnlp.get_num_threads() == 1
    finally:
        fastnlp.set_num_threads(before)
    assert result.exit_code == 0, result.stderr
    assert len(fastnlp.KeyedVectors.load(output)) == 17


def test_glove_of_invalid_utf8_warns_in_one_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"un caf\xe9 et un bar\n" * 30)
    result = run("glove", path, "-o", tmp_path / "v.txt", *SMALL)
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "30" in warnings[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\0\1\2\xff", "is not text"),
        (b" \n \n", "no tokens"),
        (b"a b c", "min_count"),
        (b"a\na\na\na\na\n", "stand near"),
        (b"\xff\xfea\0", "UTF-16"),
    ],
)
def test_bad_text_is_one_line(content, says, tmp_path):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    output = tmp_path / "v.txt"
    assert says in fails("glove", path, "-o", output, *SMALL)
    assert not output.exists()
    if content != b" \n \n":  # the demo skips blank lines itself
        assert says in fails("demo", "--corpus", path, "--output", tmp_path / "demo", *SMALL)


def test_truncated_and_misnamed_files(tmp_path):
    import lzma

    path = tmp_path / "text.xz"
    path.write_bytes(lzma.compress(b"some words\n" * 1000)[:60])
    assert "truncated" in fails("glove", path, "-o", tmp_path / "v.txt")
    path.write_bytes(b"plain text")
    assert "not packed" in fails("demo", "--corpus", path, "--output", tmp_path / "demo")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names here")
def test_a_pipe_has_no_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "give it to -" in fails("glove", tmp_path / "pipe", "-o", tmp_path / "v.txt")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("glove",), "Missing argument"),
        (("glove", "TEXT"), "--output"),
        (("glove", "TEXT", "-o", "v.foo"), "suffix"),
        (("glove", "TEXT", "-o", "v.txt", "--dim", "0"), "--dim"),
        (("glove", "TEXT", "-o", "v.txt", "--window", "0"), "--window"),
        (("glove", "TEXT", "-o", "v.txt", "--x-max", "0"), "--x-max"),
        (("glove", "TEXT", "-o", "v.txt", "--seed", "-1"), "--seed"),
        (("glove", "TEXT", "-o", "v.txt", "--format", "foo"), "--format"),
        (("glove", "TEXT", "-o", "nowhere/v.txt"), "folder"),
        (("glove", "TEXT", "-o", "."), "cannot be written"),
        (("glove", "TEXT", "-o", ""), "cannot be written"),
        (("glove", "TEXT", "-o", "v.txt/"), "folder"),
        (("glove", "TEXT", "-o", "TEXT"), "would be overwritten"),
        (("glove", "TEXT", "-o", "v.txt.gz", "--min-count", "1000000"), "would not be packed"),  # before any work
        (("demo", "--corpus", "TEXT", "--output", ""), "name another folder"),
        (("demo", "--corpus", "TEXT", "missing.txt"), "missing.txt"),
        (("demo", "--corpus", "TEXT", "--output", "TEXT"), "exists"),
        (("demo", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
    ],
)
def test_bad_options_are_one_line(arguments, says, text, monkeypatch):
    monkeypatch.chdir(text.parent)
    before = text.read_bytes()
    assert says in fails(*(str(text) if argument == "TEXT" else argument for argument in arguments))
    assert text.read_bytes() == before


def test_full_disk_is_one_line_and_keeps_the_old_file(text, tmp_path, monkeypatch):
    output = tmp_path / "v.txt"
    output.write_text("old", encoding="utf-8")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert os.strerror(errno.ENOSPC) in fails("glove", text, "-o", output, *SMALL)
    assert output.read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt", "v.txt"]


def test_interruption_is_130(text, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastnlp, "cooccurrence", interrupt)
    assert "interrupted" in fails("glove", text, "-o", tmp_path / "v.txt", *SMALL, status=130)


def test_interruption_while_the_libraries_load(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "fastnlp", "info"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "fastnlp: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("arguments", [("info",), ("--help",)])
def test_nobody_reads_on(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "fastnlp", *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_text_that_vanishes_is_an_error_that_names_it(text, tmp_path, monkeypatch):
    build_corpus = fastnlp.build_corpus

    def too_late(*arguments, **options):
        text.unlink()
        return build_corpus(*arguments, **options)

    monkeypatch.setattr(fastnlp, "build_corpus", too_late)
    assert "text.txt: no such file" in fails("glove", text, "-o", tmp_path / "v.txt", *SMALL)


def test_a_report_does_not_overwrite_the_text(text, tmp_path):
    page = tmp_path / "report.html"
    page.write_bytes(text.read_bytes())
    assert "would be overwritten" in fails("demo", "--corpus", page, "--output", tmp_path)
    assert page.read_bytes() == text.read_bytes()


def test_a_fault_shows_its_traceback(text, tmp_path, monkeypatch):
    def faulty(*_, **__):
        raise AssertionError("a fault")

    monkeypatch.setattr(fastnlp, "cooccurrence", faulty)
    assert isinstance(run("glove", text, "-o", tmp_path / "v.txt", *SMALL).exception, AssertionError)


def test_demo_on_a_users_file(text, tmp_path):
    output = tmp_path / "demo"
    result = run("demo", "--corpus", text, "--output", output, *SMALL)
    assert result.exit_code == 0, result.stderr
    assert "tokens a second" in result.stdout
    assert "Which of 8 parts" in result.stdout
    assert "largest part" in result.stdout
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "text.txt" in page
    assert f"--corpus {text}" in page
    assert [path.name for path in output.iterdir()] == ["report.html"]


def test_demo_on_files_finds_which_one(text, tmp_path):
    lines = text.read_text(encoding="utf-8").splitlines()
    arguments = []
    for k, name in enumerate(("cats", "food", "trains")):
        (tmp_path / name).write_text("\n".join(lines[200 * k : 200 * (k + 1)]), encoding="utf-8")
        arguments += ["--corpus", tmp_path / name]
    result = run("demo", *arguments, "--output", tmp_path / "demo", *SMALL)
    assert result.exit_code == 0, result.stderr
    last = next(line for line in result.stdout.splitlines() if line.startswith("epoch 12"))
    assert float(last.split()[-2].rstrip("%")) > 90, last


def test_demo_takes_several_files_after_one_option(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_bytes(text.read_bytes())
    result = run("demo", "--corpus", text, other, "--output", tmp_path / "demo", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert "Which of 2 parts" in result.stdout
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert f"demo --corpus {text} {other} --output" in page


def test_demo_without_words_to_show_says_nothing_odd(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3 4 5 6 7 8 9\n" * 500, encoding="utf-8")
    result = run("demo", "--corpus", path, "--output", tmp_path / "demo", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr
    assert "(The text has no titles to go by" in result.stdout


def test_demo_on_documentation(tmp_path, monkeypatch):
    folder = tmp_path / "lib"
    folder.mkdir()
    sentence = "This module is about the {} and about nothing but it at all."
    (folder / "one.py").write_text(f'"""{sentence.format("one thing")}"""', encoding="utf-8")
    (folder / "two.py").write_text(f'"""{sentence.format("other thing")}"""', encoding="utf-8")
    monkeypatch.setattr(demo_corpus, "package_folders", lambda: {"": folder})
    result = run("demo", "--output", tmp_path / "demo", "--min-count", 2, *SMALL)
    assert result.exit_code == 0, result.stderr
    assert "2 passages" in result.stdout
    assert "No classifier" in result.stdout


def test_warmup_reports_the_kernels(monkeypatch):
    _jit = pytest.importorskip("fastnlp.kernels.cpu._jit")
    labels = []
    monkeypatch.setattr(_jit, "warm_up", lambda: iter(["a", "b"]))
    monkeypatch.setattr(_jit, "cache_folder", lambda: labels.append("asked"))
    result = run("warmup")
    assert result.exit_code == 0, result.stderr
    assert "kernels ready" in result.stdout
    assert "FASTNLP_CACHE_DIR" in result.stdout


def test_warmup_tells_what_could_not_be_kept(monkeypatch, tmp_path):
    _jit = pytest.importorskip("fastnlp.kernels.cpu._jit")
    monkeypatch.setattr(_jit, "warm_up", lambda: iter(["a", "b"]))
    monkeypatch.setattr(_jit, "cache_folder", lambda: tmp_path)
    (tmp_path / "a.nbc").touch()
    assert "but only 1 could be kept" in run("warmup").stdout


def test_warmup_of_a_gpu_compiles_every_form_of_every_kernel(monkeypatch, tmp_path):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    from fastnlp import _detect
    from fastnlp.kernels.cuda import prims

    monkeypatch.setattr(_detect, "why_not_running", lambda: "no driver here")
    assert "nothing to compile: no driver here" in fails("warmup", "--backend", "cuda")
    monkeypatch.setattr(_detect, "why_not_running", lambda: None)
    monkeypatch.setattr(prims, "cache_folder", lambda: tmp_path)
    context = type("Context", (), {"device": type("Device", (), {"id": 7})})
    monkeypatch.setattr(prims.cuda, "current_context", lambda: context)
    monkeypatch.setattr(prims, "_compiled", {})
    monkeypatch.setattr(prims, "_compile", lambda kernel, words: (tmp_path / f"{kernel.name}{words}.nbc").touch())
    result = run("warmup", "--backend", "cuda")
    assert result.exit_code == 0, result.stderr
    forms = list(prims.kernels())
    assert set(prims._compiled) == {(kernel, words, 7) for kernel, words in forms}
    assert f"{len(forms)} kernels ready" in result.stdout
    assert "kept in" in result.stdout


def test_missing_libraries_are_one_line(monkeypatch, capsys):
    from fastnlp import cli

    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "rich" else importlib.util.find_spec(name))
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 2
    assert capsys.readouterr().err == 'fastnlp: rich not installed: pip install "fastnlp-kernels[cli]"\n'


def test_library_and_command_do_not_import_the_clis_libraries_early():
    names = ("click", "rich", "matplotlib", "torch", "numba")
    check = f"import sys, fastnlp, fastnlp.cli; print([m for m in {names} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_module_runs_as_the_command():
    result = subprocess.run([sys.executable, "-m", "fastnlp", "glove"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("fastnlp: Missing argument")
    assert result.stderr.count("\n") == 1
