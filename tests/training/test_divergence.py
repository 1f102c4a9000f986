"""A run that diverges: its weights are never the best, and the run, its page and the programs say so."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spvit_mini.cli import evaluate as evaluate_program
from spvit_mini.cli import train as train_program
from spvit_mini.errors import UserError
from spvit_mini.training import loop, train
from spvit_mini.training.metrics import ClassificationMetrics, best_top1, best_weights, evaluate, read_rows
from spvit_mini.training.summary import write_summary
from spvit_mini.weights import load_weights

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("val", "ema", "which", "top1"),
    [
        ((1.0, 50.0), (None, None), "last", 50.0),
        ((1.0, 50.0), (NAN, NAN), "last", 50.0),  # as read from metrics.csv, where the EMA has no cells
        ((1.0, 50.0), (2.0, 60.0), "ema", 60.0),
        ((1.0, 50.0), (2.0, 50.0), "last", 50.0),
        ((NAN, 90.0), (2.0, 0.0), "ema", 0.0),
        ((INF, 90.0), (2.0, 60.0), "ema", 60.0),
        ((1.0, 0.0), (NAN, 90.0), "last", 0.0),
        ((NAN, 90.0), (INF, 90.0), "last", -INF),
        ((-INF, 90.0), (None, None), "last", -INF),
    ],
)
def test_weights_with_a_loss_that_is_not_finite_are_never_the_best(val, ema, which, top1):
    row = {"val_loss": val[0], "val_top1": val[1], "ema_loss": ema[0], "ema_top1": ema[1]}
    assert (best_weights(row), best_top1(row)) == (which, top1)


def poison(step, value):
    """Make a callback that destroys the weights of a run after the evaluation of a step."""

    def on_evaluation(at, model, _row):
        if at == step:
            model.head.bias.data[0] = value

    return on_evaluation


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_best_weights_are_those_before_it_diverged(tiny, tmp_path, capsys, value):
    recipe = tiny.override({"evaluate_every": "2 steps", "duration": "6 steps", "data.val_images": 41})
    result = train(recipe, run_dir=tmp_path, on_evaluation=poison(2, value))
    assert [math.isfinite(row["val_loss"]) for row in result.rows] == [True, False, False]
    assert result.best["step"] == 2 and load_weights(tmp_path / "best.safetensors")[1]["step"] == "2"
    assert load_weights(tmp_path / "best.safetensors")[0]["head.bias"].isfinite().all()
    out = capsys.readouterr().out
    assert out.count("DIVERGED") == 2 and out.count("WARNING: the run has diverged") == 1
    page = (tmp_path / "summary.md").read_text()
    assert f"# {tmp_path.name}: {result.best['val_top1']:.2f} % top-1" in page
    assert "| diverged | the validation loss is not finite in 2 of 3 rows, first at step 4 |" in page


def test_a_run_that_has_diverged_from_the_start_has_no_best_weights(tiny, tmp_path, capsys, monkeypatch):
    """A learning rate of 1e30, by the program. Further steps are skipped, and the run is given up."""
    monkeypatch.setattr(train_program, "get_recipe", lambda name: tiny.override({"evaluate_every": "2 steps"}))
    run = tmp_path / "run"
    options = ["spvit_mini_compass6", "--run-dir", str(run), "--optim.lr", "1e30", "--optim.warmup", "0 steps"]
    assert train_program.main([*options, "--max-steps", "4"]) == 0
    out = capsys.readouterr().out
    assert "there are no best weights: the run has diverged" in out and "best validation accuracy" not in out
    rows = read_rows(run / "metrics.csv")
    assert [row["val_top1"] for row in rows] == [0, 0] and not any(math.isfinite(row["val_loss"]) for row in rows)
    assert not (run / "best.safetensors").exists()
    page = (run / "summary.md").read_text()
    assert "# run: diverged" in page and "| best | none: the validation loss was never finite |" in page
    assert write_summary(run) == page
    with pytest.raises(UserError, match="best.safetensors; a run writes it at its first evaluation with a finite loss"):
        evaluate_program.main([str(run)])


def test_evaluate_says_that_weights_have_diverged(tiny, tmp_path, capsys):
    """They are written by hand, as by another program: every image is wrong, and no class is confused."""
    from spvit_mini.weights import save_weights

    train(tiny, run_dir=tmp_path / "run", max_steps=5, progress=False)
    tensors, metadata = load_weights(tmp_path / "run" / "best.safetensors")
    result = train(tiny, max_steps=1, progress=False)
    result.model.load_state_dict(tensors)
    result.model.head.bias.data[0] = INF
    save_weights(result.model, tmp_path / "bad.safetensors", classes=metadata["classes"], recipe=metadata["recipe"])
    table = tmp_path / "table.csv"
    assert evaluate_program.main([str(tmp_path / "bad.safetensors"), "--per-class", str(table), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "top-1  0.00 %  (0 of 41)" in out and "these weights have diverged" in out
    lines = table.read_text().splitlines()
    assert len(lines) == 9 and all(",0,0,no class (logits not finite)," in line for line in lines[1:])


def test_a_page_of_skipped_steps_only(tiny, tmp_path, monkeypatch):
    """Their images took their time, although nothing was learned from them."""
    monkeypatch.setattr(loop.torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(NAN))
    recipe = tiny.override({"evaluate_every": "1 step", "duration": "4 steps"})
    rows = train(recipe, run_dir=tmp_path, progress=False).rows
    assert [row["skipped_steps"] for row in rows] == [1, 2, 3, 4] and all(row["images_per_second"] > 0 for row in rows)
    assert "4 steps (gradient not finite)" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("which", ["all", "one"])
def test_a_page_of_early_rows_with_a_speed_of_zero(tiny, tmp_path, which):
    """As earlier versions have written them."""
    train(tiny, run_dir=tmp_path, progress=False)
    before = write_summary(tmp_path)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    at = lines[0].split(",").index("images_per_second")
    for i in range(1, len(lines) if which == "all" else 2):
        cells = lines[i].split(",")
        lines[i] = ",".join([*cells[:at], "0", *cells[at + 1 :]])
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    page = write_summary(tmp_path)
    assert ("| speed |" in page) == (which == "one") and page.splitlines()[0] == before.splitlines()[0]


@pytest.mark.parametrize("name", ["spvit_mini", "cnn_mini", "lvvit_s"])
def test_logits_are_float32_in_an_evaluation_in_bfloat16(name, request):
    """bfloat16 has 256 numbers between two powers of two: of a thousand classes many would be the best at once."""
    from spvit_mini import create_model

    torch.manual_seed(request.config.getoption("--seed"))
    model = create_model(name, num_classes=1000, image_size=32, **({"depth": 2} if name == "lvvit_s" else {}))
    nn.init.normal_(model.head.weight, std=0.02)
    logits = []
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    options = {"device": torch.device("cpu"), "precision": torch.bfloat16}
    scores = evaluate(model, [(images, labels)], **options, on_batch=lambda given, _: logits.append(given))
    assert logits[0].dtype == torch.float32 and all(len(row.unique()) > 990 for row in logits[0])
    expected = ClassificationMetrics.zero()
    expected.update(logits[0], labels, F.cross_entropy(logits[0], labels, reduction="sum"))
    assert scores.loss == pytest.approx(expected.loss)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16  # training is as before
