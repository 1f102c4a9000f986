"""Write the page of results: the claims of the papers, and the outcome of our records for each.

    python -m spvit_experiments results            write docs/results.md and the figures in docs/results/
    python -m spvit_experiments results --check    check that docs/results.md agrees with the records; exit status 1 if not

Every number on the page is computed from data/results/.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spvit_mini.cli.arguments import parse
from spvit_mini.errors import UserError

from . import result_sections
from .catalog import get_study
from .claims import AGREES, CLAIMS, CONTRADICTS, OPEN, Claim, Comparison, compute_difference, verdict
from .core_studies import CORE_STUDIES
from .large_studies import LARGE_STUDIES
from .records import RESULTS, ROOT, Record, find_records, read_runs
from .statistics import format_interval
from .study import TUNING, Study
from .study_command import resolve_tuning

PROGRAM = "python -m spvit_experiments results"
PAGE = ROOT / "docs" / "results.md"
ORDER = (CONTRADICTS, OPEN, AGREES)
HEAD = """# Results: does a learned prior help, when, and by how much?

This page is written by `python -m spvit_experiments results` from the records in `data/results/`; a test compares the two.

What stands here was measured with small models (two to four blocks, 40,000 to 230,000 parameters) on small sets of images.
So it says what these parts do at this size, and nothing else. The papers' numbers come from ImageNet and three hundred
epochs: where our outcome differs, the size is the first suspect. Nothing here was run on ImageNet or on an accelerator.

**Sets.** Compass-6: which way is the ship from the lighthouse, eight directions on 6 × 6 patches (chance 12.5 %).
Textures-6: which of four textures, of which a bag of patches tells nothing (25 %). Rings-6: how far is the ship, three
distances (33.3 %). All are made, 2,000 images each. CIFAR-10: 250 photographs of each class (10 %). Flowers17: 40 photographs
of each kind (5.9 %).

**Which set for which question.** Compass-6 is solved by looking in a direction and by nothing else, and a run takes ten
seconds: it serves where a part of SP-SA is varied (`init`, `hidden`, `sharing`, `depth`, `parts`, `low_data`, `sparse`), and,
since the places that count are known, where maps are held against them (`looking`, `resolution`). Textures-6 is solved by
neighbours: it serves ConViT's parts (`lesson_07`). Rings-6 asks for a distance in whatever direction, of which a smooth map
knows nothing at first. What photographs ask for is not known; they serve `variants` alone.

**Effort.** In `variants_…` and `convergence…` each arm's learning rate is the best of the same few, chosen with one seed
of its own (CIFAR-10: three) on images held out of the training part; the test images were not looked at for that. In the
other studies all arms share a rate (0.004; `rates_cifar10`: two, side by side). Five seeds; all arms with one seed see the
same images in the same order.

**A warning.** That effort is not enough where candidates lie close together. On CIFAR-10 two rates of PSA can hardly be told
on the held-out images, and the test images like the one better that was not taken. Against PSA with that one (`rates_cifar10`)
no learned prior is told above it, and SP-SA is told below: what the tables say of CIFAR-10 and PSA hangs on this choice.

**Reading.** A difference is the mean over pairs, with Student's 95 % interval, in points of accuracy. *At the end*: after
the last step, by which the verdict is made. *Over the run*: of the mean accuracy over all evaluations, which tells arms
apart by their speed when all of them arrive. An interval that holds 0 is called *not distinguishable*, whatever its
middle says; about one in twenty intervals of equal arms misses 0 by chance, and there are many here. Times per step were
taken while other work ran beside: compare costs by `python -m spvit_experiments benchmark`.
"""


@dataclass(frozen=True)
class Arguments:
    """The options of the command."""

    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only check that the page agrees with the records."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv, default=Arguments(), prog=PROGRAM, description=__doc__)
    page = make_page()
    if arguments.check:
        is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8-sig") == page
        print(f"{PAGE.name} {'agrees with the records' if is_current else f'is out of date; write it with {PROGRAM}'}")
        return 0 if is_current else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    draw_figures(PAGE.with_suffix(""))
    return 0


def make_page() -> str:
    """Compute the whole page as Markdown."""
    names = list_finished()
    parts = [HEAD, *verdict_sections(), "## Every study, every seed\n", *map(study_section, names)]
    parts.append("## What models look at, other grids, binarised priors\n")
    parts += result_sections.make_sections()
    unfinished = [study.name for study in (*CORE_STUDIES, *LARGE_STUDIES) if study.name not in names]
    if unfinished:
        parts.append(NOT_RUN + "\n".join(f"- `{name}`: {get_study(name).question}" for name in unfinished) + "\n")
    parts.append(cost_section(names))
    return "\n".join(parts)


def cost_section(names: list[str]) -> str:
    """Make the section on the cost of all runs on the page."""
    runs = [record for name in names for record in load_study(name)[1].values()]
    runs += [record for name in names if get_study(name).tuning for record in read_runs(name + TUNING, RESULTS)]
    hours = sum(record.seconds * record.threads for record in runs) / 3600
    return f"## What it cost\n\n{len(runs):,} runs, tuning counted, in {hours:.1f} hours of a CPU core, beside other work.\n"


def list_finished() -> list[str]:
    """List the names of the studies on the page: those whose runs all have a record."""
    names = [study.name for study in (*CORE_STUDIES, *LARGE_STUDIES)] + ["lesson_07"]
    return [name for name in names if len(load_study(name)[1]) == len(get_study(name).runs())]


@functools.cache
def load_study(name: str) -> tuple[Study, dict[tuple[str, int], Record]]:
    """Load a study, with its tuned options, and its records; no records while its tuning is not recorded."""
    try:
        study = resolve_tuning(get_study(name))
    except UserError:
        return get_study(name), {}
    return study, find_records(study, results=RESULTS, runs=Path("none"))


def verdict_sections() -> list[str]:
    """Make the tables of claims by verdict: contradicted claims first, then open ones."""
    rows = {word: [] for word in ORDER}
    for claim in CLAIMS:
        for comparison in claim.comparisons:
            if (row := claim_row(claim, comparison)) is not None:
                rows[row[0]].append(row[1])
    for says, source, name, arms, difference, digits in result_sections.list_comparisons():
        interval = format_interval(difference, digits)
        cells = [says, source, f"[{name}](#{name})", f"{arms}, n = {difference.pairs}", interval, "–"]
        rows[verdict(difference)].append(table_row(cells))
    parts = []
    for word in ORDER:
        parts.append(f"## {TITLES[word]} ({len(rows[word])} of {sum(map(len, rows.values()))} comparisons)\n")
        if rows[word]:
            parts.append(TABLE_HEAD + "\n".join(rows[word]) + "\n")
    return parts


TITLES = {
    CONTRADICTS: "Where our outcome contradicts the claim",
    OPEN: "Not distinguishable here",
    AGREES: "Where our outcome agrees",
}
NOT_RUN = """## Not run yet

Those named `large_…` ask for an accelerator; none was at hand. Each is made by
`python -m spvit_experiments study NAME-tuning` and then
`python -m spvit_experiments study NAME`, with `--max-minutes 9` in as many pieces as one likes.

"""
TABLE_HEAD = "| the claim | its source | study | arms | at the end | over the run |\n|---|---|---|---|---|---|\n"


def claim_row(claim: Claim, comparison: Comparison) -> tuple[str, str] | None:
    """Make the verdict and the table row of a claim's comparison; None while records are missing."""
    study, records = load_study(comparison.study)
    end = compute_difference(comparison, study, records, "final")
    run = compute_difference(comparison, study, records, "run")
    if end is None or run is None:
        return None
    arms = f"{comparison.better} − {comparison.worse}, n = {end.pairs}"
    link = f"[{comparison.study}](#{comparison.study})"
    return verdict(end), table_row([claim.says, claim.source, link, arms, format_interval(end), format_interval(run)])


def table_row(cells: list[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def study_section(name: str) -> str:
    """Make the section of a study: its figure, its table, and the command that makes its records."""
    from . import report

    study, records = load_study(name)
    figure = f"![{study.question} Every seed of each arm over the training steps, and where each ended.](results/{name}.png)"
    return f"### {name}\n\n{figure}\n\n{report.make_table(study, records)}\n\n    {' && '.join(study.commands())}\n"


def draw_figures(folder: Path) -> None:
    """Draw the figures of the page."""
    import matplotlib.pyplot as plt

    from . import report

    folder.mkdir(exist_ok=True)
    figures = result_sections.draw_figures()
    for name in (*list_finished(), *figures):
        figure = figures.get(name) or report.draw_figure(*load_study(name))
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)
        print(folder / f"{name}.png")
