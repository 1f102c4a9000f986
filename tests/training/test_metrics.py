"""Counting: sums that add up exactly, scores against a plain loop over single images, and metrics.csv."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spvit_mini.training.metrics import COLUMNS, ClassificationMetrics, evaluate, read_rows, write_rows


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("classes", "batch"), [(8, 7), (3, 101), (100, 10)])
def test_scores_of_101_images_do_not_depend_on_the_batch(seed, classes, batch):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(101, 3, 4, 4, generator=generator)
    labels = torch.randint(classes, (101,), generator=generator)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, classes))
    scores = evaluate(
        model,
        DataLoader(TensorDataset(images, labels), batch_size=batch),
        device=torch.device("cpu"),
        precision=torch.float32,
    )
    assert model.training  # as it was
    model.eval()
    right = right5 = 0
    loss = 0.0
    for image, label in zip(images, labels.tolist(), strict=True):
        logits = model(image[None])[0].tolist()
        better = sum(value > logits[label] for value in logits)
        right += better == 0
        right5 += better < 5
        loss += F.cross_entropy(torch.tensor([logits], dtype=torch.float64), torch.tensor([label])).item()
    assert (scores.images, int(scores.correct), int(scores.correct5)) == (101, right, right5)
    assert scores.top1 == 100 * right / 101 and scores.top5 == 100 * right5 / 101
    assert scores.loss == pytest.approx(loss / 101, rel=1e-6)


def test_counts_by_hand():
    counts = ClassificationMetrics.zero()
    assert (counts.loss, counts.top1) == (math.nan, math.nan)
    counts.update(torch.tensor([[0.0, 1.0], [3.0, 2.0]]), torch.tensor([1, 1]), torch.tensor(2.5))
    counts.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor(0.5))
    assert (counts.images, counts.loss, counts.top1, counts.top5) == (3, 1.0, 100 / 3, 100.0)


def test_ties_are_counted_once():
    counts = ClassificationMetrics.zero()
    counts.update(torch.zeros(4, 6), torch.tensor([0, 1, 2, 3]), torch.tensor(0.0))
    assert int(counts.correct) <= 1 and int(counts.correct5) <= 4


def test_metrics_csv_round_trip(tmp_path):
    rows = [
        {
            **dict.fromkeys(COLUMNS, 0.0),
            "step": 40,
            "images": 4000,
            "lr": 2e-3,
            "val_top1": 12.25,
            "val_loss": 2.0794415,
        },
        {**dict.fromkeys(COLUMNS, 1.0), "step": 1_000_000, "images": 128_000_000, "train_loss": 1 / 3},
    ]
    write_rows(tmp_path / "metrics.csv", rows)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert "1000000" in text and "128000000" in text and "0.333333" in text
    again = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in again] == [40, 1_000_000]
    assert again[0] == pytest.approx(rows[0], rel=1e-5)
    write_rows(tmp_path / "metrics.csv", rows[:1])
    assert len(read_rows(tmp_path / "metrics.csv")) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_never_correct(value):
    logits, labels = torch.tensor([[2.0, 1.0, 0.0]]).repeat(4, 1), torch.zeros(4, dtype=torch.int64)
    logits[1] = value
    logits[2, 1] = value
    counts = ClassificationMetrics.zero("cpu")
    counts.update(logits, labels, torch.zeros(()))
    assert (int(counts.images), int(counts.correct), int(counts.correct5)) == (4, 2, 2)
