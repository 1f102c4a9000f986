"""Lesson 02: a block, and the vision transformer around its blocks.

A mistake is the right computation with one part changed, so pairs of mistakes can be made by changing two.
"""

import torch
from torch import Tensor

from spvit_mini.attention import MHSA
from spvit_mini.vit import Block, ViT, ViTConfig

from .engine import Case, Exercise, Property
from .exchange import compare_states
from .lesson_01 import slips
from .lesson_02_answers import Steps, Whole

# Cases ------------------------------------------------------------------------------------------------------------------


def drawn(state: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
    """Draw weights for a state: matrices such that sizes stay about what they are, everything else with variance 1."""
    weights = []
    for value in state.values():
        is_matrix = value.ndim > 1 and len(value) > 1  # positions and a class token begin with an axis of 1
        scale = value[0].numel() ** -0.5 if is_matrix else 1.0
        weights.append(scale * torch.randn(value.shape, dtype=torch.float64, generator=generator))
    return weights


def blocks(generator: torch.Generator) -> list[Case]:
    """Draw weights and tokens of blocks: several heads, one, a hidden layer as wide as a token, one token."""
    rows = int(torch.randint(2, 4, (), generator=generator))
    sizes = [(2, (rows, 3), 8, 2, 2), (1, (2, 2), 6, 1, 3), (2, (1, 4), 8, 4, 1), (3, (1, 1), 8, 2, 2)]
    cases = []
    for batch, grid, dim, heads, ratio in sizes:
        config = ViTConfig(dim=dim, heads=heads, mlp_ratio=ratio)
        state = Block(MHSA(dim, heads), config, 0.0).state_dict()
        x = 1.0 + 2 * torch.randn(batch, grid[0] * grid[1], dim, dtype=torch.float64, generator=generator)
        label = f"x of shape {tuple(x.shape)} and a hidden layer of {dim * ratio}"
        cases.append(Case(label, (config, grid, tuple(state), x, *drawn(state, generator))))
    return cases


def run_block(made, config: ViTConfig, grid, names: tuple[str, ...], x: Tensor, *weights: Tensor) -> Tensor:
    """Build a block, give it these weights, and pass tokens x (B, N, D) of a grid through."""
    block = made(MHSA(config.dim, config.heads), config, 0.0).double().eval()
    state = dict(zip(names, weights, strict=True))
    compare_states(state, block.state_dict())
    return torch.func.functional_call(block, state, (x, grid), strict=True)


def models(generator: torch.Generator) -> list[Case]:
    """Draw weights and images of models.

    A rectangle, read by its mean and by a class token; as many patches as a token is wide, so that the wrong axis fits;
    an attention that looks at the grid, so that its order shows; a single patch; a class token beside such an attention,
    so that its place shows, for one image, so that it fits as it is.
    """
    batch = int(torch.randint(2, 4, (), generator=generator))
    kinds = [
        (batch, (2, 3), 8, "mean", "mhsa"),
        (2, (3, 2), 4, "class", "mhsa"),
        (2, (2, 4), 8, "mean", "mhsa"),
        (1, (2, 3), 4, "mean", "psa"),
        (2, (1, 1), 4, "class", "mhsa"),
        (1, (2, 3), 4, "class", "spsa"),
    ]
    cases = []
    for images, grid, dim, pool, attention in kinds:
        size = {
            "image_size": (2 * grid[0], 2 * grid[1]),
            "patch": 2,
            "num_classes": 5,
            "dim": dim,
            "depth": 2,
            "heads": 2,
        }
        config = ViTConfig(**size, attention=attention, pool=pool)
        state = ViT(config).state_dict()
        pixels = torch.randn(images, 3, *config.image_size, dtype=torch.float64, generator=generator)
        label = f"images of shape {tuple(pixels.shape)}, patches of 2 × 2 pixels, pool={pool!r}"
        cases.append(Case(label, (config, tuple(state), pixels, *drawn(state, generator))))
    return cases


def run_model(made, config: ViTConfig, names: tuple[str, ...], images: Tensor, *weights: Tensor) -> Tensor:
    """Build a model, give it these weights, and classify images."""
    model = made(config).double().eval()
    state = dict(zip(names, weights, strict=True))
    compare_states(state, model.state_dict())
    return torch.func.functional_call(model, state, (images,), strict=True)


# Exercises ----------------------------------------------------------------------------------------------------------------


def block_stays_float32(answer) -> bool:
    """Tell whether a block in float32 answers in float32."""
    block = answer(MHSA(4, 2), ViTConfig(dim=4, heads=2), 0.0)
    return block(torch.ones(1, 4, 4), (2, 2)).dtype == torch.float32


def model_stays_float32(answer) -> bool:
    """Tell whether a model in float32 answers in float32."""
    model = answer(ViTConfig(image_size=(4, 4), patch=2, dim=4, depth=1, heads=2))
    return model(torch.ones(1, 3, 4, 4)).dtype == torch.float32


PRE_NORM = "Only what goes into attention or the MLP is normalised; what is carried past them is not."

BLOCK = Exercise(
    name="Block",
    solution=Block,
    cases=blocks,
    call=run_block,
    mistakes=slips(
        Steps,
        {
            "post-norm": (
                f"the sum is normalised, as in the first transformer (post-norm). {PRE_NORM}",
                {"attention_norm": "after", "mlp_norm": "after"},
            ),
            "norm at the end of a branch": (
                "what comes out of attention and of the MLP is normalised. It is what goes into them that should be.",
                {"attention_norm": "inside", "mlp_norm": "inside"},
            ),
            "no norms": (
                "neither norm is used. Each branch begins with one.",
                {"attention_norm": "nowhere", "mlp_norm": "nowhere"},
            ),
            "no norm before attention": (
                "the tokens go into attention as they are: norm1 is missing.",
                {"attention_norm": "nowhere"},
            ),
            "no norm before the MLP": (
                "the tokens go into the MLP as they are: norm2 is missing.",
                {"mlp_norm": "nowhere"},
            ),
            "no skips": (
                "nothing is carried past attention and the MLP: a branch is added to what went in, not put in its place.",
                {"attention_skip": "nothing", "mlp_skip": "nothing"},
            ),
            "no skip past attention": (
                "nothing is carried past attention: its branch is added to x, not put in its place.",
                {"attention_skip": "nothing"},
            ),
            "no skip past the MLP": (
                "nothing is carried past the MLP: its branch is added to what went in, not put in its place.",
                {"mlp_skip": "nothing"},
            ),
            "skips from the norms": (
                f"both branches are added to the normalised tokens. {PRE_NORM} Was x overwritten by its norm?",
                {"attention_skip": "its norm", "mlp_skip": "its norm"},
            ),
            "skip from norm1": (
                f"the attention's branch is added to the normalised tokens. {PRE_NORM} Was x overwritten by its norm?",
                {"attention_skip": "its norm"},
            ),
            "skip from norm2": (
                f"the MLP's branch is added to the normalised tokens. {PRE_NORM} Was x overwritten by its norm?",
                {"mlp_skip": "its norm"},
            ),
            "norm1 twice": ("norm1 is used in both branches. Each has a norm of its own.", {"norms": "11"}),
            "norm2 twice": ("norm2 is used in both branches. Each has a norm of its own.", {"norms": "22"}),
            "norms exchanged": ("norm1 and norm2 are exchanged: attention comes with norm1.", {"norms": "21"}),
            "MLP first": (
                "the MLP comes before attention. First the tokens talk, then each thinks for itself.",
                {"first": "mlp"},
            ),
            "side by side": (
                "both branches read x. The MLP should read what attention has added to it already.",
                {"second_reads": "x"},
            ),
            "attention's sum forgotten": (
                "the MLP reads the right tokens, but its branch is added to the x from the block's beginning: what attention "
                "brought is lost on the way past.",
                {"second_joins": "x"},
            ),
            "attention unused": (
                "attention has no part in the result: the MLP reads x and is added to x, both from the block's beginning.",
                {"second_reads": "x", "second_joins": "x"},
            ),
            "no GELU": (
                "the MLP's two layers follow each other without the GELU in between, so they are one linear layer.",
                {"activation": lambda y: y},
            ),
            "ReLU": (
                "the MLP has a ReLU where a GELU belongs. `self.mlp` has the right one.",
                {"activation": torch.relu},
            ),
        },
    ),
    properties=(
        Property(
            "float32 stays float32", "tokens in float32 come back in another type: keep the type.", block_stays_float32
        ),
    ),
)

AT_ONCE = "Positions are added to the patches at once, before the first block."
NOT_ON_THE_WIDTH = "Each of the D numbers is averaged over the patches: tokens of shape (B, N, D) become (B, D)."

MODEL = Exercise(
    name="ViT",
    solution=ViT,
    cases=models,
    call=run_model,
    mistakes=slips(
        Whole,
        {
            "no positions": (
                f"the positions are not used, so the order of the patches is lost. {AT_ONCE}",
                {"positions": "never"},
            ),
            "positions after the first block": (
                f"the positions come late: they are added after the first block. {AT_ONCE}",
                {"positions": "after the first block"},
            ),
            "positions after the blocks": (
                f"the positions come late: they are added after the last block, where nothing can use them. {AT_ONCE}",
                {"positions": "after the blocks"},
            ),
            "reshaped": (
                "a reshape alone does not make tokens of (B, D, R, C): it mixes patches with their numbers. Flatten the "
                "grid, then move its axis.",
                {"order": "reshaped"},
            ),
            "column by column": (
                "the patches are taken column by column. They come row by row: with plain attention that makes no "
                "difference, but with one that looks at the grid.",
                {"order": "column by column"},
            ),
            "not transposed": (
                "the axes are in the wrong order: the flattened grid is (B, D, N), but blocks take (B, N, D).",
                {"order": "not transposed"},
            ),
            "grid exchanged": (
                "the grid that the blocks get is (columns, rows). It is (rows, columns): plain attention does not look at "
                "it, others do.",
                {"grid": "(C, R)"},
            ),
            "class token missing": (
                "with pool='class' a class token joins the patches. Here it is missing, and a patch is read instead.",
                {"token": "missing"},
            ),
            "class token last, first read": (
                "the class token is put last, but the first token is read, which is a patch.",
                {"token": "last"},
            ),
            "class token first, last read": (
                "the class token is put first, but the last token is read, which is a patch.",
                {"pool": "last of a class token"},
            ),
            "class token last": (
                "the class token is put last and read there. Plain attention does not mind, but one that looks at the grid "
                "takes the patches to be the last tokens: put the class token in front.",
                {"token": "last", "pool": "last of a class token"},
            ),
            "class token for one image": (
                "with pool='class' it works for a single image only. The class token is (1, 1, D), and torch.cat repeats "
                "nothing: it must grow to B first.",
                {"token": "for one image"},
            ),
            "class token averaged in": (
                "with pool='class' the mean of all tokens is read. The class token alone should be.",
                {"pool": "all"},
            ),
            "class token ignored": (
                "with pool='class' the mean of the patches is read. The class token should be, that is what it is for.",
                {"pool": "patches"},
            ),
            "first patch": (
                "with pool='mean' there is no class token: token 0 is a patch as any other. Average all of them.",
                {"pool": "first"},
            ),
            "always the first tokens": (
                "each block gets the same tokens. What one block returns goes into the next.",
                {"way": "always the first tokens"},
            ),
            "last block left out": ("the tokens do not go through the last block.", {"way": "all but the last"}),
            "no final norm": ("the norm after the last block is missing.", {"norm": "never"}),
            "norm after pooling": (
                "the tokens are averaged first and normalised then. Here each token is normalised, then they are averaged.",
                {"norm": "pooled"},
            ),
            "pools the width": (f"the mean runs over the numbers of each token. {NOT_ON_THE_WIDTH}", {"pool": "width"}),
            "pools the batch": (
                f"the mean runs over the images, so each answer mixes all of them. {NOT_ON_THE_WIDTH}",
                {"pool": "batch"},
            ),
            "sum for mean": ("the patches are summed up. Their mean is asked for.", {"pool": "sum"}),
            "max for mean": ("the largest value over the patches is taken. Their mean is asked for.", {"pool": "max"}),
            "no head": (
                "the pooled token comes out as it is, of D numbers. The head makes one number for each class of it.",
                {"output": "pooled"},
            ),
            "softmax on logits": (
                "the result sums to 1: it went through a softmax. A model returns logits; the loss takes the softmax itself.",
                {"output": "softmax"},
            ),
            "log softmax on logits": (
                "the result went through a logarithm of a softmax. A model returns logits; the loss does that itself.",
                {"output": "log"},
            ),
        },
    ),
    properties=(
        Property("float32 stays float32", "images in float32 give another type: keep the type.", model_stays_float32),
    ),
    stumble="shapes do not fit together. Four things to look at: are positions, (1, D, R, C), added while the patches are "
    "laid out like them? Are tokens (B, N, D), width last? Is there a class token for each image? Does the mean run over "
    "tokens?",
)

EXERCISES = (BLOCK, MODEL)
