"""`patch_lm_head`: the training loss of a Hugging Face causal language model, its logits never made.

The model's own forward runs, on a view of the model whose head returns `_Logits`: what the logits would be made from,
and the scale and soft-cap that the model puts on them. The view's loss function hands these to `linear_cross_entropy`.
So what a model does besides (auxiliary losses, caches, hidden states) stays its own, and anything else that it does
with the logits is an error that says so. The view is made for one call: nothing of the model changes meanwhile.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastnlp.torch.functional import linear_cross_entropy, over


def patch_lm_head(model: Any, *, evaluation: bool = False, workspace: int | None = None) -> Any:
    """Make a causal language model of transformers compute its training loss by `linear_cross_entropy`.

    The loss and its gradients are those of the model, in less memory: the logits ``(batch, tokens, vocabulary)`` are
    never made. It works for the models whose forward hands logits from a ``torch.nn.Linear`` to
    ``self.loss_function``, with a scale (Cohere, Granite) or a soft-cap (Gemma) between: most that transformers has.

    Parameters
    ----------
    model
        A ``transformers.PreTrainedModel`` such as ``LlamaForCausalLM``. It is changed in place: its class becomes a
        subclass of the same name. Parameters, ``state_dict``, ``save_pretrained``, pickle and deepcopy are as before.
        Patching again only takes over the options.
    evaluation
        Also in eval mode. By default only a model in training mode is affected, since metrics may want the logits.
    workspace
        Bytes for temporaries, as in `linear_cross_entropy`.

    Returns
    -------
    model
        The same model. In training mode, and when called with ``labels``, its output holds the loss and no logits
        (``output.logits`` is None). Everything else is unchanged, `generate` included.

    Raises
    ------
    TypeError
        `model` is not a ``PreTrainedModel``, or its head not a plain ``torch.nn.Linear``.
    ValueError
        Its forward is not one that is understood: another loss, a replaced ``forward``, a head with hooks. Something
        unknown that a forward does with its logits raises when the model is first trained.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a PreTrainedModel of transformers, got {type(model).__name__}: hand over the model inside "
            "(model.module of DistributedDataParallel, model.get_base_model() of peft)"
        )
    if not hasattr(model, "_fastnlp_head"):
        name = _understood(model)
        kind: type = type(model)
        model.__class__ = _patched(kind)
    else:
        name = model._fastnlp_head.name
    model._fastnlp_head = _Head(name, evaluation, workspace)
    return model


def unpatch_lm_head(model: Any) -> Any:
    """Undo `patch_lm_head`, and return the model.

    Raises
    ------
    ValueError
        The model is not patched.
    """
    if not hasattr(model, "_fastnlp_head"):
        raise ValueError(f"{type(model).__name__} is not patched: patch_lm_head(model) does it")
    model.__class__ = type(model)._fastnlp_unpatched
    del model._fastnlp_head
    return model


class _Head(NamedTuple):
    name: str  # of the model's attribute
    evaluation: bool
    workspace: int | None


def _understood(model: Any) -> str:
    """Return the name of the model's head, after checking that its forward is one that is understood."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    kind = type(model).__name__
    if "forward" in vars(model):
        raise ValueError(f"{kind}.forward was replaced on this model: patch before accelerate or others wrap it")
    head = model.get_output_embeddings()
    name = next((name for name, child in model.named_children() if child is head and head is not None), None)
    if name is None:
        raise TypeError(f"{kind} has no head of its own: model.get_output_embeddings() is not one of its children")
    _check_head(head, kind)
    code = inspect.unwrap(type(model).forward).__code__
    used = {"loss_function", name} <= set(code.co_names) and "labels" in code.co_varnames
    if not used or model.loss_function is not ForCausalLMLoss:
        raise ValueError(
            f"{kind} does not compute its loss by self.loss_function(logits, labels, ...) of causal language models, "
            f"with logits from self.{name}: use fastnlp.torch.linear_cross_entropy in your own forward"
        )
    return name


def _check_head(head: Any, kind: str) -> None:
    if type(head) is not nn.Linear:
        raise TypeError(f"the head of {kind} must be a torch.nn.Linear, got {type(head).__name__}")
    if "forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks:
        raise ValueError(f"the head of {kind} has hooks or another forward, which a loss without logits cannot run")


@functools.cache
def _patched(cls: type) -> type:
    """Return the subclass of `cls`, of the same name, whose forward makes no logits where it trains."""
    original: Callable[..., Any] = cls.forward  # type: ignore[attr-defined]
    position = list(inspect.signature(original).parameters).index("labels") - 1  # among the arguments after self

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        labels = args[position] if len(args) > position else kwargs.get("labels")
        head = vars(self).get("_fastnlp_head")  # None: unpatched, but accelerate still holds this function
        if labels is None or head is None or not (self.training or head.evaluation):
            return original(self, *args, **kwargs)
        return _without_logits(original(_View(self), *args, **kwargs))

    def reduce(self: Any, protocol: Any) -> Any:
        return _unpickled, (cls,), *object.__reduce_ex__(self, protocol)[2:]

    names = {key: getattr(cls, key) for key in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (cls,), {**names, "forward": forward, "__reduce_ex__": reduce, "_fastnlp_unpatched": cls})


def _unpickled(cls: type) -> Any:
    patched: Any = _patched(cls)
    return patched.__new__(patched)


class _View:
    """A model as its forward sees it, with another head and another loss function."""

    def __init__(self, model: Any) -> None:
        name, _, workspace = model._fastnlp_head
        head = getattr(model, name)
        _check_head(head, type(model).__name__)
        vars(self).update(
            {
                "_model": model,
                name: lambda hidden: _Logits(hidden, head.weight, head.bias, type(model).__name__),
                "loss_function": functools.partial(_loss, workspace=workspace),
            }
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


class _Logits:
    """The logits ``x W' + b`` that are never made: ``x W' + b`` over `divisor`, or `softcap` times the tanh of that."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        model: str,
        divisor: float = 1.0,
        softcap: float | None = None,
    ) -> None:
        self.hidden, self.weight, self.bias, self.model = hidden, weight, bias, model
        self.divisor, self.softcap = divisor, softcap

    def _with(self, divisor: float, softcap: float | None) -> _Logits:
        return _Logits(self.hidden, self.weight, self.bias, self.model, divisor, softcap)

    def __truediv__(self, divisor: float) -> _Logits:
        if not isinstance(divisor, float | int):
            raise self._unknown("a division by what is not a number")
        if self.softcap is None:
            return self._with(self.divisor * divisor, None)
        return self._with(self.divisor, self.softcap / divisor)

    def __mul__(self, factor: float) -> _Logits:
        if not (isinstance(factor, float | int) and factor):
            raise self._unknown("a product with what is not a number")
        return self / (1 / factor)

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Any:
        raise self._unknown("an index")

    def tanh(self) -> _Logits:
        if self.softcap is not None:
            raise self._unknown("a second tanh")
        return self._with(self.divisor, 1.0)

    def float(self) -> _Logits:
        return self

    def __getattr__(self, name: str) -> Any:
        raise self._unknown(f"logits.{name}")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        logits = next(x for x in (*args, *(kwargs or {}).values()) if isinstance(x, cls))
        if function is torch.tanh:
            return logits.tanh()
        raise logits._unknown(function.__name__)

    def _unknown(self, what: str) -> AttributeError:
        return AttributeError(
            f"{self.model} does something with its logits that patch_lm_head does not know ({what}): "
            "unpatch_lm_head(model), and use fastnlp.torch.linear_cross_entropy in your own forward"
        )


def _loss(
    logits: _Logits,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    *,
    workspace: int | None = None,
    **_: Any,
) -> Tensor:
    """Compute what transformers' loss of causal language models computes: each token predicts the next."""
    if shift_labels is None:
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    rows = logits.hidden.flatten(0, -2)
    if shift_labels.numel() != len(rows) or vocab_size != len(logits.weight):
        raise ValueError(
            f"{logits.model}: labels {tuple(labels.shape)} and vocab_size {vocab_size} do not fit logits for "
            f"{tuple(logits.hidden.shape[:-1])} tokens of {len(logits.weight)} classes (logits_to_keep must be 0 here)"
        )
    softcap = logits.softcap
    loss = linear_cross_entropy(
        rows,
        logits.weight,
        shift_labels.flatten().to(rows.device),  # of a model on several GPUs they are where it begins
        linear_bias=logits.bias,
        reduction="mean" if num_items_in_batch is None else "sum",
        ignore_index=ignore_index,
        temperature=logits.divisor if softcap is None else logits.divisor / softcap,
        softcap=softcap,
        workspace=workspace,
    )
    return loss if num_items_in_batch is None else over(loss, torch.as_tensor(num_items_in_batch, device=loss.device))


def _without_logits(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(x for x in output if not isinstance(x, _Logits))
    return type(output)(**{name: x for name, x in output.items() if not isinstance(x, _Logits)})
