"""Records: whole, in order, as written, and those of the course complete."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spvit_experiments import get_study, list_studies, paired, read_records
from spvit_experiments.records import (
    add_sources,
    collect_records,
    find_first_difference,
    find_mismatch,
    find_records,
    read_runs,
    run_folder,
    write_record,
    write_runs,
)
from spvit_experiments.study_command import resolve_tuning
from spvit_mini.errors import UserError

RESULTS = Path(__file__).parents[2] / "data" / "results"


@pytest.fixture
def places(tmp_path):
    return {"results": tmp_path / "results", "runs": tmp_path / "runs"}


@pytest.fixture
def put(places):
    """Put a record where its run would."""

    def write(study, record):
        folder = run_folder(study, *record.key, runs=places["runs"])
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, record)

    return write


def test_what_is_written_is_read_again(tiny, made, tmp_path):
    records = [
        made(tiny, "plain", 0, [10.5, 12.25]),
        made(tiny, "prior", 1, [], diverged=True, parameters=None, ms_per_step=None),
    ]
    write_runs("tiny", tmp_path, records)
    assert read_runs("tiny", tmp_path) == records
    assert (tmp_path / "tiny.csv").read_text() == "arm,seed,step,val_top1\nplain,0,10,10.5\nplain,0,20,12.25\n"
    assert read_records("tiny", tmp_path)[1] == {"arm": "plain", "seed": 0, "step": 20, "val_top1": 12.25}


def test_a_value_that_one_run_lacks_is_none_and_a_column_that_all_lack_is_not_there(tiny, made, tmp_path):
    with_average = made(tiny, "plain", 0, [10.0])
    with_average.rows[0]["ema_top1"] = 11.0
    write_runs("tiny", tmp_path, [with_average, made(tiny, "plain", 1, [10.0])])
    rows = read_records("tiny", tmp_path)
    assert [row["ema_top1"] for row in rows] == [11.0, None] and "val_loss" not in rows[0]


def test_collecting_merges_in_the_order_of_arms_and_seeds(tiny, made, places, put):
    write_runs("tiny", places["results"], [made(tiny, "prior", 0, [40.0])])
    for arm, seed, value in (("prior", 1, 50.0), ("plain", 1, 20.0), ("plain", 0, 10.0)):
        put(tiny, made(tiny, arm, seed, [value]))
    records = collect_records(tiny, **places)
    assert [(key, record.final) for key, record in records.items()] == [
        (("plain", 0), 10.0), (("plain", 1), 20.0), (("prior", 0), 40.0), (("prior", 1), 50.0)
    ]  # fmt: skip
    assert read_runs("tiny", places["results"]) == list(records.values())


def test_a_run_made_anew_takes_the_place_of_its_record(tiny, made, places, put):
    write_runs("tiny", places["results"], [made(tiny, "plain", 0, [10.0])])
    put(tiny, made(tiny, "plain", 0, [11.0]))
    assert find_records(tiny, **places)["plain", 0].final == 11.0


def test_a_record_of_another_recipe_counts_no_more(tiny, made, places, put):
    write_runs("tiny", places["results"], [made(tiny, "plain", 0, [10.0]), made(tiny, "prior", 0, [20.0])])
    changed = replace(tiny, arms=tiny.arms | {"prior": replace(tiny.arms["prior"], changes={"optim.lr": 5e-3})})
    put(changed, made(tiny, "prior", 1, [30.0]))
    assert list(find_records(changed, **places)) == [("plain", 0)]
    assert find_mismatch(changed, made(tiny, "prior", 0, [1.0])) == "it was made with optim.lr = 0.001, not 0.005"
    # Where the data lie is no part of what was computed.
    assert (
        find_mismatch(replace(tiny, changes=tiny.changes | {"data.root": "elsewhere"}), made(tiny, "plain", 0, [1.0]))
        is None
    )


def write_weights(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.tensor(value)}, path)
    return path


def test_a_record_stands_for_an_arm_only_with_the_weights_that_it_learned_from(tiny, made, tmp_path):
    """Weights may move, but neither another start nor changed weights under the same name are the recorded run."""

    def start(path):
        return replace(tiny, changes=tiny.changes | {"init_from": path})

    def record_of(study):
        recipe = add_sources(study.recipe("plain", 0), {})
        return made(study, "plain", 0, [10.0], recipe=json.loads(recipe.to_json()))

    first, scratch = write_weights(tmp_path / "first" / "best.safetensors", 1.0), made(tiny, "plain", 0, [10.0])
    record = record_of(start(first))
    assert find_mismatch(start(first), record) is None and find_mismatch(start(first.parent), record) is None
    moved = shutil.copy(first, tmp_path / "moved.safetensors")
    assert find_mismatch(start(Path(moved)), record) is None
    assert find_mismatch(tiny, record).startswith("it was made with init_from = ")  # from scratch
    assert find_mismatch(start(first), scratch) == f"it was made with init_from = None, not {first}"
    other = write_weights(tmp_path / "other.safetensors", 2.0)
    assert "it was made with init_from = weights" in find_mismatch(start(other), record)
    old = made(start(first), "plain", 0, [10.0])  # without fingerprints: compared by the recipe alone
    assert find_mismatch(start(other), old) is None
    write_weights(first, 3.0)
    assert "it was made with init_from = weights" in find_mismatch(start(first), record)
    first.unlink()  # unknown: a report doesn't need the weights, but another name is another start
    assert find_mismatch(start(first), record) is None
    assert "gone can't be read here" in find_mismatch(start(tmp_path / "gone"), record)


def test_a_record_stands_for_the_images_of_one_folder_whatever_its_name(tiny, made, tmp_path, places, put):
    def tree(folder, *names):
        for name in names:
            for part in ("train", "val"):
                (tmp_path / folder / part / name).mkdir(parents=True)
                (tmp_path / folder / part / name / "0.png").write_bytes(b"no pixel is read")
        return tmp_path / folder

    study = replace(tiny, changes=tiny.changes | {"data.name": "folder"})
    recipe = study.recipe("plain", 0).override({"data.root": tree("one", "ant", "bee")})
    record = made(study, "plain", 0, [10.0], recipe=json.loads(add_sources(recipe, {}).to_json()))
    put(study, record)
    assert list(find_records(study, **places, root=tmp_path / "one")) == [("plain", 0)]
    assert list(find_records(study, **places, root=tree("same", "ant", "bee"))) == [("plain", 0)]
    assert list(find_records(study, **places, root=tree("other", "ant", "cat"))) == []
    assert list(find_records(study, **places, root=tmp_path / "gone")) == [("plain", 0)]  # a report needs no images
    named = replace(tiny, changes=tiny.changes | {"data.name": "same"})
    assert find_mismatch(named, record, tmp_path) is None and find_mismatch(replace(named, changes=tiny.changes), record)


def test_the_first_difference_of_two_records(tiny, made):
    old = made(tiny, "plain", 0, [10.0, 20.0])
    assert find_first_difference(old, made(tiny, "plain", 0, [10.0, 20.0], seconds=1.0)) is None
    now = made(tiny, "plain", 0, [10.0, 20.5])
    assert "step 20: val_top1 was 20.0, is 20.5" in find_first_difference(old, now)
    assert "it was made with" not in find_first_difference(old, now)
    assert "made with CPU, 1 thread, 0.1.0, 2.11.0" in find_first_difference(old, replace(now, device="NVIDIA H200"))
    assert find_first_difference(old, made(tiny, "plain", 0, [10.0])) is not None
    assert find_first_difference(made(tiny, "plain", 0, [10.0]), old) is not None


def test_what_is_no_record_is_named(tiny, made, places):
    with pytest.raises(UserError, match="records .*tiny.csv is missing. Make it with python -m spvit_experiments study tiny"):
        read_records("tiny", places["results"])
    (places["results"].parent / "file").touch()
    with pytest.raises(UserError, match="the folder .*file/results cannot be created .Not a directory.. Name another"):
        write_runs("tiny", places["results"].parent / "file" / "results", [])
    write_runs("tiny", places["results"], [made(tiny, "plain", 0, [10.0])])
    with (places["results"] / "tiny.jsonl").open("a") as file:
        file.write('{"arm": "pl')
    with pytest.raises(UserError, match="tiny.jsonl, line 2 is not a record of a study"):
        read_runs("tiny", places["results"])


@pytest.mark.parametrize("name", list_studies())
def test_the_records_of_every_study_are_complete_or_not_begun(name, tmp_path):
    study, held = get_study(name), read_runs(name, RESULTS)
    if held:
        study = resolve_tuning(study)  # its tuning is recorded, and is what it was run with
    assert len(held) == len(find_records(study, results=RESULTS, runs=tmp_path)), "some were made by another recipe"
    assert len(held) in (0, len(study.runs()))
    if held:
        write_runs(name, tmp_path, held)
        for end in ("csv", "jsonl"):
            assert (tmp_path / f"{name}.{end}").read_text() == (RESULTS / f"{name}.{end}").read_text()


def test_rows_of_a_record_are_read_by_name():
    last = [row for row in read_records("lesson_00") if row["step"] == 240]
    finals = {arm: [row["val_top1"] for row in last if row["arm"] == arm] for arm in ("vit_mini", "spvit_mini")}
    assert round(paired(finals["spvit_mini"], finals["vit_mini"]).mean, 2) == 84.46
