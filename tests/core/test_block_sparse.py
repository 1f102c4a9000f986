"""Binarised priors, against sorting by hand and loops over pairs and blocks."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from spvit_mini.attention import SPSA
from spvit_mini.block_sparse import attend_blocks, attend_sparse, block_mask, blocks_left, sparsify, visible
from spvit_mini.errors import UserError

GRIDS = [(1, 1), (1, 4), (3, 2), (4, 4)]


def table(grid, *, heads=3, seed=0, levels=None):
    """Draw a prior; with `levels` its values are few, so that there are ties."""
    shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, shape, generator=generator).float() if levels else torch.randn(shape, generator=generator)


def kept_by_sorting(prior, count):
    """Keep δ = 0 and then the largest, of equals the first: one head, in plain Python."""
    values = prior.flatten().tolist()
    middle = len(values) // 2
    others = sorted((place for place in range(len(values)) if place != middle), key=lambda place: (-values[place], place))
    chosen = {middle, *others[: count - 1]}
    return torch.tensor([place in chosen for place in range(len(values))]).view(prior.shape)


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("grid", GRIDS)
def test_sparsify_keeps_the_largest_of_each_head(grid, levels):
    prior = table(grid, levels=levels)
    for density in ("0.01", "0.1", "0.25", "0.3", "0.5", "0.99", "1"):
        count = math.ceil(Fraction(density) * prior[0].numel())
        selection = sparsify(prior, float(density))
        assert selection.dtype == torch.bool and selection.shape == prior.shape
        assert selection.flatten(1).sum(1).tolist() == [count] * len(prior), density
        for mine, head in zip(selection, prior, strict=True):
            assert torch.equal(mine, kept_by_sorting(head, count)), density


def test_a_whole_number_of_offsets_is_not_rounded_up_by_float_arithmetic():
    counts = {percent: sparsify(torch.zeros(1, 5, 5), percent / 25)[0].sum().item() for percent in range(1, 26)}
    assert counts == {count: count for count in range(1, 26)}
    wide = torch.zeros(1, 1, 175)
    assert 0.28 * 175 > 49  # of floats
    assert sparsify(wide, 0.28).sum() == 49


def test_sparsify_leaves_its_input_alone_and_takes_priors_that_learn():
    prior = table((3, 3)).requires_grad_()
    before = prior.detach().clone()
    kept = sparsify(prior, 0.2)
    assert not kept.requires_grad and torch.equal(prior.detach(), before)


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan])
def test_a_density_outside_is_one_clear_line(density):
    with pytest.raises(UserError, match="above 0 and at most 1"):
        sparsify(torch.zeros(1, 3, 3), density)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 3), (2, 3, 6)])
def test_what_is_no_table_of_the_offsets_is_refused(shape):
    with pytest.raises(UserError, match="before it is expanded"):
        sparsify(torch.zeros(shape), 0.5)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_visible_is_the_kept_offsets_of_all_pairs_and_the_prefix(grid, prefix):
    kept = sparsify(table(grid), 0.3)
    mask = visible(kept, grid, prefix)
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    assert mask.shape == (3, prefix + len(places), prefix + len(places))
    assert mask[:, :prefix].all() and mask[:, :, :prefix].all()
    for (i, (a, b)), (j, (c, d)) in itertools.product(enumerate(places), enumerate(places)):
        expected = kept[:, c - a + grid[0] - 1, d - b + grid[1] - 1]
        assert torch.equal(mask[:, prefix + i, prefix + j], expected)
    assert mask.any(-1).all()


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_blocks_left_are_those_with_a_pair(size):
    mask = visible(sparsify(table((4, 4)), 0.05), (4, 4), 1)
    left = blocks_left(mask, size)
    blocks = math.ceil(17 / size)
    assert left.shape == (3, blocks, blocks) and left.dtype == torch.bool
    for a, b in itertools.product(range(blocks), repeat=2):
        part = mask[:, a * size : (a + 1) * size, b * size : (b + 1) * size]
        assert torch.equal(left[:, a, b], part.flatten(1).any(1))


def test_blocks_need_a_size_and_pairs():
    with pytest.raises(UserError, match="at least 1"):
        blocks_left(torch.ones(1, 4, 4, dtype=torch.bool), 0)
    with pytest.raises(UserError, match="without pairs"):
        blocks_left(torch.ones(1, 0, 0, dtype=torch.bool), 2)


def written_out(q, k, v, mask, factor):
    """Compute softmax over the visible keys alone, query by query."""
    result = torch.zeros_like(q)
    for b, h, i in itertools.product(*map(range, q.shape[:3])):
        keys = mask[h].expand(len(mask[h]), -1)[i].nonzero()[:, 0]
        scores = k[b, h, keys] @ q[b, h, i] / math.sqrt(q.shape[-1])
        weights = (scores if factor is None else scores * factor[h, i, keys]).softmax(0)
        result[b, h, i] = weights @ v[b, h, keys]
    return result


def some_heads(*, grid, prefix, seed=0, batch=2, width=4, dtype=torch.float64):
    torch.manual_seed(seed)
    tokens = prefix + grid[0] * grid[1]
    q, k, v = torch.randn(3, batch, 3, tokens, width, dtype=dtype)
    mask = visible(sparsify(table(grid, seed=seed), 0.2), grid, prefix)
    return q, k, v, mask, torch.randn(3, tokens, tokens, dtype=dtype)


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("prefix", [0, 1])
def test_attend_sparse_sees_the_visible_keys_alone(prefix, multiplied):
    q, k, v, mask, factor = some_heads(grid=(2, 4), prefix=prefix)
    factor = factor if multiplied else None
    torch.testing.assert_close(attend_sparse(q, k, v, mask, factor), written_out(q, k, v, mask, factor))


def test_at_density_1_a_sparse_layer_is_the_layer():
    torch.manual_seed(0)
    layer, grid = SPSA(12, 3).double(), (3, 4)
    torch.nn.init.normal_(layer.spatial.w2)
    q, k, v = layer.project(torch.randn(2, 13, 12, dtype=torch.float64))
    mask = visible(sparsify(layer.spatial.table(grid), 1.0), grid, 1)
    torch.testing.assert_close(
        attend_sparse(q, k, v, mask, layer.spatial_map(13, grid)), layer.attend(q, k, v, grid)
    )


def test_attend_sparse_has_the_gradient_of_the_formula():
    q, k, v, mask, factor = some_heads(grid=(2, 2), prefix=1, batch=1)
    for f in (None, factor.requires_grad_()):
        inputs = [x.detach().requires_grad_() for x in (q, k, v)] + ([] if f is None else [f])
        outputs = [way(*inputs[:3], mask, f).square().sum() for way in (attend_sparse, written_out)]
        for mine, other in zip(*(torch.autograd.grad(y, inputs) for y in outputs), strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("multiplied", [False, True])
def test_blocks_give_the_masked_values(multiplied, size):
    q, k, v, mask, factor = some_heads(grid=(5, 5), prefix=1, dtype=torch.float32)
    factor = factor if multiplied else None
    blocks = block_mask(mask, size)
    mine = attend_blocks(q, k, v, blocks, factor, compiled=False)
    torch.testing.assert_close(mine, attend_sparse(q, k, v, mask, factor), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [8, 16])
def test_the_block_mask_lists_the_blocks_left(size):
    mask = visible(sparsify(table((7, 7)), 0.02), (7, 7))
    left = blocks_left(mask, size)
    assert torch.equal(block_mask(mask, size).to_dense()[0].bool(), left)
    assert not left.all()


@pytest.mark.slow
@pytest.mark.parametrize("multiplied", [False, True])
def test_the_compiled_kernel_gives_the_masked_values(multiplied):
    q, k, v, mask, factor = some_heads(grid=(7, 7), prefix=0, width=16, dtype=torch.float32)
    factor = factor if multiplied else None
    try:
        mine = attend_blocks(q, k, v, block_mask(mask, 16), factor)
    except (RuntimeError, torch._dynamo.exc.BackendCompilerFailed) as error:  # no C++ compiler, no kernel
        pytest.skip(f"this machine cannot compile: {str(error).splitlines()[0]}")
    torch.testing.assert_close(mine, attend_sparse(q, k, v, mask, factor), rtol=1e-4, atol=1e-5)
