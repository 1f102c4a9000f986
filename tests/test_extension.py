"""An attention and a study of the user's own, exactly as docs/extending.md shows them, from outside the packages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = {name: code for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)}
SMALL = ["--duration", "6 steps", "--batch-size", "20", "--data.train-images", "60", "--data.val-images", "20", "--device", "cpu"]
SMALL += ["--evaluate-every", "3 steps", "--save-every", "3 steps", "--optim.warmup", "0 steps"]


@pytest.fixture
def project(tmp_path):
    """A folder with the page's files and an image; the study's arms are shortened."""
    changes = 'changes={"duration": "3 steps", "optim.warmup": "0 steps", "evaluate_every": "3 steps", "data.train_images": 60,\n'
    changes += '            "data.val_images": 40, "batch_size": 20, "device": "cpu"},\n        '
    for name, code in CODE.items():
        (tmp_path / name).write_text(code.replace("seeds=(0, 1, 2)", changes + "seeds=(0, 1, 2)"), encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


def run(folder, package, *words):
    done = subprocess.run([sys.executable, "-m", package, *map(str, words)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_short():
    assert len(CODE["my_attention.py"].strip().splitlines()) <= 30


@pytest.mark.slow
def test_an_own_attention_is_trained_resumed_evaluated_explained_and_exported(project):
    own = ["--import", "my_attention.py"]
    train = ["train", "vit_mini_compass6", *own, "--run-dir", "runs/mine"]
    run(project, "spvit_mini", *train, "--model.attention", "linear_attention", *SMALL, "--max-steps", 3)
    assert "resumed from" in run(project, "spvit_mini", *train, "--resume")
    recipe = json.loads((project / "runs/mine/recipe.json").read_text())
    assert recipe["imports"] == ["my_attention.py"] and recipe["model"]["attention"] == "linear_attention"
    assert "--import my_attention.py" in (project / "runs/mine/summary.md").read_text()

    evaluated = run(project, "spvit_mini", "evaluate", "runs/mine", *own, "--device", "cpu")
    assert "top-1" in evaluated
    run(project, "spvit_mini", "predict", "runs/mine", "photo.png", "--explain", *own, "--device", "cpu", "--out", "figures")
    assert list(project.rglob("*.png")) != [project / "photo.png"]
    run(project, "spvit_mini", "export", "runs/mine", "--out", "mine.onnx", *own)
    assert (project / "mine.onnx").stat().st_size > 10_000

    # Without --import every program says what is missing, in one line.
    for command in (["evaluate", "runs/mine"], ["predict", "runs/mine", "photo.png"], ["export", "runs/mine", "--out", "x.onnx"]):
        words = [sys.executable, "-m", "spvit_mini", *command]
        done = subprocess.run(words, cwd=project, capture_output=True, text=True)
        assert done.returncode == 2 and "--import my_attention.py" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_own_study_of_two_arms_and_three_seeds_runs_and_reports(project):
    own = ["study", "mine", "--import", "my_study.py", "--out", "results", "--runs", "runs"]
    run(project, "spvit_experiments", *own)
    records = [json.loads(line) for line in (project / "results/mine.jsonl").read_text().splitlines()]
    assert [(record["arm"], record["seed"]) for record in records] == [(a, s) for a in ("softmax", "linear") for s in range(3)]
    assert all(record["recipe"]["imports"] == ["my_study.py"] for record in records)
    report = run(project, "spvit_experiments", *own, "--report")
    assert "softmax" in report and "linear" in report
