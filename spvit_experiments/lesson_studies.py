"""The studies of the lessons, and of `make demo`."""

from .study import Arm, Study

LESSON_STUDIES = (
    Study(
        name="lesson_00",
        question="Which way is the ship? A plain ViT and an SP-ViT of two blocks on Compass-6.",
        arms={
            "vit_mini": Arm("vit_mini_compass6", colour="vit"),
            "spvit_mini": Arm("spvit_mini_compass6", colour="spsa"),
        },
        seeds=(0, 1, 2, 3, 4),
        changes={"evaluate_every": "20 steps"},
        baseline="vit_mini",
    ),
    Study(
        name="lesson_06",
        question="What does a ViT learn of Textures-6 by positions alone, by PEG alone, by both, by neither?",
        arms={
            "neither": Arm("vit_mini_textures6", {"model.positions": False}, colour="vit"),
            "positions": Arm("vit_mini_textures6", colour="added"),
            "peg": Arm("vit_mini_textures6", {"model.positions": False, "model.peg": True}, colour="psa"),
            "both": Arm("vit_mini_textures6", {"model.peg": True}, colour="anchored"),
        },
        seeds=(0, 1, 2, 3, 4),
        changes={"optim.lr": 4e-3, "evaluate_every": "20 steps"},
        baseline="neither",
    ),
    Study(
        name="lesson_04",
        question="Which relative positions find a ship one patch away, north or south, with no absolute ones to help?",
        arms={
            # Swin initialises with std 0.02; the std decides whether a table finds the ship within these steps.
            "table": Arm("rpb_mini_compass6", {"model.attention_options": {"std": 0.5}}, colour="rpb"),
            "table_0.02": Arm("rpb_mini_compass6"),
            "log_cpb": Arm("vit_mini_compass6", {"model.attention": "log_cpb/additive"}),
            "shaw1d": Arm("vit_mini_compass6", {"model.attention": "shaw1d/contextual"}),
            "shaw2d": Arm("vit_mini_compass6", {"model.attention": "shaw2d/contextual"}),
        },
        seeds=(0, 1, 2, 3, 4),
        changes={
            "data.name": "compass_easy",
            "data.val_images": 500,
            "model.positions": False,
            "batch_size": 50,
            "evaluate_every": "40 steps",
        },
        baseline="table",
        tuning={"optim.lr": (4e-3, 8e-3, 1.6e-2)},
        tuning_seeds=(100,),
    ),
    Study(
        name="lesson_07",
        question="What does ConViT's attention owe to its gate, to its local start, and how many images does it need?",
        arms={
            "vit": Arm("vit_mini_textures6", colour="vit"),
            "psa": Arm("psa_mini_textures6", colour="psa"),
            "convit": Arm("convit_mini_textures6", colour="gpsa"),
            "convit-frozen-gate": Arm("convit_mini_textures6", {"optim.freeze": ("attention.gate",)}),
            "convit-no-local-start": Arm("convit_mini_textures6", {"model.attention_options": {"strength": 0.0}}),
            "psa-25pct": Arm("psa_mini_textures6", {"data.fraction": 0.25}),
            "convit-25pct": Arm("convit_mini_textures6", {"data.fraction": 0.25}),
            "psa-5pct": Arm("psa_mini_textures6", {"data.fraction": 0.05}),
            "convit-5pct": Arm("convit_mini_textures6", {"data.fraction": 0.05}),
            "convit-compass": Arm("convit_mini_compass6"),
        },
        seeds=(0, 1, 2, 3, 4),
        changes={"optim.lr": 4e-3, "data.val_images": 400, "evaluate_every": "20 steps"},
        baseline="convit",
    ),
    Study(
        name="demo",
        question="The same with four blocks on Compass, as `make demo` shows it.",
        arms={
            "vit_mini": Arm("vit_mini_compass", colour="vit"),
            "spvit_mini": Arm("spvit_mini_compass", colour="spsa"),
        },
        seeds=(0, 1, 2),
        changes={"evaluate_every": "20 steps"},
        baseline="vit_mini",
    ),
)
