"""The group of commands, and what it makes of errors, warnings and interruptions."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from fastnlp import __version__
from fastnlp.cli.demo import demo
from fastnlp.cli.glove import glove
from fastnlp.cli.info import info
from fastnlp.cli.pack import pack
from fastnlp.cli.warmup import warmup

# What the library raises for bad input, with a message that names the remedy. Others are faults: their traceback shows.
_EXPECTED = (ValueError, ImportError, NotImplementedError, ArithmeticError, EOFError)


class _Group(click.Group):
    """A group whose errors are one line on stderr and exit status 2; 130 when interrupted, 1 when nobody reads on."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **settings: Any
    ) -> Any:
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **settings)
        status = 2
        try:
            with _warnings_as_lines():
                code = super().main(args, standalone_mode=False, **settings)
            status = code if isinstance(code, int) else 0
        except click.ClickException as error:
            _say(error.format_message() + _hint(error))
        except (click.Abort, KeyboardInterrupt):
            _say("interrupted")
            status = 130
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                status = 1
            else:
                problem = error.strerror or str(error)
                _say(f"{os.fspath(error.filename)}: {problem}" if error.filename else problem)
        except MemoryError as error:
            _say(
                f"not enough memory: {error}" if str(error) else "not enough memory: give less text or a smaller --dim"
            )
        except _EXPECTED as error:
            _say(str(error) or type(error).__name__)
        sys.exit(status)


def _say(message: str) -> None:
    click.echo(f"fastnlp: {' '.join(message.split())}", err=True)


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" ({context.command_path.strip()} --help tells more)" if context is not None else ""


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastnlp")
@click.pass_context
def command(context: click.Context) -> None:
    """Word vectors, packed batches and the kernels behind them, from the command line.

    \b
    Examples:
      fastnlp demo
      fastnlp glove novel.txt -o vectors.txt
      fastnlp pack lengths.txt --report packing.html

    Exit status: 0 when all went well, 2 after an error, 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for subcommand in (info, warmup, glove, pack, demo):
    command.add_command(subcommand)
