"""Mutations of a good submission: what programs, learning platforms, merges and accidents make of a notebook.

Each takes the parsed notebook and a random generator, changes it, and returns it or the bytes of a file. `SPARES` lists those
after which the submission must still get all points: nothing of the student's was lost.
"""

import json
import random
from collections.abc import Callable
from copy import deepcopy

NOTEBOOK = dict
SPARES: set[str] = set()
MUTATIONS: dict[str, Callable[[NOTEBOOK, random.Random], NOTEBOOK | bytes]] = {}


def mutation(spares: bool):
    """Register a mutation under its name. With `spares` it must not cost a point."""

    def register(function):
        name = function.__name__.replace("_", "-")
        MUTATIONS[name] = function
        if spares:
            SPARES.add(name)
        return function

    return register


def mutate(notebook: NOTEBOOK, name: str, seed: int) -> bytes:
    """Apply a mutation to a copy of a notebook; return the file's content."""
    result = MUTATIONS[name](deepcopy(notebook), random.Random(f"{name} {seed}"))
    return result if isinstance(result, bytes) else json.dumps(result).encode()


def marks(cell: dict) -> dict:
    return cell["metadata"].get("nbgrader", {})


def solutions(notebook: NOTEBOOK) -> list[dict]:
    return [cell for cell in notebook["cells"] if marks(cell).get("solution")]


def text(cell: dict) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def own(kind: str, source: str, **more) -> dict:
    """Make a cell of the student's own, without an id."""
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source} | code | more


# Ids, marks, formats: what programs do ------------------------------------------------------------------------------------


@mutation(spares=True)
def ids_dropped(notebook, random):
    """Save in the format 4.0 to 4.4, which has no ids."""
    notebook["nbformat_minor"] = random.randrange(5)
    for cell in notebook["cells"]:
        del cell["id"]
    return notebook


@mutation(spares=True)
def one_id_invalid(notebook, random):
    cell = random.choice(notebook["cells"])
    cell["id"] = random.choice(["", "a b", "ü", "x" * 200, 7, None, ["a"], "\ud83d"])
    return notebook


@mutation(spares=True)
def ids_all_the_same(notebook, random):
    for cell in notebook["cells"]:
        cell["id"] = "same"
    return notebook


@mutation(spares=True)
def marks_dropped(notebook, random):
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    return notebook


@mutation(spares=True)
def ids_and_marks_dropped(notebook, random):
    """Paste everything into a new notebook."""
    return ids_dropped(marks_dropped(notebook, random), random)


@mutation(spares=True)
def metadata_missing(notebook, random):
    for cell in random.sample(notebook["cells"], 4):
        cell.pop("metadata")
    notebook.pop("metadata")
    return notebook


@mutation(spares=True)
def metadata_of_other_types(notebook, random):
    for cell in random.sample(notebook["cells"], 4):
        cell["metadata"] = random.choice([[], None, "x", {"nbgrader": 3}, {"nbgrader": {"grade_id": ["a"]}}, {"nbgrader": {}}])
    return notebook


@mutation(spares=True)
def marks_changed(notebook, random):
    fields = ["points", "grade", "solution", "locked", "schema_version", "task"]
    for cell in random.sample([cell for cell in notebook["cells"] if marks(cell)], 3):
        marks(cell)[random.choice(fields)] = random.choice([9, True, "a", -1])
    return notebook


@mutation(spares=True)
def kinds_changed(notebook, random):
    for cell in random.sample([cell for cell in notebook["cells"] if marks(cell)], 2):
        cell["cell_type"] = random.choice(["raw", "markdown", "code", "heading", None, ["code"]])
    return notebook


@mutation(spares=True)
def sources_are_text(notebook, random):
    for cell in notebook["cells"]:
        cell["source"] = text(cell)
    return notebook


@mutation(spares=True)
def carriage_returns(notebook, random):
    end = random.choice(["\r\n", "\r"])
    for cell in notebook["cells"]:
        cell["source"] = text(cell).replace("\n", end)
    return notebook


@mutation(spares=True)
def white_space(notebook, random):
    for cell in notebook["cells"]:
        cell["source"] = "".join(f"{line}{' ' * random.randrange(3)}\n" for line in text(cell).split("\n")) + "\n"
    return notebook


@mutation(spares=True)
def byte_order_mark(notebook, random):
    return json.dumps(notebook).encode(random.choice(["utf-8-sig", "utf-16", "utf-32"]))


@mutation(spares=True)
def nul_bytes_at_the_end(notebook, random):
    return json.dumps(notebook).encode() + b"\0" * random.randrange(1, 5000)


@mutation(spares=True)
def half_an_emoji(notebook, random):
    """Cut a character of two surrogates in half, in an answer, a comment, an output or a key."""
    half = random.choice(["\ud83d", "\ude00", "\ude00\ud83d"])
    answer = random.choice(solutions(notebook))
    answer["source"] = text(answer) + (f"  # {half}" if answer["cell_type"] == "code" else half)
    notebook["metadata"][half] = half
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": half}]
    return notebook


@mutation(spares=True)
def control_characters(notebook, random):
    answer = random.choice(solutions(notebook))
    answer["source"] = text(answer).replace("\n", "\0\n", 1) + ("  # \0 \x1b \x08" if answer["cell_type"] == "code" else "\0\x1b")
    return json.dumps(notebook).replace("\\u0000", random.choice(["\0", "\\u0000"])).encode()


@mutation(spares=True)
def bytes_of_latin_1(notebook, random):
    answer = random.choice(solutions(notebook))
    answer["source"] = text(answer) + "  # für"
    return json.dumps(notebook, ensure_ascii=False).encode("latin-1", "replace")


# Outputs and attachments ----------------------------------------------------------------------------------------------------


@mutation(spares=True)
def outputs_of_unknown_types(notebook, random):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = random.choice([[{"output_type": "hologram"}], None, 3, [None], [{"data": {"image/png": 5}}], "x"])
            cell["execution_count"] = random.choice([None, "*", -1, 1e300])
    return notebook


@mutation(spares=True)
def huge_outputs(notebook, random):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    random.choice(code)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["y" * 1000 + "\n"] * 6000}]
    return notebook


@mutation(spares=True)
def attachments_of_any_kind(notebook, random):
    bad = [{"a.png": {"image/png": "no base64!"}}, {"a.png": {}}, {"a": 3}, []]
    bad += [{"\ud83d": {"image/png": "eA=="}}, {"b": {"x/y": [1]}}]
    for cell in notebook["cells"]:
        cell["attachments"] = random.choice(bad)
    answer = next(cell for cell in solutions(notebook) if cell["cell_type"] == "markdown")
    answer["source"] = text(answer) + "\n\n![a](attachment:a.png) ![b](attachment:b%20c.png) <img src='attachment:d'>"
    answer["attachments"] = random.choice(bad[:4] + [{"b c.png": {"image/png": "eA=="}}])
    return notebook


@mutation(spares=True)
def unknown_fields(notebook, random):
    notebook |= {"nbformat": random.choice([4, "4", 5, None]), "signature": "x", "worksheets": []}
    for cell in notebook["cells"]:
        cell["prompt_number"], cell["level"] = 1, 3
    return notebook


# Cells moved, pasted, merged and split --------------------------------------------------------------------------------------


@mutation(spares=True)
def a_cell_twice(notebook, random):
    """Paste a copy of a cell, marks and all, right below it."""
    place = random.randrange(len(notebook["cells"]))
    notebook["cells"].insert(place + 1, deepcopy(notebook["cells"][place]))
    return notebook


@mutation(spares=True)
def the_stub_beside_the_solution(notebook, random):
    """Keep the cell as it was handed out, above or below the solution."""
    solution = random.choice([cell for cell in solutions(notebook) if cell["cell_type"] == "code"])
    stub = deepcopy(solution) | {"source": notebook["metadata"]["stubs"][marks(solution)["grade_id"]]}
    notebook["cells"].insert(notebook["cells"].index(solution) + random.randrange(2), stub)
    return notebook


@mutation(spares=True)
def locked_cells_deleted(notebook, random):
    locked = [cell for cell in notebook["cells"] if marks(cell).get("locked")]
    gone = random.sample(locked, random.randrange(1, len(locked)))
    notebook["cells"] = [cell for cell in notebook["cells"] if cell not in gone]
    return notebook


@mutation(spares=True)
def locked_cells_overwritten(notebook, random):
    for cell in random.sample([cell for cell in notebook["cells"] if marks(cell).get("locked")], 2):
        cell["source"] = random.choice(["# mine", "print('PASS')", "", "1 / 0"]) if cell["cell_type"] == "code" else "mine"
    return notebook


@mutation(spares=True)
def merged_with_the_cell_above(notebook, random):
    """Merge a solution with the cell above it, as Shift-M does: the upper cell's marks, kind and id stay."""
    cells = notebook["cells"]
    place = cells.index(random.choice([cell for cell in solutions(notebook) if cell["cell_type"] == "code"]))
    setup = next(other for other in reversed(range(place)) if cells[other]["cell_type"] == "code")
    cells[setup]["source"] = f"{text(cells[setup])}\n\n{text(cells[place])}"
    del cells[place]
    return notebook


@mutation(spares=True)
def merged_with_the_check_below(notebook, random):
    cells = notebook["cells"]
    place = cells.index(random.choice([cell for cell in solutions(notebook) if cell["cell_type"] == "code"]))
    cells[place]["source"] = f"{text(cells[place])}\n\n{text(cells.pop(place + 1))}"
    return notebook


@mutation(spares=True)
def an_answer_split(notebook, random):
    """Split a solution in two cells, both with its marks: a helper above, the rest below."""
    solution = random.choice([cell for cell in solutions(notebook) if cell["cell_type"] == "code"])
    upper = deepcopy(solution) | {"source": "half = 0.5", "id": random.choice(["upper", solution["id"]])}
    notebook["cells"].insert(notebook["cells"].index(solution), upper)
    return notebook


@mutation(spares=True)
def solved_in_a_cell_below(notebook, random):
    """Leave the solution's cell as it is, and solve the exercise in a new cell between it and the check."""
    solution = random.choice([cell for cell in solutions(notebook) if cell["cell_type"] == "code"])
    mine = own("code", text(solution))
    solution["source"] = notebook["metadata"]["stubs"][marks(solution)["grade_id"]]
    notebook["cells"].insert(notebook["cells"].index(solution) + 1, mine)
    return notebook


@mutation(spares=True)
def answered_in_a_cell_of_its_own(notebook, random):
    """Answer a question in a new cell, above, below or at the end, or in place of the answer's cell."""
    answer = next(cell for cell in solutions(notebook) if cell["cell_type"] == "markdown")
    mine, place = own(random.choice(["markdown", "raw"]), text(answer)), notebook["cells"].index(answer)
    answer["source"] = notebook["metadata"]["stubs"][marks(answer)["grade_id"]]
    if random.random() < 0.3:
        notebook["cells"][place] = mine
    else:
        notebook["cells"].insert(random.choice([place, place + 1, len(notebook["cells"])]), mine)
    return notebook


@mutation(spares=True)
def own_cells_everywhere(notebook, random):
    kinds = [("code", "x = 1"), ("markdown", "a note"), ("raw", "raw"), ("code", "%matplotlib inline"), ("code", "")]
    for place in sorted(random.sample(range(1, len(notebook["cells"])), 6), reverse=True):
        notebook["cells"].insert(place, own(*random.choice(kinds)))
    return notebook


@mutation(spares=True)
def cells_that_are_none(notebook, random):
    for bad in ({}, None, 3, [], {"cell_type": "code"}, {"source": "a note"}, {"cell_type": "film", "source": ["a", "b"]}):
        notebook["cells"].insert(random.randrange(len(notebook["cells"])), bad)
    return notebook


@mutation(spares=True)
def reordered(notebook, random):
    random.shuffle(notebook["cells"])
    return notebook


@mutation(spares=False)
def a_solution_deleted(notebook, random):
    notebook["cells"].remove(random.choice(solutions(notebook)))
    return notebook


@mutation(spares=False)
def cells_deleted(notebook, random):
    notebook["cells"] = random.sample(notebook["cells"], random.randrange(1, len(notebook["cells"])))
    return notebook


@mutation(spares=False)
def a_source_damaged(notebook, random):
    answer = random.choice(solutions(notebook))
    source = text(answer)
    place = random.randrange(len(source))
    answer["source"] = source[:place] + random.choice(["(", "\t", "é", "'''", "\\", "\x0c", "0x"]) + source[place + 1 :]
    return notebook


# The code -------------------------------------------------------------------------------------------------------------------

ENDS = (
    "exit()", "quit()", "exit", "import sys; sys.exit(3)", "raise SystemExit", "raise KeyboardInterrupt", "import os; os.abort()",
    "import os; os._exit(1)", "import os; os.kill(os.getpid(), 9)", "import os; os.kill(os.getppid(), 9)",
    "class Odd(BaseException):\n    pass\nraise Odd",
)  # fmt: skip


@mutation(spares=True)
def a_cell_that_ends_something(notebook, random):
    notebook["cells"].insert(3, own("code", random.choice(ENDS)))
    return notebook


# The file -------------------------------------------------------------------------------------------------------------------


@mutation(spares=False)
def truncated(notebook, random):
    content = json.dumps(notebook).encode()
    return content[: random.randrange(len(content))]


@mutation(spares=False)
def empty(notebook, random):
    return random.choice([b"", b" \n", b"\0" * 100, b"\xef\xbb\xbf", b"null", b"[]", b"{}", b'{"cells": []}', b'{"cells": {}}'])


@mutation(spares=False)
def no_notebook(notebook, random):
    noise = random.randbytes(999)
    return random.choice([b"PK\x03\x04" + noise, b"%PDF-1.7", b"<html></html>", b"[" * 99_999, noise])


@mutation(spares=False)
def bytes_flipped(notebook, random):
    content = bytearray(json.dumps(notebook).encode())
    for _ in range(random.randrange(1, 6)):
        content[random.randrange(len(content))] = random.randrange(256)
    return bytes(content)


@mutation(spares=False)
def conflict_markers(notebook, random):
    lines = json.dumps(notebook, indent=1).split("\n")
    place = random.randrange(len(lines))
    lines[place:place] = ["<<<<<<< HEAD", "=======", ">>>>>>> theirs"]
    return "\n".join(lines).encode()


@mutation(spares=False)
def of_a_different_lesson(notebook, random):
    cells = [own("markdown", "# 09 · Something else\n\nText."), own("code", "1 + 1"), own("markdown", "## The end")]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
