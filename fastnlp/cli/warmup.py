"""``fastnlp warmup``: compile every kernel now, so that no first call waits."""

from __future__ import annotations

import click


@click.command(short_help="Compile all CPU kernels now, once for a machine.")
def warmup() -> None:
    """Compile all CPU kernels into the cache, once for a machine, so that no first call waits."""
    import importlib
    import pkgutil

    from fastnlp._dispatch import why_missing
    from fastnlp.cli.console import Stages

    reason = why_missing("cpu")
    if reason is not None:
        raise click.ClickException(f"there is nothing to compile: {reason}")
    import fastnlp.kernels.cpu as kernels
    from fastnlp.kernels.cpu import _jit

    for module in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        importlib.import_module(module.name)
    total = sum(len(signatures) for _, signatures in _jit.KERNELS)
    stages = Stages()
    with stages.stage("compiling kernels") as update:
        for done, _ in enumerate(_jit.warm_up()):
            update(done, total)
    folder = _jit.cache_folder()
    kept = f"kept in {folder}" if folder else "kept nowhere: set FASTNLP_CACHE_DIR to a folder that you can write to"
    if folder and (files := len(list(folder.glob("*.nbc")))) < total:
        kept = f"but only {files} could be {kept}: make room there, or set FASTNLP_CACHE_DIR to another folder"
    click.echo(f"{total} kernels ready after {sum(stages.seconds.values()):.1f} s, {kept}")
