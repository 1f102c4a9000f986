"""The problem sets: parts that exist, points and minutes that add up, rubrics, and the numbers in model answers."""

import math
import re

import pytest
import torch

import spvit_mini
from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.problem_sets import SETS, Part, Question
from spvit_course.lesson import PROFILES, Lesson
from spvit_course.lessons import grading, lesson_files, read
from spvit_experiments.records import RESULTS, read_runs
from spvit_experiments.statistics import paired
from spvit_mini.attention import SPSA
from spvit_mini.explain.attribution import nonlocality
from spvit_mini.geometry import offsets, pair_offsets, spread
from spvit_mini.spatial import Quadratic, SquareWindow, resize_table

QUESTIONS = {part.name: part for one in SETS.values() for part in one.parts if isinstance(part, Question)}
each_set = pytest.mark.parametrize("one", SETS.values(), ids=list(SETS))
each_question = pytest.mark.parametrize("question", QUESTIONS.values(), ids=list(QUESTIONS))


def parts(one) -> list[Part]:
    return [part for part in one.parts if isinstance(part, Part)]


def points_of(lessons: dict, part: Part) -> int:
    """Find how many points a lesson's check gives."""
    return next(p for p in lessons[part.lesson] if p["grade_id"] == f"check-{part.exercise}")["points"]


@pytest.fixture(scope="module")
def lessons() -> dict[str, list[dict]]:
    return {path.name[:2]: [grading(cell) for cell in read(path).cells if grading(cell)] for path in lesson_files()}


# Shape ------------------------------------------------------------------------------------------------------------------


def test_there_are_four_sets_and_a_project():
    assert list(SETS) == ["set_1", "set_2", "set_3", "set_4", "project"]
    assert all(name == one.name for name, one in SETS.items())


@each_set
def test_every_part_is_an_exercise_of_its_lesson(one, lessons):
    for part in parts(one):
        assert part.exercise in [cell["grade_id"] for cell in lessons[part.lesson] if cell["solution"]]
    numbers = [part.lesson for part in parts(one)]
    assert numbers == sorted(numbers), "the lessons come in order, each begun once"


def test_sets_keep_to_their_lessons_and_share_no_exercise():
    ranges = {"set_1": "01 02 03", "set_2": "04 05", "set_3": "06 07", "set_4": "08 09 10", "project": "10"}
    for name, one in SETS.items():
        assert {part.lesson for part in parts(one)} <= set(ranges[name].split())
        assert one.after == f"after lesson {ranges[name].split()[-1]}"
    exercises = [part.exercise for one in SETS.values() for part in parts(one)]
    names = [*exercises, *QUESTIONS]
    assert len(names) == len(set(names))


POINTS = {  # from checks, from people, minutes
    "set_1": (8, 10, 120),
    "set_2": (9, 11, 135),
    "set_3": (7, 11, 120),
    "set_4": (10, 11, 150),
    "project": (3, 24, 480),
}


@each_set
def test_points_and_minutes(one, lessons):
    questions = [part for part in one.parts if isinstance(part, Question)]
    by_checks = sum(points_of(lessons, part) for part in parts(one))
    assert (by_checks, sum(question.points for question in questions), one.minutes) == POINTS[one.name]
    if one.name != "project":
        assert 60 <= one.minutes <= 150 and 2 <= len(parts(one)) <= 4 and 1 <= len(questions) <= 3
    else:
        assert 20 <= sum(question.points for question in questions) <= 30


@each_set
def test_a_sets_points_are_those_of_its_notebook(one):
    graded = [grading(cell)["points"] for cell in assemble(one).cells if grading(cell).get("grade")]
    assert sum(graded) == sum(POINTS[one.name][:2])


def earned(rubric: str) -> int:
    """Add up what a rubric gives: its items, "**2 points**: …" or "**1 point** each: this; that; …"."""
    total = 0
    for item in re.findall(r"^- .*(?:\n  .*)*", rubric, re.MULTILINE):
        if found := re.match(r"- \*\*(\d) points?\*\*( each)?: ", item):
            total += int(found[1]) * (item.count(";") + 1 if found[2] else 1)
    return total


@each_question
def test_a_rubrics_points_are_the_questions(question):
    if question.name == "an-abstract":  # five of any ten
        assert "1 point for each of five flaws" in " ".join(question.rubric.split()) and question.points == 5
        assert question.rubric.count("\n- ") == 10 and "**five different** flaws" in question.text
        assert len(re.findall(r"^\d\. “", question.answer, re.MULTILINE)) == 5
    else:
        assert earned(question.rubric) == question.points
    for heading, items in re.findall(r"\*\*\w+, (\d) points\*\*\n\n((?:- .*\n?(?:  .*\n?)*)+)", question.rubric):
        assert earned(items) == int(heading)


def test_the_sum_of_a_rubric_can_fail():
    assert earned("- **1 point**: a\n- **2 points**: b\n  and c\n") == 3
    assert earned("- **1 point** each: a; b; c\n") == 3


@each_question
def test_a_question_is_whole(question):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", question.name)
    assert question.text.startswith("**") and len(question.answer) > 200
    for marker in ("BEGIN SOLUTION", "MARK SCHEME", "HIDDEN TESTS", "http"):
        assert marker not in question.text + question.rubric + question.answer
    numbered = [set(re.findall(r"^(\d)\. ", text, re.MULTILINE)) for text in (question.text, question.answer)]
    if numbered[0]:
        assert numbered[1] >= numbered[0], "each numbered part is answered"


@each_set
def test_students_get_neither_rubrics_nor_answers(one):
    text = "\n".join(cell.source for cell in student_copy(assemble(one)).cells)
    for question in (part for part in one.parts if isinstance(part, Question)):
        assert question.text.strip() in text
        secret = [line.strip() for line in f"{question.rubric}\n{question.answer}".splitlines() if len(line) > 40]
        assert secret and not [line for line in secret if line in text]


@each_set
def test_what_a_task_leans_on_is_said_before_it(one):
    """Words with which a lesson's task points at its lesson are either explained in the set, or do without."""
    text = "\n".join(cell.source for cell in assemble(one).cells)
    for points_back in ("the two rules above", "The first line above", "worked out above", "is imported above", "from above"):
        if points_back in text:
            assert points_back in EXPLAINED and EXPLAINED[points_back] in text


EXPLAINED = {
    "the two rules above": "The two rules:",
    "The first line above": "“the first line above”",
    "worked out above": "the pieces are {0, 1}, {2, 3, 4} and {5, 6}",
    "is imported above": "from spvit_experiments.statistics import t_quantile",
    "from above": "imports the lesson's `pair_offsets(rows, columns)`",
}

# Numbers in model answers -----------------------------------------------------------------------------------------------


def says(name: str, *numbers: str) -> None:
    """Hold numbers against a model answer and its rubric together."""
    text = " ".join(f"{QUESTIONS[name].answer} {QUESTIONS[name].rubric}".split())
    for number in numbers:
        assert number in text, (name, number)


def test_large_scores():
    q, k = torch.randn(2, 20000, 64, generator=torch.Generator().manual_seed(0))
    scores = (q * k).sum(-1)
    assert [round((scores / by).std().item(), 1) for by in (8, 1)] == [1.0, 8.0]
    assert abs((scores / 64).std().item() - 1 / 8) < 0.01
    says("large-scores", f"log 36 = {math.log(36):.2f}", "8", "⅛")


def test_two_shuffles():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    moved = images.unflatten(2, (8, 4)).flip(2).flatten(2, 3)  # rows of patches in another order
    for positions, same in ((False, True), (True, False)):
        model = spvit_mini.create_model("vit_mini", num_classes=4, positions=positions).eval()
        if positions:
            torch.nn.init.normal_(model.positions)
        assert torch.allclose(model(images), model(moved), atol=1e-5) is same


def test_passing_test():
    places = torch.cartesian_prod(torch.arange(6), torch.arange(9))
    wrong = places[:, None] - places[None]
    lengths = pair_offsets(6, 9).double().norm(dim=-1)
    assert torch.equal(wrong.double().norm(dim=-1), lengths)
    table = torch.tensor([[10, 20, 30]])
    right = spread(table, (1, 2))
    assert (right.tolist(), right.T.tolist()) == ([[20, 30], [10, 20]], [[20, 10], [30, 20]])
    says("passing-test", "((20, 30), (10, 20))", "((20, 10), (30, 20))")


def test_larger_grid():
    table = torch.zeros(1, 13, 13)
    table[0, 6, 6 + 2] = 1.0
    larger = resize_table(table, (13, 13))[0, 12].clamp(min=0)
    assert larger.argmax() - 12 == 4
    middle = (larger * torch.arange(-12, 13)).sum() / larger.sum()
    assert abs(middle - 2 * 25 / 13) < 0.1
    says("larger-grid", f"2 · 25/13 = {2 * 25 / 13:.2f}", f"9 · 13/25 = {9 * 13 / 25:.1f}", "2/6 = 4/12", "9/12 = 4.5/6")


def test_finding():
    near = (pair_offsets(14, 14).abs() <= 2).all(-1)[7 * 14 + 7]
    share = (near * torch.zeros(196)).softmax(0)[~near].sum().item()
    large = math.log(19 * 171 / 25)
    left = (near * torch.full((196,), large)).softmax(0)[~near].sum().item()
    assert (int(near.sum()), round(left, 4)) == (25, 0.05)
    says("finding", f"171/196 = {share:.0%}".replace("%", " %"), f"log 130 = {large:.1f}")


def layers_until_heard(plan: list[torch.Tensor]) -> int:
    heard, depth = torch.eye(len(plan[0])), 0
    while not heard[0, -1]:
        heard = ((plan[depth % len(plan)].float() @ heard) > 0).float()
        depth += 1
    return depth


def pieces_crossed(plan: list[torch.Tensor]) -> str:
    """Name the piece of each layer in which news of the last patch moves as near to patch 0 as it can."""
    at, crossed = len(plan[0]) - 1, []
    while at:
        piece = plan[len(crossed) % len(plan)][at].nonzero().flatten().tolist()
        crossed.append(f"{{{piece[0]}–{piece[-1]}}}")
        at = piece[0]
    return ", ".join(crossed)


def test_who_hears():
    tiles, moved = (SquareWindow(4, shift=shift)((1, 12))[0] for shift in (0, 2))
    says("who-hears", f"first: {pieces_crossed([tiles, moved])}, so **5**", f"itself: {pieces_crossed([moved, tiles])}, so **6**")
    sliding = pair_offsets(1, 12)[..., 1].abs() <= 2
    assert [layers_until_heard(plan) for plan in ([tiles, moved], [moved, tiles], [sliding])] == [5, 6, 6]
    with_token = torch.nn.functional.pad(tiles, (1, 0, 1, 0), value=True).float()  # the token first, then the patches
    assert (with_token @ with_token)[1, 12] > 0 and with_token[1, 12] == 0
    says("who-hears", "**5**", "**6**", "**2**")


def test_read_a_head():
    grid, delta = (21, 21), offsets(21, 21).double()
    features = torch.cat([delta.square().sum(-1, keepdim=True), delta], dim=-1)
    v = torch.tensor([[-0.5, 1, -2], [-4, 0, 8], [0.1, 0, 0], [0, 0, 3]], dtype=torch.float64)
    weights = spread(torch.einsum("hk,abk->hab", v, features), grid).softmax(-1)
    middle = weights[:, 10 * 21 + 10].unflatten(-1, grid)
    assert [divmod(int(middle[h].argmax()), 21) for h in (0, 1)] == [(11, 8), (10, 11)]
    assert middle[0].max() < 0.2
    corners = middle[2][[0, 0, 20, 20], [0, 20, 0, 20]]
    assert corners.sum() > 0.5 and torch.allclose(corners, corners[:1])
    assert torch.allclose(middle[3][:, 20], middle[3][:1, 20]) and middle[3][:, 20].sum() > 0.9
    border = weights[1, 10 * 21 + 20]
    assert int(border.argmax()) == 10 * 21 + 20 and border.max() > 0.9
    says("read-a-head", f"{middle[1].max():.0%}".replace("%", " %"), "(1, −2)", "(0, 1)")


def test_one_line():
    def share(score):
        positions = torch.full((1, 36, 36), score, dtype=torch.float64)
        return torch.nn.functional.pad(positions, (1, 0)).softmax(-1)[0, 0, 0].item()

    says("one-line", f"1/37 = {share(0.0):.1%}".replace("%", " %"), f"{share(-5.0):.0%}".replace("%", " %"))


def test_three_heads():
    hill, everywhere = (
        nonlocality(weights.double(), (6, 6))[0].item()
        for weights in (Quadratic(4)((6, 6)).softmax(-1).detach(), torch.full((1, 36, 36), 1 / 36))
    )
    assert (round(hill, 2), round(everywhere, 2)) == (0.90, 3.08)
    assert abs(pair_offsets(6, 6).double().norm(dim=-1).max().item() - 7.1) < 0.05
    a, c = (share * 0.90 + (1 - share) * 3.08 for share in (0.35, 0.10))
    far = (2.60 - 0.74 * 0.90) / 0.26
    says("three-heads", f"= {a:.2f}. Head 3", f"= {c:.2f}", f"{0.65 * 3.08:.1f}", f"{far:.1f} patches far")
    assert far > 7.1


def test_factor_or_bias():
    log2 = math.log(2)
    S, f, g = (torch.tensor(x).double() for x in ((1, 0, -1), (1, 1, 3), (0, 0, 2)))
    expected = {0: [(4, 2, 1), (16, 8, 1), (2, 1, 2)], 2: [(4, 2, 1), (2, 1, 2), (2, 1, 2)]}
    for common, rows in expected.items():
        scores = (S + common) * log2
        for row, found in zip(rows, (scores, f * scores, scores + g * log2), strict=True):
            assert torch.allclose(found.softmax(0), torch.tensor(row).double() / sum(row))
    says("factor-or-bias", "(4, 2, 1)/7", "(16, 8, 1)/25", "(2, 1, 2)/5")


def test_zero_start():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8, dtype=torch.float64)

    def moved(change: dict[str, float], steps: int) -> list[set[str]]:
        layer, found = SPSA(8, 2, 4).double(), []
        for name, value in change.items():
            torch.nn.init.constant_(getattr(layer.spatial, name), value)
        for _ in range(steps):
            layer.zero_grad()
            layer(x, (2, 3)).square().sum().backward()
            found.append({name for name, p in layer.named_parameters() if p.grad.abs().max() > 1e-12})
            queries = layer.qkv.weight.grad[:16].abs().max()  # rows of queries and keys
            found[-1] |= {"queries and keys"} if queries > 1e-12 else set()
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter -= 1e-2 * parameter.grad
        return found

    first, second = moved({"w2": 0.0, "b2": 0.0}, 2)
    assert first == {"spatial.w2", "spatial.b2", "qkv.weight", "proj.weight", "proj.bias"}  # of qkv, the values alone
    assert {"spatial.w1", "spatial.b1", "queries and keys"} <= second
    stuck = moved(dict.fromkeys(("w1", "b1", "w2", "b2"), 0.0), 3)
    assert all({"spatial.w1", "spatial.b1", "spatial.w2"}.isdisjoint(found) and "spatial.b2" in found for found in stuck)


def test_the_models_comparison_is_what_its_record_says():
    answer = QUESTIONS["comparison"].answer
    rows = re.findall(r"^\| (multiplied|added) \| ([\d., ]+) \| (\d) of 5", answer, re.MULTILINE)
    record = {arm: [float(value) for value in values.split(",")] for arm, values, _ in rows}
    assert {arm: sum(value >= 90 for value in record[arm]) for arm in record} == {arm: int(n) for arm, _, n in rows}
    gain = paired(record["multiplied"], record["added"])
    says("comparison", f"is {gain.mean:+.1f} points, 95 % interval {gain.low:.1f} to {gain.high:+.1f}, n = 5".replace("-", "−"))
    scatter = torch.tensor(record["multiplied"]).sub(torch.tensor(record["added"])).std().item()
    pairs = round(2 + 8 * (round(scatter, 1) / round(gain.mean, 1)) ** 2)
    says("comparison", f"scatter by {scatter:.1f} points", f"({scatter:.1f}/{gain.mean:.1f})² ≈ {pairs} pairs")
    recorded = [run.final for run in read_runs("variants_compass6", RESULTS) if run.arm == "psa"]
    assert [f"{value:.1f}" for value in (min(recorded), max(recorded))] == ["99.6", "100.0"]


# The project's code -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_projects_code_runs_as_it_stands(capsys):
    code = re.search(r"```python\n(.*?)```", QUESTIONS["comparison"].text, re.DOTALL)[1]
    space = {"lesson": Lesson("10", PROFILES["smoke"])}
    exec(code, space)
    told, record = capsys.readouterr().out.splitlines()
    assert told.startswith("multiplied, 0: (2, ") and " parameters, " in told
    assert list(eval(record)["multiplied"][0][0])[0] == 2
