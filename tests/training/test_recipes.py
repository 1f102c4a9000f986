"""Recipes by name: what was published stands in them, what they say is so, and their models can be built."""

import dataclasses
import re

import pytest
import torch
from torchvision.transforms.v2 import RandAugment

from spvit_mini.data import AugmentOptions
from spvit_mini.data.augment import TrainTransform
from spvit_mini.data.preprocessing import Preprocessing
from spvit_mini.errors import UserError
from spvit_mini.flops import multiply_adds
from spvit_mini.recipes import FAMILIES, RECIPES, get_recipe, imagenet, list_recipes, small_images, synthetic
from spvit_mini.recipes.duration import count_steps, parse_duration
from spvit_mini.zoo import create_model

IMAGES = 1_281_167  # of ImageNet's training part
SIZES = {"imagenet100": 100, "imagenet100_first": 100, "cifar100": 100, "tiny_imagenet": 200}
MINIS, FIRST = (
    FAMILIES[0][0],
    {"compass": 32, "compass6": 24, "textures": 32, "textures6": 24, "rings": 32, "rings6": 24},
)


def size_of(recipe) -> int:
    return recipe.data.image_size or FIRST.get(recipe.data.name, 32)


def on_meta(recipe):
    with torch.device("meta"):
        return create_model(
            recipe.model.name,
            num_classes=SIZES.get(recipe.data.name, 1000),
            image_size=size_of(recipe),
            **recipe.model.overrides(),
        )


def epochs(length: str) -> float:
    number, unit = parse_duration(length)
    assert unit == "epoch"
    return number


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_has_a_model_that_can_be_built_and_lengths_that_fit(name):
    recipe = get_recipe(name)
    make, (model,) = RECIPES[name].func, RECIPES[name].args
    assert recipe.name == name and name in (f"{model}_{make.__name__}", "finetune_images") and recipe.model.name == model
    built = on_meta(recipe)
    assert built.config.image_size == (size_of(recipe), size_of(recipe))
    assert (built.dense_head is not None) >= (recipe.token_labels.folder is not None)
    lengths = [recipe.duration, recipe.optim.warmup, recipe.optim.cooldown, recipe.evaluate_every, recipe.save_every]
    total, warmup, cooldown, *every = [count_steps(text, steps_per_epoch=100, batch_size=recipe.batch_size) for text in lengths]
    assert warmup + cooldown < total and all(0 < steps < total for steps in every)
    varied = TrainTransform(recipe.augment, Preprocessing((32, 32)))  # refuses options out of range
    assert varied(torch.zeros(3, 40, 40, dtype=torch.uint8)).shape == (3, 32, 32)


def test_every_function_of_a_recipe_is_there_under_its_name():
    ends = {name.removeprefix(model + "_") for name, make in RECIPES.items() for model in make.args}
    for module, parts in (
        (synthetic, set()),
        (small_images, set()),
        (imagenet, {"deit", "token_labelled", "data_options", "imagenet_subset"}),
    ):
        functions = {
            n for n, f in vars(module).items() if callable(f) and getattr(f, "__module__", "") == module.__name__
        }
        assert functions - parts <= ends and len(functions - parts) >= 4
    sets = [*FIRST, "cifar10", "cifar100", "tiny_imagenet", "flowers17", "imagenette", "images"]
    assert len(MINIS) == 8 and {f"{mini}_{data}" for mini in MINIS for data in sets} <= set(RECIPES)
    for model in ("deit_small", "convit_small", "lvvit_s", "spvit_s"):
        assert {f"{model}_{data}" for data in ("imagenet", "imagenet100", "imagenet100_first")} <= set(RECIPES)
    more = "spvit_m_imagenet spvit_l_imagenet spvit_s_imagenet_384 spvit_m_imagenet_384 spvit_l_imagenet_384"
    assert {*more.split(), "spvit_l_imagenet_fsdp"} <= set(RECIPES)


@pytest.mark.parametrize("make", dict.fromkeys(make.func for make in RECIPES.values()))
def test_every_recipe_says_how_to_run_it_and_what_to_expect(make):
    text = make.__doc__
    command = re.search(r"Command: (torchrun --nproc-per-node 8|python) -m spvit_mini train (\w+)", text)
    assert command and RECIPES[command[2]].func is make
    assert text.splitlines()[0].endswith(".")
    assert "not measured yet" in " ".join(text.split()) or "Measured" in text or make is imagenet.imagenet_fsdp


def test_models_on_one_set_differ_in_the_model_alone_where_they_are_compared():
    compared = [make for models, makes in FAMILIES for make in makes if len(models) > 1]
    own = {imagenet.imagenet, imagenet.imagenet_384}  # each as published
    for make in set(compared) - own:
        recipes = [get_recipe(name).flatten() for name, other in RECIPES.items() if other.func is make]
        names = {option for option, value in recipes[0].items() for other in recipes if other[option] != value}
        # Each model is seen in validation as its authors did; a CNN has no heads.
        heads = {recipe["model.heads"] for recipe in recipes if recipe["model.name"] != "cnn_mini"}
        assert names - {"data.eval_crop", "model.heads"} == {"name", "model.name"} and len(heads) == 1, make


# --- what lessons and recorded results rest on

UNCHANGED = {
    "compass": ("240 steps", 100, 2e-3, "24 steps", "40 steps", 4, 64, "none"),
    "compass6": ("240 steps", 100, 2e-3, "24 steps", "40 steps", 2, 48, "none"),
    "textures": ("160 steps", 100, 2e-3, "24 steps", "40 steps", 4, 64, "none"),
    "textures6": ("160 steps", 100, 2e-3, "24 steps", "40 steps", 2, 48, "none"),
    "rings": ("240 steps", 100, 2e-3, "24 steps", "40 steps", 4, 64, "none"),
    "rings6": ("240 steps", 100, 2e-3, "24 steps", "40 steps", 2, 48, "none"),
    "cifar10": ("30 epochs", 128, 1e-3, "2 epochs", "1 epoch", None, None, "shift"),
    "flowers17": ("100 epochs", 64, 1e-3, "10 epochs", "5 epochs", None, None, "resized"),
}


@pytest.mark.parametrize("data", UNCHANGED)
def test_the_first_recipes_keep_their_numbers(data):
    r = get_recipe(f"spvit_mini_{data}")
    found = (
        r.duration,
        r.batch_size,
        r.optim.lr,
        r.optim.warmup,
        r.evaluate_every,
        r.model.depth,
        r.model.dim,
        r.augment.crop,
    )
    assert found == UNCHANGED[data]
    assert (r.optim.final_lr, r.optim.weight_decay, r.optim.clip_grad_norm, r.optim.lr_base_batch_size) == (1e-5, 0.05, 1.0, None)
    assert (r.ema, r.augment.mixup, r.augment.repeats, r.augment.randaugment_prob) == (None, 0, 1, 1)


# --- what was published: DeiT's table 9 and main.py; SP-ViT's main.py and its two scripts

COMMON = {
    "data.name": "imagenet", "data.fraction": 1.0, "optim.weight_decay": 0.05, "optim.betas": (0.9, 0.999),
    "optim.eps": 1e-8, "optim.clip_grad_norm": None, "optim.layer_decay": None, "optim.warmup": "5 epochs",
    "optim.warmup_lr": 1e-6, "optim.final_lr": 1e-5, "label_smoothing": 0.1, "augment.flip": True, "augment.crop": "resized",
    "augment.crop_scale": (0.08, 1.0), "augment.random_erasing_prob": 0.25, "augment.colour": 0.0, "augment.randaugment": (2, 27),
    "augment.randaugment_prob": 0.5, "data.image_size": 224, "init_from": None, "sharding": "ddp", "micro_batch_size": None,
}  # fmt: skip
DEIT = COMMON | {
    "duration": "300 epochs", "batch_size": 1024, "optim.lr": 5e-4 * 1024 / 512, "optim.cooldown": "0 steps", "ema": None,
    "augment.mixup": 0.8, "augment.cutmix": 1.0, "augment.mix_prob": 1.0, "augment.repeats": 3,
    "token_labels.folder": None, "data.eval_crop": 0.875,
}  # fmt: skip
LABELLED = COMMON | {
    "duration": "310 epochs", "batch_size": 8 * 128, "optim.lr": 1.6e-3, "optim.cooldown": "10 epochs", "ema": 0.99992,
    "augment.mixup": 0.0, "augment.cutmix": 0.0, "augment.repeats": 1, "token_labels.dense_weight": 1.0,
    "token_labels.class_target": "teacher", "token_labels.mixtoken": 1.0, "data.eval_crop": 1.0,
}  # fmt: skip
LARGE = {"batch_size": 8 * 100, "optim.lr": 6e-4, "augment.randaugment": (3, 27)}
FINE = LABELLED | {
    "duration": "30 epochs", "optim.lr": 5e-6, "optim.final_lr": 5e-6, "optim.weight_decay": 1e-8,
    "optim.cooldown": "0 epochs", "data.image_size": 384, "ema": None,
}  # fmt: skip
PUBLISHED = {
    "deit_small_imagenet": DEIT,
    "convit_small_imagenet": DEIT,
    "lvvit_s_imagenet": LABELLED | {"data.eval_crop": 0.9},
    "spvit_s_imagenet": LABELLED | {"data.eval_crop": 0.9},
    "spvit_m_imagenet": LABELLED,
    "spvit_l_imagenet": LABELLED | LARGE,
    "spvit_l_imagenet_fsdp": LABELLED | LARGE | {"sharding": "fsdp", "ema": None},
    "spvit_s_imagenet_384": FINE | {"batch_size": 8 * 32, "data.eval_crop": 0.9},
    "spvit_m_imagenet_384": FINE | {"batch_size": 8 * 16},
    "spvit_l_imagenet_384": FINE | {"batch_size": 8 * 16 * 4, "augment.randaugment": (3, 27), "ema": 0.99992},
    **{f"{model}_imagenet100": DEIT | {"data.name": "imagenet100"} for model in ("deit_small", "convit_small")},
    **{
        f"{model}_imagenet100_first": DEIT | {"data.name": "imagenet100_first"}
        for model in ("deit_small", "convit_small")
    },
}
DROP_PATH = {"deit_small": 0.1, "convit_small": 0.1, "lvvit_s": 0.1, "spvit_s": 0.1, "spvit_m": 0.2, "spvit_l": 0.3}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    recipe = get_recipe(name)
    found = recipe.flatten()
    assert {option: found[option] for option in PUBLISHED[name]} == PUBLISHED[name]
    assert on_meta(recipe).config.drop_path == DROP_PATH[recipe.model.name]
    # At the published batch the rates are the published ones; at another they follow it.
    assert recipe.optim.lr_base_batch_size == recipe.batch_size
    assert (recipe.token_labels.folder is not None) == (PUBLISHED[name]["augment.repeats"] == 1)


@pytest.mark.parametrize("model", ["deit_small", "convit_small"])
def test_fewer_images_are_seen_as_often_more(model):
    whole = get_recipe(f"{model}_imagenet")
    for percent in (5, 10, 30, 50):
        recipe = get_recipe(f"{model}_imagenet_{percent}pct")
        assert recipe.data.fraction == percent / 100
        assert epochs(recipe.duration) == 300 * 100 / percent == int(epochs(recipe.duration))
        for length in ("duration", "optim.warmup", "evaluate_every", "save_every"):
            assert epochs(recipe.flatten()[length]) * percent / 100 == pytest.approx(
                epochs(whole.flatten()[length]), rel=1e-6
            )
        changed = {name for name, value in whole.flatten().items() if recipe.flatten()[name] != value}
        assert changed == {"name", "data.fraction", "duration", "optim.warmup", "evaluate_every", "save_every"}


def rows(make) -> dict[str, list[str]]:
    """Read the table in a recipe's docstring: {model: its cells}."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in make.__doc__.splitlines() if "|" in line]
    return {line[0]: line[1:] for line in lines[2:]}


@pytest.mark.parametrize("make", [imagenet.imagenet, imagenet.imagenet_384])
def test_the_costs_in_the_docstrings_are_those_of_the_models(make):
    table = rows(make)
    assert list(table) == [other.args[0] for other in RECIPES.values() if other.func is make]
    for model, (parameters, cost, images, _) in table.items():
        recipe = make(model)
        built = on_meta(recipe)
        assert parameters == f"{sum(p.numel() for p in built.parameters()) / 1e6:.2f} M"
        assert cost == f"{multiply_adds(built)['total'] / 1e9:.2f} G"
        assert images == f"{epochs(recipe.duration) * (IMAGES // recipe.batch_size) * recipe.batch_size / 1e6:.0f} M"


def test_accuracies_in_the_docstrings_are_the_published_ones():
    said = {
        model: [float(x) for x in re.findall(r"\d\d\.\d", cells[-1])]
        for model, cells in rows(imagenet.imagenet).items()
    }
    assert said == {
        "deit_small": [79.8, 79.9], "convit_small": [81.3, 81.4], "lvvit_s": [83.3],
        "spvit_s": [83.9], "spvit_m": [84.9], "spvit_l": [85.5],
    }  # fmt: skip
    said = {model: float(cells[-1][:4]) for model, cells in rows(imagenet.imagenet_384).items()}
    assert said == {"lvvit_s": 84.4, "spvit_s": 85.1, "spvit_m": 86.0, "spvit_l": 86.3}
    for make, deit, convit in (
        (imagenet.imagenet_5pct, 34.8, 47.8),
        (imagenet.imagenet_10pct, 48.0, 59.6),
        (imagenet.imagenet_30pct, 66.1, 73.7),
        (imagenet.imagenet_50pct, 74.6, 78.2),
    ):
        assert f"deit_small {deit}, convit_small {convit}" in make.__doc__


# --- RandAugment


def test_the_magnitude_gives_the_ranges_of_the_original():
    timm = pytest.importorskip("timm.data.auto_augment")
    space = RandAugment()._AUGMENTATION_SPACE
    size, level = 224, 9

    def ours(name: str) -> float:
        return float(space[name][0](31, size, size)[imagenet.AUGMENT.randaugment[1]])

    def theirs(name: str) -> float:
        return timm.LEVEL_TO_ARG[name](level, {"translate_pct": 0.45})[0]

    for name in ("Rotate", "ShearX", "ShearY"):
        assert ours(name) == pytest.approx(abs(theirs(name)), rel=1e-6)
    for name in ("Color", "Contrast", "Brightness", "Sharpness"):
        assert ours(name) == pytest.approx(abs(theirs(f"{name}Increasing") - 1), rel=1e-6)
    assert ours("Solarize") * 255 == pytest.approx(theirs("SolarizeIncreasing"), abs=1)
    # What the module's docstring says of the rest.
    assert [round(100 * x, 1) for x in (ours("TranslateX") / size, abs(theirs("TranslateXRel")))] == [40.8, 40.5]
    assert (ours("Posterize"), theirs("PosterizeIncreasing")) == (4, 1)
    assert (len(space), len(timm._RAND_INCREASING_TRANSFORMS)) == (14, 15)


def test_operations_happen_as_often_as_asked(request):
    """Each of two operations with probability ½, of 14 of which one does nothing: about (1 − 13/28)² stay so."""
    options = AugmentOptions(randaugment=(2, 27), randaugment_prob=0.5)
    vary = TrainTransform(options, Preprocessing((16, 16), mean=(0, 0, 0), std=(1, 1, 1)))
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(request.config.getoption("--seed"))
    same = sum(torch.equal(vary(image), image / 255) for _ in range(2000)) / 2000
    # AutoContrast and Equalize may leave an image of noise nearly as it is, so more can stay.
    assert 0.25 < same < 0.40
    with pytest.raises(UserError, match="augment.randaugment_prob is 1.5; expected a number from 0 to 1"):
        TrainTransform(dataclasses.replace(options, randaugment_prob=1.5), Preprocessing((16, 16)))


@pytest.mark.parametrize("operations", [1, 3])
def test_operations_that_always_happen_are_torchvision_s(operations, request):
    seed = request.config.getoption("--seed")
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    vary = TrainTransform(
        AugmentOptions(randaugment=(operations, 9)), Preprocessing((16, 16), mean=(0, 0, 0), std=(1, 1, 1))
    )
    reference = RandAugment(operations, 9, fill=[0, 0, 0])
    for number in range(20):
        torch.manual_seed(seed + number)
        expected = reference(image) / 255
        torch.manual_seed(seed + number)
        assert torch.equal(vary(image), expected)
