"""Copies of kernels and of what they call, whose names mean what they do in the simulator."""

from __future__ import annotations

import dis
import functools
import types

import numpy as np
from numba import cuda

from fastnlp.kernels.cuda import prims
from tests.simt_cuda import Cuda, Math, Numpy
from tests.simt_memory import SimtError, now
from tests.simt_prims import BUILTINS, SHORTCUTS, SIMULATED

_MODULES = {id(cuda): Cuda(), id(np): Numpy()}
_MATH = Math()


class Rebinding:
    """Copies of functions whose globals are the simulator's."""

    def __init__(self, replace, shortcuts):
        self.replace, self.made = replace, {}
        simulated = SIMULATED | (SHORTCUTS if shortcuts else {})
        self.simulated = {id(getattr(prims, name)): f for name, f in simulated.items() if hasattr(prims, name)}

    def function(self, original):
        original = getattr(original, "py_func", original)
        if original in self.made:
            return self.made[original]
        code, scope = original.__code__, dict(original.__globals__)
        if not now.float64:
            _check_literals(code)
        cells = original.__closure__
        if cells:
            cells = tuple(
                types.CellType(self.value(n, c.cell_contents)) for n, c in zip(code.co_freevars, cells, strict=True)
            )
        scope["__simulated__"] = True
        made = types.FunctionType(code, scope, original.__name__, original.__defaults__, cells)
        self.made[original] = made
        for name in code.co_names:
            if name in self.replace:
                scope[name] = self.value(name, self.replace[name])
            elif name in scope:
                scope[name] = self.value(name, scope[name])
            elif name in BUILTINS:
                scope[name] = BUILTINS[name]
        return made

    def value(self, name, x):
        """Return what stands in the simulator for a global of a kernel."""
        if id(x) in self.simulated:
            return self.simulated[id(x)]
        if id(x) in _MODULES:
            return _MODULES[id(x)]
        if isinstance(x, types.ModuleType):
            return _MATH if x.__name__ == "math" else _Module(self, x)
        if hasattr(x, "py_func") or isinstance(x, types.FunctionType):
            return self.function(x)
        if type(x).__name__ == "_Intrinsic":
            raise SimtError(f"prims.{name} has no simulated version: add it to tests/simt_prims.py")
        if isinstance(x, float) and not now.float64:
            raise SimtError(f"{name} = {x} is float64 on the device: write np.float32({x})")
        if isinstance(x, np.integer):
            return int(x)
        if isinstance(x, tuple):
            return tuple(self.value(name, one) for one in x)
        return x


@functools.cache
def _check_literals(code):
    """Raise if there is a float literal that np.float32 is not called with: it is float64 on the device."""
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_CONST" and isinstance(step.argval, float) and before != "float32":
            raise SimtError(f"the literal {step.argval} in {code.co_name} is float64 on the device")
        before = step.argval


class _Module:
    """A module whose functions are rebound as they are asked for."""

    def __init__(self, rebinding, module):
        self._rebinding, self._module = rebinding, module

    def __getattr__(self, name):
        setattr(self, name, self._rebinding.value(name, getattr(self._module, name)))
        return self.__dict__[name]
