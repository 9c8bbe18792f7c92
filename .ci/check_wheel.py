"""Build the sdist, the wheel from the sdist, and use the installed wheel in a fresh environment from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USE = """
import importlib.util, pkgutil, sys
import numpy as np
import fastnlp, fastnlp.kernels
assert not {'numba', 'torch', 'cupy'} & set(sys.modules), 'import fastnlp loads something heavy'
assert 'site-packages' in fastnlp.__file__ and 'site-packages' in fastnlp.kernels.__file__, fastnlp.__file__
for name in fastnlp.__all__:
    if name != 'torch':
        getattr(fastnlp, name)
for module in pkgutil.walk_packages(fastnlp.kernels.__path__, 'fastnlp.kernels.'):
    if not module.name.startswith('fastnlp.kernels.cuda.'):  # they import their compiler, an extra
        importlib.import_module(module.name)
assert importlib.util.find_spec('fastnlp.kernels.cuda.prims') is not None, 'the CUDA kernels are not in the wheel'
x, w = np.ones((4, 3), np.float32), np.ones((5, 3), np.float32)
for backend in ('reference', 'cpu'):
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, [0, 1, 2, 3], backend=backend)
    assert abs(loss - np.log(5)) < 1e-6
print('the wheel works')
"""


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def main() -> None:
    """Check the sdist and the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", work, ROOT, stdout=subprocess.DEVNULL)
        (wheel,) = work.glob("*.whl")
        (sdist,) = work.glob("*.tar.gz")
        files = set(zipfile.ZipFile(wheel).namelist())
        wanted = {f"fastnlp/kernels/{path.relative_to(ROOT / 'kernels')}" for path in (ROOT / "kernels").rglob("*.py")}
        tops = ("ops", "torch", "text", "cli")
        wanted |= {str(path.relative_to(ROOT)) for top in tops for path in (ROOT / "fastnlp" / top).rglob("*.py")}
        wanted |= {"fastnlp/py.typed", "fastnlp/__init__.pyi"}
        missing = wanted - files
        assert len(wanted) > 40, wanted
        assert not missing, f"not in the wheel: {sorted(missing)}"
        stray = {name for name in files if not name.startswith(("fastnlp/", "fastnlp_kernels-"))}
        assert not stray, f"the wheel brings more than the package: {sorted(stray)}"
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in ("CHANGELOG.md", "LICENSE", "README.md", "tests/conftest.py", "bench/harness.py"):
            assert name in names, f"not in the sdist: {name}"

        venv.create(work / "env", with_pip=True)
        python = work / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        run(python, "-m", "pip", "install", "--quiet", wheel)
        elsewhere = work / "elsewhere"
        elsewhere.mkdir()
        run(python, "-W", "error", "-c", USE, cwd=elsewhere)
        without_extra = subprocess.run([python, "-m", "fastnlp", "info"], cwd=elsewhere, text=True, capture_output=True)
        assert without_extra.returncode == 2, without_extra
        assert "fastnlp-kernels[cli]" in without_extra.stderr, without_extra.stderr


if __name__ == "__main__":
    main()
