"""``fastnlp warmup``: compile every kernel now, so that no first call waits."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import click


@click.command(short_help="Compile all kernels of a backend now, once for a machine.")
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Whose kernels; those of cuda for the current GPU.",
)
def warmup(backend: str) -> None:
    """Compile all kernels of a backend into the cache, once for a machine, so that no first call waits."""
    from fastnlp._detect import why_not_running
    from fastnlp._dispatch import why_missing
    from fastnlp.cli.console import Stages

    reason = why_missing(backend) if backend == "cpu" else why_not_running()
    if reason is not None:
        raise click.ClickException(f"there is nothing to compile: {reason}")
    compiler, total = _compiler(backend)
    stages = Stages()
    with stages.stage("compiling kernels") as update:
        for done, _ in enumerate(compiler.warm_up()):
            update(done, total)
    folder = compiler.cache_folder()
    kept = f"kept in {folder}" if folder else "kept nowhere: set FASTNLP_CACHE_DIR to a folder that you can write to"
    if folder and (files := len(list(folder.glob("*.nbc")))) < total:
        kept = f"but only {files} could be {kept}: make room there, or set FASTNLP_CACHE_DIR to another folder"
    click.echo(f"{total} kernels ready after {sum(stages.seconds.values()):.1f} s, {kept}")


def _compiler(backend: str) -> tuple[Any, int]:
    """Import all kernels of a backend; return the module that compiles them, and how many forms they have."""
    import importlib
    import pkgutil

    package: ModuleType = importlib.import_module(f"fastnlp.kernels.{backend}")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    if backend == "cuda":
        from fastnlp.kernels.cuda import prims

        return prims, sum(1 for _ in prims.kernels())
    from fastnlp.kernels.cpu import _jit

    return _jit, sum(len(signatures) for _, signatures in _jit.KERNELS)
