"""Write the page of results: the papers' claims, and beside each what our records say.

    python -m spvit_experiments results            writes docs/results.md and the figures in docs/results/
    python -m spvit_experiments results --check    says whether docs/results.md is what the records give; exit status 1 if not

Every number on the page is computed from data/results/; none is typed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spvit_mini.cli.arguments import parse
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError

from . import get_study, result_sections
from .claims import AGREES, CLAIMS, CONTRADICTS, OPEN, Claim, Comparison, difference, verdict
from .core_studies import EVIDENCE
from .design import TUNING
from .large_studies import LARGE
from .records import RESULTS, ROOT, read_runs, recorded
from .statistics import Difference
from .study import Arguments as StudyArguments
from .study import settled

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
    """What the command line says."""

    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write nothing; say whether the page is what the records give."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv, default=Arguments(), prog=PROGRAM, description=__doc__)
    page = make_page()
    if arguments.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print(f"{PAGE.name} {'is what the records give' if same else f'is out of date; {PROGRAM} writes it anew'}")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    draw_figures(PAGE.with_suffix(""))
    return 0


def make_page() -> str:
    """Compute the whole page as Markdown."""
    parts = [HEAD, *verdicts(), "## Every study, every seed\n"]
    for name in shown():
        parts.append(study_section(name))
    parts.append("## What models look at, other grids, binarised priors\n")
    parts += result_sections.sections()
    unfinished = [study.name for study in (*EVIDENCE, *LARGE) if study.name not in shown()]
    if unfinished:
        parts.append(NOT_RUN + "\n".join(f"- `{name}`: {get_study(name).question}" for name in unfinished) + "\n")
    parts.append(cost())
    return "\n".join(parts)


def cost() -> str:
    """Say what all runs on this page cost together."""
    runs = [record for name in shown() for record in load(name)[1].values()]
    runs += [record for name in shown() if get_study(name).tuning for record in read_runs(name + TUNING, RESULTS)]
    hours = sum(record.seconds * record.threads for record in runs) / 3600
    return f"## What it cost\n\n{len(runs):,} runs, tuning counted, in {hours:.1f} hours of a CPU core, beside other work.\n"


def shown() -> list[str]:
    """Name the studies that are recorded whole, in their order."""
    names = [study.name for study in (*EVIDENCE, *LARGE)] + ["lesson_07"]
    return [name for name in names if len(load(name)[1]) == len(get_study(name).runs())]


def load(name: str) -> tuple:
    """Find a study, settled by its tuning, and its records; none while its tuning is not recorded."""
    arguments = StudyArguments(out=RESULTS, runs=Path("none"))
    try:
        study = settled(get_study(name), arguments)
    except UserError:
        return get_study(name), {}
    return study, recorded(study, results=RESULTS, runs=arguments.runs)


def verdicts() -> list[str]:
    """Lay the claims out by what came of them: contradicted ones first, then those that are open."""
    rows = {word: [] for word in ORDER}
    for claim in CLAIMS:
        for comparison in claim.comparisons:
            if (row := claim_row(claim, comparison)) is not None:
                rows[row[0]].append(row[1])
    for says, source, name, arms, found, digits in result_sections.comparisons():
        cells = [says, source, f"[{name}](#{name})", f"{arms}, n = {found.pairs}", interval(found, digits), "–"]
        rows[verdict(found)].append(line_of(cells))
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

Those named `large_…` ask for an accelerator; none was at hand. Each is made by `python -m spvit_experiments study NAME-tuning` and then
`python -m spvit_experiments study NAME`, with `--max-minutes 9` in as many pieces as one likes.

"""
TABLE_HEAD = (
    "| the claim | its source | study | arms | at the end | over the run |\n"
    "|---|---|---|---|---|---|\n"
)


def claim_row(claim: Claim, comparison: Comparison) -> tuple[str, str] | None:
    """Make a claim's row for one comparison, behind its verdict; None while records are missing."""
    study, records = load(comparison.study)
    end = difference(comparison, study, records, "final")
    run = difference(comparison, study, records, "run")
    if end is None or run is None:
        return None
    arms = f"{comparison.better} − {comparison.worse}, n = {end.pairs}"
    cells = [claim.says, claim.source, f"[{comparison.study}](#{comparison.study})", arms, interval(end), interval(run)]
    return verdict(end), line_of(cells)


def interval(found: Difference, digits: int = 1) -> str:
    """Write a mean difference with its interval."""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def line_of(cells: list[str]) -> str:
    """Write a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def study_section(name: str) -> str:
    """Show a study: its figure, the report's table, and the command that makes it again."""
    from . import report

    study, records = load(name)
    commands = [f"python -m spvit_experiments study {study.name}-tuning"] if study.tuning else []
    commands.append(f"python -m spvit_experiments study {study.name}")
    picture = f"![{study.question} Every seed of each arm over the training steps, and where each ended.](results/{name}.png)"
    return f"### {name}\n\n{picture}\n\n{report.table(study, records)}\n\n    {' && '.join(commands)}\n"


def draw_figures(folder: Path) -> None:
    """Draw the figure of every study that is recorded."""
    import matplotlib.pyplot as plt

    from . import report

    folder.mkdir(exist_ok=True)
    figures = result_sections.draw()
    for name in (*shown(), *figures):
        figure = figures.get(name) or report.figure(*load(name))
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    run_program(main)
