"""The gate of the CUDA kernels: each is compiled for several architectures and held to its bounds, without a GPU.

A kernel must compile for every dtype that it is declared for, without a stack frame, spills or local memory, without
float64 unless it says so, within its registers, and with the 16-byte loads and stores that it promises.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from bench import cubin

ARCHES = ("sm_80", "sm_90", "sm_90a", "sm_100a")
_REGISTERS, _REGISTER_UNIT, _SHARED = 65_536, 8, 48 << 10  # of a multiprocessor; a thread gets whole units; of a block
_DTYPES = {"f32*": "float32", "f16*": "float16", "bf16*": "bfloat16", "i64*": "int64", "i32*": "int32"}


@dataclass(frozen=True)
class Result:
    """One kernel for one dtype and one architecture: what came out, or why nothing did.

    Attributes
    ----------
    dtype
        What sets this form of the kernel apart from its others; empty where there is one form.
    built, instructions
        None where it does not compile; then `error` says why.
    """

    kernel: Any
    dtype: str
    arch: str
    built: cubin.Cubin | None
    instructions: cubin.Instructions | None = None
    error: str = ""

    def __str__(self) -> str:
        return f"{self.kernel.name}{f' ({self.dtype})' if self.dtype else ''} on {self.arch}"

    def faults(self) -> list[str]:
        """Return what is wrong: what was found, and what the bound is."""
        built, code, kernel = self.built, self.instructions, self.kernel
        if built is None or code is None:
            return [f"does not compile: {self.error}"]
        rounded = -(-built.registers // _REGISTER_UNIT) * _REGISTER_UNIT
        whole_block = rounded * kernel.threads
        checks = (
            (built.registers > kernel.registers, f"{built.registers} registers a thread, at most {kernel.registers}"),
            (whole_block > _REGISTERS, f"{kernel.threads} threads of {rounded} registers, at most {_REGISTERS} in all"),
            (built.stack > 0, f"a stack frame of {built.stack} bytes, none is allowed"),
            (built.spills > 0, f"{built.spills} bytes of spilled registers, none are allowed"),
            (code.local > 0, f"{code.local} accesses to local memory, none are allowed"),
            (built.shared > _SHARED, f"{built.shared} bytes of shared memory, at most {_SHARED}"),
            (code.loads < kernel.loads, f"{code.loads} 16-byte loads, at least {kernel.loads}"),
            (code.stores < kernel.stores, f"{code.stores} 16-byte stores, at least {kernel.stores}"),
            (code.float64 > 0 and not kernel.float64, f"{code.float64} float64 instructions, none are allowed"),
        )
        return [text for wrong, text in checks if wrong]


def forms(modules: Sequence[str] = ()) -> list[tuple[Any, int]]:
    """Return every kernel of the modules of ``fastnlp.kernels.cuda``, or of some, with the number of each signature.

    Raises
    ------
    ValueError
        There is no such module.
    """
    import fastnlp.kernels.cuda as package
    from fastnlp.kernels.cuda import prims

    there = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if unknown := set(modules) - set(there):
        raise ValueError(f"no module {', '.join(sorted(unknown))} among {', '.join(there)}")
    names = [importlib.import_module(f"{package.__name__}.{name}").__name__ for name in modules or there]
    inside = [kernel for kernel in prims.KERNELS if kernel.function.__module__ in names]
    inside.sort(key=lambda kernel: str(kernel.name))
    return [(kernel, i) for kernel in inside for i in range(len(kernel.signatures))]


def dtype(kernel: Any, i: int) -> str:
    """Name the dtypes that set a signature apart from the kernel's others."""
    columns = zip(*kernel.signatures, strict=True)
    apart = dict.fromkeys(words[i] for words in columns if len(set(words)) > 1)
    return ", ".join(_DTYPES[word] for word in apart)


def compile_one(kernel: Any, i: int, arches: Sequence[str]) -> list[Result]:
    """Compile one form of a kernel for each architecture; nothing is disassembled yet."""
    label, results = dtype(kernel, i), []
    try:
        code = cubin.lto_ir(kernel, kernel.signatures[i])
    except Exception as error:
        return [Result(kernel, label, arch, None, error=_reason(error)) for arch in arches]
    for arch in arches:
        try:
            results.append(Result(kernel, label, arch, cubin.link(code, arch)))
        except Exception as error:
            results.append(Result(kernel, label, arch, None, error=_reason(error)))
    return results


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip("\0\n ")


def disassembled(results: Sequence[Result]) -> list[Result]:
    """Return the results with their instructions counted."""
    found = list(results)
    compiled = [i for i, result in enumerate(results) if result.built]
    for family in dict.fromkeys(results[i].arch.rstrip("af") for i in compiled):  # sm_90a is sm_90 and more
        places = [i for i in compiled if results[i].arch.rstrip("af") == family]
        codes = [results[i].built.code for i in places]
        counts = cubin.disassemble(codes, max((results[i].arch for i in places), key=len))
        for i, count in zip(places, counts, strict=True):
            found[i] = replace(found[i], instructions=count)
    return found


def measure(
    arches: Sequence[str] = ARCHES, update: Callable[..., None] | None = None, modules: Sequence[str] = ()
) -> list[Result]:
    """Compile every form of every kernel, or of those of some modules, on as many processes as there are threads."""
    from fastnlp import get_num_threads

    wanted = forms(modules)
    results: dict[int, list[Result]] = {}
    with ProcessPoolExecutor(get_num_threads(), get_context("spawn")) as pool:
        jobs = {pool.submit(_in_worker, *_address(kernel), i, arches): n for n, (kernel, i) in enumerate(wanted)}
        for done, job in enumerate(as_completed(jobs), 1):
            n = jobs[job]
            kernel, i = wanted[n]
            results[n] = [Result(kernel, dtype(kernel, i), *rest) for rest in job.result()]
            if update:
                update(done, len(jobs), f"{kernel.name} {dtype(kernel, i)}")
    return disassembled([result for n in sorted(results) for result in results[n]])


def _address(kernel: Any) -> tuple[str, str]:
    return kernel.function.__module__, kernel.function.__name__


def _in_worker(module: str, name: str, i: int, arches: Sequence[str]) -> list[tuple[Any, ...]]:
    kernel = getattr(importlib.import_module(module), name)
    return [(x.arch, x.built, x.instructions, x.error) for x in compile_one(kernel, i, arches)]


def main(modules: Sequence[str] = (), *, to_page: bool = False) -> int:
    """Print the figures and the faults, or write the figures into the documentation; return the exit status."""
    from bench import gate_table
    from fastnlp.cli.console import Stages

    with Stages().stage("compiling the kernels") as update:
        results = measure(update=update, modules=modules)
    failing = [result for result in results if result.faults()]
    sys.stdout.writelines([gate_table.HEAD, *gate_table.rows(results)])
    for result in failing:
        print(f"{result}: {'; '.join(result.faults())}")
    kernels = len({result.kernel.name for result in results})
    print(f"{kernels} kernels, {len(results)} compiled forms on {', '.join(ARCHES)}: {len(failing)} fail")
    if to_page and not failing:
        print(gate_table.write(results, keep=bool(modules)))
    return 1 if failing else 0
