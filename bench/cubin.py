"""What the CUDA compiler makes of a kernel, on a machine without a GPU: its registers, its memory, its instructions.

The way is that of a first launch: Numba's front end and NVVM make LTO-IR, nvJitLink links it for an architecture. The
front end takes nearly all of the time and does not ask for the architecture, so it runs once and its LTO-IR is linked
for each (a test holds the result against one compiled for its own architecture). The machine code of all kernels is
disassembled in one go, because nvdisasm takes half a second to begin.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLDEST = (8, 0)
"""The compute capability for which LTO-IR is made."""


@dataclass(frozen=True)
class Cubin:
    """A kernel linked for one architecture.

    Attributes
    ----------
    registers
        Of a thread.
    stack, spills
        Bytes of a thread's local memory: its frame, and what is stored and loaded because registers ran out.
    shared
        Bytes of a block's shared memory.
    code
        The machine code.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    code: bytes


@dataclass(frozen=True)
class Instructions:
    """How many instructions there are: all, 16-byte loads and stores of global memory, local memory, float64."""

    total: int
    loads: int
    stores: int
    local: int
    float64: int


def lto_ir(kernel: Any, signature: tuple[str, ...], capability: tuple[int | str, ...] = OLDEST) -> bytes:
    """Return the LTO-IR of a ``prims.Kernel`` for one of its signatures.

    Raises
    ------
    Exception
        Whatever Numba raises where a kernel does not compile.
    """
    from numba import cuda

    bounds = (kernel.threads, 1)
    options = {"device": False, "abi": "numba", "output": "ltoir", "launch_bounds": bounds, "cc": capability}
    code, _ = cuda.compile(kernel.function, kernel.types(signature), **options)
    return code


def link(code: bytes, arch: str) -> Cubin:
    """Link LTO-IR for an architecture such as ``sm_90a``.

    Raises
    ------
    Exception
        Whatever nvJitLink raises where the code does not go there.
    """
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=arch, link_time_optimization=True, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ltoir(code), options=options)
    try:
        cubin = bytes(linker.link("cubin").code)
        log = linker.get_info_log()
    finally:
        linker.close()

    return Cubin(
        registers=_most(r"Used (\d+) registers", log),
        stack=_most(r"(\d+) bytes stack frame", log),
        spills=_most(r"(\d+) bytes spill stores", log) + _most(r"(\d+) bytes spill loads", log),
        shared=_most(r"(\d+) bytes smem", log),
        code=b"".join(_text_sections(cubin)),
    )


def _most(pattern: str, log: str) -> int:
    """Return the largest of the numbers in the compiler's log; there is one for each function."""
    return max(map(int, re.findall(pattern, log)), default=0)


def _text_sections(elf: bytes) -> Iterator[bytes]:
    """Yield the sections of a 64-bit ELF file that hold code."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<I20xQQ", elf, table + i * size) for i in range(count)]  # name, offset, size
    strings = headers[names][1]
    for name, offset, length in headers:
        if elf.startswith(b".text.", strings + name):
            yield elf[offset : offset + length]


_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_FLOAT64 = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX|MMA)|.*\.F64|MUFU\..*64H")


def disassemble(codes: Sequence[bytes], arch: str) -> list[Instructions]:
    """Count the instructions of each piece of machine code for one architecture."""
    from cuda import pathfinder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code"
        path.write_bytes(b"".join(codes))
        tool = pathfinder.find_nvidia_binary_utility("nvdisasm")
        command = [tool, "--no-dataflow", "--binary", f"SM{arch.removeprefix('sm_')}", str(path)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    opcodes = iter(_INSTRUCTION.findall(run.stdout))
    counts, end, opcode = [], 0, next(opcodes, None)
    for code in codes:
        begin, end = end, end + len(code)
        mine: Counter[str] = Counter()
        while opcode and begin <= int(opcode[0], 16) < end:
            mine[opcode[1]] += 1
            opcode = next(opcodes, None)
        counts.append(_count(mine))
    return counts


def _count(opcodes: Counter[str]) -> Instructions:
    def of(pattern: str | re.Pattern[str]) -> int:
        return sum(n for name, n in opcodes.items() if re.match(pattern, name))

    return Instructions(
        total=opcodes.total() - opcodes["NOP"],  # they fill the last line
        loads=of(r"LDG\..*\b(128|256)\b"),
        stores=of(r"STG\..*\b(128|256)\b"),
        local=of(r"LDL|STL"),
        float64=of(_FLOAT64),
    )
