"""Claims of the papers, each with the comparisons of our records that test it.

A comparison is between two arms of a study. Its verdict is computed from the records by one rule (`verdict`): an interval
that includes 0 is not an agreement, whatever its mean.
"""

from dataclasses import dataclass

from .records import Record
from .statistics import Difference, paired
from .study import Study

AGREES, CONTRADICTS, OPEN = "agrees", "contradicts", "not distinguishable"
Records = dict[tuple[str, int], Record]


@dataclass(frozen=True)
class Comparison:
    """Two arms of a study; the claim is that the first is better."""

    study: str
    better: str
    worse: str


@dataclass(frozen=True)
class Claim:
    """A claim in our words, its source, and our comparisons."""

    says: str
    source: str
    comparisons: tuple[Comparison, ...]


def compare_on(better: str, worse: str, *datasets: str) -> tuple[Comparison, ...]:
    """List the comparison of two arms of the studies `variants_…` on several datasets."""
    return tuple(Comparison(f"variants_{name}", better, worse) for name in datasets)


SYNTHETIC = ("compass6", "textures6", "rings6")
ALL = (*SYNTHETIC, "cifar10", "flowers17")
# The available accounts of SP-ViT's ablations give directions and few numbers; a number is quoted where there is one.
SPVIT = "SP-ViT (Zhou et al. 2022), ablations on ImageNet-100"
CONVIT = "ConViT (d'Ascoli et al. 2021)"
CLAIMS = (
    Claim(
        "SP-SA is better than attention with absolute positions alone.",
        "SP-ViT, S at 224: 83.9 % against LV-ViT-S's 83.3 %, with PEG and a late class token beside SP-SA",
        compare_on("spsa", "vit", *ALL),
    ),
    Claim("SP-SA is better than a relative position bias.", SPVIT, compare_on("spsa", "rpb", *SYNTHETIC)),
    Claim(
        "SP-SA is better than PSA. Ours has content too and starts local: the plain baseline.",
        SPVIT,
        compare_on("spsa", "psa", *ALL),
    ),
    Claim("SP-SA is better than ConViT's GPSA.", SPVIT, compare_on("spsa", "convit", *ALL)),
    Claim(
        "A prior should multiply the scores. (SP-ViT multiplies; the same MLP added is our question.)",
        "SP-ViT, the equation",
        compare_on("spsa", "mlp_added", *ALL),
    ),
    Claim(
        "The relation needs a hidden layer: an MLP is better than a linear function.",
        SPVIT,
        compare_on("spsa", "linear", "compass6", "textures6"),
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
        compare_on("convit", "vit", *ALL),
    ),
    Claim(
        "A gate is better than adding the positions to the content.",
        f"{CONVIT}, supplement A",
        compare_on("convit", "psa", *ALL),
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


def compute_difference(comparison: Comparison, study: Study, records: Records, measure: str) -> Difference | None:
    """Compute the paired difference of the two arms; None while a record is missing.

    Args:
        measure: "final", the accuracy after the last step, or "run", the mean accuracy over all evaluations.
    """
    value = {"final": lambda record: record.final, "run": mean_accuracy}[measure]
    keys = [[(arm, seed) for seed in study.seeds] for arm in (comparison.better, comparison.worse)]
    if any(key not in records for side in keys for key in side):
        return None
    return paired(*([value(records[key]) for key in side] for side in keys))


def mean_accuracy(record: Record) -> float:
    """Compute the mean accuracy over all evaluations of a run; 0 if it diverged."""
    return 0.0 if record.diverged else sum(value for _, value in record.curve) / len(record.curve)


def verdict(difference: Difference) -> str:
    """Judge the claim that a difference is above 0 by its interval."""
    return AGREES if difference.low > 0 else CONTRADICTS if difference.high < 0 else OPEN
