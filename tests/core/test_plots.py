"""The shared pictures say what they are given: limits, means, places."""

import matplotlib.pyplot as plt
import pytest
import torch

from spvit_mini import plots


@pytest.fixture
def figure():
    with plt.rc_context():  # the style as lessons have it, and only here
        plots.style()
        figure = plt.figure()
        yield figure
        plt.close(figure)


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_tables_share_their_limits_around_what_is_neutral(figure, neutral):
    values = torch.zeros(2, 3, 5, 7) + neutral
    values[1, 2, 0, 6] += 4  # far up and to the right, in one head of one layer
    plots.table_grid(figure, values, title="title", neutral=neutral, label="f")
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title(loc="left")]
    assert len(images) == 6
    for image in images:
        assert (image.norm.vmin, image.norm.vcenter, image.norm.vmax) == (neutral - 4, neutral, neutral + 4)
        assert tuple(image.get_extent()) == (-3.5, 3.5, 2.5, -2.5)
    assert images[-1].get_array()[0, 6] == neutral + 4
    assert [axes.get_title(loc="left") for axes in figure.axes[:6]][-1] == "layer 1, head 2"


def test_curves_draw_each_run_and_their_mean(figure):
    axes = figure.subplots()
    plots.curves(axes, {"a": [([1, 2], [0, 4]), ([1, 2], [2, 8])], "b": [([1], [5])]}, colours={"a": "red", "b": "blue"})
    drawn = [line.get_ydata().tolist() for line in axes.lines]
    assert drawn == [[0, 4], [2, 8], [1, 6], [5]]
    assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == ["a", "b"]


def test_a_frame_surrounds_its_patch(figure):
    axes = figure.subplots()
    plots.image(axes, torch.rand(3, 8, 12), boxes=[(1, 2, "red")], patch=4)
    (box,) = axes.patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((7.5, 3.5), 4, 4)
    shown = axes.images[0].get_array()
    assert shown.shape == (8, 12, 3) and shown.min() == 0 and shown.max() == 1


def test_colours_of_methods_are_all_different():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
