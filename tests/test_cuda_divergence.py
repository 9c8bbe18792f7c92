"""Divergences of softmaxes on a GPU: row kernels, drivers and whole operations in the simulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp
from fastnlp.kernels.reference import linear_kl_div as reference
from fastnlp.ops.linear_kl_div import Objective, Teacher

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from fastnlp.kernels.cuda import _teacher
from tests.simulated import SimulatedLibrary, host

DTYPES = ["float32", "float16", "bfloat16"]
BETAS = [0.0, 1.0, 0.3]
EPS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LEAST = {"float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
DIGITS = 3e-6  # float32 exponentials of differences of logits up to 20


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def run(
    x,
    y,
    beta,
    dtype="float32",
    *,
    label=None,
    hard=0.0,
    soft=1.0,
    scale=1.0,
    given_p=False,
    upstream=None,
    place="out",
    offset=0,
    pitch=None,
    seed=0,
    processors=3,
):
    """Return loss and dx (None where place is "none") of the row kernel for beta, and the same by the reference."""
    gpu = SimulatedLibrary(seed=seed, processors=processors)
    n, classes = np.shape(x)
    z = gpu.on_device(x, dtype, offset=offset, pitch=pitch, readonly=place != "in")
    t = gpu.on_device(y, dtype, offset=offset, pitch=pitch, readonly=True)
    label = np.zeros(n, np.int64) if label is None else np.asarray(label, np.int64)
    upstream = np.ones(n) if upstream is None else upstream
    truth = expected(host(z), host(t), label, beta, scale, soft, hard, given_p, upstream)
    dx = {"in": z, "none": None}.get(place, gpu.on_device(np.full((n, classes), np.nan), dtype, pitch=pitch))
    loss, factor = gpu.empty(n, "float32"), None if dx is None else gpu.on_device(upstream, "float32", readonly=True)
    labels = gpu.on_device(label, readonly=True)
    _teacher.rows(z, t, given_p, labels, beta, 1 - beta, scale, soft, hard, factor, loss, dx)
    assert gpu.waits == []
    return (host(loss), None if dx is None else host(dx)), truth


def expected(x, y, label, beta, scale, soft, hard, given_p, upstream):
    x, y = x.astype(np.float64), y.astype(np.float64)
    teacher = Teacher(None, None, y) if given_p else Teacher(None, y, None)
    objective = Objective(beta, scale, soft, hard, np.maximum(label, 0) if hard else None)
    with np.errstate(all="ignore"):
        loss, dx = reference._rows(x, y, teacher, objective, np.arange(len(x)), np.asarray(upstream, np.float64))
    loss[label == -1] = dx[label == -1] = 0
    loss[label < -1] = dx[label < -1] = np.nan
    return loss, dx


def assert_right(found, wanted, dtype="float32", digits=DIGITS):
    np.testing.assert_allclose(found[0], wanted[0], rtol=digits, atol=1e-13)
    if found[1] is not None:
        actual, dx = found[1].astype(np.float64), wanted[1]
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(dx))
        size = np.abs(dx).max(axis=1, initial=0, keepdims=True)
        wrong = np.abs(actual - dx) > (EPS[dtype] + digits) * np.abs(dx) + LEAST[dtype] + 0.3 * digits * size
        assert not wrong.any(), (actual[wrong], dx[wrong])


def logits(rng, n, classes, size=2.0):
    return size * rng.standard_normal((n, classes)), size * rng.standard_normal((n, classes))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 7, 8, 24, 100])
def test_matches_truth(rng, classes, dtype, beta):
    found, wanted = run(*logits(rng, 4, classes), beta, dtype, upstream=np.array([1, 2, 0.5, -1]), scale=0.7)
    assert_right(found, wanted, dtype)


@pytest.mark.parametrize("beta", BETAS)
def test_rows_longer_than_a_pass_of_the_block(rng, beta):
    found, wanted = run(*logits(rng, 2, 1543), beta, "bfloat16", place="in")
    assert_right(found, wanted, "bfloat16")


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "pitch"), [(1, None), (0, 45), (8, 48)])
@pytest.mark.parametrize("place", ["in", "out", "none"])
def test_where_rows_stand(rng, place, offset, pitch, dtype, beta):
    found, wanted = run(*logits(rng, 3, 43), beta, dtype, place=place, offset=offset, pitch=pitch)
    assert_right(found, wanted, dtype)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", ["in", "none"])
def test_labels_are_mixed_in(rng, place, dtype, beta):
    options = {"label": [3, -1, 0, 41, -2, 29], "hard": 0.4, "soft": 0.6 * 4, "scale": 0.5, "place": place}
    found, wanted = run(*logits(rng, 6, 42), beta, dtype, upstream=rng.random(6) + 0.5, **options)
    assert_right(found, wanted, dtype)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("total", [1.0, 0.6])
@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_are_taken_as_they_are(rng, dtype, total, beta):
    x, y = logits(rng, 4, 42)
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True) * total
    p[1, ::3] = 0
    if beta == 1:
        x[1, ::3] = -np.inf  # or the divergence is infinite
    options = {"label": [3, 0, 40, -1], "hard": 0.25, "soft": 0.75, "scale": 0.5}
    found, wanted = run(x, p, beta, dtype, given_p=True, **options)
    assert_right(found, wanted, dtype)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("far", [1e-1, 1e-3, 1e-5])
def test_nearly_equal_rows_keep_their_digits(rng, far, beta):
    x, y = logits(rng, 4, 100)
    x, y = x.astype(np.float32), (x + far * y).astype(np.float32)
    (loss, dx), (true_loss, true_dx) = run(x, y, beta)
    assert 0 < true_loss.max() < far**2 * 10
    np.testing.assert_allclose(loss, true_loss, rtol=1e-6 + 2e-9 / far)
    np.testing.assert_allclose(dx, true_dx, rtol=0, atol=(2e-6 + 1e-7 / far) * np.abs(true_dx).max())


@pytest.mark.parametrize("beta", BETAS)
def test_nearly_equal_rows_of_different_height_keep_their_digits(rng, beta):
    x, y = logits(rng, 3, 43)
    x, y = x.astype(np.float32), (x + 1e-2 * y + 1000).astype(np.float32)
    found, wanted = run(x, y, beta)
    assert_right(found, wanted, digits=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_of_improbable_classes_keeps_its_digits(rng, beta):
    x, y = logits(rng, 3, 100, 8.0)
    x, y = x.astype(np.float32), (x + 1e-4 * y).astype(np.float32)
    (_, dx), (_, true_dx) = run(x, y, beta)
    q = np.exp(x.astype(np.float64))
    q /= q.sum(axis=1, keepdims=True)
    assert np.abs((dx - true_dx) / q).max() < 3e-7


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("place", ["in", "none"])
def test_equal_rows(rng, place, beta):
    x, _ = logits(rng, 3, 43, 5.0)
    (loss, dx), _ = run(x, x, beta, place=place)
    np.testing.assert_array_equal(loss, 0)
    if dx is not None:
        np.testing.assert_array_equal(dx, 0)


@pytest.mark.parametrize("beta", BETAS)
def test_a_confident_student_keeps_the_digits_of_its_hard_loss(rng, beta):
    x, y = logits(rng, 3, 43)
    x[:, 5] += 22
    found, wanted = run(x, y, beta, label=[5, 5, 5], hard=1.0, soft=0.0)
    assert 0 < wanted[0].max() < 1e-5
    assert_right(found, wanted)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("size", [40.0, 1e4])
def test_far_apart(rng, size, beta):
    """A mean that is subtracted from a logarithm near it leaves the rounding of both."""
    (loss, dx), (true_loss, true_dx) = run(*logits(rng, 4, 43, size), beta)
    np.testing.assert_allclose(loss, true_loss, rtol=1e-5)
    np.testing.assert_allclose(dx, true_dx, rtol=2e-5, atol=2e-7 * (1 + true_loss.max()))


@pytest.mark.parametrize("beta", [1e-60, 1e-6, 1e-3, 0.5, 0.999, 1 - 1e-6])
@pytest.mark.parametrize("size", [2.0, 1e4])
def test_betas_near_the_ends(rng, size, beta):
    """There D is small, and what is left of the digits of its gradient is an absolute error."""
    found, wanted = run(*logits(rng, 3, 43, size), beta)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-7)


def test_classes_without_mass(rng):
    x, y = logits(rng, 6, 26)
    x[0, ::3] = y[0, ::3] = -np.inf  # neither has any: 0 log 0 = 0
    x[1, ::3] = -np.inf  # the student has none
    y[2, ::3] = -np.inf  # the teacher has none
    x[3] = -np.inf
    y[4] = -np.inf
    for beta in BETAS:
        (loss, dx), (true_loss, true_dx) = run(x, y, beta)
        np.testing.assert_allclose(loss, true_loss, rtol=DIGITS)
        assert np.isinf(loss[1]) == (beta == 0)
        assert np.isinf(loss[2]) == (beta == 1)
        assert np.isnan(loss[3:5]).all()
        finite = [row for row in range(6) if np.isfinite(true_loss[row])]
        np.testing.assert_allclose(dx[finite], true_dx[finite], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_makes_its_row_nan(rng, bad, beta):
    x, y = logits(rng, 4, 26)
    x[1, 25] = bad
    y[2, 3] = bad
    (loss, dx), (true_loss, _) = run(x, y, beta)
    assert np.isnan(loss[1:3]).all()
    assert np.isnan(dx[1:3]).any(axis=1).all()
    np.testing.assert_allclose(loss[[0, 3]], true_loss[[0, 3]], rtol=DIGITS)
    assert np.isfinite(dx[[0, 3]]).all()


@pytest.mark.parametrize("beta", BETAS)
def test_the_same_bits_whatever_the_order(rng, beta):
    x, y = logits(rng, 5, 43)
    results = [run(x, y, beta, label=range(5), hard=0.5, seed=s, processors=p)[0] for s, p in ((1, 1), (2, 3), (3, 8))]
    for loss, dx in results[1:]:
        np.testing.assert_array_equal(loss, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


# --- whole operations


def both(function, arrays, options, dy=1.7, wrt=None):
    """Return value and gradients on the device, and the reference's in float64."""
    results = []
    for on_gpu in (True, False):
        given, named = ({k: v if on_gpu else wide(v) for k, v in x.items()} for x in (arrays, options))
        workspace = named.pop("workspace", None)
        more = {"workspace": workspace} if on_gpu and workspace else {} if on_gpu else {"backend": "reference"}
        value, pullback = fastnlp.vjp(function, wrt=wrt)(**given, **named, **more)
        upstream = dy if np.ndim(value) == 0 else np.linspace(0.5, 1.5, np.size(value)).reshape(np.shape(value))
        if on_gpu and np.ndim(value):
            upstream = arrays["input"].library.on_device(upstream, "float32")
        results.append((value, pullback(upstream)))
    return results


def wide(x):
    """Return what the reference is given in the place of an array on the device."""
    if not hasattr(x, "library"):
        return x
    array = host(x)
    return array if array.dtype.kind in "iu" else array.astype(np.float64)


def close(actual, wanted, tolerance):
    actual = host(actual) if hasattr(actual, "owner") else np.asarray(actual)
    actual, wanted = actual.astype(np.float64), np.asarray(wanted, np.float64)
    size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * max(size, 1e-30))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_softmax_kl_div(gpu, rng, reduction, dtype, beta):
    x, y = (gpu.on_device(a.reshape(2, 3, 19), dtype, readonly=True) for a in logits(rng, 6, 19))
    options = {"beta": beta, "temperature": 2.0, "scale_by_t2": dtype != "float16", "reduction": reduction}
    found, wanted = both(fastnlp.softmax_kl_div, {"input": x, "target": y}, options)
    assert found[0].dtype == np.float32
    close(found[0], wanted[0], DIGITS)
    for actual, true in zip(found[1], wanted[1], strict=True):
        assert actual.dtype == x.dtype
        assert actual.shape == x.shape
        close(actual, true, DIGITS + EPS[dtype])
    assert gpu.waits == []


def test_softmax_kl_div_of_one_argument_is_one_launch_and_keeps_nothing(gpu, rng):
    x, y = (gpu.on_device(a, "bfloat16", readonly=True) for a in logits(rng, 4, 24))
    value, pullback = fastnlp.vjp(fastnlp.softmax_kl_div, wrt=["input"])(x, y)
    before = len(gpu.launches)
    pullback(1.0)
    assert [name for name in gpu.launches[before:] if "reduce" not in name] == ["kl.kl_rows"]
    assert float(host(gpu.wrap(np.asarray(value)))) > 0
    plan = fastnlp.softmax_kl_div.__fastnlp_op__
    assert plan.forward(plan.plan(x, y), frozenset(["input"]))[1] == ()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1)])
def test_softmax_kl_div_of_few(gpu, shape):
    x, y = (gpu.on_device(np.ones(shape), "float32") for _ in range(2))
    found, wanted = both(fastnlp.softmax_kl_div, {"input": x, "target": y}, {"beta": 0.0})
    close(found[0], wanted[0], DIGITS)
    assert found[1].input.shape == shape


TEACHERS = ["hidden", "logits", "probabilities"]


def distillation(gpu, rng, teacher, dtype, n=10, classes=43, features=8, bias=True):
    """Return the arguments of linear_kl_div on the device."""
    given = {
        "input": rng.standard_normal((n, features)),
        "linear_weight": rng.standard_normal((classes, features)) / 2,
    }
    if bias:
        given["linear_bias"] = rng.standard_normal(classes)
    y = 2 * rng.standard_normal((n, classes))
    if teacher == "hidden":
        given |= {"target_input": rng.standard_normal((n, 16)), "target_weight": rng.standard_normal((classes, 16)) / 3}
        given |= {"target_bias": rng.standard_normal(classes)} if bias else {}
    elif teacher == "logits":
        given["target_logits"] = y
    else:
        given["target_probs"] = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    return {name: gpu.on_device(array, dtype, readonly=True) for name, array in given.items()}


LINEAR = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # the logits are rounded between the kernels


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_linear_kl_div(gpu, rng, reduction, teacher, beta):
    arrays = distillation(gpu, rng, teacher, "float32")
    labels = rng.integers(0, 43, 10)
    labels[[2, 7]] = -100
    u = rng.random(10)
    u[4] = 0
    options = {
        "beta": beta,
        "temperature": 1.5,
        "scale_by_t2": True,
        "labels": gpu.on_device(labels),
        "alpha": 0.3,
        "token_weight": gpu.on_device(u, "float32"),
        "reduction": reduction,
        "workspace": 4 * 2 * 44 * 4,  # three chunks, or two
    }
    found, wanted = both(fastnlp.linear_kl_div, arrays, options)
    close(found[0], wanted[0], 1e-5)
    for actual, true in zip(found[1], wanted[1], strict=True):
        close(actual, true, 1e-5)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_linear_kl_div_in_every_dtype(gpu, rng, teacher, dtype):
    arrays = distillation(gpu, rng, teacher, dtype, bias=teacher == "hidden")
    wrt = [name for name in ("input", "linear_weight", "linear_bias") if name in arrays]
    found, wanted = both(fastnlp.linear_kl_div, arrays, {"beta": 0.3}, wrt=wrt)
    close(found[0], wanted[0], LINEAR[dtype])
    for actual, true in zip(found[1], wanted[1], strict=True):
        assert actual.dtype == arrays["input"].dtype
        close(actual, true, LINEAR[dtype])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_labels_without_a_part_in_the_loss_and_alone(gpu, rng, alpha):
    arrays = distillation(gpu, rng, "logits", "float32")
    labels = rng.integers(0, 43, 10)
    labels[[0, 9]] = -100
    options = {"labels": gpu.on_device(labels), "alpha": alpha}
    found, wanted = both(fastnlp.linear_kl_div, arrays, options)
    close(found[0], wanted[0], 1e-5)
    for actual, true in zip(found[1], wanted[1], strict=True):
        close(actual, true, 1e-5)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_rows_that_do_not_count_can_be_dropped(gpu, rng, reduction, teacher):
    arrays = distillation(gpu, rng, teacher, "float32")
    labels, u = rng.integers(0, 43, 10), rng.random(10)
    labels[[0, 3, 8]] = -100
    u[5] = 0
    options = {"labels": gpu.on_device(labels), "token_weight": gpu.on_device(u, "float32"), "alpha": 0.4}
    options |= {"reduction": reduction, "workspace": 2 * 2 * 44 * 4}
    for more in ({"compact": True}, {"num_valid": 6}):
        gpu.waits.clear()
        found, wanted = both(fastnlp.linear_kl_div, arrays, options | more)
        close(found[0], wanted[0], 1e-5)
        for actual, true in zip(found[1], wanted[1], strict=True):
            close(actual, true, 1e-5)
        assert set(gpu.waits) == ({"read"} if "compact" in more else set())


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("n", [0, 1])
def test_linear_kl_div_of_few(gpu, rng, n, teacher):
    arrays = distillation(gpu, rng, teacher, "float32", n=n)
    for options in ({}, {"num_valid": 0, "labels": gpu.on_device(np.full(n, -100))}):
        found, wanted = both(fastnlp.linear_kl_div, arrays, options)
        close(found[0], wanted[0], 1e-5)
        for actual, true in zip(found[1], wanted[1], strict=True):
            close(actual, true, 1e-5)


def test_a_wrong_num_valid_is_told(gpu, rng):
    arrays = distillation(gpu, rng, "logits", "float32")
    weight = gpu.on_device(np.arange(10), "float32")
    assert np.isnan(fastnlp.linear_kl_div(**arrays, token_weight=weight, num_valid=8))
    with pytest.raises(ValueError, match="num_valid is not the number of rows that count, which is 9"):
        fastnlp.linear_kl_div(**arrays)
    host_arrays = {name: host(x) for name, x in arrays.items()}
    with pytest.raises(ValueError, match="num_valid must be the number of rows that count, 10, got 9"):
        fastnlp.linear_kl_div(**host_arrays, num_valid=9)


def test_small_gradients_of_many_rows_do_not_vanish_in_float16(gpu, rng):
    n, classes = 64, 24
    labels = rng.integers(0, classes, n)
    z = -12.0 * (np.arange(classes) != labels[:, None])
    arrays = {"input": z, "linear_weight": np.eye(classes), "target_logits": z}
    arrays = {name: gpu.on_device(array, "float16", readonly=True) for name, array in arrays.items()}
    options = {"labels": gpu.on_device(labels), "alpha": 0.5}
    found, wanted = both(fastnlp.linear_kl_div, arrays, options, dy=2.0**12, wrt=["linear_weight"])
    close(found[1].linear_weight, wanted[1].linear_weight, 0.02)


def test_no_row_counts(gpu, rng):
    arrays = distillation(gpu, rng, "hidden", "float32")
    found, wanted = both(fastnlp.linear_kl_div, arrays, {"labels": gpu.on_device(np.full(10, -100))})
    assert np.isnan(np.asarray(found[0]))
    assert np.isnan(wanted[0])
    for actual, true in zip(found[1], wanted[1], strict=True):
        close(actual, true, 0)


def test_a_label_out_of_range_makes_its_row_nan_and_the_next_call_raise(gpu, rng):
    arrays = distillation(gpu, rng, "logits", "float32")
    labels = rng.integers(0, 43, 10)
    labels[3] = 43
    options = {"labels": gpu.on_device(labels), "alpha": 0.5, "reduction": "none"}
    loss = np.asarray(fastnlp.linear_kl_div(**arrays, **options))
    np.testing.assert_array_equal(np.isnan(loss), np.arange(10) == 3)
    with pytest.raises(ValueError, match="43"):
        fastnlp.linear_kl_div(**arrays, **options)


def test_bad_input(gpu, rng):
    arrays = distillation(gpu, rng, "hidden", "bfloat16")
    with pytest.raises(ValueError, match="workspace must be at least 192 bytes"):
        fastnlp.linear_kl_div(**arrays, workspace=100)
    with pytest.raises(TypeError, match="bfloat16, but float16 is wanted"):
        fastnlp.linear_kl_div(**arrays | {"target_input": gpu.on_device(np.ones((10, 16)), "float16")})
    with pytest.raises(TypeError, match="mixed in one call"):
        fastnlp.softmax_kl_div(arrays["input"], np.ones((10, 8), np.float32))
    with pytest.raises(TypeError, match="on a GPU, got float64"):
        fastnlp.softmax_kl_div(*(gpu.on_device(np.ones((3, 4)), "float64") for _ in range(2)))
