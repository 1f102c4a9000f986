"""Every spatial map, against its formula written out over all pairs in float64."""

import math

import pytest
import torch

from spvit_mini.errors import UserError
from spvit_mini.geometry import pair_offsets, spread
from spvit_mini.spatial import (
    IRPE,
    Anchored,
    Constant,
    CrossWindow,
    Linear,
    LogCPB,
    PriorMLP,
    Quadratic,
    Shaw1D,
    Shaw2D,
    SquareWindow,
    Table,
    TwinPrior,
    local_centres,
    local_start,
    piecewise_index,
)


def on_all_pairs(prior, grid):
    """f_h(δ) = w2ᵀ ReLU(W1 δ + b1) + b2 for each head and pair, by a loop over heads."""
    delta = pair_offsets(*grid).to(prior.w1.dtype)
    rows = []
    for w1, b1, w2, b2 in zip(prior.w1, prior.b1, prior.w2, prior.b2, strict=True):
        rows.append(torch.relu(delta @ w1.T + b1) @ w2 + b2)
    return torch.stack(rows)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 5), (4, 7)])
@pytest.mark.parametrize(("heads", "hidden"), [(1, 1), (3, 8), (12, 64)])
def test_prior_is_its_formula_in_value_and_gradient(grid, heads, hidden):
    prior = PriorMLP(heads, hidden).double()
    torch.nn.init.normal_(prior.w2), torch.nn.init.normal_(prior.b2)
    weight = torch.randn(heads, grid[0] * grid[1], grid[0] * grid[1], dtype=torch.float64)
    torch.testing.assert_close(prior(grid), on_all_pairs(prior, grid), rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((prior(grid) * weight).sum(), list(prior.parameters()))
    theirs = torch.autograd.grad((on_all_pairs(prior, grid) * weight).sum(), list(prior.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_the_start_is_exactly_neutral_however_wide_the_first_layer(neutral):
    for std in (0.0, 0.02, 0.5, 100.0):
        assert (PriorMLP(4, 32, neutral=neutral, weight_std=std)((5, 7)) == neutral).all()


def test_only_the_second_layer_moves_first():
    prior = PriorMLP(2, 16)
    (prior((4, 4)) ** 2).sum().backward()
    assert prior.w1.grad.abs().max() == 0 and prior.b1.grad.abs().max() == 0
    hidden = torch.einsum("ijd,hkd->hkij", pair_offsets(4, 4).float(), prior.w1) + prior.b1[..., None, None]
    awake = (hidden > 0).flatten(2).any(-1)  # a unit that no offset wakes cannot move
    assert torch.equal(prior.w2.grad != 0, awake) and awake.float().mean() > 0.8
    assert prior.b2.grad.abs().min() > 0


def test_the_width_of_the_start_is_a_parameter():
    released = PriorMLP(64, 64, weight_std=0.02, bias_std=0.0)
    assert released.b1.abs().max() == 0 and released.w1.abs().max() <= 0.04
    assert released.w1.std().item() == pytest.approx(0.0176, rel=0.05)  # a normal cut at ±2σ has σ·0.8796
    wide = PriorMLP(64, 64)
    assert wide.w1.std().item() == pytest.approx(0.44, rel=0.05)
    assert wide.b1.std().item() == pytest.approx(0.44, rel=0.05)


def test_a_layer_costs_4_hidden_plus_1_numbers_a_head():
    assert sum(p.numel() for p in PriorMLP(6, 64).parameters()) == 4 * 384 + 6


# --- All maps, each from its formula with a loop over heads and pairs ----------------------------------------------------


def pairs(grid):
    """List (i, j, row offset, column offset) of all pairs of patches, key minus query."""
    rows, columns = grid
    places = [(r, c) for r in range(rows) for c in range(columns)]
    return [(i, j, b[0] - a[0], b[1] - a[1]) for i, a in enumerate(places) for j, b in enumerate(places)]


def on_pairs(value, heads, grid):
    """Write a map out, (heads, N, N), from `value(h, row offset, column offset)`, one pair after the other."""
    n = grid[0] * grid[1]
    cells = [[[None] * n for _ in range(n)] for _ in range(heads)]
    for h in range(heads):
        for i, j, down, right in pairs(grid):
            cells[h][i][j] = value(h, down, right)
    return torch.stack([torch.stack([torch.stack(row) for row in head]) for head in cells])


def relu_mlp(p, which=()):
    """One output of the prior MLP for raw offsets; `which` picks it if there are two."""
    w2, b2 = (p["w2"][which], p["b2"][which]) if which != () else (p["w2"], p["b2"])

    def value(h, down, right):
        hidden = p["w1"][h, :, 0] * down + p["w1"][h, :, 1] * right + p["b1"][h]
        return (w2[h] * hidden.clamp(min=0)).sum() + b2[h]

    return value


def log_mlp(p):
    def squeeze(x):
        return math.copysign(math.log2(1 + abs(x)), x)

    raw = relu_mlp(p)
    return lambda h, down, right: raw(h, squeeze(down), squeeze(right))


def quadratic(p):
    v = p["v"]
    return lambda h, down, right: v[h, 0] * (down**2 + right**2) + v[h, 1] * down + v[h, 2] * right


def swin_v2(p, trained_on):
    def squeeze(x, side):
        x = 8 * x / (side - 1)
        return math.copysign(math.log2(1 + abs(x)) / math.log2(8), x)

    def value(h, down, right):
        w1, b1, w2 = p["mlp.0.weight"], p["mlp.0.bias"], p["mlp.2.weight"]
        hidden = w1[:, 0] * squeeze(down, trained_on[0]) + w1[:, 1] * squeeze(right, trained_on[1]) + b1
        return 16 / (1 + torch.exp(-(w2[h] * hidden.clamp(min=0)).sum()))

    return value


def from_table(p, grid):
    return lambda h, down, right: p["values"][h, down + grid[0] - 1, right + grid[1] - 1]


HEADS = 3
WRITTEN_OUT = {  # name: (the map for a grid, its formula from the parameters by name)
    "table": (lambda grid: Table(HEADS, grid), lambda p, grid: on_pairs(from_table(p, grid), HEADS, grid)),
    "log_cpb": (
        lambda grid: LogCPB(HEADS, (4, 6), hidden=7),
        lambda p, grid: on_pairs(swin_v2(p, (4, 6)), HEADS, grid),
    ),
    "mlp": (lambda grid: PriorMLP(HEADS, 5), lambda p, grid: on_pairs(relu_mlp(p), HEADS, grid)),
    "log_mlp": (lambda grid: PriorMLP(HEADS, 5, log=True), lambda p, grid: on_pairs(log_mlp(p), HEADS, grid)),
    "linear": (
        lambda grid: Linear(HEADS),
        lambda p, grid: on_pairs(lambda h, down, right: p["w"][h, 0] * down + p["w"][h, 1] * right + p["b"][h], HEADS, grid),
    ),
    "constant": (lambda grid: Constant(HEADS), lambda p, grid: on_pairs(lambda h, down, right: p["t"][h], HEADS, grid)),
    "quadratic": (lambda grid: Quadratic(HEADS), lambda p, grid: on_pairs(quadratic(p), HEADS, grid)),
    "quadratic_as_a_factor": (
        lambda grid: Quadratic(HEADS, neutral=1.0),
        lambda p, grid: 1 + on_pairs(quadratic(p), HEADS, grid),
    ),
    "twin_mlp": (
        lambda grid: TwinPrior(HEADS, 5),
        lambda p, grid: torch.stack([on_pairs(relu_mlp(p, which), HEADS, grid) for which in (0, 1)]),
    ),
    "anchored_mlp": (
        lambda grid: Anchored(HEADS, 5),
        lambda p, grid: torch.stack([
            on_pairs(relu_mlp({name.removeprefix("prior."): value for name, value in p.items()}), HEADS, grid),
            on_pairs(quadratic({"v": p["anchor.v"]}), HEADS, grid),
        ]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 3), (4, 2)])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_every_map_is_its_formula_in_value_and_gradient(name, grid):
    make, formula = WRITTEN_OUT[name]
    module = make(grid).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    ours, theirs = module(grid), formula(dict(module.named_parameters()), grid)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weight, parameters = torch.randn_like(ours), list(module.parameters())
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), parameters),
        torch.autograd.grad((theirs * weight).sum(), parameters, materialize_grads=True, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_maps_stay_in_full_precision_under_autocast(name):
    """In bfloat16 a quadratic would miss its value at an offset of (13, 13), −338, by a whole score."""
    module = WRITTEN_OUT[name][0]((14, 14))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = module((14, 14))
    assert under.dtype == torch.float32 and torch.equal(under, module((14, 14)))


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_maps_start_around_what_is_neutral_for_their_way_in(neutral):
    for module in (
        Linear(3, neutral=neutral),
        Constant(3, neutral=neutral),
        Quadratic(3, neutral=neutral, strength=0.0),
    ):
        assert (module((3, 4)) == neutral).all(), type(module)
    table = Table(3, (20, 20), neutral=neutral)((20, 20))
    assert table.mean().item() == pytest.approx(neutral, abs=1e-3) and (table - neutral).abs().max() <= 0.04
    twin = TwinPrior(3, 5)((3, 4))
    assert (twin[0] == 1).all() and (twin[1] == 0).all()
    anchored = Anchored(3, 5)((3, 4))
    assert (anchored[0] == 1).all() and torch.equal(anchored[1], Quadratic(3)((3, 4)))


# --- Windows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 6), (3, 2)])
@pytest.mark.parametrize(("size", "shift"), [(1, 0), (2, 0), (2, 1), (3, 1), (4, 3), (9, 0)])
def test_square_windows_let_in_those_of_the_same_square(grid, size, shift):
    visible = SquareWindow(size, shift=shift)(grid)
    assert visible.shape == (1, grid[0] * grid[1], grid[0] * grid[1]) and visible.dtype == torch.bool
    for i, j, _, _ in pairs(grid):
        squares = [((n // grid[1] - shift) // size, (n % grid[1] - shift) // size) for n in (i, j)]
        assert visible[0, i, j].item() == (squares[0] == squares[1]), (i, j)


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 6), (6, 2)])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_half_the_heads_see_stripes_of_rows_and_half_of_columns(grid, width):
    visible = CrossWindow(4, width)(grid)
    assert visible.shape == (4, grid[0] * grid[1], grid[0] * grid[1])
    for i, j, _, _ in pairs(grid):
        rows = i // grid[1] // width == j // grid[1] // width
        columns = i % grid[1] // width == j % grid[1] // width
        assert visible[:, i, j].tolist() == [rows, rows, columns, columns], (i, j)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: SquareWindow(0), "size is 0; expected an integer"), (lambda: SquareWindow(4, shift=4), "shift is 4; expected less"),
    (lambda: CrossWindow(3, 2), "heads is 3 .*expected an even number"),
    (lambda: CrossWindow(4, 0), "width is 0; expected an integer from 1"),
])  # fmt: skip
def test_windows_that_cannot_be_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# --- Embeddings ------------------------------------------------------------------------------------------------------------


def clip(x, limit):
    return max(-limit, min(limit, x))


def piecewise(x, alpha=1.9, beta=3.8, gamma=15.2):
    """iRPE's bucket of a row or column offset (eq. 18, and the released code's cut at β): a scalar."""
    if abs(x) <= alpha:
        return x
    far = round(alpha + math.log(abs(x) / alpha) / math.log(gamma / alpha) * (beta - alpha))
    return int(math.copysign(min(far, int(beta)), x))


EMBEDDINGS = {  # name: (the map, the buckets that an offset takes from the parameter lists; C columns of the grid)
    "shaw1d": (lambda: Shaw1D(6, clip=3), lambda down, right, C: [clip(down * C + right, 3) + 3]),
    "shaw2d": (lambda: Shaw2D(6, clip=2), lambda down, right, C: [clip(down, 2) + 2, clip(right, 2) + 2]),
    "irpe": (lambda: IRPE(6), lambda down, right, C: [(piecewise(down) + 3) * 7 + piecewise(right) + 3]),
}


@pytest.mark.parametrize("grid", [(1, 1), (5, 5), (3, 6), (14, 14)])
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_each_offset_takes_the_embedding_of_its_bucket(name, grid):
    make, expected = EMBEDDINGS[name]
    found = make()(grid)
    for down in range(-grid[0] + 1, grid[0]):
        for right in range(-grid[1] + 1, grid[1]):
            taken = [buckets[down + grid[0] - 1, right + grid[1] - 1].item() for _, buckets in found]
            assert taken == expected(down, right, grid[1]), (down, right)
    assert all(buckets.min() >= 0 and buckets.max() < len(vectors) for vectors, buckets in found)


def test_irpe_s_buckets_are_exact_near_by_then_logarithmic_then_one():
    # By hand for α 1.9, β 3.8, γ 15.2: |δ| = 2 → 1.9 + 1.9·ln(2/1.9)/ln 8 = 1.95 → 2; 3 → 2.32 → 2; 4 → 2.58 → 3; 15 → 4 → 3
    found = piecewise_index(torch.arange(-15, 16), 1.9, 3.8, 15.2).tolist()
    assert found[15:20] == [0, 1, 2, 2, 3] and found[-1] == 3
    assert found == [-x for x in found[::-1]]
    assert found == [piecewise(x) for x in range(-15, 16)]


def test_the_embeddings_have_as_many_vectors_as_published():
    sizes = {name: [tuple(v.shape) for v in make().vectors] for name, (make, _) in EMBEDDINGS.items()}
    assert sizes == {"shaw1d": [(7, 6)], "shaw2d": [(5, 6), (5, 6)], "irpe": [(7 * 7, 6)]}


# --- The local start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 4, 9, 16, 25])
def test_square_numbers_of_heads_make_convit_s_lattice(heads):
    """ConViT's code: side k, kernel centre (k−1)/2, centres h − centre. timm's own start is the second witness."""
    side = math.isqrt(heads)
    lattice = {(a - (side - 1) / 2, b - (side - 1) / 2) for a in range(side) for b in range(side)}
    assert {tuple(c) for c in local_centres(heads).tolist()} == lattice
    timm_layer = pytest.importorskip("timm.models.convit").GPSA(heads * 4, num_heads=heads, locality_strength=1.5)
    timm_layer.local_init()
    column, row, square = timm_layer.pos_proj.weight.detach().T  # of (x, y, distance²)
    theirs = {tuple(v) for v in torch.stack([square, row, column], 1).tolist()}
    assert {tuple(v) for v in local_start(heads, 1.5).tolist()} == theirs


@pytest.mark.parametrize(
    ("heads", "counts"),
    [(2, [2]), (3, [2, 1]), (5, [3, 2]), (6, [3, 3]), (7, [3, 2, 2]), (8, [3, 3, 2]), (12, [4, 4, 4])],
)
def test_other_numbers_of_heads_are_dealt_to_centred_rows(heads, counts):
    centres = local_centres(heads).tolist()
    assert len({tuple(c) for c in centres}) == heads
    for row, count in enumerate(counts):
        down = row - (len(counts) - 1) / 2
        assert [right for r, right in centres if r == down] == [c - (count - 1) / 2 for c in range(count)]


@pytest.mark.parametrize("heads", [1, 4, 6, 9])
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_local_start_is_a_gaussian_around_each_head_s_centre(heads, strength):
    found = Quadratic(heads, strength=strength).double()((4, 3))
    for h, (down0, right0) in enumerate(local_centres(heads).tolist()):
        for i, j, down, right in pairs((4, 3)):
            wanted = -strength * ((down - down0) ** 2 + (right - right0) ** 2 - down0**2 - right0**2)
            assert found[h, i, j].item() == pytest.approx(wanted, abs=1e-9)


# --- Tables on another grid --------------------------------------------------------------------------------------------------


def bicubic(size, wanted):
    """Keys' cubic convolution with a = −0.75 as a matrix (wanted, size), pixel centres aligned, borders repeated."""
    matrix = torch.zeros(wanted, size, dtype=torch.float64)
    for out in range(wanted):
        place = (out + 0.5) * size / wanted - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[out, min(max(tap, 0), size - 1)] += near if x <= 1 else far
    return matrix


@pytest.mark.parametrize("grid", [(4, 5), (7, 7), (3, 8), (2, 2)])
def test_a_table_is_resized_bicubically_for_another_grid(grid):
    table = Table(2, (4, 5)).double()
    resized = bicubic(7, 2 * grid[0] - 1) @ table.values @ bicubic(9, 2 * grid[1] - 1).T
    torch.testing.assert_close(table.table(grid), resized, rtol=1e-10, atol=1e-10)
    assert table((4, 5)).equal(spread(table.values, (4, 5)))
