"""The studies by name. A new one is an entry here; its records are made by `python -m spvit_mini.study NAME`."""

from ..errors import UserError, near
from .design import TUNING, Arm, Study

STUDIES = (
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


def list_studies() -> dict[str, Study]:
    """List all studies by name; before one that tunes comes the study that settles its options."""
    studies = {}
    for study in STUDIES:
        if study.tuning:
            studies[study.name + TUNING] = study.tuning_study()
        studies[study.name] = study
    return studies


def get_study(name: str) -> Study:
    """Find a study. Raises UserError, with the near names, if there is none."""
    studies = list_studies()
    if name not in studies:
        raise UserError(
            f"no study is called {name!r}.{near(name, studies)} python -m spvit_mini.study --list names them all"
        )
    return studies[name]
