"""Token labels in training: targets by hand, crops and mirrors followed exactly, the loss and MixToken by their formulas."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from spvit_mini import create_model
from spvit_mini.data import AugmentOptions, DataOptions, Key, load_data
from spvit_mini.data.token_labels import TokenLabelInfo, TokenLabelView, TokenLabelWriter
from spvit_mini.errors import UserError
from spvit_mini.recipes import get_recipe
from spvit_mini.training import train
from spvit_mini.training.objective import Objective
from spvit_mini.training.token_loss import dense_loss, draw_box, mix_classes, targets
from spvit_mini.vit import swap_box


def aligned_by_hand(field: np.ndarray, box: list[float], grid: tuple[int, int]) -> np.ndarray:
    """Average a field of cells, (rows, cols), over each part of a box (top, left, bottom, right, in cells): float64.

    RoI-align (He et al. 2017): in each part as many points along a side as it has cells, rounded up, evenly spread; at each
    the four nearest cells' centres are interpolated bilinearly; beyond the outermost centres their value holds.
    """
    rows, cols = field.shape
    out = np.zeros(grid)
    sides = [(box[2] - box[0]) / grid[0], (box[3] - box[1]) / grid[1]]
    counts = [math.ceil(side) for side in sides]
    for r in range(grid[0]):
        for c in range(grid[1]):
            for i in range(counts[0]):
                for j in range(counts[1]):
                    y = box[0] + sides[0] * (r + (i + 0.5) / counts[0]) - 0.5  # from edges to centres
                    x = box[1] + sides[1] * (c + (j + 0.5) / counts[1]) - 0.5
                    y, x = min(max(y, 0), rows - 1), min(max(x, 0), cols - 1)
                    below, right = min(int(y) + 1, rows - 1), min(int(x) + 1, cols - 1)
                    dy, dx = y - int(y), x - int(x)
                    upper = (1 - dx) * field[int(y), int(x)] + dx * field[int(y), right]
                    lower = (1 - dx) * field[below, int(x)] + dx * field[below, right]
                    out[r, c] += ((1 - dy) * upper + dy * lower) / (counts[0] * counts[1])
    return out


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("cells, grid", [((5, 7), (3, 2)), ((3, 2), (4, 6)), ((1, 1), (2, 2)), ((18, 18), (4, 4))], ids=str)
def test_targets_are_those_computed_by_hand(cells, grid, seed):
    random = np.random.RandomState(seed)
    batch, count, top = 3, 6, 2
    scores = random.normal(size=(batch, *cells, top)).astype(np.float16) * 4
    classes = random.rand(batch, *cells, count).argsort(-1)[..., :top].astype(np.int16)
    corners = np.sort(random.rand(batch, 2, 2), axis=1)  # (batch, first and last, down and across)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.1)
    corners[0] = [[0, 0], [1, 1]]
    box, mirrored = corners.clip(0, 1).reshape(batch, 4), np.array([False, True, True])
    view = TokenLabelView(*map(torch.from_numpy, (scores, classes, box.astype(np.float32), mirrored)))
    patches, whole = targets(view, grid, count)
    assert patches.shape == (batch, grid[0] * grid[1], count) and whole.shape == (batch, count)

    for i in range(batch):
        field = np.zeros((count, *cells))
        for r, c, k in np.ndindex(*cells, top):
            field[classes[i, r, c, k], r, c] = scores[i, r, c, k]
        in_cells = view.box[i].double().numpy() * [cells[0], cells[1], cells[0], cells[1]]
        by_hand = np.stack([aligned_by_hand(f, in_cells, grid) for f in field], axis=-1)
        by_hand = by_hand[:, ::-1] if mirrored[i] else by_hand
        np.testing.assert_allclose(patches[i].numpy(), softmax(by_hand.reshape(-1, count)), atol=2e-5)
        of_all = np.array([aligned_by_hand(f, in_cells, (1, 1))[0, 0] for f in field])
        np.testing.assert_allclose(whole[i].numpy(), softmax(of_all), atol=2e-5)


def test_a_class_that_is_listed_nowhere_has_the_score_zero():
    scores, classes = torch.full((1, 2, 2, 1), 3.0), torch.ones(1, 2, 2, 1, dtype=torch.int16)
    view = TokenLabelView(scores, classes, torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([False]))
    expected = torch.tensor([1, math.e**3, 1, 1]) / (math.e**3 + 3)
    for target in targets(view, (2, 2), 4):
        torch.testing.assert_close(target, expected.expand_as(target))


@pytest.fixture
def halves(tmp_path):
    """Make a tree of one image, red on the left and blue on the right, and its labels: class 1 on the left, 2 on the right."""
    for part, name in (("train", "b"), ("train", "a"), ("train", "c"), ("val", "a"), ("val", "b"), ("val", "c")):
        pixels = np.zeros((48, 96, 3), dtype=np.uint8)
        pixels[:, :48, 0] = pixels[:, 48:, 2] = 255
        (tmp_path / "halves" / part / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "halves" / part / name / "0.png")
    about = TokenLabelInfo("nobody", ["a", "b", "c"], (6, 12), 1)
    writer = TokenLabelWriter(tmp_path / "labels", about, np.array([b"a/0.png", b"b/0.png", b"c/0.png"]))
    classes = np.broadcast_to(np.where(np.arange(12) < 6, 1, 2)[:, None], (6, 12, 1))
    for place in range(3):
        writer.write(place, np.full((6, 12, 1), 30), classes)
    writer.commit(done=[0, 1, 2])
    writer.close()
    return tmp_path


@pytest.mark.parametrize("crop", ["none", "resized"])
@pytest.mark.parametrize("seed", [0, 1])
def test_labels_follow_crop_and_mirror_as_the_pixels_do(halves, crop, seed):
    options = DataOptions(name="halves", root=halves, image_size=64)
    augment = AugmentOptions(flip=True, crop=crop, crop_scale=(0.1, 0.8))
    data = load_data(options, augment, seed=seed, token_labels=halves / "labels")
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.preprocessing.mean, data.preprocessing.std))
    both = mirrors = 0
    for index in range(60):
        image, _, view = data.train[Key(index, index % 3)]
        pixels = image * std + mean
        red, blue = (pixels[channel].unflatten(0, (8, 8)).unflatten(2, (8, 8)).mean((1, 3)) for channel in (0, 2))
        batched = TokenLabelView(*(torch.as_tensor(part)[None] for part in view))
        patches, whole = targets(batched, (8, 8), 3)
        said = patches.view(8, 8, 3)
        clear = (red - blue).abs() > 0.9
        assert torch.equal(said[clear].argmax(-1), torch.where(red > blue, 1, 2)[clear])
        # The whole crop is of the class that has the greater part of it.
        if abs(float((red - blue).mean())) > 0.1:
            assert whole.argmax() == (1 if red.mean() > blue.mean() else 2)
        both += bool((red[clear] > 0.5).any() and (blue[clear] > 0.5).any())
        mirrors += bool(view.is_flipped)
    assert both > 10 and 10 < mirrors < 50


# --- the loss, and MixToken


@pytest.mark.parametrize("weight, smoothing", [(1.0, 0.0), (0.5, 0.1), (0.0, 0.3)])
def test_the_loss_is_its_formula(weight, smoothing):
    batch, patches, count = 4, 6, 5
    logits, dense = 3 * torch.randn(batch, count), 3 * torch.randn(batch, patches, count)
    target, wanted = torch.rand(batch, count).softmax(-1), torch.randn(batch, patches, count).softmax(-1)
    loss = dense_loss(logits, dense, target, wanted, dense_weight=weight, smoothing=smoothing)

    def cross_entropy(logits, target):
        logits, target = logits.double().numpy(), (1 - smoothing) * target.double().numpy() + smoothing / count
        return -(target * np.log(softmax(logits))).sum(-1).mean()

    expected = cross_entropy(logits, target) + weight * cross_entropy(dense, wanted)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_lie_in_the_grid_and_cover_what_cutmix_covers(seed):
    random, areas = np.random.RandomState(seed), []
    for _ in range(3000):
        top, left, bottom, right = draw_box((40, 60), 1.0, random=random)
        assert 0 <= top <= bottom <= 40 and 0 <= left <= right <= 60
        areas.append((bottom - top) * (right - left) / 2400)
    # A side s of the grid's, its centre anywhere, keeps s − s²/4 inside; with s² uniform in 0..1 the mean area is
    # ∫ (s − s²/4)² ds² = 1/2 − 1/5 + 1/48 = 0.3208, and rounding sides down takes a little.
    assert np.mean(areas) == pytest.approx(0.3208 - 0.012, abs=0.015)
    assert min(areas) == 0 and max(areas) > 0.9
    assert draw_box((40, 60), 1.0, random=np.random.RandomState(9)) == draw_box((40, 60), 1.0, random=np.random.RandomState(9))


def test_a_larger_alpha_draws_more_even_boxes():
    def spread(alpha):
        random = np.random.RandomState(0)
        boxes = np.array([draw_box((40, 40), alpha, random=random) for _ in range(1000)])
        return (boxes[:, 2] - boxes[:, 0]).std()

    assert spread(0.2) > spread(1.0) > spread(20.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_class_target_is_mixed_by_the_patches_counted(seed):
    box = draw_box((5, 7), 1.0, random=np.random.RandomState(seed))
    of_image = torch.arange(4.0)[:, None, None, None].expand(4, 1, 5, 7)
    tokens = swap_box(of_image, box)  # of each patch, the image that it is taken from
    for i, target in enumerate(mix_classes(torch.eye(4), box, (5, 7))):
        counted = torch.bincount(tokens[i].long().flatten(), minlength=4) / 35
        torch.testing.assert_close(target, counted)


# --- a step, and a run


@pytest.fixture
def recipe(halves):
    return get_recipe("spvit_mini_compass6").override(
        {
            "data.name": "halves", "data.root": halves, "data.image_size": 32, "augment.crop": "resized",
            "augment.flip": True, "model.name": "lvvit_s", "model.dim": 16, "model.depth": 2, "model.heads": 2,
            "model.patch": 8, "model.drop_path": 0.0, "token_labels.folder": halves / "labels",
            "token_labels.dense_weight": 0.5, "token_labels.mixtoken": 1.0, "batch_size": 3, "duration": "4 steps",
            "label_smoothing": 0.1, "evaluate_every": "2 steps", "device": "cpu",
        }
    )  # fmt: skip


@pytest.mark.parametrize("target", ["teacher", "label"])
@pytest.mark.parametrize("mixtoken", [0.0, 1.0])
def test_a_batch_s_loss_is_that_of_its_parts(recipe, halves, target, mixtoken):
    recipe = recipe.override({"token_labels.class_target": target, "token_labels.mixtoken": mixtoken})
    data = load_data(recipe.data, recipe.augment, seed=0, token_labels=halves / "labels")
    batch = torch.utils.data.default_collate([data.train[i] for i in range(3)])
    model = create_model("lvvit_s", num_classes=3, image_size=32, **recipe.model.overrides()).eval()
    seen = {}
    model.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    objective = Objective(recipe, 3, precision=torch.float32)
    boxes = set()
    for step in range(6):
        loss, logits = objective(model, *batch, seeds=(0, step))
        box = None if seen["mix"] is None else tuple(seen["mix"].tolist())
        boxes.add(box)
        patches, whole = targets(batch[2], (4, 4), 3)
        class_target = whole if target == "teacher" else torch.eye(3)[batch[1]]
        with torch.no_grad():
            again, dense = model(batch[0], dense=True, mix=box)
        if mixtoken:
            class_target = mix_classes(class_target, box, (4, 4))
        expected = dense_loss(again, dense, class_target, patches, dense_weight=0.5, smoothing=0.1)
        assert torch.equal(logits, again)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert boxes == {None} if not mixtoken else len(boxes) > 1


def test_a_run_learns_from_token_labels_and_says_what_it_lacks(recipe, halves):
    result = train(recipe, progress=False)
    assert result.step == 4 and all(math.isfinite(row["train_loss"]) for row in result.rows)
    again = train(recipe, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), again.model.parameters(), strict=True))
    with pytest.raises(UserError, match="dense logits need a model with dense_head=True, such as lvvit_s"):
        train(recipe.override({"model.name": "deit_tiny"}), progress=False)
    with pytest.raises(UserError, match="set with augment.mixup or augment.cutmix. Use token_labels.mixtoken"):
        train(recipe.override({"augment.mixup": 0.8}), progress=False)
    with pytest.raises(UserError, match="holds no token labels"):
        train(recipe.override({"token_labels.folder": halves}), progress=False)


@pytest.mark.slow
def test_training_brings_patches_to_what_the_teacher_sees(recipe):
    """Red patches learn to say 1 and blue ones 2, from labels that have a place; the image's own label says nothing of it."""
    recipe = recipe.override({"duration": "60 steps", "evaluate_every": "60 steps", "label_smoothing": 0.0, "optim.lr": 3e-3})
    model = train(recipe.override({"token_labels.mixtoken": 0.0}), progress=False).model.eval()
    data = load_data(recipe.data, recipe.augment, seed=0)
    image = data.val[0][0]  # the central square: half red, half blue
    with torch.no_grad():
        said = model(image[None], dense=True)[1].view(4, 4, 3).argmax(-1)
    assert torch.equal(said[:, [0, 3]], torch.tensor([1, 2]).expand(4, 2))


@pytest.mark.slow
def test_another_box_does_not_compile_the_model_anew(recipe, halves):
    data = load_data(recipe.data, recipe.augment, seed=0, token_labels=halves / "labels")
    batch = torch.utils.data.default_collate([data.train[i] for i in range(3)])
    model = create_model("lvvit_s", num_classes=3, image_size=32, **recipe.model.overrides())
    compiled = []
    model.compile(backend=lambda graph, _: compiled.append(graph) or graph.forward)
    objective = Objective(recipe, 3, precision=torch.float32)
    for step in range(12):
        objective(model, *batch, seeds=(0, step))
    assert len(compiled) == 1
