"""What the checks compute themselves, against the package, against mathematics, and against what the lessons work out by hand."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from spvit_course.checks.exchange import exchange
from spvit_course.checks.lesson_01 import answers as lesson_01
from spvit_course.checks.lesson_01.exercises import by_hand as heads_by_hand
from spvit_course.checks.lesson_02 import answers as lesson_02
from spvit_course.checks.lesson_04.exercises import log_offsets, shaw2d
from spvit_course.checks.lesson_05.exercises import MASKED_WEIGHTS, masked_weights
from spvit_course.checks.lesson_06 import answers as lesson_06
from spvit_course.checks.lesson_06.exercises import run_map
from spvit_course.checks.lesson_07 import answers as lesson_07
from spvit_course.checks.lesson_07.exercises import by_hand as mixture_by_hand
from spvit_course.checks.lesson_07.exercises import gpsa, late_token
from spvit_course.checks.lesson_08 import answers as lesson_08
from spvit_course.checks.lesson_08.exercises import prior
from spvit_course.checks.lesson_09 import answers as lesson_09
from spvit_course.checks.lesson_09.exercises import MIX_LABELS, cut_box, in_double, list_centres, unmix
from spvit_course.checks.lesson_10 import answers as lesson_10
from spvit_course.checks.lesson_12.exercises import EMA, exact_accuracy, run_accuracy
from spvit_course.checks.lesson_12.exercises import by_hand as team_by_hand
from spvit_course.checks.lesson_13.answers import count_pairs, spread_fast
from spvit_course.checks.lesson_13.exercises import SPARSIFY, count_calls
from spvit_experiments.statistics import t_quantile
from spvit_mini import vit
from spvit_mini.attention import GPSA, MHSA, SPSA, ContextualAttention, MaskedAttention
from spvit_mini.geometry import offsets, pair_offsets
from spvit_mini.spatial import LogCPB, PriorMLP, Quadratic, Shaw2D, conv_heads
from spvit_mini.training import token_loss
from spvit_mini.training.distributed import ProcessGroup, ValidationShard
from spvit_mini.training.metrics import ClassificationMetrics
from spvit_mini.training.optim import lr_at, make_ema_update
from spvit_mini.vit import ViT, ViTConfig

from .answers.lesson_01 import MHSAByEinsum
from .answers.lesson_02 import BlockByLoop, ViTAsTaught
from .answers.lesson_08 import ByScaling
from .answers.lesson_13 import windows

each_seed = pytest.mark.parametrize("seed", range(4))


def draw_cases(exercise, seed: int) -> list:
    return exercise.cases(torch.Generator().manual_seed(seed))


# Classes by hand carry the package's weights ----------------------------------------------------------------------------

IMAGES, TOKENS = torch.ones(2, 3, 8, 12).cumsum(-1).sin(), torch.ones(2, 7, 12).cumsum(-1).sin()
SIZE = {"image_size": (8, 12), "patch": 4, "dim": 12, "depth": 2, "heads": 3, "num_classes": 5}


@pytest.mark.parametrize(
    ("student", "package", "build", "inputs", "fits"),
    [
        (MHSAByEinsum, MHSA, {"dim": 12, "heads": 3}, (TOKENS[:, :6], (2, 3)), True),
        (BlockByLoop, vit.Block, {"attention": MHSA(12, 3), "config": ViTConfig(**SIZE), "drop_path": 0.0},
            (TOKENS[:, :6], (2, 3)), True),
        (ViTAsTaught, ViT, {"config": ViTConfig(**SIZE, pool="mean")}, (IMAGES,), True),
        (ViTAsTaught, ViT, {"config": ViTConfig(**SIZE, pool="class")}, (IMAGES,), True),
        (ByScaling, SPSA, {"dim": 12, "heads": 3, "hidden": 4}, (TOKENS, (2, 3)), True),
        (partial(lesson_08.SPSA, way="added"), SPSA, {"dim": 12, "heads": 3, "hidden": 4}, (TOKENS, (2, 3)), False),
        # A class token that is put and read last: only an attention that looks at the grid tells.
        (partial(lesson_02.ViT, token="last", pool="last of a class token"), ViT,
            {"config": ViTConfig(**SIZE, pool="class", attention="mhsa")}, (IMAGES,), True),
        (partial(lesson_02.ViT, token="last", pool="last of a class token"), ViT,
            {"config": ViTConfig(**SIZE, pool="class", attention="spsa")}, (IMAGES,), False),
    ],
)  # fmt: skip
def test_weights_go_both_ways_with_the_packages(student, package, build, inputs, fits):
    assert exchange(student, package, build=build, inputs=inputs).passed == fits


# References are what the package computes -------------------------------------------------------------------------------


def test_shaws_products_and_swins_coordinates_are_the_packages():
    torch.manual_seed(0)
    grid, clip = (3, 5), 2
    attention = ContextualAttention(8, 2, Shaw2D(4, clip=clip)).double()
    q = torch.randn(2, 2, 15, 4, dtype=torch.float64)
    tables = torch.stack(list(attention.spatial.vectors))
    torch.testing.assert_close(shaw2d(q, tables, grid, clip), attention.position_scores(q, grid))
    cpb = LogCPB(3, (4, 6), hidden=8).double()
    ours = 16 * cpb.mlp(log_offsets(offsets(7, 7).double(), (4, 6))).sigmoid()
    torch.testing.assert_close(ours.permute(2, 0, 1), cpb.table((7, 7)))


@each_seed
def test_masked_weights_are_the_packages_wherever_a_query_sees_something(seed):
    for case in draw_cases(MASKED_WEIGHTS, seed):
        scores, mask = case.arguments
        tokens, patches = scores.shape[-1], mask.shape[-1]
        spatial = mask if mask.ndim == 3 else mask[None]
        layer = MaskedAttention(scores.shape[1], scores.shape[1], spatial=lambda grid, spatial=spatial: spatial)
        ours = masked_weights(scores, mask)
        theirs = layer.weights(scores * tokens**0.5, torch.eye(tokens).double(), (1, patches))  # q kᵀ / √C = scores
        empty = theirs.isnan()
        assert torch.allclose(ours[~empty], theirs[~empty], atol=1e-12)
        assert empty.any() == (case.label.endswith("sees no patch") and tokens == patches)
        assert ours[empty].eq(0).all()


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_the_mixture_is_that_of_the_packages_layer(prefix):
    torch.manual_seed(prefix)
    layer = GPSA(12, 3).double()
    torch.nn.init.normal_(layer.gate), torch.nn.init.normal_(layer.spatial.v)
    q, k = torch.randn(2, 2, 3, prefix + 6, 4, dtype=torch.float64)
    expected = layer.weights(q, k, (2, 3))
    torch.testing.assert_close(gpsa(layer.scores(q, k), layer.spatial((2, 3)), layer.gate), expected)


@pytest.mark.parametrize("enters", [0, 1, 2])
def test_the_late_token_is_the_packages(enters):
    torch.manual_seed(enters)
    options = {"attention": "gpsa", "spatial_layers": enters, "class_token_block": enters, "pool": "class"}
    model = ViT(ViTConfig(**options, image_size=(12, 8), depth=3, dim=16, heads=4)).double()
    images = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    x = (model.embed(images) + model.positions).flatten(2).transpose(1, 2)
    tokens = late_token(x, model.class_token, [partial(block, grid=(3, 2)) for block in model.blocks], enters)
    torch.testing.assert_close(model.norm(tokens), model.forward_features(images))


@pytest.mark.parametrize("grid", [(2, 3), (4, 1), (1, 1)])
def test_the_priors_network_is_the_packages(grid):
    torch.manual_seed(0)
    network = PriorMLP(3, 4).double()
    torch.nn.init.normal_(network.w2)
    weights = [getattr(network, name) for name in ("w1", "b1", "w2", "b2")]
    torch.testing.assert_close(prior(offsets(*grid).double(), *weights), network.table(grid))
    torch.testing.assert_close(prior(pair_offsets(*grid).double(), *weights), network(grid))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_packages_up_to_its_precision(smoothing):
    torch.manual_seed(0)
    cls, dense = torch.randn(3, 5), torch.randn(3, 4, 5)
    y, maps = torch.randn(3, 5).softmax(-1), torch.randn(3, 4, 5).softmax(-1)
    softer = [(1 - smoothing) * target + smoothing / 5 for target in (y, maps)]
    expected = token_loss.dense_loss(cls, dense, y, maps, dense_weight=0.5, smoothing=smoothing)
    torch.testing.assert_close(in_double(cls, dense, *softer, 0.5), expected)


@pytest.mark.parametrize("box", [(0, 1, 2, 3), (1, 0, 3, 1), (1, 1, 1, 2)])
def test_what_is_unmixed_is_what_the_packages_model_gives(box):
    torch.manual_seed(0)
    config = ViTConfig(image_size=(12, 16), depth=1, dim=16, heads=2, pool="class", dense_head=True)
    model, images = ViT(config).eval(), torch.randn(3, 3, 12, 16)
    with torch.no_grad():
        dense = model.dense_head(model.forward_features(images, mix=box)[:, 1:])
        expected = model(images, dense=True, mix=box)[1]
    torch.testing.assert_close(unmix(dense, box, (3, 4)), expected)
    torch.testing.assert_close(lesson_09.unmix(dense, box, (3, 4)), expected)


@each_seed
def test_labels_are_mixed_as_the_tokens_are(seed):
    """Count, by tokens that name their image, of which image each patch is."""
    for case in draw_cases(MIX_LABELS, seed):
        y, box, grid, _ = case.arguments
        names = torch.arange(len(y))[:, None, None, None].expand(-1, 1, *grid)
        mixed = lesson_09.mixtoken(names, box).flatten(1)
        shares = torch.stack([(mixed == image).double().mean(1) for image in range(len(y))], dim=1)  # (B, B)
        torch.testing.assert_close(lesson_09.mix_labels(*case.arguments), shares @ y)


class FixedDraws:
    """Stand in for a RandomState that draws this λ and this centre."""

    def __init__(self, lam, centre):
        numbers = iter(centre)
        self.beta, self.randint = lambda *_: lam, lambda _: next(numbers)


@each_seed
def test_boxes_of_labels_are_boxes_that_training_draws(seed):
    rows = list_centres(torch.Generator().manual_seed(seed))
    boxes = [token_loss.draw_box(grid, 1.0, random=FixedDraws(lam, centre)) for _, grid, centre, lam in rows]
    assert [cut_box(grid, centre, lam) for _, grid, centre, lam in rows] == boxes
    assert [case.arguments[1] for case in draw_cases(MIX_LABELS, seed)] == boxes


def test_the_average_is_what_torch_keeps_by_the_packages_rule():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    mine, theirs = EMA(model, 0.3), AveragedModel(model, multi_avg_fn=make_ema_update(0.3), use_buffers=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(7):
        model(torch.randn(5, 3, generator=generator))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        mine.update(model)
        theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(mine.average[name], value, rtol=1e-5, atol=1e-6)
    assert mine.average["1.num_batches_tracked"] == 7 and not torch.equal(mine.average["0.weight"], model[0].weight)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_accuracy_is_what_shards_and_metrics_make(world):
    generator = torch.Generator().manual_seed(world)
    logits, labels = torch.randn(13, 4, generator=generator), torch.randint(4, (13,), generator=generator)
    images = list(zip(logits, labels, strict=True))
    shards = [[ValidationShard(images, ProcessGroup(r, world))[i] for i in range(-(-13 // world))] for r in range(world)]
    parts, total = [], ClassificationMetrics.zero()
    for shard in shards:
        rows, marks = torch.stack([row for row, _ in shard]), torch.tensor([int(mark) for _, mark in shard])
        parts.append(list(zip(rows.split(2), marks.split(2), strict=True)))
        for batch in parts[-1]:
            total.update(*batch, torch.zeros(()))
    assert exact_accuracy(parts) == total.top1 == 100 * int((logits.argmax(-1) == labels).sum()) / 13


# Mathematics ------------------------------------------------------------------------------------------------------------


@each_seed
def test_psas_map_is_a_gaussian_around_the_centre_after_the_softmax(seed):
    draw = torch.Generator().manual_seed(seed)
    alpha, centre = torch.rand((), generator=draw) + 0.5, torch.randn(2, generator=draw)
    v = -alpha * torch.cat([torch.ones(1), -2 * centre])[None]
    bells = torch.exp(-alpha * (pair_offsets(3, 5) - centre).square().sum(-1))[None]
    for answer in (lesson_06.psa_map, Quadratic):
        torch.testing.assert_close(run_map(answer, v, (3, 5)), bells / bells.sum(-1, keepdim=True))


@each_seed
@pytest.mark.parametrize("size", [(3, 3), (1, 3), (5, 3), (1, 1)])
def test_with_a_large_strength_the_heads_are_a_convolution_with_replicate_padding(size, seed):
    draw = torch.Generator().manual_seed(seed)
    kernel = torch.randn(4, 2, *size, dtype=torch.float64, generator=draw)
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=draw)
    tokens = lesson_06.attend_by_position(conv_heads(kernel, 60.0), image[0].flatten(1).T, (5, 6))
    padded = F.pad(image, (size[1] // 2, size[1] // 2, size[0] // 2, size[0] // 2), mode="replicate")
    torch.testing.assert_close(tokens.T.unflatten(1, (5, 6)), F.conv2d(padded, kernel)[0])


def test_the_priors_gradients_at_its_initialisation_are_those_of_the_chain_rule():
    """With w2 = 0 only ∂f/∂w2 = ReLU(W1 δ + b1) and ∂f/∂b2 = 1 are left."""
    torch.manual_seed(0)
    network = PriorMLP(2, 4).double()
    arriving = torch.randn(2, 3, 5, dtype=torch.float64)
    (network.table((2, 3)) * arriving).sum().backward()
    hidden = (torch.einsum("hkd,abd->hkab", network.w1, offsets(2, 3).double()) + network.b1[..., None, None]).relu()
    torch.testing.assert_close(network.w2.grad, torch.einsum("hkab,hab->hk", hidden, arriving))
    torch.testing.assert_close(network.b2.grad, arriving.sum((1, 2)))
    assert network.w1.grad.count_nonzero() == network.b1.grad.count_nonzero() == 0


def test_a_common_part_of_the_scores_turns_the_factor_into_a_bias():
    torch.manual_seed(0)
    f, scores = torch.randn(2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close((f * (scores + 1.7)).softmax(-1), (f * scores + 1.7 * f).softmax(-1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [2, 5])
def test_the_interval_holds_the_truth_in_95_of_100_cases(n, seed):
    truth, times = 0.4, 8000
    draw = torch.Generator().manual_seed(seed)
    d = truth + 3 * torch.randn(times, n, dtype=torch.float64, generator=draw)
    reach = t_quantile(0.95, n - 1) * d.std(1) / math.sqrt(n)
    assert lesson_10.paired(d[0], torch.zeros(n))[2].item() == pytest.approx(d[0].mean().item() + reach[0].item())
    assert ((d.mean(1) - truth).abs() < reach).double().mean().item() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 2)])
def test_the_pairs_of_each_offset_are_counted(grid):
    counts = torch.zeros(2 * grid[0] - 1, 2 * grid[1] - 1, dtype=torch.int64)
    for row, column in pair_offsets(*grid).flatten(0, 1).tolist():
        counts[row + grid[0] - 1, column + grid[1] - 1] += 1
    assert torch.equal(count_pairs(torch.zeros(1, *counts.shape)), counts)


def test_no_number_of_offsets_depends_on_the_rounding_of_floats():
    for seed in range(20):
        for case in draw_cases(SPARSIFY, seed):
            prior, density = case.arguments
            number = density * prior[0].numel()
            assert math.ceil(number) == math.ceil(number - 1e-6) == math.ceil(number + 1e-6) or density == 1


def test_an_index_that_was_made_before_is_counted_too():
    index = spread_fast(torch.arange(35.0).view(1, 5, 7), (3, 4))[0].long()
    assert count_calls(lambda table, grid: table.flatten(1)[:, index], (3, 4)).most == 12**2
    assert count_calls(lambda table, grid: windows(table, grid), (3, 4)).most == 0


# Numbers of the sections *By hand* --------------------------------------------------------------------------------------


def test_one_head_and_the_gated_mixture_by_hand():
    q, k, v = heads_by_hand()
    assert torch.allclose(lesson_01.one_head(q, k, v, result="weights"), q.new_tensor([[0.25, 0.25, 0.5]]))
    assert torch.allclose(lesson_01.one_head(q, k, v), q.new_tensor([[2, 5]]))
    assert torch.allclose(lesson_01.one_head(q, k, v, root="none"), q.new_tensor([[2, 6]]))
    torch.testing.assert_close(lesson_07.gpsa(*mixture_by_hand())[0, 0, 0], q.new_tensor([5 / 16, 7 / 16, 4 / 16]))


def test_the_interval_by_hand():
    a, b = (torch.tensor(values, dtype=torch.float64) for values in ([91, 96, 86, 93, 89], [90, 94, 86, 92, 88]))
    assert lesson_10.paired(a, b).tolist() == pytest.approx([1, 1 - 2.776445 * 0.1**0.5, 1 + 2.776445 * 0.1**0.5], abs=1e-6)
    unpaired = lesson_10.paired(a, b, pairs="not, of 2n − 2")
    assert unpaired[1].item() == pytest.approx(1 - 2.306004 * 4.9**0.5, abs=1e-6)


def test_the_schedule_the_accuracy_and_the_average_by_hand():
    rates = [lr_at(step, peak=0.8, final=0.2, warmup=3, total=7) for step in range(8)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.712, 0.5, 0.288, 0.2], abs=5e-4)
    assert run_accuracy(exact_accuracy, *team_by_hand()).item() == pytest.approx(500 / 7)
    model, averages = nn.Linear(1, 1, bias=False), []
    ema = EMA(model, 0.2)
    for weight in (11.0, 0.0, 12.0):
        nn.init.constant_(model.weight, weight)
        ema.update(model)
        averages.append(ema.average["weight"].item())
    assert averages == pytest.approx([11, 2, 10])
