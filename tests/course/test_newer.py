"""Copies that were begun when a newer lesson comes: nothing of a student's is lost, and what is new is told."""

import random

import nbformat
import pytest

from spvit_course.classroom.copies import MANIFEST, build_copies, content_digest, student_copy
from spvit_course.lessons import read, text_of

from .editing import change, names, work_on

# Nothing is lost ------------------------------------------------------------------------------------------------------


def lessons_change(path, number):
    """Bring out a newer form: words are added, a cell comes or goes."""
    notebook = read(path)
    notebook.cells[3].source += f"\n\nForm {number}."
    if number % 3 == 1:
        notebook.cells.insert(5, nbformat.v4.new_markdown_cell(f"A thought, {number}.", id=f"thought-{number}"))
    elif number % 3 == 2:
        notebook.cells = [cell for cell in notebook.cells if not cell.id.startswith("thought")]
    path.write_text(text_of(notebook), encoding="utf-8")


class Student:
    """Does to files of copies what students do, at random; knows what each file that holds work was last saved as."""

    def __init__(self, work, draw):
        self.work, self.draw, self.saved, self.count = work, draw, {}, 0

    def act(self):
        self.count += 1
        path = self.work / self.draw.choice(names(self.work))
        kinds = [self.answer, self.add_cell, self.delete_cell, self.run, self.tag, self.only_open, self.breaks]
        kinds += [self.rename, self.copy, self.forget]
        kind = self.draw.choice(kinds)
        try:
            kind(path)
        except (nbformat.reader.NotJSONError, UnicodeDecodeError):  # already broken: what is left is to save it as text
            self.save(path, path.read_bytes() + f"answer {self.count}".encode())

    def save(self, path, content):
        path.write_bytes(content)
        self.saved[path.name] = content

    def edit(self, path, change, *, work=True):
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        content = (nbformat.writes(notebook) + "\n").encode()
        if work or path.name in self.saved:
            self.save(path, content)
        else:
            path.write_bytes(content)

    def answer(self, path):
        def typed(notebook):
            self.draw.choice(notebook.cells[1:]).source += f"\nanswer {self.count}"

        self.edit(path, typed)

    def add_cell(self, path):
        cell = nbformat.v4.new_code_cell(f"print({self.count})", id=f"mine-{self.count}")
        self.edit(path, lambda notebook: notebook.cells.insert(self.draw.randrange(len(notebook.cells)), cell))

    def delete_cell(self, path):
        self.edit(path, lambda notebook: notebook.cells.pop(self.draw.randrange(8, 12)))

    def run(self, path):
        self.edit(path, lambda notebook: notebook.cells[2].update(execution_count=self.count))

    def tag(self, path):
        self.edit(path, lambda notebook: notebook.cells[1].metadata.update(tags=[f"look-again-{self.count}"]))

    def only_open(self, path):
        def opened(notebook):
            notebook.metadata.language_info = {"name": "python", "version": "3.12.1"}
            notebook.cells[1].metadata["trusted"] = True

        self.edit(path, opened, work=False)

    def breaks(self, path):
        content = path.read_bytes()
        cut = self.draw.randrange(1, len(content))
        content = self.draw.choice([content[:cut], b"<<<<<<< mine\n" + content, content.replace(b"{", b"\xff", 1)])
        self.save(path, content + f"\n{self.count}".encode())

    def rename(self, path):
        path.rename(self.work / f"mine-{self.count}.ipynb")
        if path.name in self.saved:
            self.saved[f"mine-{self.count}.ipynb"] = self.saved.pop(path.name)

    def copy(self, path):
        target = self.work / self.draw.choice(["00_small.newer.ipynb", "00_small.newer-2.ipynb", "copy.ipynb"])
        if path.name in self.saved and not target.exists():
            self.save(target, path.read_bytes())

    def forget(self, path):
        (self.work / MANIFEST).unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(10))
def test_twenty_builds_over_edited_copies_lose_nothing(source, tmp_path, seed):
    draw = random.Random(seed)
    student = Student(tmp_path / "work", draw)
    for number in range(20):
        if draw.random() < 0.6:
            lessons_change(source, number)
        (report,) = build_copies(student.work, [source])
        for name, content in student.saved.items():
            assert (student.work / name).read_bytes() == content, (number, name)
        newest = text_of(student_copy(read(source))).encode()
        offered = [content_digest((student.work / name).read_bytes()) for name in names(student.work)]
        assert content_digest(newest) in offered or report.status == "edited"
        for _ in range(draw.randrange(3)):
            student.act()
    assert student.saved


# What a newer lesson brings -------------------------------------------------------------------------------------------


def newer(source, work, edit):
    """Hand a lesson out, let the student begin, change the lesson, and tell the difference."""
    build_copies(work, [source])
    work_on(work / source.name, "my answer")
    notebook = read(source)
    edit(notebook)
    source.write_text(text_of(notebook), encoding="utf-8")
    (report,) = build_copies(work, [source])
    assert report.status == "newer"
    return list(report.differences)


SAME = "as before, so that your answers can be copied over: patchify"


def test_cells_that_are_new_changed_or_gone_are_told_by_their_places(source, tmp_path):
    def edit(notebook):
        notebook.cells[6].source = "2 * 3"
        notebook.cells.pop(11)
        notebook.cells.insert(5, nbformat.v4.new_markdown_cell("A picture of **it**\n\nlong", id="more"))

    assert newer(source, tmp_path / "work", edit) == [
        "new: the text 'A picture of **it**' in 'The idea'",
        "changed: the code '2 * 3' in 'By hand'",
        "gone: the text 'Guess, then look'",
        SAME,
    ]


def test_a_changed_exercise_is_named_and_a_changed_check_too(source, tmp_path):
    def edit(notebook):
        notebook.cells[9].source = notebook.cells[9].source.replace("Cut an image", "Cut a picture")
        notebook.cells[10].source = "print('now')\n" + notebook.cells[10].source

    assert newer(source, tmp_path / "work", edit) == [
        "changed: the exercise patchify in 'Exercise 1 · patchify'",
        "changed: the check 'print('now')' in 'Exercise 1 · patchify'",
    ]


def test_a_changed_solution_alone_is_no_newer_copy(source, tmp_path):
    build_copies(tmp_path / "work", [source])
    work_on(tmp_path / "work" / source.name, "my answer")
    notebook = read(source)
    notebook.cells[9].source = notebook.cells[9].source.replace("    cut =", "    # in short\n    cut =")
    source.write_text(text_of(notebook), encoding="utf-8")
    assert [report.status for report in build_copies(tmp_path / "work", [source])] == ["edited"]


def test_another_order_is_told(source, tmp_path):
    def edit(notebook):
        notebook.cells[7], notebook.cells[8] = notebook.cells[8], notebook.cells[7]

    assert newer(source, tmp_path / "work", edit) == ["some cells stand in another order", SAME]


def test_many_differences_are_counted(source, tmp_path):
    def edit(notebook):
        notebook.cells[3:3] = [nbformat.v4.new_markdown_cell(f"Word {n}", id=f"w{n}") for n in range(30)]

    told = newer(source, tmp_path / "work", edit)
    assert told[0] == "new: the text 'Word 0' in 'You will be able to'"
    assert told[11:] == ["and 19 cells more", SAME]


def test_the_newest_copy_that_was_begun_is_what_the_next_is_compared_with(source, tmp_path):
    work = tmp_path / "work"
    newer(source, work, lambda notebook: notebook.cells[3].update(source="## The question\n\nWhere?"))
    work_on(work / "00_small.newer.ipynb", "my second answer")
    notebook = read(source)
    notebook.cells[6].source = "3 * 3"
    source.write_text(text_of(notebook), encoding="utf-8")
    (report,) = build_copies(work, [source])
    assert report.newer == "00_small.newer-2.ipynb"
    assert report.differences == (
        "compared with 00_small.newer.ipynb:", "changed: the code '3 * 3' in 'By hand'", SAME
    )  # fmt: skip


def test_without_its_memory_the_file_itself_is_compared(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    (work / MANIFEST).unlink()
    work_on(work / source.name, "mine")
    change(source)
    (report,) = build_copies(work, [source])
    assert report.differences == (
        "compared with 00_small.ipynb itself, so that your own changes count too:",
        "changed: the text 'The question'",
        "changed: the text 'References'",
        SAME,
    )


def test_a_file_that_cannot_be_read_has_no_difference_to_tell(source, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / source.name).write_text("{")
    (report,) = build_copies(work, [source])
    assert report.differences == ("what has changed cannot be told: 00_small.ipynb cannot be read as a notebook",)
