"""Looking at models: rollout and relevance against loops and hand calculation, distances of heads, foci."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from spvit_mini import create_model
from spvit_mini.cait import CaiT, CaiTConfig
from spvit_mini.data.synthetic import Compass
from spvit_mini.errors import UserError
from spvit_mini.explain import attribution
from spvit_mini.geometry import pair_offsets
from spvit_mini.spatial import Quadratic
from spvit_mini.vit import ViT, ViTConfig

TINY = ViTConfig(image_size=(8, 12), dim=8, depth=3, heads=2, num_classes=3, attention="spsa", attention_options={"hidden": 3})
CAIT = CaiTConfig(image_size=(8, 12), patch=4, dim=8, depth=2, class_depth=2, heads=2, num_classes=3)
POOLINGS = [{"pool": "mean"}, *({"pool": "class", "class_token_block": block} for block in range(3)), {"cait": True}]


def build(seed=0, *, cait=False, **changes):
    torch.manual_seed(seed)
    model = CaiT(CAIT).double() if cait else ViT(dataclasses.replace(TINY, **changes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def pictures(count=2, seed=1):
    return torch.randn(count, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_maps(tokens, *, heads=2, batch=2, seed=0):
    """Draw attention maps with these (rows, columns)."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, *size, dtype=torch.float64, generator=random).softmax(-1) for size in tokens]


def rollout_by_paths(maps, residual=0.5):
    """Rollout of one image as a sum over all ways back through the layers, one token after the other, in plain Python.

    Tokens go by names that do not change when others join: patch n is n, the class token "class".
    """
    patches = maps[0].shape[-1] - (maps[0].shape[-1] > 6)
    start = {token: {token: 1.0} for token in ["class", *range(patches)]}
    for weights in maps:
        names = ["class"] * (weights.shape[-1] > patches) + list(range(patches))
        new = {token: dict(sources) for token, sources in start.items()}
        for i, asking in enumerate(names[: weights.shape[-2]]):
            row = {key: sum(float(head[i, j]) for head in weights) / len(weights) for j, key in enumerate(names)}
            mix = {key: (1 - residual) * value + residual * (key == asking) for key, value in row.items()}
            new[asking] = {}
            for key, value in mix.items():
                for source, amount in start[key].items():
                    new[asking][source] = new[asking].get(source, 0.0) + value * amount
        start = new
    return start


# Rows and columns of each layer's map, 6 patches: no class token; one from the start, from the second, from the third
# block; class attention (one row asks) after one layer of patches, and after layers that had a class token.
SIZES = [
    [(6, 6)] * 3,
    [(7, 7)] * 3,
    [(6, 6), (7, 7), (7, 7)],
    [(6, 6), (6, 6), (7, 7)],
    [(6, 6), (1, 7), (1, 7)],
    [(7, 7), (1, 7)],
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("residual", [0.5, 0.8, 0.0])
def test_rollout_is_the_sum_over_all_ways_back(sizes, residual):
    maps = random_maps(sizes)
    result = attribution.rollout(maps, residual=residual)
    for image in range(2):
        expected = rollout_by_paths([m[image] for m in maps], residual)
        names = ["class"] * (sizes[-1][1] > 6) + list(range(6))
        for (i, asking), (j, source) in itertools.product(enumerate(names), enumerate(names)):
            assert float(result[image, i, j]) == pytest.approx(expected[asking].get(source, 0.0), abs=1e-14)
    torch.testing.assert_close(result.sum(-1), torch.ones_like(result[..., 0]))


@pytest.mark.parametrize("layers", [1, 3])
def test_rollout_of_uniform_attention(layers):
    """Each layer keeps a half and spreads a half evenly: after L layers ½ᴸ of a patch is still its own."""
    result = attribution.rollout([torch.full((1, 2, 6, 6), 1 / 6, dtype=torch.float64)] * layers)
    expected = 0.5**layers * torch.eye(6) + (1 - 0.5**layers) / 6
    torch.testing.assert_close(result[0], expected.double())


def test_rollout_of_a_late_class_token_that_looks_evenly():
    """Patches that keep to themselves, then a class token that joins and looks at all seven: half of it stays its own."""
    maps = [torch.eye(6).expand(1, 2, 6, 6), torch.full((1, 2, 7, 7), 1 / 7)]
    row = attribution.rollout(maps)[0, 0]
    torch.testing.assert_close(row, torch.tensor([0.5 + 0.5 / 7, *[0.5 / 7] * 6]))


def test_maps_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match="a map of 6 tokens follows one of 7"):
        attribution.rollout(random_maps([(7, 7), (6, 6)]))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_relevance_is_its_equation_in_loops(sizes):
    maps, gradients = random_maps(sizes), [m - 0.2 for m in random_maps(sizes, seed=5)]
    result = attribution.relevance(maps, gradients)
    assert (torch.stack([g.min() for g in gradients]) < 0).all()  # so that the positive part matters
    for image in range(2):
        total = np.eye(sizes[0][1])
        for weights, gradient in zip(maps, gradients, strict=True):
            rows, tokens = weights.shape[-2:]
            if tokens > len(total):
                total = np.block([[np.ones((1, 1)), np.zeros((1, 6))], [np.zeros((6, 1)), total]])
            old = total.copy()
            for i, j, k in itertools.product(range(rows), range(tokens), range(tokens)):
                products = [float(weights[image, h, i, k] * gradient[image, h, i, k]) for h in range(2)]
                total[i, j] += sum(max(p, 0.0) for p in products) / 2 * old[k, j]
        np.testing.assert_allclose(result[image].numpy(), total, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_rollout_of_a_model_reads_where_the_model_reads(pooling):
    model, images = build(**pooling), pictures()
    result = attribution.attention_rollout(model, images)
    maps = [m.detach() for m in model.attention_maps(images)]
    for image in range(2):
        expected = rollout_by_paths([m[image] for m in maps])
        reading = range(6) if model.class_token is None else ["class"]
        for patch in range(6):
            value = sum(expected[token].get(patch, 0.0) for token in reading) / len(reading)
            assert float(result[image, patch // 3, patch % 3]) == pytest.approx(value, abs=1e-12)


def logit_with(model, images, label, layer, place, change):
    """Run the model with one attention weight of one layer changed; tell the sum of all images' logits."""
    attention = model.attentions()[layer]
    written_out = attention.weights

    def changed(*arguments):
        weights = written_out(*arguments).clone()
        weights[(slice(None), *place)] += change
        return weights

    attention.weights = changed
    try:
        with torch.no_grad(), attribution.recording(model):
            return model(images)[:, label]
    finally:
        del attention.weights


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_class_relevance_against_finite_differences(pooling):
    """Every gradient of every weight measured by changing it, then the equation in loops."""
    model, images = build(**pooling), pictures()
    result = attribution.class_relevance(model, images, classes=2)
    maps = [m.detach() for m in model.attention_maps(images)]
    h, totals = 1e-5, [np.eye(maps[0].shape[-1])] * 2
    for layer, weights in enumerate(maps):
        update = np.zeros((2, weights.shape[-1], weights.shape[-1]))  # who does not ask gets nothing
        for place in itertools.product(*map(range, weights.shape[1:])):
            up, down = (logit_with(model, images, 2, layer, place, step) for step in (h, -h))
            gradient = (up - down) / (2 * h)
            update[:, place[1], place[2]] += (gradient * weights[(slice(None), *place)]).clamp(min=0).numpy() / 2
        if weights.shape[-1] > len(totals[0]):
            totals = [np.block([[np.ones((1, 1)), np.zeros((1, 6))], [np.zeros((6, 1)), t]]) for t in totals]
        totals = [t + u @ t for t, u in zip(totals, update, strict=True)]
    for image, total in enumerate(totals):
        row = total.mean(0) if model.class_token is None else total[0, 1:]
        np.testing.assert_allclose(result[image].flatten().numpy(), row, rtol=1e-6, atol=1e-9)


def test_class_relevance_of_one_layer_by_hand():
    """Without norms and MLP the logit is linear in the attention, so its gradient can be written down."""
    model = build(pool="class", depth=1, attention="mhsa", attention_options={}, num_classes=2)
    block = model.blocks[0]
    block.norm1 = block.norm2 = model.norm = nn.Identity()
    nn.init.zeros_(block.mlp[2].weight), nn.init.zeros_(block.mlp[2].bias)
    images = pictures(1)
    tokens = torch.cat([model.class_token, (model.embed(images) + model.positions).flatten(2).transpose(1, 2)], dim=1)[0]
    q, k, v = (block.attention.qkv.weight @ tokens.T).T.chunk(3, dim=-1)  # (7, 8) each
    expected = torch.zeros(7, dtype=torch.float64)
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[0, head] @ k[:, head].T / 2).softmax(-1)  # √4 = 2
        gradient = v[:, head] @ block.attention.proj.weight[:, head].T @ model.head.weight[1]
        expected += (gradient * weights).clamp(min=0) / 2
    result = attribution.class_relevance(model, images, classes=torch.tensor([1]))
    torch.testing.assert_close(result.flatten(), expected[1:].detach())


def test_the_best_class_is_the_default_and_images_do_not_mix():
    model, images = build(pool="class", class_token_block=1), pictures(6)
    with torch.no_grad():
        model.head.bias -= model(images).mean(0)  # so that images differ in their best class
    best = model(images).argmax(-1)
    assert len(best.unique()) > 1
    together = attribution.class_relevance(model, images)
    torch.testing.assert_close(together, attribution.class_relevance(model, images, classes=best))
    for i in range(6):
        alone = attribution.class_relevance(model, images[i : i + 1], classes=int(best[i]))
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("asked", [-1, 3, torch.tensor([0, 7])])
def test_a_class_that_is_not_there(asked):
    with pytest.raises(UserError, match="classes are .*; expected 0 to 2"):
        attribution.class_relevance(build(), pictures(), classes=asked)


@pytest.mark.parametrize(
    "attention", ["mhsa", "gpsa", "psa", "window", "anchored", "quadratic/position_only", "shaw2d/contextual"]
)
def test_a_model_is_left_as_it_was_and_its_mode_does_not_matter(attention):
    options = {"size": 2} if attention == "window" else {}
    model = build(pool="class", class_token_block=1, drop_path=0.9, attention=attention, attention_options=options)
    images = pictures()
    expected = attribution.class_relevance(model, images), attribution.attention_rollout(model, images)
    model.train().requires_grad_(False)
    model.blocks[1].eval()
    with torch.no_grad():  # as notebooks like to have it
        again = attribution.class_relevance(model, images), attribution.attention_rollout(model, images)
    for one, other in zip(expected, again, strict=True):
        torch.testing.assert_close(one, other)
    assert [m.training for m in (model, model.blocks[0], model.blocks[1])] == [True, True, False]
    assert not any(p.requires_grad for p in model.parameters()) and all(p.grad is None for p in model.parameters())


def test_another_image_size_has_its_own_grid():
    images = torch.randn(1, 3, 16, 8, dtype=torch.float64)
    model = build(pool="class", class_token_block=2)
    assert attribution.class_relevance(model, images).shape == attribution.attention_rollout(model, images).shape == (1, 4, 2)


@pytest.mark.parametrize(
    "sizes", [{"stem": 4, "peg": True, "residual_scale": 2, "dense_head": True}, {"sharing": "network"}], ids=str
)
def test_a_class_token_that_enters_a_block_late_is_not_lost(sizes):
    """A late class token that attends to itself alone has nothing of the patches, and the rollout knows it."""
    model = build(pool="class", class_token_block=2, spatial_layers=2, **sizes)
    attention = model.blocks[2].attention
    attention.weights = lambda q, k, grid: torch.eye(7).double().expand(2, 2, 7, 7)
    assert attribution.attention_rollout(model, pictures()).abs().max() == 0


def one_glance(patch=4):
    """Build a model by hand that looks at the reddest patch, and says class 0 the surer the redder that is."""
    model = create_model("vit_mini", image_size=32, dim=4, depth=1, heads=1, num_classes=2, qkv_bias=True, positions=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for channel in range(3):
            model.embed.weight[channel, channel] = 1 / patch**2
        block = model.blocks[0]
        block.norm1, model.norm = nn.Identity(), nn.Identity()
        q, k, v = block.attention.qkv.weight.unflatten(0, (3, 4))
        block.attention.qkv.bias[0] = 20.0  # every patch asks for red
        k[0, 0] = v[0, 0] = block.attention.proj.weight[0, 0] = model.head.weight[0, 0] = 1.0
    return model


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relevance_and_rollout_peak_where_a_model_looks(seed):
    scenes = Compass(20, seed=seed)
    model = one_glance()
    where = scenes.lighthouse @ torch.tensor([8, 1])
    relevance = attribution.class_relevance(model, scenes.images, classes=0)
    for heat in (relevance, attribution.attention_rollout(model, scenes.images)):
        assert torch.equal(heat.flatten(1).argmax(-1), where)
    # For the other class nothing speaks: no gradient, so what is left is each patch itself.
    other = attribution.class_relevance(model, scenes.images, classes=1)
    torch.testing.assert_close(other, torch.full_like(other, 1 / 64))


# --- Heads ---------------------------------------------------------------------------------------------------------------


def test_entropy_is_its_sum_in_plain_python(request):
    (weights,) = random_maps([(4, 6)], seed=request.config.getoption("--seed"))
    for b, h, i in itertools.product(range(2), range(2), range(4)):
        by_hand = -sum(w * math.log(w) for w in weights[b, h, i].tolist())
        assert attribution.entropy(weights)[b, h, i].item() == pytest.approx(by_hand)


@pytest.mark.parametrize(("weights", "keys"), [([1, 0, 0, 0], 1), ([0.5, 0.5, 0, 0], 2), ([0.25] * 4, 4)])
def test_entropy_counts_keys_that_share_alike(weights, keys):
    assert attribution.entropy(torch.tensor(weights)).exp().item() == pytest.approx(keys)


@pytest.mark.parametrize(("side", "expected"), [(8, 4.14), (14, 7.28), (24, 12.50)])
def test_nonlocality_of_uniform_attention(side, expected):
    weights = torch.full((1, side**2, side**2), side**-2.0, dtype=torch.float64)
    value = attribution.nonlocality(weights, (side, side))
    assert value.item() == pytest.approx(expected, abs=0.005)
    torch.testing.assert_close(attribution.mean_attention_distance(weights, (side, side), 16), 16 * value)


def test_nonlocality_of_a_local_start_is_convits():
    """Nine heads around the query, strength 1, 14×14 patches; the corner ones are the (±1, ±1)."""
    timm = pytest.importorskip("timm.models.convit")
    theirs = timm.GPSA(36, 9, locality_strength=1.0).double()
    theirs.local_init()
    nn.init.constant_(theirs.gating_param, 50.0)  # by position alone
    images = torch.randn(2, 196, 36, dtype=torch.float64)
    theirs(images)
    ours = attribution.nonlocality(Quadratic(9).double()((14, 14)).softmax(-1), (14, 14))
    torch.testing.assert_close(ours, theirs.get_attention_map(images))
    assert ours[[0, 2, 6, 8]].tolist() == pytest.approx([1.4846] * 4, abs=5e-5)
    assert ours[4].item() == pytest.approx(0.7594, abs=5e-5)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", [(2, 3), (3, 1)])
def test_nonlocality_in_loops(prefix, grid):
    patches = grid[0] * grid[1]
    (weights,) = random_maps([(prefix + patches, prefix + patches)], heads=3, batch=2)
    result, deltas = attribution.nonlocality(weights, grid), pair_offsets(*grid)
    assert result.shape == (2, 3)
    for b, h in itertools.product(range(2), range(3)):
        total = 0.0
        for i in range(patches):
            row = [float(weights[b, h, prefix + i, prefix + j]) for j in range(patches)]
            total += sum(w / sum(row) * math.hypot(*deltas[i, j].tolist()) for j, w in enumerate(row))
        assert float(result[b, h]) == pytest.approx(total / patches)


def test_nonlocality_where_all_looks_at_the_class_token_or_none_may_ask():
    weights = torch.zeros(1, 7, 7)
    weights[..., 0] = 1
    assert attribution.nonlocality(weights, (2, 3)).item() == 0
    with pytest.raises(UserError, match="the map has 1 queries and 7 keys"):
        attribution.nonlocality(torch.ones(2, 2, 1, 7) / 7, (2, 3))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, [[0, 1], [1], [0, 1]]), (0.25, [[0], [1], [0]]), (0.75, [[0, 1, 2], [1, 2], [0, 1]]), (1.0, [[0, 1, 2, 3]] * 3)],
)
def test_a_focus_is_the_fewest_keys_with_their_share(share, expected):
    weights = torch.tensor([[1 / 4] * 4, [1 / 16, 5 / 8, 1 / 4, 1 / 16], [3 / 8, 3 / 8, 1 / 8, 1 / 8]])
    focus = attribution.foci(weights, share=share)
    assert [row.nonzero().flatten().tolist() for row in focus] == expected


def looks(*keys, tokens=4):
    """Make a head whose queries all look at these keys evenly."""
    row = torch.zeros(tokens)
    row[list(keys)] = 1 / len(keys)
    return row.expand(tokens, tokens)


@pytest.mark.parametrize(
    ("heads", "single", "largest", "union", "chance"),
    [
        ([looks(0), looks(1)], 1 / 4, 1 / 4, 2 / 4, 1 - 9 / 16),  # they share the work
        ([looks(0), looks(0)], 1 / 4, 1 / 4, 1 / 4, 1 - 9 / 16),  # one of them is not needed
        ([looks(0, 1, 2, 3), looks(1)], 3 / 8, 2 / 4, 2 / 4, 1 - 2 / 4 * 3 / 4),  # half the mass of four: the first two
        ([torch.eye(4), looks(3)], 1 / 4, 1 / 4, (3 * 2 / 4 + 1 / 4) / 4, 1 - 9 / 16),  # they meet at query 3
        (  # at query 3 the one looks wide, at query 0 the other: 1, 1, 1, 2 keys and 2, 1, 1, 1
            [torch.cat([looks(0)[:3], looks(0, 1, 2, 3)[:1]]), torch.cat([looks(0, 1, 2, 3)[:1], looks(3)[:3]])],
            5 / 16, (2 + 1 + 1 + 2) / 16, (2 + 2 + 2 + 3) / 16, (10 + 7 + 7 + 10) / 64,
        ),
    ],  # fmt: skip
    ids=["apart", "same", "inside", "mixed", "wide"],
)
@pytest.mark.parametrize("prefix", [0, 1])
def test_complement_by_hand(heads, single, largest, union, chance, prefix):
    weights = torch.stack(heads)[None].double()
    if prefix:  # half of each row goes to a class token, and a class token asks
        weights = torch.cat([torch.full((1, 2, 4, 1), 0.5), weights / 2], dim=-1)
        weights = torch.cat([torch.full((1, 2, 1, 5), 0.2), weights], dim=-2)
    result = attribution.complement(weights, (2, 2))
    assert [value.tolist() for value in result] == [[pytest.approx(v)] for v in (single, largest, union, chance)]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_foci_cover_what_chance_says(seed):
    """Weights without any order: the union of three heads is that of random placement, up to the spread of 2,000 queries."""
    scores = torch.randn(20, 3, 100, 100, generator=torch.Generator().manual_seed(seed)).double()
    result = attribution.complement(scores.softmax(-1), (10, 10))
    assert result.union.mean().item() == pytest.approx(result.chance.mean().item(), abs=0.01)
    assert (result.largest < result.union).all() and (result.single < result.largest).all()
