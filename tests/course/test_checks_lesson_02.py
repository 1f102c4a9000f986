"""Lesson 02's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from spvit_course.checks.engine import examine, same
from spvit_course.checks.exchange import exchange
from spvit_course.checks.lesson_02 import BLOCK, EXERCISES, MODEL, Steps, Whole
from spvit_mini import vit
from spvit_mini.attention import MHSA
from spvit_mini.vit import ViTConfig

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(3)


# The cases, in order.
# Block: several heads, one head, a hidden layer as wide as a token, one token.
# ViT: a rectangle, a class token, as many patches as a token is wide, an attention that sees the grid, a single patch, a
# class token beside an attention that sees the grid, for one image.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
Block
    post-norm                          xxxx
    norm at the end of a branch        xxxx
    no norms                           xxxx
    no norm before attention           xxxx
    no norm before the MLP             xxxx
    no skips                           xxxx
    no skip past attention             xxxx
    no skip past the MLP               xxxx
    skips from the norms               xxxx
    skip from norm1                    xxxx
    skip from norm2                    xxxx
    norm1 twice                        xxxx
    norm2 twice                        xxxx
    norms exchanged                    xxxx
    MLP first                          xxxx
    side by side                       xxxx
    attention's sum forgotten          xxxx
    attention unused                   xxxx
    no GELU                            xxxx
    ReLU                               xxxx
ViT
    no positions                       xxxxxx
    positions after the first block    xxxxxx
    positions after the blocks         xxxxxx
    reshaped                           xxxx.x
    column by column                   ...x.x
    not transposed                     !!x!!!
    grid exchanged                     ...x.x
    class token missing                .x..xx
    class token last, first read       .x..xx
    class token first, last read       .x..xx
    class token last                   .....x
    class token for one image          .!..!.
    class token averaged in            .x..xx
    class token ignored                .x..xx
    first patch                        x.xx..
    always the first tokens            xxxxxx
    last block left out                xxxxxx
    no final norm                      xxxxxx
    norm after pooling                 x.xx..
    pools the width                    !.x!..
    pools the batch                    x.xx..
    sum for mean                       x.xx..
    max for mean                       x.xx..
    no head                            xxxxxx
    softmax on logits                  xxxxxx
    log softmax on logits              xxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=35) == TOLD_APART


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
@pytest.mark.parametrize("seed", SEEDS)
def test_any_two_mistakes_are_told_apart(exercise, seed):
    wrong = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
    for one, other in itertools.combinations(wrong, 2):
        assert not all(map(same, wrong[one], wrong[other])), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake, seed):
    result = examine(exercise, mistake.answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
    assert len(str(result).splitlines()) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 100


@pytest.mark.parametrize("seed", range(8))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    class OtherTokens(Steps):
        def forward(self, x, grid):
            return super().forward(x, grid) * (1 + torch.rand((), generator=noise, dtype=x.dtype))

    class OtherLogits(Whole):
        def forward(self, images):
            return super().forward(images)[:, torch.randperm(5, generator=noise)] + 0.1

    for exercise, answer in ((BLOCK, OtherTokens), (MODEL, OtherLogits)):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


# Right answers that nobody would have thought of ----------------------------------------------------------------------


class Given(nn.Module):
    """What the notebook gives for the block."""

    def __init__(self, attention, config, drop_path=0.0):
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(config.dim, hidden), nn.GELU(), nn.Linear(hidden, config.dim))


class BlockInTwoLines(Given):
    def forward(self, x, grid):
        x = x + self.attention(self.norm1(x), grid)
        return x + self.mlp(self.norm2(x))


class BlockInOneSum(Given):
    def forward(self, x, grid):
        talked = self.attention(self.norm1(x), grid)
        return sum([x, talked, self.mlp(self.norm2(talked + x))])


class BlockByLoop(Given):
    def forward(self, x, grid):
        for norm, branch in ((self.norm1, lambda y: self.attention(y, grid)), (self.norm2, self.mlp)):
            x = torch.add(x, branch(norm(x)))
        return x


class BlockTokenByToken(Given):
    def forward(self, x, grid):
        width = x.shape[-1]
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + self.norm1.eps).sqrt()
        x = x + self.attention(normed * self.norm1.weight + self.norm1.bias, grid)
        rows = [
            row + self.mlp(F.layer_norm(row, (width,), self.norm2.weight, self.norm2.bias, 1e-6))
            for row in x.flatten(0, 1)
        ]
        return torch.stack(rows).reshape(x.shape)


class Parts(nn.Module):
    """What the notebook gives for the model."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(config.channels, config.dim, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, config.dim, *config.grid))
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "class" else None
        self.blocks = nn.ModuleList(vit.Block(vit.attention_of(config, i), config, 0.0) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.num_classes)


class ViTAsTaught(Parts):
    def forward(self, images):
        x = (self.embed(images) + self.positions).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, self.config.grid)
        x = self.norm(x)
        return self.head(x[:, 0] if self.class_token is not None else x.mean(dim=1))


class ViTThatFlattensEarly(Parts):
    def forward(self, images):
        x = rearrange(self.embed(images), "b d r c -> b (r c) d") + rearrange(self.positions, "b d r c -> b (r c) d")
        grid = self.embed(images).shape[2:]
        if self.config.pool == "class":
            x = torch.cat([self.class_token.repeat(x.shape[0], 1, 1), x], 1)
        for block in self.blocks:
            x = block(x, tuple(grid))
        return self.head(self.norm(x[:, 0]) if self.config.pool == "class" else self.norm(x).mean(-2))


class ViTThatAveragesLogits(Parts):
    def forward(self, images):
        x = torch.einsum("bdrc->brcd", self.embed(images) + self.positions).flatten(1, 2)
        token = [] if self.class_token is None else [self.class_token.expand(len(images), 1, self.config.dim)]
        x = torch.cat([*token, x], dim=1)
        for number in range(self.config.depth):
            x = self.blocks[number](x, self.config.grid)
        logits = self.head(self.norm(x))
        return logits[:, 0] if token else logits.mean(1)


class ViTByPatchify(Parts):
    def forward(self, images):
        patch = self.config.patch
        cut = rearrange(images, "b ch (r p) (c q) -> b (r c) (ch p q)", p=patch, q=patch)
        x = F.linear(cut, self.embed.weight.flatten(1), self.embed.bias) + self.positions.flatten(2).mT
        if self.class_token is not None:
            x = torch.cat([self.class_token + 0 * x[:, :1], x], 1)
        for block in self.blocks:
            x = block(x, self.config.grid)
        return self.head(self.norm(x)[:, 0] if self.class_token is not None else self.norm(x).sum(1) / x.shape[1])


RIGHT = [
    *((BLOCK, answer) for name, answer in list(globals().items()) if name.startswith("Block")),
    *((MODEL, answer) for name, answer in list(globals().items()) if name.startswith("ViT") and name != "ViTConfig"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


class PositionsTooLate(Parts):
    def forward(self, images):
        return self.embed(images).flatten(2).mT + self.positions


def test_shapes_that_do_not_fit_get_a_list_of_places_to_look_at():
    result = examine(MODEL, PositionsTooLate)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", None, MODEL.stumble)


def test_a_class_token_put_and_read_last_is_not_exchanged():
    class Last(Whole):
        def __init__(self, config):
            super().__init__(config, token="last", pool="last of a class token")

    size = {"image_size": (8, 12), "patch": 4, "dim": 12, "depth": 2, "heads": 3, "num_classes": 5, "pool": "class"}
    for attention, fits in (("mhsa", True), ("spsa", False)):
        build = {"config": ViTConfig(**size, attention=attention)}
        assert exchange(Last, vit.ViT, build=build, inputs=(torch.randn(2, 3, 8, 12),)).passed == fits


def test_there_are_enough_of_each():
    for exercise in EXERCISES:
        assert len(exercise.mistakes) >= 6
        assert sum(of is exercise for of, _ in RIGHT) >= 3
        assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)


def test_weights_go_both_ways_with_the_package_s():
    config = ViTConfig(image_size=(8, 12), patch=4, dim=12, depth=2, heads=3, num_classes=5)
    build = {"attention": MHSA(12, 3), "config": config, "drop_path": 0.0}
    assert exchange(BlockByLoop, vit.Block, build=build, inputs=(torch.randn(2, 6, 12), (2, 3))).passed
    for pool in ("mean", "class"):
        build = {"config": ViTConfig(image_size=(8, 12), patch=4, dim=12, depth=2, heads=3, num_classes=5, pool=pool)}
        assert exchange(ViTAsTaught, vit.ViT, build=build, inputs=(torch.randn(2, 3, 8, 12),)).passed


@pytest.mark.parametrize(("exercise", "given"), [(BLOCK, Given), (MODEL, Parts)])
def test_unsolved_renamed_and_detached_answers_are_named(exercise, given):
    class Unsolved(given):
        def forward(self, *arguments):
            raise NotImplementedError()

    class Renamed(dict(EXERCISES_SOLVED)[exercise.name]):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.last = nn.Linear(3, 3)

    class Detached(dict(EXERCISES_SOLVED)[exercise.name]):
        def forward(self, *arguments):
            return super().forward(*arguments).detach()

    assert examine(exercise, Unsolved).status == "not done yet"
    assert "only yours has: last.weight, last.bias" in str(examine(exercise, Renamed))
    assert "no gradient comes back" in str(examine(exercise, Detached))


EXERCISES_SOLVED = (("Block", BlockInTwoLines), ("ViT", ViTAsTaught))


@pytest.mark.parametrize("name", ["Block", "ViT"])
def test_the_packages_own_are_refused(name):
    class Borrowed(getattr(vit, name)):
        pass

    exercise = {exercise.name: exercise for exercise in EXERCISES}[name]
    for answer in (getattr(vit, name), Borrowed):
        assert "calls the package's own solution" in str(examine(exercise, answer))
