"""Lesson 07's bank of mistakes, and what its records have to say for the lesson's sentences to hold."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_07 import EXERCISES, FAR, GATED, LATE, by_hand, gpsa, late_token
from spvit_course.checks.lesson_07_answers import far, gated, joined
from spvit_experiments import paired, read_records
from spvit_mini.attention import GPSA
from spvit_mini.explain.attribution import nonlocality
from spvit_mini.geometry import pair_offsets
from spvit_mini.vit import ViT, ViTConfig

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"gpsa": gated, "nonlocality": far, "late_token": joined}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases, in order.
# gpsa: by hand, no prefix, one, two, one head, as many heads as tokens, one patch.
# nonlocality: wide, tall with a prefix, two prefix tokens, one head, one row, one column with a prefix.
# late_token: in the middle, after one block, before the last, at once, one image.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
gpsa
    scores mixed: all              xxxxxxx
    scores mixed: patch rows       xxxxxxx
    scores mixed: patches          xxxxxxx
    scores mixed: −inf             xxxxxxx
    scores mixed: all, no σ        xxxxxxx
    scores mixed: patch rows, no σ xxxxxxx
    scores mixed: patches, no σ    xxxxxxx
    scores mixed: −inf, no σ       xxxxxxx
    scores added                   xxxxxxx
    scores added: −inf             xxxxxxx
    gate swapped                   xxxxxxx
    no σ                           xxxxxxx
    softmax over heads             xxxxxxx
    shared gate, the mean          .xxx.xx
    shared gate, the first         .xxx.xx
    softmax twice                  xxxxxxx
    softmax over queries           xxxxxxx
    content ungated                xxxxxxx
    positions ungated              xxxxxxx
    not gated                      xxxxxxx
    no softmax of the positions    xxxxxxx
    prefix tokens have a place     ..xxx.x
    prefix rows scaled down        ..xxx.x
    prefix tokens are patches      ..xxx.x
    rows of −inf                   ..xxx.x
    content among patches          ..xxx.x
    prefix last                    ..xxx.x
    prefix last, by −P             xxxxxxx
nonlocality
    squared                        xxxxxx
    signed                         xxxxxx
    length of the mean             xxxxxx
    row and column                 xxxx..
    the larger                     xxxx..
    rows only                      xxxxx.
    columns only                   xxxx.x
    sum over queries               xxxxxx
    mean over pairs                xxxxxx
    queries kept                   xxxxxx
    heads averaged                 xxxxxx
    images averaged                xxxxxx
    prefix counted                 .xxx.x
    rows not brought back          .xxx.x
    columns brought to 1           xxxxxx
    whole brought to 1             .xxx.x
    whole brought to 1, and mean   xxxxxx
    second softmax                 xxxxxx
    divided by P+N                 .xxx.x
    prefix last                    .xxx.x
    pixels                         xxxxxx
    small pixels                   xxxxxx
    sides swapped                  xx.x..
late_token
    too early                      xxx.x
    too early, or never            xxxxx
    too early, or from the end     xxxxx
    too late                       xxxxx
    too late, or never             xxxxx
    from the start                 xxx.x
    after the last                 xxxxx
    placed last                    xxxxx
    added to the patches           xxxxx
    reset                          xx.xx
    one for each block             xx.xx
    early blocks skipped           xxx.x
    not returned                   xxxxx
    returned alone                 xxxxx
    its vector returned            xxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=31) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    assert agree(exercise, ANSWERS[exercise.name], exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {ANSWERS[exercise.name]}


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake):
    for seed in SEEDS:
        result = examine(exercise, mistake.answer, seed=seed)
        assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
        assert len(str(result).splitlines()) <= 3


@each_exercise
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        assert result.passed == agree(exercise, pair, exercise.solution, [0]), (one.name, other.name)
        refused += not result.passed
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 20


@each_exercise
@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(exercise, seed):
    noise = torch.Generator().manual_seed(seed)

    def disturbed(*arguments):
        right = ANSWERS[exercise.name](*arguments)
        return right + torch.rand(right.shape, dtype=right.dtype, generator=noise)

    result = examine(exercise, disturbed)
    assert result.status == "NOT YET" and result.mistake is None


# The checks' own ways are the package's --------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_the_mixture_is_that_of_the_package_s_layer(prefix):
    torch.manual_seed(prefix)
    layer = GPSA(12, 3).double()
    torch.nn.init.normal_(layer.gate), torch.nn.init.normal_(layer.spatial.v)
    q, k = torch.randn(2, 2, 3, prefix + 6, 4, dtype=torch.float64)
    expected = layer.weights(q, k, (2, 3))
    torch.testing.assert_close(gpsa(layer.scores(q, k), layer.spatial((2, 3)), layer.gate), expected)


@pytest.mark.parametrize("enters", [0, 1, 2])
def test_the_late_token_is_the_package_s(enters):
    torch.manual_seed(enters)
    options = {"attention": "gpsa", "spatial_layers": enters, "pool": "class", "class_token_block": enters, "image_size": (12, 8)}
    model = ViT(ViTConfig(**options, depth=3, dim=16, heads=4)).double()
    images = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    x = (model.embed(images) + model.positions).flatten(2).transpose(1, 2)
    found = late_token(x, model.class_token, [partial(block, grid=(3, 2)) for block in model.blocks], enters)
    torch.testing.assert_close(model.norm(found), model.forward_features(images))


def test_the_numbers_by_hand():
    first = gated(*by_hand())[0, 0, 0]
    torch.testing.assert_close(first, torch.tensor([5 / 16, 7 / 16, 4 / 16], dtype=torch.float64))


# Right answers that nobody would have thought of ------------------------------------------------------------------------


def gpsa_by_loops(scores, positions, gate):
    prefix, rows = scores.shape[-1] - positions.shape[-1], []
    for h in range(len(gate)):
        part = 1 / (1 + (-gate[h]).exp())
        for i in range(scores.shape[-1]):
            row = torch.softmax(scores[:, h, i], dim=-1)
            if i >= prefix:
                place = torch.cat([row.new_zeros(prefix), positions[h, i - prefix].softmax(0)])
                row = (1 - part) * row + part * place
            rows.append(row)
    return torch.stack(rows, dim=1).unflatten(1, scores.shape[1:3])


def gpsa_renormalised(scores, positions, gate):
    share = gate.sigmoid().view(-1, 1, 1)
    prefix = scores.shape[-1] - positions.shape[-1]
    place = F.pad(positions, (prefix, 0), value=float("-inf")).softmax(-1)
    mixed = (1 - share) * scores.softmax(-1)[:, :, prefix:] + share * place
    whole = torch.cat([scores[:, :, :prefix].softmax(-1), mixed], dim=2)
    return whole / whole.sum(-1, keepdim=True)


def gpsa_with_a_share_for_each_row(scores, positions, gate):
    prefix = scores.shape[-1] - positions.shape[-1]
    share = F.pad(gate.sigmoid()[:, None].expand(-1, positions.shape[-1]), (prefix, 0))[..., None]
    place = F.pad(positions.softmax(-1), (prefix, 0, prefix, 0))
    return torch.einsum("bhij,hik->bhij", scores.softmax(-1), 1 - share) + share * place


def gpsa_in_logarithms(scores, positions, gate):
    prefix = scores.shape[-1] - positions.shape[-1]
    content = scores.log_softmax(-1)
    place = F.pad(positions.log_softmax(-1), (prefix, 0), value=-1e9).expand_as(content[:, :, prefix:])
    both = torch.stack([content[:, :, prefix:] + F.logsigmoid(-gate)[:, None, None], place + F.logsigmoid(gate)[:, None, None]])
    return torch.cat([content[:, :, :prefix].exp(), both.logsumexp(0).exp()], dim=2)


def nonlocality_by_loops(w, grid):
    rows, columns = grid
    n, total = rows * columns, 0
    w = w[..., -n:, -n:]
    for i in range(n):
        for j in range(n):
            distance = ((j // columns - i // columns) ** 2 + (j % columns - i % columns) ** 2) ** 0.5
            total = total + distance * w[..., i, j] / w[..., i, :].sum(-1)
    return total / n


def nonlocality_by_cdist(w, grid):
    n = grid[0] * grid[1]
    places = torch.ones(grid, dtype=w.dtype).nonzero().to(w.dtype)
    distances = (places[:, None] - places).square().sum(-1).sqrt()
    w = F.normalize(w[:, :, -n:, -n:], p=1, dim=-1)
    return torch.einsum("bhij,ij->bh", w, distances) / n


def nonlocality_in_complex_numbers(w, grid):
    prefix = w.shape[-1] - grid[0] * grid[1]
    delta = pair_offsets(*grid).to(w)
    lengths = torch.complex(delta[..., 0], delta[..., 1]).abs()
    patches = w[..., prefix:, prefix:]
    return ((patches * lengths).sum(-1) / patches.sum(-1)).mean(-1)


def late_token_by_an_if(x, cls, blocks, k):
    for i, block in enumerate([*blocks, lambda x: x]):
        if i == k:
            x = torch.cat((cls.expand(x.shape[0], 1, -1), x), 1)
        x = block(x)
    return x


def late_token_by_recursion(x, cls, blocks, k):
    if k == 0:
        x, k = torch.cat([cls + torch.zeros_like(x[:, :1]), x], dim=1), -1
    return late_token_by_recursion(blocks[0](x), cls, blocks[1:], k - 1) if blocks else x


def late_token_by_padding(x, cls, blocks, k):
    for number in range(len(blocks) + 1):
        if number == k:
            x = F.pad(x, (0, 0, 1, 0)) + F.pad(cls, (0, 0, 0, x.shape[1]))
        if number < len(blocks):
            x = blocks[number](x)
    return x


RIGHT = [
    (exercise, answer)
    for exercise in EXERCISES
    for name, answer in list(globals().items())
    if name.startswith(f"{exercise.name}_")
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


@each_exercise
def test_there_are_enough_of_each(exercise):
    assert len(exercise.mistakes) >= 6
    assert sum(of is exercise for of, _ in RIGHT) >= 3


def test_the_package_s_own_and_detached_answers_are_refused():
    assert "calls the package's own solution" in str(examine(FAR, nonlocality))
    assert "calls the package's own solution" in str(examine(LATE, late_token))
    assert "no gradient comes back" in str(examine(GATED, lambda *given: gated(*given).detach()))


def gpsa_by_way_of_nan(scores, positions, gate):
    prefix, share = scores.shape[-1] - positions.shape[-1], gate.sigmoid()[:, None, None]
    place = F.pad(positions, (prefix, 0, prefix, 0), value=float("-inf")).softmax(-1)
    content = scores.softmax(-1)
    patches = (1 - share) * content + share * place
    return torch.cat([content[:, :, :prefix], patches[:, :, prefix:]], dim=2)


def test_gradients_of_nan_have_a_hint_of_their_own():
    assert "gradients are NaN" in str(examine(GATED, gpsa_by_way_of_nan))


def test_a_gate_on_another_axis_stumbles():
    def on_keys(scores, positions, gate):
        share, prefix = gate.sigmoid(), scores.shape[-1] - positions.shape[-1]
        return (1 - share) * scores.softmax(-1) + share * F.pad(positions.softmax(-1), (prefix, 0, prefix, 0))

    assert examine(GATED, on_keys).lines[0] == GATED.stumble


def test_a_token_that_never_joins_where_k_is_the_number_of_blocks_is_refused():
    late = lambda x, cls, blocks, k: joined(x, cls, blocks, k)[:, k == len(blocks) :]  # noqa: E731
    assert "with k = len(blocks)" in str(examine(LATE, late))


# What the lesson says of its records ------------------------------------------------------------------------------------


def last(arm, step=160):
    return [row["val_top1"] for row in read_records("lesson_07") if (row["arm"], row["step"]) == (arm, step)]


def test_the_records_say_that_the_start_decides_and_the_gate_does_not():
    for arm in ("vit", "convit-no-local-start"):
        assert len(last(arm)) == 5 and max(last(arm)) < 30
    for arm in ("convit", "convit-frozen-gate", "psa"):
        assert len(last(arm)) == 5 and min(last(arm)) > 85
    assert min(last("convit")) > 89 and max(last("convit")) < 97
    for other in ("convit-frozen-gate", "psa"):
        gain = paired(last("convit"), last(other))
        assert gain.low < 0 < gain.high


def test_the_records_say_what_fewer_images_cost():
    for arm in ("convit", "psa"):
        assert min(last(f"{arm}-25pct")) > 80 and max(last(f"{arm}-25pct")) < 95
        assert min(last(f"{arm}-5pct")) > 45 and max(last(f"{arm}-5pct")) < 60
        for share in ("-25pct", "-5pct"):
            gain = paired(last("convit" + share), last("psa" + share))
            assert gain.low < 0 < gain.high


def test_the_records_say_which_heads_escape():
    rows = [row for row in read_records("lesson_07_heads") if row["step"] == 400]
    assert len(rows) == 2 * 5 * 3 * 4
    for row in rows:
        if row["arm"] == "vit":
            assert row["val_top1"] < 30 and 2.9 < row["nonlocality"] < 3.3
        else:
            assert row["val_top1"] > 99 and abs(row["gate"] - 0.731) < 0.1
            if row["layer"] == 0:
                assert row["gate"] > 0.731 and row["nonlocality"] < 1.49
            if row["layer"] == 1:
                assert 0.69 < row["gate"] < 0.74 and 1.35 < row["nonlocality"] < 1.7
            if row["layer"] == 2:
                assert row["gate"] < 0.7 and row["nonlocality"] > 1.75
