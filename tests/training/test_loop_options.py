"""What a recipe can ask of the loop beyond plain steps: averaged weights, scaled rates, weights to begin with, and more."""

import json

import pytest
import torch

from spvit_mini import load_weights, register_attention
from spvit_mini.attention import MHSA
from spvit_mini.attention_registry import ATTENTIONS
from spvit_mini.errors import UserError
from spvit_mini.training import train
from spvit_mini.training.checkpoint import load_trained, read_state
from spvit_mini.training.metrics import best_top1, read_rows


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_average_is_that_of_the_weights_after_each_step(tiny, tmp_path):
    """Weights after each step, from runs of that many steps, averaged by hand; it is scored, saved and comes back."""
    recipe = tiny.override({"ema": 0.8, "duration": "4 steps", "evaluate_every": "4 steps", "save_every": "4 steps"})
    after = [parameters(train(recipe, max_steps=n, progress=False).model).double() for n in (1, 2, 3, 4)]
    expected = after[0]
    for n, weights in enumerate(after[1:], start=1):
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights
    result = train(recipe, run_dir=tmp_path / "run", progress=False)
    torch.testing.assert_close(parameters(result.ema).double(), expected, rtol=1e-5, atol=1e-6)
    (row,) = read_rows(tmp_path / "run" / "metrics.csv")
    assert row["ema_top1"] == pytest.approx(result.rows[0]["ema_top1"], rel=1e-5)
    assert row["ema_loss"] != row["val_loss"]
    saved = read_state(tmp_path / "run" / "last.pt")["ema"]
    for name, value in result.ema.state_dict().items():
        assert torch.equal(saved[f"module.{name}"], value)


@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_best_weights_say_whether_they_are_averaged(tiny, tmp_path, decay):
    """With decay 0 the average is the weights themselves; a tie is the raw ones'."""
    result = train(tiny.override({"ema": decay, "evaluate_every": "1 step"}), run_dir=tmp_path / "run", progress=False)
    state, metadata = load_weights(tmp_path / "run" / "best.safetensors")
    best = result.best
    assert best_top1(best) == max(max(row["val_top1"], row["ema_top1"]) for row in result.rows)
    assert metadata["weights"] == ("ema" if best["ema_top1"] > best["val_top1"] else "last")
    assert metadata["step"] == str(best["step"]) and float(metadata["val_top1"]) == pytest.approx(best_top1(best), rel=1e-5)
    if decay == 0:
        assert metadata["weights"] == "last"
        assert all(row["ema_top1"] == row["val_top1"] for row in result.rows)


def test_learning_rates_follow_the_batch(tiny):
    """A rate of 0.002 for a batch of 40 is one of 0.001 for 20: all three rates."""
    options = {"optim.warmup_lr": 1e-4, "optim.cooldown": "2 steps", "evaluate_every": "1 step"}
    plain = train(tiny.override(options), progress=False)
    halves = {f"optim.{name}": value / 2 for name, value in (("lr", 2e-3), ("final_lr", 1e-5), ("warmup_lr", 1e-4))}
    scaled = train(tiny.override(options | {"optim.lr_base_batch_size": 40}), progress=False)
    by_hand = train(tiny.override(options | halves), progress=False)
    assert [row["lr"] for row in scaled.rows] == pytest.approx([row["lr"] / 2 for row in plain.rows])
    assert torch.equal(parameters(scaled.model), parameters(by_hand.model))
    assert [row["lr"] for row in plain.rows][-2:] == [1e-5, 1e-5]


def test_a_frozen_gate_keeps_its_start_and_all_else_is_trained(tiny):
    recipe = tiny.override({"model.name": "convit_mini", "model.attention_options": {}, "optim.freeze": ("attention.gate",)})
    start = dict(train(recipe.override({"optim.lr": 0.0, "optim.final_lr": 0.0}), progress=False).model.named_parameters())
    for name, parameter in train(recipe, progress=False).model.named_parameters():
        assert torch.equal(parameter, start[name]) == name.endswith("attention.gate"), name
    assert (start["blocks.0.attention.gate"] == 1).all()


@pytest.mark.parametrize(("micro", "pool"), [(10, "mean"), (5, "mean"), (4, "class")])
def test_accumulated_gradients_are_those_of_the_whole_batch(tiny, micro, pool):
    """Stochastic depth off, which draws anew for each micro-batch."""
    recipe = tiny.override({"model.drop_path": 0.0, "model.pool": pool, "optim.clip_grad_norm": 0.5})
    whole, parts = train(recipe, progress=False), train(recipe.override({"micro_batch_size": micro}), progress=False)
    for row, other in zip(whole.rows, parts.rows, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
    torch.testing.assert_close(parameters(whole.model), parameters(parts.model), rtol=1e-3, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny):
    first, again = train(tiny, progress=False), train(tiny.override({"activation_checkpointing": True}), progress=False)
    assert again.model.activation_checkpointing
    assert torch.equal(parameters(first.model), parameters(again.model))


@pytest.mark.slow
def test_a_compiled_model_learns_the_same_and_its_weights_keep_their_names(tiny, tmp_path):
    recipe = tiny.override({"model.drop_path": 0.0, "duration": "5 steps", "data.val_images": 20})
    plain = train(recipe, progress=False)
    compiled = train(recipe.override({"compile": True}), run_dir=tmp_path / "run", progress=False)
    torch.testing.assert_close(parameters(plain.model), parameters(compiled.model), rtol=1e-3, atol=1e-5)
    assert load_weights(tmp_path / "run" / "best.safetensors")[0].keys() == plain.model.state_dict().keys()


def test_a_run_begins_with_other_weights_and_goes_on_with_its_own(tiny, tmp_path, capsys):
    train(tiny, run_dir=tmp_path / "first", progress=False)
    recipe = tiny.override({"init_from": tmp_path / "first", "duration": "3 steps", "optim.lr": 0.0, "optim.final_lr": 0.0})
    result = train(recipe, run_dir=tmp_path / "second")
    assert f"initialised with {tmp_path / 'first'}" in capsys.readouterr().out
    state, _ = load_weights(tmp_path / "first" / "best.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in result.model.state_dict().items())
    # A resumed run needs the other weights no more.
    (tmp_path / "first" / "best.safetensors").unlink()
    assert train(recipe, run_dir=tmp_path / "second", resume=True, progress=False).step == 3
    with pytest.raises(UserError, match="first.* contains no best.safetensors"):
        train(recipe, run_dir=tmp_path / "third", progress=False)


def test_imports_are_kept_with_the_run_and_named_where_they_are_missing(tiny, tmp_path, monkeypatch):
    run, name = tmp_path / "run", "attention_of_a_test"
    monkeypatch.setattr("spvit_mini.attention_registry.ATTENTIONS", dict(ATTENTIONS))
    register_attention(name, lambda dim, heads, *, grid, qkv_bias: MHSA(dim, heads, qkv_bias=qkv_bias))
    recipe = tiny.override({"model.attention": name, "model.attention_options": {}, "imports": ("mine.py", "others.maps")})
    train(recipe, run_dir=run, progress=False)
    assert json.loads((run / "recipe.json").read_text())["imports"] == ["mine.py", "others.maps"]
    assert json.loads(load_trained(run)[1]["imports"]) == ["mine.py", "others.maps"]
    assert "--import mine.py others.maps " in (run / "summary.md").read_text()
    monkeypatch.undo()
    with pytest.raises(UserError, match=rf"attention '{name}'.* add --import mine.py others.maps"):
        load_trained(run)
    with pytest.raises(UserError, match="Use --import FILE"):
        train(recipe, run_dir=run, resume=True, progress=False)


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(tiny, monkeypatch, tmp_path):
    """Steps 3 and 4 meet an image that is not a number: the weights stay, the average stays, the rest is learned."""
    from spvit_mini.training import loop

    real, calls = loop.Objective.__call__, 0

    def poisoned(self, model, images, labels, view, *, seeds):
        nonlocal calls
        calls += 1
        loss, logits = real(self, model, images, labels, view, seeds=seeds)
        return loss * (float("nan") if calls in (3, 4) else 1.0), logits

    monkeypatch.setattr(loop.Objective, "__call__", poisoned)
    result = train(tiny.override({"ema": 0.9}), run_dir=tmp_path / "run", progress=False)
    assert [row["skipped_steps"] for row in result.rows] == [2, 2, 2]
    assert result.step == 12 and bool(parameters(result.model).isfinite().all())
    assert all(row["train_loss"] == row["train_loss"] for row in result.rows)
    assert result.ema is not None and bool(parameters(result.ema).isfinite().all())


def test_a_bad_image_leaves_no_trace_in_what_batch_norms_remember(tiny, monkeypatch):
    """The forward pass has seen it before the gradient tells."""
    from spvit_mini.training import loop

    real, calls, memories = loop.Objective.__call__, 0, []

    def poisoned(self, model, images, labels, view, *, seeds):
        nonlocal calls
        calls += 1
        memories.append(torch.cat([m.double().flatten().clone() for m in model.buffers()]))
        if calls == 3:
            images = images.clone()
            images[0, 0, 0, 0] = float("inf")
        return real(self, model, images, labels, view, seeds=seeds)

    monkeypatch.setattr(loop.Objective, "__call__", poisoned)
    stem = {"model.name": "lvvit_s", "model.depth": 1, "model.patch": 8, "model.drop_path": 0.0, "duration": "5 steps"}
    result = train(tiny.override(stem), progress=False)
    assert result.rows[-1]["skipped_steps"] == 1
    assert torch.equal(memories[2], memories[3]) and not torch.equal(memories[3], memories[4])
    assert all(bool(m.isfinite().all()) for m in memories)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"micro_batch_size": 7}, "micro_batch_size is 7; expected a divisor of batch_size, 20"),
        ({"ema": 1.0}, "ema is 1.0; expected a number of at least 0 and below 1"),
        ({"ema": 0.9, "sharding": "fsdp"}, "EMA weights are not sharded. Use sharding ddp"),
        ({"model.sharing": "network", "sharding": "fsdp"}, "can't shard a shared map. Use sharding ddp"),
    ],
)
def test_what_a_recipe_refuses(tiny, change, says):
    with pytest.raises(UserError, match=says):
        for name, value in change.items():
            tiny = tiny.override({name: value})
