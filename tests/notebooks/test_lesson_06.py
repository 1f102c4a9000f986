"""Lesson 06 says of its records what they hold."""

import re
from pathlib import Path

from spvit_course.lessons import lesson_files, read
from spvit_experiments import get_study
from spvit_experiments.records import read_runs

RESULTS = Path(__file__).parents[2] / "data" / "results"


def test_textures_are_learned_with_peg_on_every_seed_and_without_it_on_none():
    finals = {}
    for record in read_runs("lesson_06", RESULTS):
        finals.setdefault(record.arm, []).append(record.final)
    study = get_study("lesson_06")
    assert {arm: len(values) for arm, values in finals.items()} == dict.fromkeys(study.arms, len(study.seeds))
    able, unable = finals["peg"] + finals["both"], finals["positions"] + finals["neither"]
    assert min(able) > 99 and max(unable) < 30

    (path,) = (path for path in lesson_files() if path.name.startswith("06"))
    text = " ".join(" ".join(cell.source for cell in read(path).cells).split())
    said = re.search(r"every seed ended between ([\d.]+) % and ([\d.]+) %; .*? between ([\d.]+) % and ([\d.]+) %", text)
    assert [float(number) for number in said.groups()] == [min(able), max(able), min(unable), max(unable)]
