"""The sides of the input's comparison do the same to the same image, and the program times them all."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spvit_experiments.benchmark import command, data
from spvit_experiments.benchmark.data import (
    AUGMENT,
    FAST,
    FULL,
    JPEG,
    KILOBYTES,
    PLAIN,
    RAW,
    SIDES,
    TIMM,
    TORCHVISION,
    Options,
)
from spvit_mini.data import AugmentOptions, Preprocessing
from spvit_mini.errors import UserError

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing((48, 48))
SMALL = Options(batch_size=8, size=48, small=64)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Photographs made by the benchmark, and their small copies: paths by kind."""
    return data.make_files(SMALL, tmp_path_factory.mktemp("files"))


def batches(paths, augment, names, *, seed=0):
    """Make the same batch on several ways, as float32 on the CPU."""
    found = {}
    for name in names:
        way = data.PIPELINES[name](PREPROCESSING, augment)
        for _ in range(seed):
            next(way.seeds)
        found[name] = way.to_device(way.seed_step(lambda way=way: way.batch(paths))(), CPU)
    return found


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("kind", [FULL, JPEG, RAW])
def test_our_plain_way_is_torchvision_s(kinds, kind, seed):
    found = batches(kinds[kind], AUGMENT, (TORCHVISION, PLAIN), seed=seed)
    assert found[PLAIN].shape == (8, 3, 48, 48)
    torch.testing.assert_close(found[PLAIN], found[TORCHVISION], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_fast_way_differs_by_the_filter_s_rounding(kinds, seed):
    plain_look = dataclasses.replace(AUGMENT, randaugment=(0, 0))
    found = batches(kinds[FULL], plain_look, (TORCHVISION, FAST), seed=seed)
    levels = (found[FAST] - found[TORCHVISION]).abs() * 255 * torch.tensor(PREPROCESSING.std)[:, None, None]
    assert levels.max() < 12.1 and (levels > 1.01).float().mean() < 0.005


def test_timm_s_way_is_ours_where_nothing_is_drawn(tmp_path):
    pytest.importorskip("timm")
    paths = []
    for seed in range(3):
        paths.append(str(tmp_path / f"{seed}.png"))
        Image.fromarray(np.random.RandomState(seed).randint(0, 256, (90, 90, 3), dtype=np.uint8)).save(paths[-1])
    whole = AugmentOptions(crop="resized", crop_scale=(1.0, 1.0))
    # Of all boxes of a square's area only the square itself fits, which both find, by chance or at last.
    found = batches(paths, whole, (TIMM, PLAIN, FAST))
    torch.testing.assert_close(found[TIMM], found[PLAIN], rtol=0, atol=1e-6)
    assert (found[FAST] - found[PLAIN]).abs().max() < 25 / 255 / 0.224


def test_a_way_that_does_something_else_is_found(kinds, monkeypatch):
    data.check_pipelines(kinds[FULL], PREPROCESSING)
    for name, change, said in (
        (PLAIN, {"flip": False}, f"{PLAIN} is not {TORCHVISION}"),
        (FAST, {"flip": False}, f"{FAST} is not {PLAIN}"),
    ):
        make = data.PIPELINES[name]

        def other(preprocessing, augment, make=make, change=change):
            return make(preprocessing, dataclasses.replace(augment, **change))

        with monkeypatch.context() as patch, pytest.raises(AssertionError, match=said):
            patch.setitem(data.PIPELINES, name, other)
            data.check_pipelines(kinds[FULL], PREPROCESSING)


def test_stages_one_after_the_other_are_the_whole(kinds):
    for way in data.build_pipelines(PREPROCESSING).values():
        stages = way.stages(kinds[JPEG])
        assert list(stages) == [data.READ, data.CROP, data.LOOK, data.INPUT, data.COLLATE]
        for step in list(stages.values())[:-1]:
            assert step() is None
        assert way.to_device(stages[data.COLLATE]()[0], CPU).shape == (8, 3, 48, 48)


def test_made_photographs_are_as_large_as_imagenet_s(kinds):
    sizes = [Image.open(path).size for path in kinds[FULL]]
    kilobytes = [Path(path).stat().st_size / 1000 for path in kinds[FULL]]
    for k, side in enumerate(SIDES):
        assert abs(np.mean([size[k] for size in sizes]) - side) < 0.12 * side
    assert 0.7 * KILOBYTES < np.mean(kilobytes) < 1.1 * KILOBYTES
    for kind in (JPEG, RAW):
        assert {min(Image.open(path).size) for path in kinds[kind]} == {64}


def test_a_folder_of_one_s_own(kinds, tmp_path):
    folder = tmp_path / "photographs" / "deep"
    folder.mkdir(parents=True)
    for number, path in enumerate(kinds[JPEG]):
        (folder / f"{number}.jpeg").write_bytes(Path(path).read_bytes())
    (tmp_path / "files").mkdir()
    made = data.make_files(dataclasses.replace(SMALL, batch_size=3, folder=folder.parent), tmp_path / "files")
    assert [len(paths) for paths in made.values()] == [3, 3, 3]
    with pytest.raises(UserError, match="has 8 images; expected at least 9"):
        data.make_files(dataclasses.replace(SMALL, batch_size=9, folder=folder.parent), tmp_path)


@pytest.mark.slow
def test_the_program_times_all_and_says_what_is_promised(tmp_path, capsys):
    threads = torch.get_num_threads()
    assert command.main(["data", "--quick", "--rounds", "1", "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    rows = list(csv.DictReader((tmp_path / "benchmark_data.csv").open()))
    cases = {(row["files"], row["stage"]) for row in rows}
    assert len(cases) == 3 * 7 + 2 + 1 and {row["threads"] for row in rows} == {"1"}
    assert {row["side"] for row in rows if row["stage"] == data.READ} >= {TORCHVISION, PLAIN, FAST}
    out = capsys.readouterr().out
    assert out.count(f"× torchvision, {FULL}") == 2 and out.count(f"× torchvision, {JPEG}") == 1
    wholes = [row for row in rows if row["files"] == data.MIXED and row["stage"] == data.WHOLE]
    ratios = {row["side"]: float(row["ratio"]) for row in wholes}
    found = ratios[f"torchvision, {FULL}"] / ratios[f"ours, fast, {RAW}"]
    line = next(line for line in out.splitlines() if line.endswith(f"ours, fast, {RAW}: 2.5 × torchvision, {FULL}"))
    assert f"{found:.2f} ×" in line and line.startswith("holds" if found >= 2.5 else "DOES NOT HOLD")
