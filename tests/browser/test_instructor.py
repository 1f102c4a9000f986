"""What an instructor does in JupyterLab: open the formgrader, see a graded submission, read an answer, give it points.

And what anybody does with the course's pages: open them from the folder that they lie in, and search.
"""

import csv
import itertools
import re
import sys
from pathlib import Path

import pytest

from spvit_course.classroom.grading import grade, release
from spvit_course.classroom.problem_sets import SETS, Part, ProblemSet, Question
from spvit_course.classroom.site import build_site
from spvit_course.files import write_text
from spvit_course.lessons import ROOT, grading, read, text_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:myst_parser.sphinx_ext.myst_refs"),
]

ANSWER = "A score times one is the score."
SMALL = ProblemSet(
    name="small",
    title="A small set",
    minutes=10,
    after="after lesson 03",
    about="A ruler, and a word on it.",
    parts=(
        Part("03", "offsets"),
        Question("why_one", 3, "Why is 1 the neutral value of a map that multiplies?", "- **3 points**: says why", ANSWER),
    ),
)


# The fields save what is typed into them once the page has loaded the points and comments that are there.
LOADED = """() => {
    const grader = document.querySelector("iframe[src*='formgrader']").contentWindow.formgrader;
    return grader?.grades?.loaded && grader?.comments?.loaded;
}"""


@pytest.fixture
def classroom(tmp_path, monkeypatch):
    """A class with one set and one student, who has solved all of it; the check is graded, the answer is not read yet."""
    monkeypatch.setitem(SETS, SMALL.name, SMALL)
    room = tmp_path / "classroom"
    handed_out = read(release(SMALL.name, classroom=room))
    for cell, solved in zip(handed_out.cells, read(room / "source" / "small" / "small.ipynb").cells, strict=True):
        if grading(cell).get("solution"):
            cell.source = solved.source
    handed_in = room / "submitted" / "ada" / "small" / "small.ipynb"
    handed_in.parent.mkdir(parents=True)
    write_text(handed_in, text_of(handed_out))
    (result,) = grade(SMALL.name, classroom=room)
    assert (result.total, result.to_read) == (2, ["why_one"])
    write_text(
        tmp_path / "nbgrader_config.py",
        f"load_subconfig({str(ROOT / 'nbgrader_config.py')!r})\nc = get_config()\n"
        f"c.CourseDirectory.root = {str(room)!r}\n"
        f"c.CourseDirectory.db_url = {f'sqlite:///{room}/gradebook.db'!r}\n",
    )
    return room


def scores(form) -> str:
    """Read the row of the one submission in a table of the formgrader: the scores, one after the other."""
    row = form.get_by_role("row", name=re.compile("Submission #1|ada"))
    row.wait_for()
    return " ".join(row.inner_text().split())


def test_an_answer_is_read_and_the_total_rises(page, shot, serve, classroom, tmp_path):
    page.goto(serve([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"], folder=tmp_path))
    page.get_by_role("menuitem", name="Nbgrader", exact=True).click()
    page.get_by_role("menuitem", name="Formgrader", exact=True).click()
    form = page.frame_locator("iframe[src*='formgrader']")
    row = form.get_by_role("row", name=re.compile("^small"))
    row.get_by_role("link", name="1", exact=True).wait_for()  # one submission
    shot("formgrader_assignments")

    form.get_by_role("link", name="Manual Grading").click()
    form.locator("tbody").get_by_role("link", name="small").click()
    form.locator("tbody").get_by_role("link", name="small").click()
    assert scores(form).startswith("Submission #1 2 / 5 2 / 2 0 / 3")
    shot("formgrader_before")

    form.get_by_role("link", name="Submission #1").click()
    form.get_by_text("What earns points").wait_for()
    form.get_by_text(ANSWER).wait_for()
    page.wait_for_function(LOADED)
    points = form.locator("input.score").last
    points.fill("2")
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/grade/" in answer.url) as saved:
        points.press("Tab")
    assert saved.value.ok
    comment = form.locator("textarea.comment").last
    comment.fill("Say what the softmax makes of it, too.")
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/comment/" in answer.url) as saved:
        comment.press("Tab")
    assert saved.value.ok
    shot("formgrader_points")

    form.locator(".breadcrumb, .navbar").get_by_role("link", name="small").last.click()
    form.get_by_role("link", name="Submission #1").wait_for()
    assert scores(form).startswith("Submission #1 4 / 5 2 / 2 2 / 3")
    shot("formgrader_after")

    # Grading once more runs nothing again, and CSV and feedback have what was given by hand.
    (result,) = grade(SMALL.name, classroom=classroom)
    assert (result.total, result.to_read) == (4, [])
    (row,) = csv.DictReader((classroom / "reports" / "small.csv").open(encoding="utf-8-sig"))
    assert (row["student"], row["why_one"], row["total"], row["of"]) == ("ada", "2", "4", "5")
    feedback = classroom / "feedback" / "ada" / "small" / "small.html"
    assert "Say what the softmax makes of it, too." in feedback.read_text(encoding="utf-8")
    page.goto(feedback.as_uri())
    page.get_by_text("Say what the softmax makes of it, too.").first.wait_for()
    shot("feedback")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The course's pages, in a folder."""
    return build_site(tmp_path_factory.mktemp("site") / "pages").parent


def test_pages_from_a_folder_fit_wide_and_narrow_windows(page, shot, pages):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for width, scheme in itertools.product((1200, 400), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 1000})
        page.emulate_media(color_scheme=scheme)
        for name in ("index", "notebooks/08_spsa", "notebooks/notation", "docs/results"):
            page.goto((pages / f"{name}.html").as_uri())
            shot(f"site_{Path(name).name}_{width}_{scheme}")
            assert page.evaluate("document.documentElement.scrollWidth") == width, f"{name} is wider than the window"
            drawn = page.locator("article img").evaluate_all("all => all.map(image => image.naturalWidth)")
            assert all(drawn), f"a picture of {name} is not drawn"
    assert asked and all(address.startswith(("file:", "data:")) for address in asked)


def test_a_formula_is_drawn_as_one(page, pages):
    page.goto((pages / "notebooks" / "01_attention.html").as_uri())
    fraction = page.locator("math[display=block] mfrac").first
    over, under = (fraction.locator(f":scope > :nth-child({place})").bounding_box() for place in (1, 2))
    assert over["y"] + over["height"] <= under["y"]


def test_the_search_works_from_a_folder(page, shot, pages):
    page.goto((pages / "index.html").as_uri())
    page.get_by_placeholder("Search").fill("nonlocality")
    page.keyboard.press("Enter")
    page.locator("#search-results").get_by_role("link", name="07 · A gate per head: ConViT").click()
    page.get_by_role("heading", name="07 · A gate per head: ConViT").wait_for()
    shot("site_found")
    page.get_by_role("link", name="Next 08 · Learned spatial priors: SP-SA").click()
    page.get_by_role("heading", name="08 · Learned spatial priors: SP-SA").wait_for()
