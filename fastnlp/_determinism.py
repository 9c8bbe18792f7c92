"""The process-wide switch between fastest and same bits on any number of threads."""

from __future__ import annotations

from fastnlp._checks import flag as _flag

_deterministic = False


def use_deterministic(flag: bool) -> None:
    """Set what ``deterministic=None`` means in this process; False at the start.

    Results are always the same bits from run to run at given numbers of threads. With True they are also the same for
    any number of threads, of this library and of the BLAS.

    Parameters
    ----------
    flag
        True or False.

    Raises
    ------
    TypeError
        `flag` is not True or False.
    """
    global _deterministic
    _deterministic = _flag("flag", flag)


def deterministic() -> bool:
    """Return what `use_deterministic` set."""
    return _deterministic


def resolved(asked: bool | None) -> bool:
    """Return the argument `deterministic` of a call, or the switch where it is None.

    Raises
    ------
    TypeError
        `asked` is neither None, True nor False.
    """
    return _deterministic if asked is None else _flag("deterministic", asked)
