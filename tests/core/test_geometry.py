"""The grid's algebra, against loops over all pairs of patches."""

import itertools

import pytest
import torch
from einops import rearrange

from spvit_mini.errors import UserError
from spvit_mini.geometry import offsets, pad_prefix, pair_offsets, patch_grid, patchify, spread, unpatchify

GRIDS = [(1, 1), (1, 5), (4, 1), (2, 3), (5, 5), (7, 4)]


def patches(grid):
    return list(itertools.product(range(grid[0]), range(grid[1])))


@pytest.mark.parametrize("grid", GRIDS)
def test_offsets_are_key_minus_query_rows_first(grid):
    pairs = pair_offsets(*grid)
    for i, query in enumerate(patches(grid)):
        for j, key in enumerate(patches(grid)):
            assert pairs[i, j].tolist() == [key[0] - query[0], key[1] - query[1]]


def test_offsets_of_a_small_grid_by_hand():
    assert offsets(1, 2).tolist() == [[[0, -1], [0, 0], [0, 1]]]
    assert offsets(2, 1).tolist() == [[[-1, 0]], [[0, 0]], [[1, 0]]]


@pytest.mark.parametrize("grid", GRIDS)
def test_spread_finds_each_pair_s_offset(grid):
    table = torch.arange(2 * 3 * (2 * grid[0] - 1) * (2 * grid[1] - 1)).reshape(2, 3, 2 * grid[0] - 1, 2 * grid[1] - 1)
    spread_out = spread(table, grid)
    for (i, query), (j, key) in itertools.product(enumerate(patches(grid)), enumerate(patches(grid))):
        entry = table[..., key[0] - query[0] + grid[0] - 1, key[1] - query[1] + grid[1] - 1]
        assert torch.equal(spread_out[..., i, j], entry)


@pytest.mark.parametrize("grid", GRIDS)
def test_spreading_the_offsets_gives_the_pairs(grid):
    assert torch.equal(spread(offsets(*grid).permute(2, 0, 1), grid).permute(1, 2, 0), pair_offsets(*grid))


def test_the_gradient_of_spread_counts_the_pairs_of_each_offset():
    rows, columns = 3, 4
    table = torch.zeros(5, 7, requires_grad=True)
    spread(table, (rows, columns)).sum().backward()
    counts = [[(rows - abs(a)) * (columns - abs(b)) for b in range(-3, 4)] for a in range(-2, 3)]
    assert table.grad.tolist() == counts


def test_spread_refuses_a_table_of_another_grid():
    with pytest.raises(UserError, match="the last axes of the table are 5×5; expected 5×7 offsets"):
        spread(torch.zeros(5, 5), (3, 4))


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_prefix_rows_and_columns_are_neutral(prefix):
    spatial = torch.randn(3, 6, 6)
    padded = pad_prefix(spatial, prefix, 7.0)
    assert padded.shape == (3, 6 + prefix, 6 + prefix)
    assert torch.equal(padded[:, prefix:, prefix:], spatial)
    assert (padded[:, :prefix] == 7).all() and (padded[:, :, :prefix] == 7).all()


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 1, 4, 4), (2, 5, 3, 12, 8)])
def test_patchify_is_a_convolution_s_order_and_unpatchify_undoes_it(shape):
    images = torch.randn(shape)
    tokens = patchify(images, 4)
    assert torch.equal(tokens, rearrange(images, "... c (r p) (s q) -> ... (r s) (c p q)", p=4, q=4))
    assert torch.equal(unpatchify(tokens, patch_grid(shape[-2:], 4), 4), images)


def test_a_linear_layer_on_patches_is_a_strided_convolution():
    convolution = torch.nn.Conv2d(3, 5, 4, stride=4, dtype=torch.float64)
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    linear = patchify(images, 4) @ convolution.weight.flatten(1).T + convolution.bias
    torch.testing.assert_close(linear, convolution(images).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("size", [(30, 32), (32, 31), (0, 4)])
def test_an_image_that_patches_do_not_fit_is_one_clear_line(size):
    with pytest.raises(UserError, match=f"{size[0]}×{size[1]} pixels cannot be cut into patches of 4×4; resize"):
        patch_grid(size, 4)
