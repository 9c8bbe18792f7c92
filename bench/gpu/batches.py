"""Parts of batches whose tokens and hidden states are on the GPU: pooling, padded and packed assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.contestant import Contestant
from bench.gpu.part import Part
from bench.gpu.race import race
from bench.gpu.rows import COPY, near

TOKENS, D = 131_072, 1024


def parts() -> list[Part]:
    """Return them."""
    pooled = [Part(f"pool, {mode}", partial(pool, mode=mode, tokens=TOKENS, d=D), 4, 16 << 28) for mode in MODES]
    assembled = [
        Part(f"{name} from tokens on the GPU", partial(run, tokens=8 * TOKENS), 5, 1 << 30, ("torch", "cupy"))
        for name, run in (("pad_arrays", pad), ("pack_arrays", pack))
    ]
    return [*pooled, *assembled]


def _lengths(tokens: int, longest: int = 1024) -> np.ndarray:
    """Return lengths of sequences, uniform up to the longest, that sum to `tokens`."""
    lengths = np.random.default_rng(0).integers(1, longest + 1, tokens)
    n = int(np.searchsorted(lengths.cumsum(), tokens)) + 1
    lengths = lengths[:n]
    lengths[-1] -= lengths.sum() - tokens
    return lengths


def _mean(x: Any, numbers: Any, lengths: Any) -> Any:
    total = x.new_zeros(len(lengths), x.shape[1], dtype=x.float().dtype).index_add_(0, numbers, x.float())
    return (total / lengths[:, None]).to(x.dtype)


def _max(x: Any, numbers: Any, lengths: Any) -> Any:
    out = x.new_full((len(lengths), x.shape[1]), -float("inf"))
    return out.scatter_reduce_(0, numbers[:, None].expand_as(x), x, "amax")


MODES: dict[str, Callable[..., Any]] = {"mean": _mean, "max": _max}


def pool(device: Any, *, mode: str, tokens: int, d: int) -> Any:
    """Race for pooled vectors and the gradient of the hidden states."""
    import torch

    import fastnlp.torch

    counts = torch.from_numpy(_lengths(tokens)).to(device.where)
    starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    numbers = torch.repeat_interleave(torch.arange(len(counts), device=device.where), counts)
    generator = torch.Generator(device.where).manual_seed(0)
    hidden, upstream = (
        torch.randn(n, d, generator=generator, device=device.where).bfloat16() for n in (tokens, len(counts))
    )

    def with_gradient(pooled: Callable[[Any], Any]) -> Callable[[], Any]:
        def call() -> Any:
            x = hidden.detach().requires_grad_()
            y = pooled(x)
            return [y.detach(), *torch.autograd.grad(y, x, upstream)]

        return call

    peer = with_gradient(lambda x: MODES[mode](x, numbers, counts))
    true = [t.float() for t in peer()]
    if mode == "max":
        true = true[:1]  # torch shares the gradient among equal maxima, of which 16-bit numbers have many
    check = near(true, 1e-2)
    nbytes = 2 * hidden.numel() * hidden.element_size()
    source = torch.ones(nbytes // 2, dtype=torch.uint8, device=device.where)
    sink = torch.empty_like(source)
    record = race(
        device,
        f"pool with gradient, {mode}",
        f"{len(counts):,} sequences of {tokens:,} x {d:,} bfloat16 in all",
        [
            Contestant("fastnlp", with_gradient(lambda x: fastnlp.torch.pool(x, mode=mode, cu_seqlens=starts))),
            Contestant("torch, scattered", peer),
            Contestant(COPY, lambda: sink.copy_(source), result=lambda _: None),
        ],
        check=lambda got: check(got if got is None else got[: len(true)]),
        flush=True,
        per_call={"bytes": nbytes, "tokens": tokens},
    )
    return [{**record, "floor": COPY}]


def pad(device: Any, *, tokens: int) -> Any:
    """Race for padded rows."""
    import torch

    import fastnlp

    ids, lengths, offsets, pieces = _sequences(device, tokens)
    width = int(lengths.max())

    def ours() -> Any:
        return fastnlp.pad_arrays((ids, offsets), length=width).input_ids

    def peer() -> Any:
        return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)

    return [_assembled(device, "pad_arrays", lengths, ours, peer, 8 * (tokens + 2 * width * len(lengths)))]


def pack(device: Any, *, tokens: int) -> Any:
    """Race for sequences one after another with positions."""
    import torch

    import fastnlp

    ids, lengths, offsets, pieces = _sequences(device, tokens)

    def ours() -> Any:
        return fastnlp.pack_arrays((ids, offsets)).position_ids

    def peer() -> Any:
        torch.cat(pieces)
        return torch.cat([torch.arange(n, device=device.where) for n in lengths.tolist()])

    return [_assembled(device, "pack_arrays", lengths, ours, peer, 8 * 5 * tokens)]


def _sequences(device: Any, tokens: int) -> tuple[Any, Any, Any, Any]:
    """Return tokens as a CuPy array, the lengths and offsets on the host, and the tokens of each as tensors."""
    import cupy
    import torch

    lengths = _lengths(tokens)
    flat = torch.randint(0, 50_000, (tokens,), device=device.where)
    offsets = np.concatenate([[0], lengths.cumsum()])
    return cupy.from_dlpack(flat), lengths, offsets, flat.split(lengths.tolist())


def _assembled(device: Any, name: str, lengths: Any, ours: Any, peer: Any, nbytes: int) -> Any:
    import torch

    true = peer()

    def check(got: Any) -> None:
        assert torch.equal(torch.as_tensor(got, device=true.device), true), "other entries than torch's"

    return race(
        device,
        f"{name} from tokens on the GPU",
        f"{len(lengths):,} sequences of {int(lengths.sum()):,} int64 tokens in all",
        [
            Contestant("fastnlp, CuPy arrays", ours, result=lambda array: torch.from_dlpack(array)),
            Contestant("torch", peer),
        ],
        check=check,
        flush=True,
        per_call={"bytes": nbytes, "tokens": int(lengths.sum())},
    )
