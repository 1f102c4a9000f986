"""The project's two questions: a plan that is written before the runs, and the comparison itself.

The code in the task runs as it stands; the model answer's numbers came of it (recipe and seeds as said there).
"""

from .questions import Question

PLAN = Question(
    name="plan",
    points=6,
    text=r"""**The plan, before any run.** You will compare two arms (or three) of your own. Each is a spatial **map**,
a **way** into attention and a **start**: `spvit_mini.attention_registry.attention_names()` lists what can be built
(docs/variants.md in the repository says what each is). Leave out what lessons 07 to 10 already answer. Write down, in
at most 250 words:

1. the question in one sentence, and which of map, way and start differs between the arms;
2. the task, the level that counts as solved, and why this task can tell;
3. how each arm gets its learning rate: the candidates, the images on which they are compared, the seeds;
4. the seeds of the comparison, five or more, and what counts for a run that diverges;
5. your claim: which arm will be ahead, by roughly how much, why; and which outcome would speak against it;
6. the strongest simple rival that you know of (is it an arm? why not?), and the minutes that all runs will take.

What is written here stays as it is when the runs are done. A claim that proves wrong costs nothing.""",
    rubric=r"""One point for each of the six, if it is there, definite, and written so that it can be checked against
the runs:

- **1 point**: a question that a run can answer; one thing differs, or it is said why more than one must.
- **1 point**: task and level named, and a reason why neither chance nor 100 % will hide the difference.
- **1 point**: the same candidates for each arm, compared on images or seeds that the comparison does not use. (One
  fixed rate for all, with the reason, counts.)
- **1 point**: five or more seeds by number, and a rule for failed runs.
- **1 point**: a direction, a rough size, a reason, and an outcome that would contradict.
- **1 point**: a simple rival that is no straw man, and a time that was measured on one run.""",
    answer=r"""1. Does a linear prior, f = w · δ + b, need the product? Arms: `linear/multiplicative` and `linear/additive`.
   The map is the same, both start neutral (f = 1 as a factor, 0 as an addend); the way in differs.
2. Compass-6, eight directions, chance 12.5 %; solved means 90 %. A plane in δ can say “to the right”, so both ways
   have what they need, and lesson 10 has the multiplied form at the level on all seeds: there is room below.
3. One rate for both, 0.008: it is what lesson 10's tuning chose for the multiplied form. So if the rate favours a
   side, it is that one, and I will not say of the added form that it is behind. No tuning of my own.
4. Seeds 0 to 4; 2,000 images, 240 steps, scored on 500. A run that diverges counts as 0 %.
5. Claim: no more than 5 points between them, since a query's scores have a part in common that turns a factor into a
   bias. Against it: an interval of the paired difference that lies wholly beyond ±5.
6. PSA, a quadratic that is added from a local start. It is no arm, since its record on the same images, seeds and
   steps is there: `variants_compass6`, five of five solved. A run takes under half a minute; ten runs, five minutes.""",
)

COMPARISON = Question(
    name="comparison",
    points=18,
    text=r"""**The comparison.** Do what the plan says, in cells of your own below this one, and write the report here.
All runs together may take an hour of a laptop. This is enough to make them; an arm is what it changes in the recipe of
a plain ViT:

```python
def run(arms, seeds, **others):
    "Train each arm with each seed; give the curve of each run: record[arm][seed] = [(step, accuracy), …]."
    record = {arm: {} for arm in arms}
    for seed in seeds:
        for arm, changes in arms.items():
            options = {"data.val_images": 500, "evaluate_every": "20 steps", **others, **changes}
            made = lesson.train("vit_mini_compass6", seed=seed, changes=options, progress=False)
            record[arm][seed] = [(row["step"], round(row["val_top1"], 2)) for row in made.rows]
            parameters = sum(weight.numel() for weight in made.model.parameters())
            print(f"{arm}, {seed}: {record[arm][seed][-1]}, {parameters} parameters, {made.rows[-1]['seconds']:.1f} s")
    return record


arms = {"multiplied": {"model.attention": "linear/multiplicative", "optim.lr": 8e-3}}
print(run(arms, seeds=[0]))
```

Grading runs your notebook anew, in a form of two steps a run. So **put what `run` prints into a cell**,
`record = {…}`, let figure and table be made from that, and turn the line that calls `run` into a comment. (In a copy
of the repository you may add a study to `spvit_experiments/core_studies.py` instead, and make it by
`python -m spvit_experiments study NAME`.)

The report, at most 500 words, with: a figure of every seed; for each arm the share that solved the task, the steps to
the level, parameters and time of a step; the paired difference with its 95 % interval; what became of your claim; what
the runs do not say.""",
    rubric=r"""**Runs, 4 points**

- **2 points**: two arms or more, each with the same five seeds or more, as planned, with the tuning as planned. (1
  point if one of these was changed and the change is told; 0 if it isn't told.)
- **1 point**: the record stands in the notebook, and figure and table are made from it when it runs anew.
- **1 point**: recipe, changes, seeds, device and versions are told, so that somebody else can repeat it.

**Figure, 4 points**

- **1 point** each: every seed is visible; axes with units, chance and the level marked; arms told apart without colour
  too; a title or caption that says the finding.

**Numbers, 4 points**

- **2 points**: the mean paired difference with its interval, unit and number of pairs, the right numbers for the
  record. (1 point if one of the three is missing.)
- **1 point**: for each arm the share of runs that solved the task, and steps to the level (a run that never did counts
  as never).
- **1 point**: cost of each arm: parameters and time of a step, measured side by side.

**Words, 6 points**

- **1 point**: the claim is put beside the outcome as it was written, confirmed, contradicted or left open by the rule
  of the plan.
- **1 point**: “not told apart” is not turned into “equal”, nor a mean of two humps into a typical run.
- **1 point**: nothing is credited to the map that the way, the start or the rate may have done.
- **1 point**: for which task, size, budget and tuning this holds.
- **1 point**: what failed, lost or looked odd is told (or it is said that nothing did, and the record agrees).
- **1 point**: the next experiment that would settle the largest doubt, with its number of pairs.""",
    answer=r"""**Finding.** On Compass-6 the linear prior solved five of five runs as a factor and three of five as an
addend; five pairs don't tell the two apart: multiplied − added is +5.7 points, 95 % interval −5.3 to +16.6, n = 5.

| arm | accuracy after 240 steps, seeds 0 to 4 (%) | at 90 % or above | first step at 90 % | parameters | a step |
|---|---|---|---|---|---|
| multiplied | 99.6, 96.6, 99.6, 100.0, 96.2 | 5 of 5 | 100, 200, 80, 120, 200 | 42,224 | 29 ms |
| added | 100.0, 87.6, 99.6, 100.0, 76.4 | 3 of 5 | 100, never, 140, 120, never | 42,224 | 31 ms |

*Runs.* Recipe `vit_mini_compass6` with `model.attention` = `linear/multiplicative` or `linear/additive`, `optim.lr` 0.008,
`data.val_images` 500, seeds 0 to 4 for both, one CPU core, torch 2.15. All as planned. A step is forward and backward
for 100 images, processor time, the two arms in turns. (The figure, in the cell below: accuracy over steps, a thin line
for each of ten runs, solid and dashed, with the levels 12.5 and 90 %; its title is the finding's first half.)

*The claim* was “no more than 5 points between them”, and that an interval wholly beyond ±5 would contradict it. The
interval holds 0, and 5, and 16. So it is neither confirmed nor contradicted: it is open. I had not expected that runs
of the added form would fail to get to the level at all: with the seeds 1 and 4 it was still on its way, at 87.6 and
76.4 %. The factor was slowest with the same two seeds (step 200 both times), so those draws seem hard for either.

*What this doesn't say.* That adding is worse: five pairs with two that differ by 9 and 20 points, and an interval that
Student's t gives for a bell which these aren't. That they are equal. The rate was tuned for the multiplied form alone;
with another rate, or 480 steps, the added one may get there on all seeds. Map and start were the same on both sides,
so neither is at issue here. PSA's record on the same images and seeds (99.6 to 100.0, five of five) says that the sum
as such is no hindrance. All this is for one made task, two blocks of width 48, 2,000 images.

*Next:* rates 0.004, 0.008, 0.016 for both on held-out images, then as many pairs as lesson 10's rule asks: differences
scatter by 8.8 points, so a true difference of 5.7 takes 2 + 8 · (8.8/5.7)² ≈ 21 pairs, ten minutes of a laptop.""",
)
