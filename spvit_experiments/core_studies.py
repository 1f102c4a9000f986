"""The studies that fit a CPU, for docs/results.md and lessons 08 to 11: the value of a learned prior, part by part.

`variants` compares maps, modes and initialisations in one architecture. It has one study per dataset, because the datasets
ask for different things: Compass for a direction, Textures and Rings for neighbours and distances, CIFAR-10 and flowers
for what natural images need. Each arm's learning rate is tuned on images held out of the training split. The other
studies vary one thing in a model, with one learning rate for all arms.
"""

from .study import Arm, Study

SEEDS = (0, 1, 2, 3, 4)
RATES = {"optim.lr": (4e-3, 8e-3, 1.6e-2)}
# Common to all studies on the small synthetic datasets: without and with a learning rate.
SYNTHETIC = {"data.val_images": 500, "evaluate_every": "20 steps"}
FIXED_RATE = SYNTHETIC | {"optim.lr": 4e-3}


def attention_arm(name: str, recipe: str, **options: float) -> Arm:
    """Make the arm of a recipe's plain ViT with another attention: a registered name or MAP/MODE, and its options."""
    return Arm(recipe, {"model.attention": name} | ({"model.attention_options": options} if options else {}))


def main_arms(data: str) -> dict[str, Arm]:
    """List the arms of every dataset: one attention of each family."""
    vit = f"vit_mini_{data}"
    return {
        "none": Arm(vit, {"model.positions": False}, colour="cnn"),
        "vit": Arm(vit, colour="vit"),
        "rpb": Arm(f"rpb_mini_{data}", colour="rpb"),
        "psa": Arm(f"psa_mini_{data}", colour="psa"),
        "convit": Arm(f"convit_mini_{data}", colour="gpsa"),
        "mlp_added": Arm(vit, {"model.attention": "mlp/additive"}, colour="added"),
        "spsa": Arm(f"spvit_mini_{data}", colour="spsa"),
        "anchored": Arm(f"anchored_mini_{data}", colour="anchored"),
    }


def more_arms(data: str) -> dict[str, Arm]:
    """List further combinations of map, mode and initialisation, for datasets on which a run takes seconds."""
    vit = f"vit_mini_{data}"
    return {
        "log_cpb": attention_arm("log_cpb/additive", vit),
        "shaw2d": attention_arm("shaw2d/contextual", vit),
        "irpe": attention_arm("irpe/contextual", vit),
        "psa_neutral": attention_arm("quadratic/additive", vit, strength=0.0),
        "mlp_added_log": attention_arm("mlp/additive", vit, log=1),
        "temperature": attention_arm("constant/multiplicative", vit),
        "linear": attention_arm("linear/multiplicative", vit),
        "table_multiplied": attention_arm("table/multiplicative", vit),
        "quadratic_multiplied": attention_arm("quadratic/multiplicative", vit),
        "spsa_log": attention_arm("mlp/multiplicative", vit, log=1),
        "twin": attention_arm("twin_mlp/affine", vit),
    }


def variants(data: str, question: str, arms: dict[str, Arm], **others) -> Study:
    """Compare attentions on one dataset, each arm with its own learning rate; `others` replace fields of the study."""
    fields = {"name": f"variants_{data}", "seeds": SEEDS, "changes": SYNTHETIC, "tuning": RATES, "tuning_seeds": (100,)}
    return Study(question=question, arms=arms, baseline="psa", **fields | others)


def convergence(data: str, title: str, duration: str, *attentions: str) -> Study:
    """Compare the epochs to a level in runs of twice the usual duration: a CNN, a plain ViT, PSA and some attentions."""
    arms = main_arms(data)
    return Study(
        name=f"convergence_{data}",
        question=f"How many epochs does a ViT need on {title}, with and without a prior, and a CNN of its size?",
        arms={"cnn": Arm(f"cnn_mini_{data}", colour="cnn"), **{name: arms[name] for name in ("vit", "psa", *attentions)}},
        seeds=SEEDS,
        changes=SYNTHETIC | {"duration": duration},
        baseline="cnn",
        tuning=RATES,
        tuning_seeds=(100,),
    )


# A smaller architecture and a shorter recipe for natural images: a run takes half a minute of one CPU core.
SMALL = {
    "model.dim": 48,
    "model.depth": 3,
    "model.drop_path": 0.0,
    "augment.randaugment": (0, 9),
    "label_smoothing": 0.0,
    "batch_size": 50,
}
CIFAR10 = SMALL | {"data.fraction": 0.05, "duration": "12 epochs", "optim.warmup": "1 epochs", "evaluate_every": "6 epochs"}


def photo_arms(data: str) -> dict[str, Arm]:
    """List the arms of datasets of natural images: those of `main_arms` with positions, without RPB."""
    return {name: arm for name, arm in main_arms(data).items() if name not in ("none", "rpb")}


def prior_arm(**options: float) -> Arm:
    """Make the arm of SP-ViT on Compass-6 with other options of its prior."""
    return Arm("spvit_mini_compass6", {"model.attention_options": options})


# Three blocks with a class token, which is inserted before the first or the last of them.
CLASS = {"model.depth": 3, "model.pool": "class", "model.spatial_layers": 2}


def part_arm(*, spsa: bool, peg: bool, late: bool, positions: bool = True) -> Arm:
    """Make the arm with some parts of the published SP-ViT: SP-SA, PEG, the late class token, position embeddings."""
    recipe = f"{'spvit' if spsa else 'vit'}_mini_compass6"
    changes = {"model.peg": peg, "model.class_token_block": 2 if late else 0, "model.positions": positions}
    return Arm(recipe, changes)


CORE_STUDIES = (
    variants(
        "compass6",
        "Which way is the ship? Every map, mode and start, each with its best learning rate.",
        main_arms("compass6") | more_arms("compass6"),
    ),
    variants(
        "textures6",
        "Which texture? Every map, mode and start, each with its best learning rate.",
        main_arms("textures6") | more_arms("textures6"),
    ),
    variants(
        "rings6",
        "How far is the ship? Each family of attentions, with its best learning rate.",
        main_arms("rings6"),
        level=60.0,
    ),
    variants(
        "cifar10",
        "Ten classes of 2,500 small photographs: each family of attentions, with its best learning rate.",
        photo_arms("cifar10"),
        changes=CIFAR10,
        tuning={"optim.lr": (1e-3, 3e-3, 6e-3)},
        tuning_seeds=(100, 101, 102),  # the candidates are close: see rates_cifar10
        level=35.0,
    ),
    Study(
        name="rates_cifar10",
        question="Two rates that the tuning can hardly tell apart: what becomes of the comparison under each?",
        arms={
            f"{name}-{1000 * rate:.0f}": Arm(arm.recipe, arm.changes | {"optim.lr": rate}, arm.colour if rate == 3e-3 else None)
            for name, arm in photo_arms("cifar10").items()
            if name in ("psa", "mlp_added")
            for rate in (3e-3, 6e-3)
        },
        seeds=SEEDS,
        changes=CIFAR10,
        baseline="psa-3",
        level=35.0,
    ),
    # On a copy whose shorter side is 80 pixels: python -m spvit_mini resize data/flowers17-256 data/flowers17-80 --size 80
    variants(
        "flowers17",
        "Seventeen kinds of flowers, from forty photographs each: each family of attentions, with its best learning rate.",
        photo_arms("flowers17"),
        changes=SMALL | {"data.name": "flowers17-80", "duration": "20 epochs", "optim.warmup": "2 epochs"},
        tuning={"optim.lr": (1e-3, 3e-3)},
        level=50.0,
    ),
    convergence("compass6", "Compass-6", "480 steps", "spsa"),
    convergence("textures6", "Textures-6", "320 steps", "convit"),
    Study(
        name="init",
        question="How wide should the first layer of the prior start, for a direction to be found soon?",
        arms={
            "0.02_released": prior_arm(hidden=32, weight_std=0.02, bias_std=0.0),
            "0.02": prior_arm(hidden=32, weight_std=0.02),
            "0.1": prior_arm(hidden=32, weight_std=0.1),
            "0.5_bias_0": prior_arm(hidden=32, weight_std=0.5, bias_std=0.0),
            "0.5": prior_arm(hidden=32, weight_std=0.5),
            "2.0": prior_arm(hidden=32, weight_std=2.0),
        },
        seeds=SEEDS,
        changes=FIXED_RATE,
        baseline="0.5",
    ),
    Study(
        name="hidden",
        question="How wide should the prior's hidden layer be?",
        arms={f"hidden_{width}": prior_arm(hidden=width, weight_std=0.5) for width in (4, 8, 16, 32, 64)},
        seeds=SEEDS,
        changes=FIXED_RATE,
        baseline="hidden_32",
    ),
    Study(
        name="sharing",
        question="Who should have a prior of its own: each head, each block, or the network alone?",
        arms={who: Arm("spvit_mini_compass6", {"model.sharing": who}) for who in ("head", "block", "network")},
        seeds=SEEDS,
        changes=FIXED_RATE | {"model.depth": 3},
        baseline="head",
    ),
    Study(
        name="depth",
        question="How many of four blocks should have a prior?",
        arms={f"{n}_of_4": Arm("spvit_mini_compass6", {"model.spatial_layers": n}) for n in range(5)},
        seeds=SEEDS,
        changes=FIXED_RATE | {"model.depth": 4},
        baseline="4_of_4",
    ),
    Study(
        name="parts",
        question="What is SP-ViT made of? SP-SA, PEG and the late class token, with and without each other.",
        arms={
            "nothing": part_arm(spsa=False, peg=False, late=False),
            "late": part_arm(spsa=False, peg=False, late=True),
            "peg": part_arm(spsa=False, peg=True, late=False),
            "peg+late": part_arm(spsa=False, peg=True, late=True),
            "spsa": part_arm(spsa=True, peg=False, late=False),
            "spsa+late": part_arm(spsa=True, peg=False, late=True),
            "spsa+peg": part_arm(spsa=True, peg=True, late=False),
            "all": part_arm(spsa=True, peg=True, late=True),
            "nothing-positions": part_arm(spsa=False, peg=False, late=False, positions=False),
            "peg-positions": part_arm(spsa=False, peg=True, late=False, positions=False),
            "spsa-positions": part_arm(spsa=True, peg=False, late=False, positions=False),
            "all-positions": part_arm(spsa=True, peg=True, late=True, positions=False),
        },
        seeds=SEEDS,
        changes=FIXED_RATE | CLASS,
        baseline="nothing",
    ),
    Study(
        name="low_data",
        question="How many images does each attention need to find a direction?",
        arms={
            f"{name}-{100 * fraction:.0f}pct": Arm(f"{name}_compass6", {"data.fraction": fraction})
            for name in ("psa_mini", "spvit_mini", "anchored_mini")
            for fraction in (0.1, 0.25, 1.0)
        },
        seeds=SEEDS,
        changes=FIXED_RATE,
        baseline="psa_mini-100pct",
    ),
)
