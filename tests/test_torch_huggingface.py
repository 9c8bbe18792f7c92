"""`patch_lm_head` on tiny models of transformers: the same loss and gradients, and no logits made."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from fastnlp.torch import linear_cross_entropy, patch_lm_head, unpatch_lm_head  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own

V = 1009
LLAMA_LIKE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
# Where the loss differs: tied weights, a soft-cap, a scale, a further loss.
CONFIGS = {
    "llama": ("LlamaConfig", LLAMA_LIKE),
    "llama-tied": ("LlamaConfig", {**LLAMA_LIKE, "tie_word_embeddings": True}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": V,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "loss_type": "ForCausalLM",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "qwen2": ("Qwen2Config", LLAMA_LIKE),
    "qwen3": ("Qwen3Config", {**LLAMA_LIKE, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**LLAMA_LIKE, "head_dim": 8, "final_logit_softcapping": 0.5}),
    "granite": ("GraniteConfig", {**LLAMA_LIKE, "logits_scaling": 3.0}),
    "cohere": ("CohereConfig", {**LLAMA_LIKE, "logit_scale": 0.25}),
    "mixtral": ("MixtralConfig", {**LLAMA_LIKE, "num_local_experts": 4, "output_router_logits": True}),
}


def tiny(name, **changes):
    config, given = CONFIGS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config)(**{**given, **changes})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def tokens(n=13, batch=2, v=V):
    ids = torch.randint(3, v, (batch, n), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :5] = -100
    return {"input_ids": ids, "labels": labels}


def loss_and_gradients(model, **inputs):
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(model, before, after, tolerance=1e-6):
    (output, grads), (patched, patched_grads) = before, after
    assert output.logits is not None
    assert patched.logits is None
    torch.testing.assert_close(patched.loss, output.loss.detach(), rtol=tolerance, atol=0)
    for name, _ in model.named_parameters():
        error = (grads[name] - patched_grads[name]).abs().max()
        assert grads[name].any(), name
        assert error <= 4 * tolerance * grads[name].abs().max() + 1e-9, (name, error)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_loss_and_gradients(name):
    model, inputs = tiny(name), tokens()
    before = loss_and_gradients(model, **inputs)
    assert patch_lm_head(model) is model
    after = loss_and_gradients(model, **inputs)
    assert_same(model, before, after)
    assert {k for k in before[0] if k != "logits"} == set(after[0])
    again = loss_and_gradients(unpatch_lm_head(model), **inputs)
    assert torch.equal(again[0].logits, before[0].logits)
    assert all(torch.equal(again[1][k], grad) for k, grad in before[1].items())


class Largest(TorchDispatchMode):
    """Records the most elements that a tensor of at least V columns had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, list | tuple) else [out]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2"])
def test_the_logits_are_never_made(name):
    n, v = 60, 5003
    model, inputs = tiny(name, vocab_size=v), tokens(n, batch=4, v=v)
    logits, weights = 4 * n * v, max(p.numel() for p in model.parameters())
    assert weights < logits / 2
    with Largest() as before:
        loss_and_gradients(model, **inputs)
    assert before.elements >= logits
    patch_lm_head(model, workspace=2 << 20)
    with Largest() as after:
        loss_and_gradients(model, **inputs)
    assert after.elements <= weights


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_calls_without_labels_are_unchanged(name):
    model, inputs = tiny(name), tokens()
    ids = inputs["input_ids"]
    expected = model(input_ids=ids).logits
    patch_lm_head(model)
    assert torch.equal(model(input_ids=ids).logits, expected)
    model.eval()
    output = model(**inputs)
    assert torch.equal(output.logits, expected)
    assert output.loss is not None
    generated = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(generated, unpatch_lm_head(model).generate(ids, max_new_tokens=3, do_sample=False))


def test_evaluation():
    model, inputs = tiny("llama").eval(), tokens()
    expected = model(**inputs).loss
    patch_lm_head(model, evaluation=True)
    with torch.no_grad():
        output = model(**inputs)
    assert output.logits is None
    torch.testing.assert_close(output.loss, expected.detach())


def test_items_in_batch_shifted_labels_and_tuples():
    model, inputs = tiny("llama"), tokens()
    ids, labels = inputs["input_ids"], inputs["labels"]
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    calls = [
        {**inputs, "num_items_in_batch": 57},
        {**inputs, "num_items_in_batch": torch.tensor(57)},
        {"input_ids": ids, "labels": labels, "shift_labels": shifted},
        {**inputs, "attention_mask": (torch.arange(13) >= torch.tensor([[0], [4]])).long()},
        {**inputs, "output_hidden_states": True},
    ]
    expected = [loss_and_gradients(model, **call) for call in calls]
    patch_lm_head(model)
    for call, before in zip(calls, expected, strict=True):
        assert_same(model, before, loss_and_gradients(model, **call))
    loss, *rest = model(**inputs, return_dict=False)
    torch.testing.assert_close(loss, model(**inputs).loss)
    assert all(not isinstance(x, torch.Tensor) for x in rest)


def test_nothing_that_counts():
    model, inputs = patch_lm_head(tiny("llama")), tokens()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    for more in ({}, {"num_items_in_batch": 0}):
        output, grads = loss_and_gradients(model, **inputs, **more)
        assert output.loss.isnan()
        assert not any(grad.any() for grad in grads.values())


def test_a_head_with_bias_and_frozen_layers():
    model, inputs = tiny("llama"), tokens()
    model.lm_head = torch.nn.Linear(32, V)
    before = loss_and_gradients(model, **inputs)
    assert_same(model, before, loss_and_gradients(patch_lm_head(model), **inputs))
    model.lm_head.requires_grad_(False)
    model.zero_grad()
    model(**inputs).loss.backward()
    assert model.lm_head.weight.grad is None
    torch.testing.assert_close(model.model.embed_tokens.weight.grad, before[1]["model.embed_tokens.weight"])


@pytest.mark.parametrize("how", ["bfloat16", "autocast"])
def test_low_precision(how):
    model, inputs = tiny("llama"), tokens()
    if how == "bfloat16":
        model = model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        loss = model(**inputs).loss
        patched = patch_lm_head(model)(**inputs).loss
    assert patched.dtype == loss.dtype == torch.float32
    patched.backward()
    assert model.lm_head.weight.grad.dtype == model.lm_head.weight.dtype
    torch.testing.assert_close(patched, loss, rtol=1e-3, atol=0)


def test_checkpointing():
    model, inputs = tiny("llama"), tokens()
    before = loss_and_gradients(model, **inputs)
    patch_lm_head(model)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    assert_same(model, before, loss_and_gradients(model, **inputs, use_cache=False))


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_compiles_without_a_graph_break(name):
    model, inputs = tiny(name), tokens()
    before = loss_and_gradients(model, **inputs)
    patch_lm_head(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.zero_grad()
    output = compiled(**inputs)
    output.loss.backward()
    assert_same(model, before, (output, {name: p.grad for name, p in model.named_parameters()}))


def test_copies_and_files(tmp_path):
    model, inputs = tiny("llama"), tokens()
    keys = list(model.state_dict())
    patch_lm_head(model)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert inspect.signature(model.forward) == inspect.signature(transformers.LlamaForCausalLM.forward).replace(
        parameters=list(inspect.signature(transformers.LlamaForCausalLM.forward).parameters.values())[1:]
    )
    assert list(model.state_dict()) == keys
    expected = model(**inputs).loss
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        output = twin(**inputs)
        assert output.logits is None
        assert torch.equal(output.loss, expected)
        twin.lm_head.weight.data.zero_()
        assert twin(**inputs).loss != expected
        assert unpatch_lm_head(twin)(**inputs).logits is not None
    assert torch.equal(model(**inputs).loss, expected)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
    assert type(loaded) is transformers.LlamaForCausalLM
    torch.testing.assert_close(loaded(**inputs).loss, expected)


def test_a_new_head_is_seen():
    model, inputs = patch_lm_head(tiny("llama")), tokens()
    model.resize_token_embeddings(V + 7)
    patched = model(**inputs).loss
    torch.testing.assert_close(patched, unpatch_lm_head(model)(**inputs).loss)


def test_threads_do_not_see_each_others_calls():
    model, inputs = patch_lm_head(tiny("llama")), tokens()

    def call(i):
        output = model(**inputs) if i % 2 else model(input_ids=inputs["input_ids"])
        return (output.logits is None) == bool(i % 2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(40)))


def test_patching_again_takes_the_new_options():
    model, inputs = patch_lm_head(tiny("llama")), tokens()
    kind = type(model)
    assert type(patch_lm_head(model, evaluation=True)) is kind
    assert model.eval()(**inputs).logits is None
    assert type(unpatch_lm_head(model)) is transformers.LlamaForCausalLM
    with pytest.raises(ValueError, match=r"is not patched: patch_lm_head\(model\) does it"):
        unpatch_lm_head(model)


def test_two_lines_in_a_plain_loop():
    torch.manual_seed(0)
    model, inputs = patch_lm_head(tiny("gpt2")), tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        losses.append(model(**inputs).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 1


@pytest.mark.filterwarnings("ignore")  # the Trainer's own, of pinned memory and the like
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bf16"])
def test_trainer_with_gradient_accumulation(tmp_path, monkeypatch, mixed):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs["reduction"])
        return linear_cross_entropy(*args, **kwargs)

    monkeypatch.setattr("fastnlp.torch.huggingface.linear_cross_entropy", counted)
    data = [{key: x[i % 2] for key, x in tokens(9 + i).items()} for i in range(8)]
    # Lengths differ, so the mean of means is not the mean.
    runs = []
    for patch in (lambda model: model, patch_lm_head):
        model = patch(tiny("llama"))
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=4,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=mixed,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data[:2])
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        runs.append((losses, trainer.evaluate()["eval_loss"]))
        if patch is patch_lm_head:  # accelerate's wrapper of forward stays on the model
            assert unpatch_lm_head(model).train()(**tokens()).logits is not None
    (plain, plain_evaluated), (patched, patched_evaluated) = runs
    assert calls == ["sum"] * 8  # 2 steps of 4 batches, of the patched model alone, normalised by the tokens of a step
    assert len(plain) == 2
    assert patched == pytest.approx(plain, rel=2e-3 if mixed else 1e-5)
    assert patched_evaluated == pytest.approx(plain_evaluated, rel=2e-3 if mixed else 1e-5)


def test_what_is_not_understood_is_refused():
    with pytest.raises(TypeError, match="must be a PreTrainedModel of transformers, got Linear"):
        patch_lm_head(torch.nn.Linear(2, 3))
    model = tiny("llama")
    with pytest.raises(TypeError, match=r"got DataParallel: .*model\.module"):
        patch_lm_head(torch.nn.DataParallel(model))
    model.forward = model.forward
    with pytest.raises(ValueError, match="forward was replaced on this model"):
        patch_lm_head(model)
    model = tiny("llama")
    model.lm_head = torch.nn.Sequential(model.lm_head)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Linear, got Sequential"):
        patch_lm_head(model)
    model = tiny("llama")
    model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="has hooks"):
        patch_lm_head(model)
    model = tiny("llama")
    model.loss_function = lambda **_: None
    with pytest.raises(ValueError, match="does not compute its loss by self"):
        patch_lm_head(model)
    bart = transformers.BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    with pytest.raises(ValueError, match="BartForCausalLM does not compute its loss by self"):
        patch_lm_head(transformers.BartForCausalLM(bart))
    bert = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, is_decoder=True
    )
    with pytest.raises(TypeError, match="has no head of its own"):
        patch_lm_head(transformers.BertLMHeadModel(bert))


STEPS = {
    "logits.exp": lambda logits: logits.exp(),
    "exp": torch.exp,
    "an index": lambda logits: logits[..., :V],
    "a product with what is not a number": lambda logits: logits * torch.tensor(2.0),
    "a division by what is not a number": lambda logits: logits / torch.tensor(2.0),
    "mul": lambda logits: torch.tensor(2.0) * logits,
    "a second tanh": lambda logits: logits.tanh().tanh(),
}


class Unusual(transformers.LlamaForCausalLM):
    def forward(self, input_ids, labels=None):
        logits = STEPS[self.step](self.lm_head(self.model(input_ids=input_ids).last_hidden_state))
        return {"loss": self.loss_function(logits=logits, labels=labels, vocab_size=V), "logits": logits}


@pytest.mark.parametrize("step", STEPS)
def test_an_unknown_step_between_head_and_loss_raises_when_trained(step):
    model = patch_lm_head(Unusual(transformers.LlamaConfig(**LLAMA_LIKE)))
    model.step = step
    inputs = tokens()
    assert model.eval()(**inputs)["logits"].shape == (2, 13, V)
    with pytest.raises(AttributeError, match=rf"does not know \({step}\): unpatch_lm_head\(model\)"):
        model.train()(**inputs)


def test_logits_to_keep_needs_labels_that_fit():
    model, inputs = patch_lm_head(tiny("llama")), tokens()
    with pytest.raises(ValueError, match="logits_to_keep must be 0"):
        model(**inputs, logits_to_keep=4)
    short = {"input_ids": inputs["input_ids"], "labels": inputs["labels"][:, -4:]}
    patched = model(**short, logits_to_keep=4).loss
    torch.testing.assert_close(patched, unpatch_lm_head(model)(**short, logits_to_keep=4).loss)
