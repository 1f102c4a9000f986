"""The CNN: against torchvision's residual block, against itself written out in functions, and what it says it is not."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock

import spvit_mini
from spvit_mini.cli.teachers import PatchLogits
from spvit_mini.cnn import CNN, CNNConfig, ResidualBlock
from spvit_mini.errors import UserError
from spvit_mini.explain.attribution import attention_rollout, class_relevance, gates, priors
from spvit_mini.flops import multiply_adds
from spvit_mini.recipes import get_recipe
from spvit_mini.training.loop import train
from spvit_mini.training.progress import describe_run
from spvit_mini.weights import init_from_weights


@pytest.fixture(autouse=True)
def seeded(request):
    torch.manual_seed(request.config.getoption("--seed"))


def stirred(model: nn.Module) -> nn.Module:
    """Move all numbers away from their start, also what batch norms remember."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            tensor += 0.1 * torch.rand_like(tensor)
    return model


def small(**changes) -> CNN:
    return stirred(CNN(CNNConfig(**{"dim": 16, "depth": 4, "num_classes": 5} | changes)).double())


@pytest.mark.parametrize(("inputs", "width", "stride"), [(6, 6, 1), (6, 12, 2), (6, 12, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_torchvision_s(inputs, width, stride, training):
    block = stirred(ResidualBlock(inputs, width, stride=stride, drop_path=0.0).double()).train(training)
    shortcut = None
    if not isinstance(block.skip, nn.Identity):
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    theirs = BasicBlock(inputs, width, stride, downsample=shortcut).double().train(training)
    names = {"branch.0": "conv1", "branch.1": "bn1", "branch.3": "conv2", "branch.4": "bn2", "skip": "downsample"}
    renamed = {
        next(n.replace(ours, other, 1) for ours, other in names.items() if n.startswith(ours)): value.clone()
        for n, value in block.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    x = torch.randn(3, inputs, 7, 10, dtype=torch.float64)
    torch.testing.assert_close(block(x), theirs(x), rtol=1e-12, atol=1e-12)
    for ours, other in zip(block.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(ours, other)


def written_out(model: CNN, images: torch.Tensor, strides: list[int], *, training: bool) -> torch.Tensor:
    """Compute a CNN's logits in functions of torch alone, from its numbers by name."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def conv_norm(x, conv, norm, stride):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4), weight, stride=stride)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]

    stem, *strides = strides
    x = conv_norm(images, "embed.0", "embed.1", stem).clamp(min=0)
    for i, stride in enumerate(strides):
        block = f"blocks.{i}"
        y = conv_norm(x, f"{block}.branch.0", f"{block}.branch.1", stride).clamp(min=0)
        y = conv_norm(y, f"{block}.branch.3", f"{block}.branch.4", 1)
        skip = conv_norm(x, f"{block}.skip.0", f"{block}.skip.1", stride) if f"{block}.skip.0.weight" in state else x
        x = (skip + y).clamp(min=0)
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize(
    ("changes", "strides"),
    [
        ({}, [1, 1, 2, 2, 1]),
        ({"depth": 2}, [2, 1, 2]),  # fewer stages: the stem halves
        ({"depth": 5, "patch": 8}, [2, 1, 2, 1, 2, 1]),
        ({"depth": 1, "patch": 1}, [1, 1]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
def test_the_net_written_out_in_functions(changes, strides, training, size):
    model, images = small(**changes).train(training), torch.randn(3, 3, *size, dtype=torch.float64)
    expected = written_out(model, images, strides, training=training)
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


def test_stages_double_the_width_and_halve_the_resolution():
    assert CNNConfig().widths == [50] * 3 + [100] * 3 + [200] * 3
    assert CNNConfig(dim=64, depth=4).widths == [16, 32, 64, 64]  # one more where it does not come out even
    assert CNNConfig(dim=48, depth=2).widths == [24, 48] and CNNConfig(dim=48, depth=1).widths == [48]
    for size, patch, grid in (((32, 32), 4, (8, 8)), ((30, 17), 4, (8, 5)), ((64, 64), 8, (8, 8)), ((7, 5), 1, (7, 5))):
        model = CNN(CNNConfig(image_size=size, patch=patch, dim=16, depth=3))
        assert model.grid == grid
        assert model.forward_features(torch.randn(1, 3, *size)).shape == (1, grid[0] * grid[1], 16)


def test_places_come_row_by_row():
    """A change in one corner of the image is felt at that end of the list alone."""
    model, images = small(depth=1, patch=2).eval(), torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    before = model.forward_features(images)
    images[..., -1, 0] = 9.0  # below, left
    changed = (model.forward_features(images) - before).abs().amax(-1).view(16, 16)
    assert changed[15, 0] > 1e-3 and changed[:12].max() == 0 and changed[:, 4:].max() == 0


@pytest.mark.parametrize("data", ["compass", "compass6", "cifar10"])
def test_it_has_about_as_many_parameters_as_the_minis(data):
    def count(name):
        model = get_recipe(f"{name}_{data}").model
        return sum(p.numel() for p in spvit_mini.create_model(model.name, num_classes=8, **model.overrides()).parameters())

    assert count("cnn_mini") == pytest.approx(count("vit_mini"), rel=0.12)


@pytest.mark.parametrize("changes", [{}, {"depth": 2}, {"patch": 8}, {"depth": 1, "patch": 16, "image_size": (50, 33)}])
def test_it_costs_what_torch_counts(changes):
    model = CNN(CNNConfig(**{"dim": 32, "depth": 4} | changes)).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 3, *model.config.image_size))
    assert 2 * multiply_adds(model)["total"] == counter.get_total_flops() == 2 * multiply_adds(model.config)["total"]


def test_the_start_keeps_gradients_in_size():
    model = CNN(CNNConfig())
    for name, weight in model.named_parameters():
        if weight.ndim == 4 and weight.numel() > 5000:
            fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name


def test_dropped_branches_leave_the_skip():
    block = stirred(ResidualBlock(4, 4, stride=1, drop_path=1.0)).train()
    x = torch.randn(5, 4, 6, 6)
    assert torch.equal(block(x), x.relu())
    rates = [block.drop_path.p for block in small(drop_path=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_blocks_computed_again_remember_no_image_twice(compiled):
    plain, again = small().train(), small().train()
    again.load_state_dict(plain.state_dict())
    again.activation_checkpointing = True
    if compiled:
        torch.compiler.reset()
        again.compile(backend="eager")
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for model in (plain, again):
        model(images).square().sum().backward()
    assert plain.state_dict()["blocks.0.branch.1.num_batches_tracked"] == 1
    for (name, one), other in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_it_has_no_attention_to_show_or_to_explain_it_by():
    model, images = spvit_mini.create_model("cnn_mini", dim=16, depth=2), torch.randn(2, 3, 32, 32)
    assert model.attention_maps(images) == model.spatial_maps() == model.spatial_maps((3, 3)) == model.attentions() == []
    assert gates(model) == priors(model) == []
    for explain in (attention_rollout, class_relevance):
        with pytest.raises(UserError, match="cnn_mini is a CNN: it has no attention maps and no spatial priors"):
            explain(model, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "spsa"}, "cnn_mini is a CNN, and only a ViT has an option 'attention'; its own are .*patch"),
        ({"heads": 4}, "only a ViT or CaiT has an option 'heads'"),
        ({"dept": 4}, "no option 'dept'. Did you mean depth"),
        ({"patch": 6}, "a patch of 6 must be a power of 2"),
        ({"patch": 0}, "patch is 0; expected an integer from 1 to 4,096"),
        ({"dim": 30}, "3 stages doubles its width 2 times, so that a width of 30 must be a multiple of 4"),
        ({"depth": 0}, "depth is 0; expected an integer from 1"),
        ({"image_size": (0, 4)}, r"image_size is \(0, 4\); expected 2 values"),
    ],
)
def test_what_it_does_not_have_is_one_clear_line(options, message):
    with pytest.raises(UserError, match=message):
        spvit_mini.create_model("cnn_mini", **options)


@pytest.mark.parametrize("asked", [{"dense": True}, {"mix": (0, 0, 1, 1)}])
def test_token_labels_are_not_for_it(asked):
    with pytest.raises(UserError, match="a CNN has no dense head and no patches to mix"):
        small()(torch.randn(2, 3, 16, 16, dtype=torch.float64), **asked)


def test_as_a_teacher_it_answers_for_each_place():
    """The head is linear, so the mean of the places' answers is the image's (Zhou et al. 2016)."""
    model, images = small(depth=3).eval(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    cells = PatchLogits(model)(images)
    assert cells.shape == (2, 4, 6, 5)
    torch.testing.assert_close(cells.mean((1, 2)), model(images))


TINY = {
    "model.dim": 8, "model.depth": 2, "data.train_images": 40, "data.val_images": 20, "batch_size": 20, "duration": "4 steps",
    "optim.warmup": "1 steps", "evaluate_every": "2 steps", "save_every": "2 steps", "device": "cpu",
}  # fmt: skip


def test_the_loop_trains_stops_resumes_and_starts_from_it(tmp_path):
    recipe = get_recipe("cnn_mini_compass6").override(TINY | {"optim.layer_decay": 0.5, "ema": 0.9})
    whole = train(recipe, progress=False)
    train(recipe, run_dir=tmp_path / "run", max_steps=2, progress=False)
    parts = train(recipe, run_dir=tmp_path / "run", resume=True, progress=False)
    for (name, one), other in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    other = spvit_mini.create_model("cnn_mini", dim=8, depth=2, num_classes=3, image_size=32)
    assert "the head is re-initialised for 3 classes" in init_from_weights(other, tmp_path / "run", classes=["a", "b", "c"])
    deeper = spvit_mini.create_model("cnn_mini", dim=8, depth=3, num_classes=3)
    with pytest.raises(UserError, match="does not fit cnn_mini: it has depth 2 for 3"):
        init_from_weights(deeper, tmp_path / "run", classes=["a", "b", "c"])


def test_an_attention_cannot_be_put_into_it_by_a_recipe():
    recipe = get_recipe("cnn_mini_compass6")
    assert recipe.model.heads is None and get_recipe("vit_mini_compass6").model.heads == 4
    with pytest.raises(UserError, match="cnn_mini is a CNN, and only a ViT has an option 'attention'"):
        train(recipe.override(TINY | {"model.attention": "spsa"}), progress=False)


def test_a_run_says_what_it_trains():
    recipe = get_recipe("cnn_mini_compass6").override(TINY)
    model = spvit_mini.create_model("cnn_mini", image_size=24, **recipe.model.overrides())
    facts = {"steps": 4, "device": torch.device("cpu"), "precision": torch.float32, "run_dir": "nowhere"}

    @dataclasses.dataclass
    class Sets:
        name = "compass6"
        train, val, classes = range(40), range(20), ["a", "b"]

    said = describe_run(model, recipe, Sets(), **facts).splitlines()[0].split(", ")
    assert said[0] == "model   cnn_mini" and said[2] == "6×6 cells of 4 px"
