"""Recipes, training states and weights that were written under old names are read under the present names."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spvit_mini.attention_registry import attention_names
from spvit_mini.recipes import Recipe
from spvit_mini.training import train
from spvit_mini.training.checkpoint import load_trained, read_recipe, read_state

from .conftest import metrics

RECORDS = sorted((Path(__file__).parents[2] / "data" / "results").glob("*.jsonl"))
PRESENT = {
    "batch": "batch_size", "micro_batch": "micro_batch_size", "length": "duration", "start": "init_from",
    "checkpointing": "activation_checkpointing", "optim.lr_batch": "optim.lr_base_batch_size",
    "optim.clip": "optim.clip_grad_norm", "optim.frozen": "optim.freeze", "data.on_bad_image": "data.on_corrupt_image",
    "augment.randaugment_chance": "augment.randaugment_prob", "augment.erasing": "augment.random_erasing_prob",
    "augment.mix_probability": "augment.mix_prob", "data.pipeline": "data.backend",
    "model.class_enters": "model.class_token_block", "token_labels.class_from": "token_labels.class_target",
}  # fmt: skip
VALUES = {"fatal": "error", "plain": "pil", "fast": "tensor"}
MODES = {"added": "additive", "alone": "position_only", "multiplied": "multiplicative", "multiplied_added": "affine"}


def flat(recipe: dict) -> dict:
    """List the options of a recipe in JSON by dotted names."""
    names = {}
    for name, value in recipe.items():
        is_section = isinstance(value, dict) and name != "attention_options"
        names |= {f"{name}.{leaf}": v for leaf, v in value.items()} if is_section else {name: value}
    return names


def under_old_names(text: str) -> str:
    """Write the JSON text of a recipe, with the default values of `data`, as an older version did."""
    old, back = {}, {new: name for name, new in PRESENT.items()}
    for name, value in flat(json.loads(text)).items():
        section, _, leaf = back.get(name, name).rpartition(".")
        value = {"data.on_corrupt_image": "fatal", "data.backend": "plain"}.get(name, value)
        (old.setdefault(section, {}) if section else old)[leaf] = value
    del old["imports"]
    return json.dumps(old)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_is_read_with_the_values_that_it_was_made_with(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        recorded = flat(json.loads(line)["recipe"])
        recipe = json.loads(Recipe.from_json(json.dumps(json.loads(line)["recipe"])).to_json())
        for name, value in recorded.items():
            now = flat(recipe)[PRESENT.get(name, name)]
            if name == "model.attention" and value is not None:
                spatial_map, slash, mode = value.partition("/")
                assert now == spatial_map + slash + MODES.get(mode, mode) and now in attention_names()
            else:
                assert now == (VALUES.get(value, value) if name in ("data.on_bad_image", "data.pipeline") else value), name


def test_the_records_have_every_old_name():
    """Otherwise the test above would show nothing of the others."""
    lines = [line for path in RECORDS for line in path.read_text(encoding="utf-8").splitlines()]
    names = {name for line in lines for name in flat(json.loads(line)["recipe"])}
    assert len(lines) > 900 and set(PRESENT) <= names
    attentions = {json.loads(line)["recipe"]["model"].get("attention") for line in lines}
    assert {"mlp/multiplied", "mlp/added", "twin_mlp/multiplied_added"} <= attentions


def test_a_run_folder_of_an_older_version_is_resumed_evaluated_and_ends_the_same(tiny, whole, tmp_path):
    run = tmp_path / "run"
    train(tiny, run_dir=run, max_steps=10, progress=False)
    recipe = under_old_names((run / "recipe.json").read_text())
    assert '"batch": 20' in recipe and '"length": "2 epochs"' in recipe and '"on_bad_image": "fatal"' in recipe
    (run / "recipe.json").write_text(recipe)
    state = read_state(run / "last.pt")
    counts = state["position"]["counts"]
    counts["right"], counts["right5"] = counts.pop("correct"), counts.pop("correct5")
    torch.save(state | {"recipe": recipe}, run / "last.pt")
    with safe_open(run / "best.safetensors", framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"])
    config["class_enters"] = config.pop("class_token_block")
    save_file(tensors, run / "best.safetensors", metadata | {"weights": "raw", "recipe": recipe, "config": json.dumps(config)})

    assert read_recipe(run) == tiny
    model, metadata = load_trained(run)
    assert metadata["weights"] == "last" and all(torch.equal(v, tensors[n]) for n, v in model.state_dict().items())
    train(tiny, run_dir=run, resume=True, progress=False)
    assert metrics(run) == metrics(whole)
    state, undisturbed = read_state(run / "last.pt"), read_state(whole / "last.pt")
    assert all(torch.equal(value, undisturbed["model"][name]) for name, value in state["model"].items())
