"""Recipes: lengths, the round trip through JSON, changes and differences by dotted names, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from spvit_mini import create_model
from spvit_mini.errors import UserError
from spvit_mini.recipes import RECIPES, Recipe, describe_recipe, get_recipe, list_recipes, register_recipe
from spvit_mini.recipes.duration import count_steps
from spvit_mini.recipes.options import ModelOptions, OptimOptions
from spvit_mini.training.summary import write_command
from spvit_mini.vit import ViTConfig


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
    assert recipe.name == name and name.startswith(recipe.model.name)
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
