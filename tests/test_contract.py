"""What holds the layers together: one file name for one operation in every layer, one signature in every backend."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

import fastnlp
from fastnlp._dispatch import BACKENDS, implementation
from fastnlp._op import Op

ROOT = Path(__file__).resolve().parents[1]


def families(folder):
    """Names of the operation families that have a file in `folder`; files with an underscore are shared pieces."""
    return {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")}


OPS = sorted(families("fastnlp/ops"))
KERNELS = sorted(families("kernels/reference"))


def public(module):
    return {
        name: member
        for name, member in vars(module).items()
        if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_")
    }


def load(op, backend):
    if backend != "reference" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    return implementation(op, backend)


@pytest.mark.parametrize("op", OPS)
def test_every_operation_has_a_reference_a_test_and_a_bench(op):
    assert (ROOT / f"kernels/reference/{op}.py").exists()
    assert (ROOT / f"tests/test_{op}.py").exists()
    assert (ROOT / f"bench/bench_{op}.py").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kernel_file_belongs_to_an_operation_or_a_reader_of_text(backend):
    compiler = {"prims"} if backend == "cuda" else set()
    assert families(f"kernels/{backend}") - compiler <= {*OPS, *families("fastnlp/text")}


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "reference"])
@pytest.mark.parametrize("op", KERNELS)
def test_signatures_agree_over_the_backends(op, backend):
    if op not in families(f"kernels/{backend}"):
        with pytest.raises(NotImplementedError, match="it runs on: reference"):
            implementation(op, backend)
        return
    reference, other = public(load(op, "reference")), public(load(op, backend))
    assert set(reference) <= set(other)
    for name, function in reference.items():
        assert list(inspect.signature(function).parameters) == list(inspect.signature(other[name]).parameters), name


@pytest.mark.parametrize("op", KERNELS)
def test_kernels_fill_their_outputs_and_return_nothing(op):
    for name, function in public(load(op, "reference")).items():
        if name == "least_workspace":
            continue
        source = inspect.getsource(function)
        returned = [line.strip() for line in source.splitlines() if line.strip().startswith("return ")]
        assert not returned, f"{op}.{function.__name__}: {returned}"


def test_every_differentiable_function_is_complete():
    ops = [op for name in fastnlp.__all__ if name != "torch" and (op := _op(name)) is not None]
    assert {op.name for op in ops} >= {"softmax", "linear", "cross_entropy", "linear_cross_entropy", "linear_softmax"}
    for op in ops:
        public_names = list(op.signature.parameters)
        assert set(op.differentiable) <= set(public_names)
        planned = inspect.signature(op.plan).parameters
        assert [n for n in planned if n != "blas"] == public_names, op.name
        for name, parameter in op.signature.parameters.items():
            assert planned[name].default == parameter.default


def _op(name) -> Op | None:
    return getattr(getattr(fastnlp, name), "__fastnlp_op__", None)


@pytest.mark.parametrize("name", [n for n in fastnlp.__all__ if n != "torch" and callable(getattr(fastnlp, n))])
def test_public_docstrings_state_parameters_and_errors(name):
    member = getattr(fastnlp, name)
    text = inspect.getdoc(member)
    parameters = [
        p for p in inspect.signature(member).parameters if p not in ("self", "args", "kwargs") and not p.startswith("_")
    ]
    if inspect.isclass(member):
        text += inspect.getdoc(member.__init__) or ""
    elif "are those of" not in text:
        assert not parameters or "Raises" in text or name == "get_num_threads", name
        assert all(p in text for p in parameters), [p for p in parameters if p not in text]


def test_calls_make_no_kernel_signature_that_is_not_declared(rng):
    numba = pytest.importorskip("numba", reason="numba is not installed")
    jit = importlib.import_module("fastnlp.kernels.cpu._jit")
    for op in families("kernels/cpu"):
        implementation(op, "cpu")
    for dtype in (np.float32, np.float64):
        x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((5, 4), (3, 4), (3,)))
        x.flags.writeable = False
        for target in (np.zeros(5, np.int32), np.zeros(5, np.int64)):
            run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
            run(x, w, target, linear_bias=b, backend="cpu")
            fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, backend="cpu")
            fastnlp.cross_entropy(x[:, ::2], target, backend="cpu")
        logits, p = x @ w.T, np.abs(x @ w.T)
        labels = {"labels": np.array([0, 1, -100, 2, 0], np.int32), "alpha": 0.5}
        for log_target in (False, True):
            for reduction in ("mean", "none"):
                y, pullback = fastnlp.vjp(fastnlp.kl_div)(
                    x, x, log_target=log_target, reduction=reduction, backend="cpu"
                )
                pullback(np.ones_like(y))
        for beta in (0, 0.5, 1):
            fastnlp.softmax_kl_div(x, -x, beta=beta, backend="cpu")
            fastnlp.value_and_grad(fastnlp.softmax_kl_div)(x, -x, beta=beta, backend="cpu")
            for teacher in ({"target_input": x, "target_weight": w}, {"target_logits": logits}, {"target_probs": p}):
                for more in ({}, labels, {"token_weight": np.arange(5)}):
                    options = {**teacher, **more, "linear_bias": b, "beta": beta, "backend": "cpu"}
                    fastnlp.linear_kl_div(x, w, **options)
                    fastnlp.value_and_grad(fastnlp.linear_kl_div)(x, w, **options)
        for activation in (None, "relu", "tanh", "sigmoid"):
            y, pullback = fastnlp.vjp(fastnlp.linear)(x, w, b, activation=activation, backend="cpu")
            pullback(y)
        for mode in ("mean", "max"):
            y, pullback = fastnlp.vjp(fastnlp.pool)(
                x, mode=mode, cu_seqlens=np.array([0, 2, 5], np.int32), backend="cpu"
            )
            pullback(y)
        for function in (fastnlp.softmax, fastnlp.log_softmax, fastnlp.logsumexp, fastnlp.entropy):
            y, pullback = fastnlp.vjp(function)(x, backend="cpu")
            pullback(y)
    for dtype in (np.int16, np.int32, np.int64, np.uint64):
        for algorithm in ("first_fit_decreasing", "best_fit_decreasing", "next_fit", "optimal"):
            fastnlp.pack(np.array([3, 1, 2], dtype), 4, algorithm=algorithm, seed=0, backend="cpu")
        for options in ({"batch_size": 2, "boundaries": 2}, {"max_tokens": 3, "window": 2, "shuffle": False}):
            fastnlp.bucket_batches(np.array([3, 1, 2], dtype), **options, backend="cpu")
        fastnlp.StreamPacker(4, buffer=1, backend="cpu").add(np.array([3, 1, 2], dtype))
        counts = fastnlp.cooccurrence(np.array([0, 1, 0, 2, 1], dtype), vocab_size=3, window=2, backend="cpu")
        pair = (np.arange(3, dtype=dtype), np.array([0, 1, 3]))
        for ids in (np.int32, np.int64):
            fastnlp.assemble_pairs(pair, pair, cls=1, sep=2, max_length=5, dtype=ids, backend="cpu")
    tokens = (np.array([3, 1, 2]), np.array([0, 2, 3]))
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        for ids in (np.int32, np.int64):
            x = (tokens[0].astype(dtype), tokens[1])
            padded = fastnlp.pad_arrays(x, dtype=ids, backend="cpu")
            packed = fastnlp.pack_arrays(x, fastnlp.pack([2, 1], 2), layout="rows", dtype=ids, backend="cpu")
            fastnlp.unpack_arrays(packed.input_ids, packed, backend="cpu")
            fastnlp.unpad_arrays(padded.input_ids.astype(dtype), padded.lengths, backend="cpu")
    fastnlp.block_diagonal_mask(packed.cu_seqlens, causal=True, backend="cpu")
    fastnlp.GloVe(dim=3, epochs=1).fit(counts, backend="cpu")
    checked = 0
    for kernel, declared in jit.KERNELS:
        allowed = {numba.core.sigutils.normalize_signature(s)[0] for s in declared}
        made = set(kernel.signatures)
        assert made <= allowed, f"{kernel}: {made - allowed}"
        checked += len(made)
    assert checked > 30
