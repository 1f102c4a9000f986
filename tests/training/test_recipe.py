"""Recipes: lengths, the round trip through JSON, changes and differences by dotted names, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spvit_mini import create_model, train
from spvit_mini.data import DataOptions, load_data
from spvit_mini.data.datasets import fingerprint_data
from spvit_mini.data.token_labels import TokenLabelInfo, TokenLabelWriter
from spvit_mini.errors import UserError
from spvit_mini.extensions import fingerprint_extensions
from spvit_mini.recipes import RECIPES, Recipe, describe_recipe, get_recipe, list_recipes, register_recipe
from spvit_mini.recipes.duration import count_steps
from spvit_mini.recipes.identity import find_sources
from spvit_mini.recipes.options import ModelOptions, OptimOptions
from spvit_mini.training.checkpoint import read_recipe
from spvit_mini.training.summary import write_command
from spvit_mini.vit import ViTConfig
from spvit_mini.weights import fingerprint_weights


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("240 steps", 240),
        ("1 step", 1),
        ("30 epochs", 30 * 19),
        ("0.5 epochs", 10),  # 9.5, to the nearest even
        ("1_000 images", 10),
        ("49 images", 0),
        ("51 images", 1),
        (" 3epochs ", 57),
        ("0 steps", 0),
    ],
)
def test_a_duration_in_steps(duration, steps):
    assert count_steps(duration, steps_per_epoch=19, batch_size=100) == steps


@pytest.mark.parametrize("duration", ["", "30", "epochs", "-3 epochs", "30 eons", "1e3 steps", "30 epochs!"])
def test_a_duration_that_says_nothing(duration):
    with pytest.raises(UserError, match="'30 epochs', '240 steps' or '50000 images'"):
        Recipe(duration=duration)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_survives_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name and (name.startswith(recipe.model.name) or name == "finetune_images")
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert {k: type(v) for k, v in again.flatten().items()} == {k: type(v) for k, v in recipe.flatten().items()}


def test_a_recipe_with_everything_changed_survives_json():
    recipe = Recipe().override(
        {
            "model.attention_options": {"hidden": 8.0, "weight_std": 0.1},
            "model.positions": False,
            "optim.betas": (0.8, 0.9),
            "optim.clip_grad_norm": None,
            "augment.randaugment": (2, 5),
            "data.image_size": 48,
            "seed": 7,
        }
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.model.overrides() == {"positions": False, "attention_options": {"hidden": 8, "weight_std": 0.1}}
    assert isinstance(recipe.model.overrides()["attention_options"]["hidden"], int)


def test_model_options_are_fields_of_the_models():
    mine = {f.name for f in dataclasses.fields(ModelOptions)} - {"name"}
    assert mine <= {f.name for f in dataclasses.fields(ViTConfig)}
    assert ModelOptions().overrides() == {}


def test_but_changes_one_thing_and_names_the_near_ones():
    recipe = get_recipe("vit_mini_compass")
    changed = recipe.override({"optim.lr": 5e-4, "batch_size": 10})
    assert (changed.optim.lr, changed.batch_size) == (5e-4, 10)
    assert recipe.optim.lr != 5e-4
    assert changed.override({"optim.lr": recipe.optim.lr, "batch_size": recipe.batch_size}) == recipe
    with pytest.raises(UserError, match=r"no option 'optim.lrr'. Did you mean optim.lr"):
        recipe.override({"optim.lrr": 1.0})


def test_difference_names_what_changes_the_numbers_and_not_where_the_work_is_done():
    recipe = get_recipe("vit_mini_compass")
    assert recipe.find_difference(recipe.override({"data.root": "/elsewhere", "data.workers": 3, "device": "cuda"})) is None
    assert recipe.find_difference(recipe.override({"seed": 3})) == ("seed", 0, 3)
    assert recipe.find_difference(recipe.override({"model.depth": 9}))[0] == "model.depth"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[1, 2]", r"recipe.json is \[1, 2\]; expected names with values"),
        ('{"optim": 3}', "optim is 3; expected the fields of OptimOptions"),
        ('{"optim": {"learning_rate": 3}}', "an option 'learning_rate', which this version does not know"),
    ],
)
def test_json_that_is_no_recipe(text, says):
    with pytest.raises(UserError, match=says) as caught:
        Recipe.from_json(text, source="some/recipe.json")
    assert "some/recipe.json" in str(caught.value)


def test_json_of_an_older_recipe_gets_the_defaults():
    plain = json.loads(Recipe(seed=4).to_json())
    del plain["optim"]["clip_grad_norm"], plain["precision"]
    assert Recipe.from_json(json.dumps(plain)) == Recipe(seed=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Recipe(batch_size=0),
        lambda: Recipe(evaluate_every="0 steps"),
        lambda: Recipe(save_every="0 epochs"),
        lambda: Recipe(label_smoothing=1.0),
        lambda: Recipe(seed=-1),
        lambda: OptimOptions(lr=-1e-3),
        lambda: OptimOptions(lr=float("nan")),
        lambda: OptimOptions(betas=(0.9, 1.0)),
        lambda: OptimOptions(clip_grad_norm=0.0),
        lambda: OptimOptions(warmup="soon"),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_an_unknown_recipe_names_the_near_ones():
    with pytest.raises(UserError, match="no recipe is called 'spvit_mini_compas'. Did you mean spvit_mini_compass"):
        get_recipe("spvit_mini_compas")


def test_a_recipe_can_ask_for_any_attention_and_for_what_sp_vit_adds():
    options = {
        "model.attention": "quadratic/additive", "model.sharing": "block", "model.peg": True,
        "model.pool": "class", "model.dense_head": True,
    }  # fmt: skip
    recipe = get_recipe("vit_mini_compass6").override(options)
    config = create_model(recipe.model.name, **recipe.model.overrides()).config
    assert (config.attention, config.sharing, config.peg, config.dense_head) == ("quadratic/additive", "block", True, True)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.fixture
def own_recipes(monkeypatch):
    """Let a test register recipes that are forgotten after it."""
    monkeypatch.setattr("spvit_mini.recipes.RECIPES", dict(RECIPES))


def test_a_recipe_of_the_user_s_own_is_known_by_its_name(own_recipes):
    mine = get_recipe("vit_mini_compass6").override({"optim.lr": 4e-3, "imports": ("my_recipes.py",)})

    def longer() -> Recipe:
        """Compass for longer.

        More is below the first line.
        """
        return mine.override({"duration": "500 steps"})

    register_recipe("mine", mine)
    register_recipe("mine", mine)  # the cell of a notebook that runs again
    register_recipe("mine_longer", longer)
    assert list_recipes()[-2:] == ["mine", "mine_longer"]
    assert get_recipe("mine") == dataclasses.replace(mine, name="mine")
    assert get_recipe("mine_longer").duration == "500 steps" and describe_recipe("mine_longer") == "Compass for longer."
    line = write_command(get_recipe("mine").override({"seed": 3}), Path("runs/x"))
    assert line == "python -m spvit_mini train mine --import my_recipes.py --seed 3 --run-dir runs/x"


@pytest.mark.parametrize(
    ("name", "recipe", "says"),
    [
        ("vit_mini_compass", Recipe(), "the name 'vit_mini_compass' is taken by another recipe; expected a new name"),
        ("My recipe", Recipe(), "the name of the recipe is 'My recipe'; expected a lowercase identifier, such as my_recipe"),
        ("mine", {"seed": 3}, "recipe mine is {'seed': 3}; expected a Recipe, or a function that returns one"),
    ],
)
def test_what_cannot_be_registered(own_recipes, name, recipe, says):
    with pytest.raises(UserError) as caught:
        register_recipe(name, recipe)
    assert str(caught.value) == says


def test_imports_are_of_the_place_and_not_of_the_numbers():
    recipe = get_recipe("vit_mini_compass")
    assert recipe.imports == () and recipe.find_difference(recipe.override({"imports": ("mine.py",)})) is None
    again = Recipe.from_json(recipe.override({"imports": ("mine.py", "package.module")}).to_json())
    assert again.imports == ("mine.py", "package.module")


# --- What a run learned from


def make_weights(path: Path, *, value: float = 0.5, **metadata) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"b": torch.full((3,), value), "a": torch.tensor(1.0)}, path, metadata=metadata or None)
    return path


def make_labels(path: Path, *, value: float = 0.5) -> Path:
    info = TokenLabelInfo("teacher", ["a", "b"], (2, 2), 1)
    writer = TokenLabelWriter(path, info, np.array([b"a/0.png", b"b/0.png"]))
    for index in range(2):
        writer.write(index, np.full((2, 2, 1), value), np.zeros((2, 2, 1)))
    writer.commit(done=[0, 1])
    writer.close()
    return path


def make_code(path: Path, *, value: float = 0.5) -> Path:
    """An extension whose number is in a file beside it, which it imports from inside a function."""
    path.mkdir(parents=True)
    name = f"extension_{abs(hash(path))}"
    (path / "numbers_of_extension.py").write_text(f"value = {value}\n")
    (path / f"{name}.py").write_text("import json\n\ndef build():\n    from numbers_of_extension import value\n")
    return path / f"{name}.py"


def make_images(path: Path, *, value: float = 0.5) -> Path:
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        (path / name).parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), int(100 * value), np.uint8)).save(path / f"{name}.png")
    return path


KINDS = {
    "init_from": (make_weights, lambda path: {"init_from": path}),
    "token_labels.folder": (make_labels, lambda path: {"token_labels.folder": path}),
    "imports": (make_code, lambda path: {"imports": (str(path),)}),
    "data.root": (make_images, lambda path: {"data.name": "folder", "data.root": path}),
}


def with_sources(changes: dict) -> Recipe:
    recipe = Recipe().override(changes)
    return dataclasses.replace(recipe, sources=find_sources(recipe))


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_are_compared_by_the_content_of_files_and_not_by_their_place(kind, tmp_path):
    make, changes = KINDS[kind]
    one, moved, other = (make(tmp_path / name / "x", value=v) for name, v in (("one", 0.5), ("moved", 0.5), ("other", 0.6)))
    recipe = with_sources(changes(one))
    assert kind in recipe.sources and Recipe.from_json(recipe.to_json()).sources == recipe.sources
    assert recipe.find_difference(with_sources(changes(moved))) is None
    assert recipe.find_difference(with_sources(changes(other)))[0] == kind
    assert recipe.find_difference(Recipe().override(changes(other))) is None  # unknown, as in older records
    assert (shutil.rmtree if one.is_dir() else Path.unlink)(one) is None
    assert kind not in with_sources(changes(one)).sources  # it isn't here
    assert recipe == Recipe().override(changes(one)), "what a recipe asks for is the same before a run and after"


def test_a_run_from_scratch_is_not_a_fine_tuned_one_even_if_neither_has_fingerprints():
    for option in ("init_from", "token_labels.folder"):
        assert Recipe().find_difference(Recipe().override({option: Path("x")})) == (option, None, Path("x"))
        assert Recipe().override({option: Path("y")}).find_difference(Recipe().override({option: Path("x")})) is None


def test_the_weights_of_a_run_are_the_same_by_folder_and_by_file_and_with_other_metadata(tmp_path):
    best = make_weights(tmp_path / "run" / "best.safetensors", recipe="{}", classes='["a"]')
    same = make_weights(tmp_path / "copy.safetensors", recipe='{"data": {"root": "/elsewhere"}}', classes='["a"]')
    classes = make_weights(tmp_path / "classes.safetensors", classes='["b"]')
    assert fingerprint_weights(best.parent) == fingerprint_weights(best) == fingerprint_weights(same)
    assert fingerprint_weights(best) != fingerprint_weights(classes)


def test_trees_differ_in_classes_names_and_content_and_not_in_name_or_workers(tmp_path):
    def fingerprint(path: Path, **others) -> dict[str, str]:
        options = DataOptions(**{"name": "folder", "root": path} | others)
        found = fingerprint_data(options)
        assert load_data(options, seed=0).fingerprint == found
        return found

    first = fingerprint(make_images(tmp_path / "one"))
    assert first["data.name"].startswith("2 classes, 2 + 2 images, names ")
    assert fingerprint(tmp_path, name="one", workers=2, fraction=0.5) == first
    renamed = make_images(tmp_path / "renamed")
    (renamed / "train/a/0.png").rename(renamed / "train/a/1.png")
    classes = make_images(tmp_path / "classes")
    for part in ("train", "val"):
        (classes / part / "a").rename(classes / part / "c")
    for path in (renamed, classes):
        assert fingerprint(path)["data.name"] != first["data.name"]
    held = fingerprint_data(DataOptions(name="one", root=tmp_path, holdout=0.5))  # the validation split is not read
    assert held["data.name"].startswith("2 classes, 2 images, names ")
    assert fingerprint_data(DataOptions(name="compass")) == {}


def test_a_file_that_only_describes_studies_is_no_code_of_a_run(tmp_path):
    part, study = tmp_path / "part_of_mine.py", tmp_path / "study_of_mine.py"
    part.write_text("import spvit_mini\n")
    study.write_text("import part_of_mine\nimport spvit_experiments\n")
    names = [str(study)]
    before = fingerprint_extensions(names)
    study.write_text(study.read_text() + "more = 'an arm'\n")
    assert fingerprint_extensions(names) == before
    part.write_text("import spvit_mini\nfactor = 2\n")
    assert fingerprint_extensions(names) != before


def test_a_run_keeps_its_sources_and_resumes_with_the_same_weights_alone(tmp_path):
    small = {"model.dim": 16, "model.depth": 1, "model.heads": 2, "data.train_images": 8, "data.val_images": 8, "batch_size": 8}
    small |= {"duration": "2 steps", "save_every": "1 steps", "optim.warmup": "0 steps"}
    recipe = get_recipe("vit_mini_compass6").override(small)
    first, run = tmp_path / "first", tmp_path / "run"
    train(recipe, run_dir=first, max_steps=1, progress=False)
    assert read_recipe(first).sources == {}  # synthetic images, initial weights drawn at random
    train(recipe.override({"init_from": first}), run_dir=run, max_steps=1, progress=False)
    assert read_recipe(run).sources == {"init_from": fingerprint_weights(first)}
    assert f"init_from: {fingerprint_weights(first)}" in (run / "summary.md").read_text()
    copy = shutil.copy(first / "best.safetensors", tmp_path / "copy.safetensors")
    other = make_weights(tmp_path / "other.safetensors")
    before = (run / "last.pt").read_bytes()
    for changed in (other, None):
        with pytest.raises(UserError, match="has init_from = .*Resume with the former, or train in another folder"):
            train(recipe.override({"init_from": changed}), run_dir=run, resume=True, progress=False)
    with pytest.raises(UserError, match="nowhere does not exist; expected a run folder or a weights file"):
        train(recipe.override({"init_from": tmp_path / "nowhere"}), run_dir=run, resume=True, progress=False)
    assert (run / "last.pt").read_bytes() == before
    assert train(recipe.override({"init_from": Path(copy)}), run_dir=run, resume=True, progress=False).step == 2
    Path(copy).unlink()  # a run that has begun needs its initial weights no more
    train(recipe.override({"init_from": Path(copy)}), run_dir=run, resume=True, progress=False)
    assert read_recipe(run).sources["init_from"] == fingerprint_weights(first)
