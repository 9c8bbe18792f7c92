"""The gate: bad kernels are refused for the right reason, and every kernel of the library passes, without a GPU."""

from __future__ import annotations

import re
from functools import partial

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("cuda.bindings.nvjitlink", reason="nvJitLink is not installed")

from bench import cubin, gate, gate_table
from tests.bad_kernels import BAD

FORMS = gate.forms()
NAMES = [f"{kernel.name} {gate.dtype(kernel, i)}".strip() for kernel, i in FORMS]


@pytest.fixture(scope="module")
def compiled():
    """Every result of the gate, by kernel and dtype."""
    found = {}
    for result in gate.measure():
        found.setdefault(f"{result.kernel.name} {result.dtype}".strip(), []).append(result)
    return found


@pytest.mark.timeout(1800)  # the first waits for all
@pytest.mark.parametrize("name", NAMES)
def test_kernel_passes(compiled, name):
    results = compiled[name]
    assert [result.arch for result in results] == list(gate.ARCHES)
    assert not [f"{result}: {fault}" for result in results for fault in result.faults()]


def test_there_are_kernels_of_every_dtype():
    assert {gate.dtype(kernel, i) for kernel, i in FORMS} >= {"float32", "float16", "bfloat16"}
    assert "labels.label_rows bfloat16" in NAMES


def test_the_main_kernel_keeps_to_48_registers():
    bounds = {kernel.name: (kernel.registers, kernel.loads) for kernel, _ in FORMS}
    assert bounds["labels.label_rows"] == (48, 4)


@pytest.mark.parametrize("name", BAD)
def test_bad_kernel_is_refused(name):
    kernel, says = BAD[name]
    for result in gate.disassembled(gate.compile_one(kernel, 0, gate_table.SHOWN)):
        assert str(result).startswith(f"bad_kernels.{name}")
        faults = result.faults()
        assert len(faults) == len(says), faults
        assert all(map(partial(re.match, flags=re.DOTALL), says, faults)), faults


def test_bad_kernels_stay_out_of_the_library():
    assert not [kernel for kernel, _ in FORMS if kernel.name.startswith("bad_kernels")]


def test_a_kernel_that_does_not_go_to_one_architecture_is_named():
    kernel, _ = BAD["good"]
    old, new = gate.compile_one(kernel, 0, ("sm_75", "sm_80"))
    assert "does not compile" in old.faults()[0]
    assert str(old) == "bad_kernels.good on sm_75"
    assert not gate.disassembled([new])[0].faults()


def test_code_for_all_architectures_is_the_code_for_each():
    kernel, i = FORMS[NAMES.index("labels.label_rows bfloat16")]
    common = cubin.lto_ir(kernel, kernel.signatures[i])
    own = cubin.lto_ir(kernel, kernel.signatures[i], (9, 0, "a"))
    assert common != own
    assert cubin.link(common, "sm_90a") == cubin.link(own, "sm_90a")


def test_instructions_of_several_kernels_are_told_apart():
    kernels = [BAD[name][0] for name in ("good", "few_vectors")]
    codes = [cubin.link(cubin.lto_ir(kernel, kernel.signatures[0]), "sm_80").code for kernel in kernels]
    first, second = cubin.disassemble(codes, "sm_80")
    assert [first, second] == [*cubin.disassemble(codes[:1], "sm_80"), *cubin.disassemble(codes[1:], "sm_80")]
    assert (first.loads, second.loads) == (0, 1)
    assert 0 < first.total <= len(codes[0]) // 16


def test_table_of_the_page(compiled, tmp_path):
    """The page has the figures of these kernels; of another toolchain's figures only the kernels are compared."""
    results = [result for found in compiled.values() for result in found]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gate_table.BEGIN}old\n{gate_table.END}after\n", encoding="utf-8")
    assert gate_table.written(gate_table.write(results, page)) == gate_table.text(results)
    assert page.read_text(encoding="utf-8").startswith("before\n")
    assert page.read_text(encoding="utf-8").endswith("after\n")
    expected, got = gate_table.text(results), gate_table.written()
    if f"Compiled with {gate_table.versions()}.\n" not in got:
        expected, got = (re.findall(r"^\| (\S+ \| \S+) \|", text, re.MULTILINE) for text in (expected, got))
    assert got == expected, "write the table again: python -m bench gate --write"


def test_the_command_names_what_fails(monkeypatch, capsys):
    pytest.importorskip("rich", reason="rich is not installed")
    kernel, _ = BAD["scalar_loads"]
    results = gate.disassembled(gate.compile_one(kernel, 0, ("sm_80", "sm_90a")))
    monkeypatch.setattr(gate, "measure", lambda **_: results)
    assert gate.main(to_page=True) == 1
    out = capsys.readouterr().out
    assert "bad_kernels.scalar_loads on sm_90a: 0 16-byte loads, at least 2" in out
    assert "1 kernels, 2 compiled forms" in out
    assert "2 fail" in out
    with pytest.raises(ValueError, match=r"no module nothing among .*_labels"):
        gate.forms(["nothing"])
