"""Who takes part in a case, and who cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """Something that computes the case's result.

    Parameters
    ----------
    name
        How the report calls it.
    call
        What is timed. Give each contestant its own output arrays: a shared one hides that somebody wrote nothing.
    result
        Turns what `call` returned into what is compared with the expectation; not timed.
    reset
        Called before each call that counts, not timed: for calls that change their arguments. There is then one call
        a sample.
    floor
        The name of the contestant that does only what this one cannot do without, such as the bare matrix products.
        The report says how many times its time this one takes.
    """

    name: str
    call: Callable[[], Any]
    result: Callable[[Any], Any] = lambda value: value
    reset: Callable[[], Any] | None = None
    floor: str | None = None


@dataclass(frozen=True)
class Absent:
    """A contestant that cannot take part, and why."""

    name: str
    reason: str


def prepared(name: str, prepare: Callable[..., Any], *args: Any, **kwargs: Any) -> Contestant | Absent:
    """Return the contestant that ``prepare(*args)`` makes, or an `Absent` with the reason if its package is missing.

    `prepare` imports what it needs and returns the function to time, or a whole `Contestant`.
    """
    try:
        made = prepare(*args, **kwargs)
    except ImportError as error:
        return Absent(name, str(error))
    return made if isinstance(made, Contestant) else Contestant(name, made)
