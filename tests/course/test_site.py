"""The course's pages, built once: complete, whole without a network, with formulas, links that lead somewhere and a search."""

import json
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from spvit_course.classroom import site
from spvit_course.classroom.site import build_site
from spvit_course.lessons import ROOT, grading, heading, lesson_files, read
from spvit_mini.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:myst_parser.sphinx_ext.myst_refs"),
]

LESSONS = lesson_files()
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data", "video": "src"}


class Page(HTMLParser):
    """What a page loads, where it leads, what it shows."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.ids, self.links, self.loaded, self.images = path, set(), [], [], []
        self.text, self.inside, self.messages, self.formulas, self.related = [], Counter(), [], 0, {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.inside[tag] += 1
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loaded.append(given[LOADED[tag]])
            if tag == "link" and given.get("rel") in ("prev", "next"):
                self.related[given["rel"]] = given["href"]
        if tag == "img" and self.inside["article"]:
            self.images.append((given["src"], given.get("alt")))
        self.formulas += tag == "math"

    def handle_endtag(self, tag):
        self.inside[tag] -= 1

    def handle_data(self, data):
        if self.inside["article"]:
            self.text.append(data)
            if self.inside["math"]:
                self.messages.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "pages"
    assert build_site(out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    return {path.relative_to(built).as_posix(): Page(path) for path in built.rglob("*.html")}


def lesson_page(pages, path: Path) -> Page:
    return pages[f"notebooks/{path.stem}.html"]


def plain_markdown(path: Path) -> str:
    """The Markdown of a lesson without its code, of which a dollar may be a part."""
    text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def test_all_pages_are_there_and_lessons_lead_from_one_to_the_next(pages):
    others = ["notebooks/notation", "README", "data/README", "search"]
    others += [path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    others.remove("docs/site/index")
    assert set(pages) == {"index.html", *(f"{name}.html" for name in others), *(f"notebooks/{p.stem}.html" for p in LESSONS)}
    assert len(LESSONS) == 14
    for before, after in zip(LESSONS, LESSONS[1:], strict=False):
        assert lesson_page(pages, before).related["next"] == f"{after.stem}.html"
        assert lesson_page(pages, after).related["prev"] == f"{before.stem}.html"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_shows_its_figures_with_their_words_and_its_outputs(pages, path):
    page, lesson = lesson_page(pages, path), read(path)
    top, shown = heading(lesson), "".join(page.text)
    assert f"{top.number} · {top.title}" in shown
    outputs = [output for cell in lesson.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    assert [alt for _, alt in page.images] == pictures
    assert all((page.path.parent / source).stat().st_size > 1000 for source, _ in page.images)
    for output in outputs:
        assert "".join(output.get("text", "")).strip() in shown


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_formula_is_drawn(pages, path):
    page, text = lesson_page(pages, path), plain_markdown(path)
    shown, inline = re.subn(r"(?<!\$)\$[^$\n]+\$(?!\$)", "", text)
    assert page.formulas == len(re.findall(r"\$\$.+?\$\$", shown, flags=re.DOTALL)) + inline
    assert not [word for word in page.messages if re.search(r"[\\${}]\w|mm\]", word)]


def test_a_formula_says_what_was_written(pages):
    page = pages["notebooks/08_spsa.html"].path.read_text(encoding="utf-8")
    formula = re.search(r'<math[^>]*display="block".*?</math>', page, re.DOTALL)[0]
    said = unescape(re.sub(r"<[^>]+>", "", formula))
    assert said == "A=softmax(f⊙S)fh(δ)=w2,h·ReLU(W1,hδ+b1,h)+b2,h"
    assert "<msub><mi>W</mi>" in formula


def test_solutions_are_folded_up_and_what_is_hidden_stays_hidden(pages):
    for path in LESSONS:
        page = lesson_page(pages, path).path.read_text(encoding="utf-8")
        assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN|MARK)", re.sub("<[^>]+>", "", page))
        asked = sum(bool(grading(cell).get("solution")) for cell in read(path).cells)
        assert len(re.findall("YOUR (?:CODE|ANSWER) HERE", page)) == asked
        assert len(re.findall("Show (?:a solution|an answer)", page)) == asked
    first = lesson_page(pages, LESSONS[1]).path.read_text(encoding="utf-8")
    stub, folded = first.split("Show a solution")[:2]
    assert "each row sums to 1" not in stub
    assert "each row sums to 1" in folded


def test_nothing_is_loaded_from_elsewhere(built, pages):
    for name, page in pages.items():
        for address in page.loaded:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{name} loads {address}"
            assert not parts.path or (page.path.parent / unquote(parts.path)).is_file(), f"{name} loads {address}"
    styles = list(built.rglob("*.css"))
    assert styles
    for path in styles:
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", path.read_text(encoding="utf-8")), path


def test_every_link_within_leads_somewhere(built, pages):
    checked = 0
    for name, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            assert target.is_file(), f"{name} leads to {address}"
            if parts.fragment:
                ids = pages[target.relative_to(built.resolve()).as_posix()].ids
                assert unquote(parts.fragment) in ids, f"{name} leads to {address}"
            checked += 1
    assert checked > 14 * 14


def test_the_front_page_shows_the_story(pages):
    ((source, alt),) = pages["index.html"].images
    assert alt.startswith("Asked from the lighthouse")
    assert source in {image.removeprefix("../") for image, _ in lesson_page(pages, LESSONS[-1]).images}


def test_the_search_knows_where_a_word_stands(built):
    index = (built / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(index[index.index("{") : index.rindex("}") + 1])
    places = {index["docnames"][number] for number in index["terms"]["lighthous"]}
    assert {"notebooks/00_start_here", "notebooks/11_what_it_sees"} <= places
    assert "docs/cluster" not in places


def test_a_page_that_is_built_again_replaces_its_own_and_nothing_else(tmp_path, monkeypatch):
    def build_main(arguments):
        made = Path(arguments[-1])
        made.mkdir()
        (made / ".buildinfo").write_text("made by Sphinx")
        (made / "index.html").write_text("new")
        return 0

    monkeypatch.setattr("sphinx.cmd.build.build_main", build_main)
    out = tmp_path / "pages"
    build_site(out)
    (out / "older.html").write_text("of a page that is gone")
    build_site(out)
    assert {path.name for path in out.iterdir()} == {".buildinfo", "index.html"}
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other things"):
        build_site(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    monkeypatch.setattr("sphinx.cmd.build.build_main", lambda arguments: 1)
    with pytest.raises(UserError, match="no pages were made"):
        build_site(out)
    assert (out / "index.html").read_text() == "new"


def test_who_lacks_sphinx_is_told_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setattr(site, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sphinx is not installed; .*\.\[site\]"):
        build_site(tmp_path / "pages")
