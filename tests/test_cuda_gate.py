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
KERNELS = {kernel.name: kernel for kernel, _ in FORMS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_passes_and_is_in_the_table(name):
    """The figures of the page are compared where they were made by the same toolchain."""
    kernel = KERNELS[name]
    results = gate.disassembled(
        [result for i in range(len(kernel.signatures)) for result in gate.compile_one(kernel, i, gate.ARCHES)]
    )
    assert len(results) == len(kernel.signatures) * len(gate.ARCHES)
    assert not [f"{result}: {fault}" for result in results for fault in result.faults()]
    lines = list(gate_table.rows(results))
    assert len(lines) == len(kernel.signatures)
    page = gate_table.written()
    if gate_table.versions() in page:
        missing = [line for line in lines if line not in page]
        assert not missing, "write the table again: python -m bench gate --write"


def test_kernels_of_the_table_are_those_of_the_library():
    written = re.findall(r"^\| (\S+\.\S+) \| ([^|]+) \|", gate_table.written(), re.MULTILINE)
    assert written == [(kernel.name, gate.dtype(kernel, i) or "-") for kernel, i in FORMS]


def test_there_are_kernels_of_every_dtype():
    assert {gate.dtype(kernel, i) for kernel, i in FORMS} >= {"float32", "float16", "bfloat16"}
    assert "labels.label_rows" in KERNELS


def test_the_main_kernel_keeps_to_48_registers():
    kernel = KERNELS["labels.label_rows"]
    assert (kernel.registers, kernel.loads) == (48, 4)


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
    kernel = KERNELS["labels.label_rows"]
    common = cubin.lto_ir(kernel, kernel.signatures[0])
    own = cubin.lto_ir(kernel, kernel.signatures[0], (9, 0, "a"))
    assert common != own
    assert cubin.link(common, "sm_90a") == cubin.link(own, "sm_90a")


def test_instructions_of_several_kernels_are_told_apart():
    kernels = [BAD[name][0] for name in ("good", "few_vectors")]
    codes = [cubin.link(cubin.lto_ir(kernel, kernel.signatures[0]), "sm_80").code for kernel in kernels]
    first, second = cubin.disassemble(codes, "sm_80")
    assert [first, second] == [*cubin.disassemble(codes[:1], "sm_80"), *cubin.disassemble(codes[1:], "sm_80")]
    assert (first.loads, second.loads) == (0, 1)
    assert 0 < first.total <= len(codes[0]) // 16


def test_the_table_is_put_between_its_marks(tmp_path):
    few, good = (
        gate.disassembled(gate.compile_one(BAD[name][0], 0, gate_table.SHOWN)) for name in ("few_vectors", "good")
    )
    (row,), (other,) = gate_table.rows(few), gate_table.rows(good)
    assert re.fullmatch(r"\| bad_kernels.few_vectors \| - \|( \d+( / \d+)? \|){4} 1 \| 0 \|\n", row)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gate_table.BEGIN}old\n{gate_table.END}after\n", encoding="utf-8")
    with pytest.raises(ValueError, match="write all of it"):
        gate_table.write(good, page, keep=True)
    for results, keep, table in ((good, False, [other]), (few, True, [row, other]), (few, False, [row])):
        assert gate_table.written(gate_table.write(results, page, keep=keep)) == gate_table.text(table)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{gate_table.BEGIN}\nCompiled with {gate_table.versions()}.\n\n")
    assert f"\n\n{gate_table.HEAD}{row}\n" in text
    assert text.endswith(f"\n{gate_table.END}after\n")


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
