"""What the parameters of a model say by themselves, gates and priors, and how scores are drawn over a picture."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from spvit_mini.explain import attribution
from spvit_mini.geometry import pair_offsets
from spvit_mini.vit import ViT, ViTConfig


def build(**changes):
    torch.manual_seed(0)
    model = ViT(ViTConfig(image_size=(8, 12), dim=8, depth=3, heads=2, **changes)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def test_gates_layer_by_layer():
    model = build(attention="gpsa", spatial_layers=2)
    with torch.no_grad():
        model.blocks[0].attention.gate.copy_(torch.tensor([0.0, math.log(3)]))
    first, second, third = attribution.gates(model)
    assert first.tolist() == pytest.approx([0.5, 0.75])
    assert torch.equal(second, model.blocks[1].attention.gate.sigmoid()) and third is None
    alone = attribution.gates(build(attention="quadratic/position_only"))
    assert [gate.tolist() for gate in alone] == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("attention", "kinds"),
    [("mhsa", []), ("spsa", [True]), ("rpb", [False]), ("gpsa", [False]), ("quadratic/position_only", [False]),
     ("twin_mlp/affine", [True, False]), ("anchored", [True, False]), ("window", []), ("shaw2d/contextual", [])],
)  # fmt: skip
def test_priors_are_the_maps_over_the_offsets(attention, kinds):
    model = build(attention=attention, spatial_layers=2)
    found = attribution.priors(model, (3, 2))
    assert [(prior.layer, prior.multiplies) for prior in found] == [(layer, kind) for layer in (0, 1) for kind in kinds]
    deltas = pair_offsets(3, 2) + torch.tensor([2, 1])
    for prior in found:
        written_out = model.spatial_maps((3, 2))[prior.layer]
        if len(kinds) == 2:
            written_out = written_out[0 if prior.multiplies else 1]
        torch.testing.assert_close(prior.table[:, deltas[..., 0], deltas[..., 1]], written_out.detach())


def test_upsampling_is_linear_between_the_middles_of_patches():
    heat = attribution.upsample(torch.tensor([[0.0, 4.0], [8.0, 12.0]]), (8, 8))
    line = [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]
    assert heat[0].tolist() == pytest.approx(line) and heat[:, 0].tolist() == pytest.approx([2 * v for v in line])


def test_lying_over_shows_the_picture_in_grey_and_the_scores_from_lowest_to_highest():
    figure, axes = plt.subplots()
    picture = torch.rand(3, 8, 12)
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], requires_grad=True)
    shown = attribution.lay_over(axes, picture, scores, title="where")
    np.testing.assert_allclose(axes.images[0].get_array(), picture.mean(0), rtol=1e-6)
    assert shown.get_array().shape == (8, 12) and shown.get_clim() == pytest.approx((0.1, 0.6))
    assert axes.get_title(loc="left") == "where" or axes.get_title() == "where"
    plt.close(figure)
