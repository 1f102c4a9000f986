"""Studies of spatial priors with their records, the pages written from the records, and benchmarks.

    study.py            Study and Arm: recipes with changes, seeds, and equal tuning for every arm
    catalog.py          all studies by name; `register_study` adds one
    lesson_studies.py   the studies of the lessons and of the demo
    core_studies.py     the studies that fit a CPU: the value of a learned prior, part by part
    large_studies.py    the same questions at a size that needs an accelerator
    study_command.py    command `study`: run, resume, report and verify a study
    runner.py           the runs of a study, each in a process of its own
    records.py          records of finished runs in data/results/
    statistics.py       paired differences with an interval, steps to a level
    report.py           the table and the figure of a study, with every seed
    claims.py           claims of the papers, and the comparisons that test them
    results.py          command `results`: docs/results.md, written from the records
    result_sections.py  its sections on explanations, heads, other grids and binarised priors
    explanations.py     command `explanations`: do explanations find the relevant patches?
    heads.py            command `heads`: gates and nonlocality of heads during training
    sparsity.py         command `sparsity`: accuracy with binarised priors
    speed.py            command `speed`: time and memory of single layers and of the minis, for lesson 13
    overview.py         command `overview`: one figure with the attention of every variant
    demo.py             command `demo`: vit_mini and spvit_mini trained side by side
    benchmark/          command `benchmark`: speed and memory, and docs/speed.md

The names below are imported on first use (PEP 562), so that `python -m spvit_experiments --help` needs no torch.
"""

from importlib import import_module

_MODULES = {
    "catalog": ("get_study", "list_studies", "register_study"),
    "records": ("read_records",),
    "statistics": ("paired", "steps_to"),
    "study": ("Arm", "Study"),
}
__all__ = ["Arm", "Study", "get_study", "list_studies", "paired", "read_records", "register_study", "steps_to"]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
