"""Studies: the same question put to several recipes with several seeds, their records, and what the numbers say.

    design.py      what a study is: arms, seeds, and equal tuning
    grids.py       the studies by name; those of lessons
    evidence.py    those that ask what a learned prior is worth
    large.py       the same at a size that asks for an accelerator
    running.py     its runs, one after the other or side by side
    records.py     what is kept of them in data/results/
    statistics.py  paired differences, steps to a level
    report.py      a table and a figure of every seed

The program is `python -m spvit_experiments study`.
"""

from .catalog import get_study, list_studies
from .design import Arm, Study
from .records import read_records
from .statistics import paired, steps_to

__all__ = ["Arm", "Study", "get_study", "list_studies", "paired", "read_records", "steps_to"]
