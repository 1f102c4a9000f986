"""The figure of the whole course: which head is shown, what the record holds, and that it can be drawn."""

import matplotlib.pyplot as plt
import pytest
import torch

from spvit_experiments import read_records
from spvit_experiments.overview import GRID, NAMES, STUDY, draw_overview, scenes, select_head


class Seeing:
    """A model of two layers with two heads, of which one gives the ship 0.7 wherever it lies; the rest look evenly."""

    def attention_maps(self, images):
        tokens = GRID[0] * GRID[1]
        maps = [torch.full((len(images), 2, tokens, tokens), 1 / tokens) for _ in range(2)]
        green = images.unflatten(-1, (GRID[1], 4)).unflatten(-3, (GRID[0], 4)).mean((-1, -3))[:, 1].flatten(1)
        maps[1][:, 0] = 0.3 / (tokens - 1)
        maps[1][torch.arange(len(images)), 0, :, green.argmax(1)] = 0.7
        return maps


def test_the_head_that_finds_ships_is_chosen_and_its_weights_are_of_the_scene():
    layer, head, found, weights = select_head(Seeing())
    assert (layer, head) == (1, 0)
    assert found == pytest.approx(0.7)
    assert weights.shape == GRID
    assert weights[tuple(scenes(1, 0, part="story").ship[0])] == pytest.approx(0.7)


def test_the_record_holds_every_variant_and_weights_that_sum_to_1():
    records = read_records("story")
    assert {row["arm"] for row in records} == set(NAMES) == set(STUDY.arms)
    for arm in NAMES:
        own = [row for row in records if row["arm"] == arm]
        assert [(row["row"], row["column"]) for row in own] == [(r, c) for r in range(GRID[0]) for c in range(GRID[1])]
        assert sum(row["weight"] for row in own) == pytest.approx(1, abs=1e-4)


def test_it_is_drawn_with_a_panel_for_the_scene_and_each_variant():
    figure = draw_overview()
    titles = [axes.get_title() + axes.get_title(loc="left") for axes in figure.axes]
    plt.close(figure)
    assert all(any(name in title for title in titles) for name in NAMES.values())
