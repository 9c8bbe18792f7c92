"""Compiled kernels for the computations behind language models, on NumPy arrays.

For torch tensors see `fastnlp.torch`. Public names are listed in ``__init__.pyi``, a line each; the module behind a
name is imported when the name is first used, so that ``import fastnlp`` costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """Read from the stub which module each public name lives in."""
    homes = {}
    with open(__file__.removesuffix(".pyc").removesuffix(".py") + ".pyi", encoding="utf-8") as stub:
        for line in stub:
            if line.startswith("from "):
                _, home, _, name, _, _ = line.split()
                homes[name] = home
    return homes


_HOMES = _homes()
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastnlp' has no attribute {name!r}")
    value = import_module(f"fastnlp.{name}") if home == "fastnlp" else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
