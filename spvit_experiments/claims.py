"""What the papers claim, and which records can say something about it.

A claim is put as one or more comparisons of two arms of a study. What comes of it is computed from the records alone, by
one rule for all (`verdict`): an interval that holds 0 is no agreement, whatever its middle says.
"""

from dataclasses import dataclass

from .design import Study
from .records import Record
from .statistics import Difference, paired

AGREES, CONTRADICTS, OPEN = "agrees", "contradicts", "not distinguishable"
Records = dict[tuple[str, int], Record]


@dataclass(frozen=True)
class Comparison:
    """One arm against another of the same study; the claim says that the first is the better one."""

    study: str
    better: str
    worse: str


@dataclass(frozen=True)
class Claim:
    """What a paper says, in our words, where it says so, and our comparisons."""

    says: str
    source: str
    comparisons: tuple[Comparison, ...]


def across(better: str, worse: str, *sets: str) -> tuple[Comparison, ...]:
    """Compare two arms of `variants` on several sets of images."""
    return tuple(Comparison(f"variants_{name}", better, worse) for name in sets)


MADE = ("compass6", "textures6", "rings6")
ALL = (*MADE, "cifar10", "flowers17")
# The accounts of SP-ViT's ablations that could be had give directions and few numbers; where there is one it is quoted.
SPVIT = "SP-ViT (Zhou et al. 2022), ablations on ImageNet-100"
CONVIT = "ConViT (d'Ascoli et al. 2021)"
CLAIMS = (
    Claim(
        "SP-SA is better than attention with absolute positions alone.",
        "SP-ViT, S at 224: 83.9 % against LV-ViT-S's 83.3 %, with PEG and a late class token beside SP-SA",
        across("spsa", "vit", *ALL),
    ),
    Claim("SP-SA is better than a relative position bias.", SPVIT, across("spsa", "rpb", *MADE)),
    Claim(
        "SP-SA is better than PSA. Ours has content too and starts local: the plain baseline.",
        SPVIT,
        across("spsa", "psa", *ALL),
    ),
    Claim("SP-SA is better than ConViT's GPSA.", SPVIT, across("spsa", "convit", *ALL)),
    Claim(
        "A prior should multiply the scores. (SP-ViT multiplies; the same MLP added is our question.)",
        "SP-ViT, the equation",
        across("spsa", "mlp_added", *ALL),
    ),
    Claim(
        "The relation needs a hidden layer: an MLP is better than a linear function.",
        SPVIT,
        across("spsa", "linear", "compass6", "textures6"),
    ),
    Claim(
        "A hidden width of 32 is better than 16.",
        f"{SPVIT}: +0.4 points; more than 32 gives nothing",
        (Comparison("hidden", "hidden_32", "hidden_16"),),
    ),
    Claim(
        "Each head of each layer should have a prior of its own; one for the whole network is better than one per layer.",
        SPVIT,
        (Comparison("sharing", "head", "network"), Comparison("sharing", "network", "block")),
    ),
    Claim(
        "The more layers have priors the better, up to the last ones.",
        f"{SPVIT}: best at 10 of 12",
        (Comparison("depth", "2_of_4", "0_of_4"), Comparison("depth", "4_of_4", "2_of_4")),
    ),
    Claim(
        "A class token that joins late helps.",
        SPVIT,
        (
            Comparison("parts", "late", "nothing"),
            Comparison("parts", "spsa+late", "spsa"),
            Comparison("parts", "all", "spsa+peg"),
        ),
    ),
    Claim(
        "SP-SA is what the published model gains by. (Released models have PEG as well, which no ablation separates.)",
        "SP-ViT, released code",
        (
            Comparison("parts", "spsa", "nothing"),
            Comparison("parts", "spsa", "peg"),
            Comparison("parts", "spsa+peg", "peg"),
            Comparison("parts", "spsa-positions", "peg-positions"),
        ),
    ),
    Claim(
        "GPSA is better than plain attention.",
        f"{CONVIT}, table 1: ConViT-S 81.3 % against DeiT-S's 79.8 %",
        across("convit", "vit", *ALL),
    ),
    Claim(
        "A gate is better than adding the positions to the content.",
        f"{CONVIT}, supplement A",
        across("convit", "psa", *ALL),
    ),
    Claim(
        "The local start helps.",
        f"{CONVIT}: ConViT-S+ 82.2 % with, 81.4 % without",
        (
            Comparison("lesson_07", "convit", "convit-no-local-start"),
            Comparison("variants_compass6", "psa", "psa_neutral"),
            Comparison("variants_textures6", "psa", "psa_neutral"),
        ),
    ),
    Claim(
        "A gate that learns is better than a frozen one.",
        f"{CONVIT}: ConViT-S+ 82.2 % against 82.0 %",
        (Comparison("lesson_07", "convit", "convit-frozen-gate"),),
    ),
)


def difference(comparison: Comparison, study: Study, records: Records, measure: str) -> Difference | None:
    """Compare the two arms seed by seed; None while a seed of either is missing.

    Args:
        measure: "final", the accuracy after the last step, or "run", its mean over all evaluations: how soon it rises.
    """
    value = {"final": lambda record: record.final, "run": over_run}[measure]
    keys = [[(arm, seed) for seed in study.seeds] for arm in (comparison.better, comparison.worse)]
    if any(key not in records for side in keys for key in side):
        return None
    return paired(*([value(records[key]) for key in side] for side in keys))


def over_run(record: Record) -> float:
    """Take the mean accuracy over all evaluations of a run; 0 if it diverged."""
    return 0.0 if record.diverged else sum(value for _, value in record.curve) / len(record.curve)


def verdict(found: Difference) -> str:
    """Say what an interval says of a claim that a difference is above 0."""
    return AGREES if found.low > 0 else CONTRADICTS if found.high < 0 else OPEN
