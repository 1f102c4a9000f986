"""`--import`: a user's file or module is imported once, knows its neighbours, and fails in one line that says where."""

import sys

import pytest

from spvit_mini.errors import UserError
from spvit_mini.extensions import import_extension, read_imports


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; what is imported from it is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_file_is_imported_once_and_knows_its_neighbours(folder):
    (folder / "own").mkdir()
    (folder / "own" / "ext_helper.py").write_text("value = 3\n")
    (folder / "own" / "ext_file.py").write_text("import ext_helper\nvalue = ext_helper.value\n")
    module = import_extension("own/ext_file.py")
    assert module.value == 3 and sys.modules["ext_file"] is module
    assert import_extension(str(folder / "own" / "ext_file.py")) is module
    assert import_extension("own/ext_helper.py") is sys.modules["ext_helper"]


def test_a_module_is_found_from_the_working_directory(folder):
    (folder / "ext_package").mkdir()
    (folder / "ext_package" / "parts.py").write_text("value = 4\n")
    sys.path[:] = [path for path in sys.path if path not in ("", str(folder))]  # as under the console script
    assert import_extension("ext_package.parts").value == 4


def test_names_are_read_from_any_place_of_a_command_line(folder):
    for name in "abc":
        (folder / f"ext_{name}.py").write_text("")
    words = ["run", "x.png", "--import", "ext_a.py", "ext_b", "--top", "3", "--import=ext_c.py", "-h"]
    assert read_imports(words) == (("ext_a.py", "ext_b", "ext_c.py"), ["run", "x.png", "--top", "3", "-h"])
    assert {"ext_a", "ext_b", "ext_c"} <= set(sys.modules)
    assert read_imports(["run", "--top", "3"]) == ((), ["run", "--top", "3"])


BROKEN = {
    "name": ("x = 1\ny = z\n", r"fails in line 2 of ext_broken.py: NameError: name 'z' is not defined"),
    "syntax": ("x = 1\n\ny = = 2\n", r"fails in line 3 of ext_broken.py: SyntaxError: invalid syntax"),
    "missing": ("import no_such_package\n", r"fails in line 1 of ext_broken.py: ModuleNotFoundError: .*no_such_package"),
    "deeper": ("import json\n\njson.loads('{')\n", r"fails in line 3 of ext_broken.py: JSONDecodeError"),
    "user": (
        "from spvit_mini.errors import UserError\nraise UserError('x is 1; expected 2.')\n",
        r"fails in line 2 of ext_broken.py: x is 1; expected 2\.$",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["ext_broken.py", "ext_broken"])
def test_an_error_while_importing_is_one_line_with_the_line_in_the_users_file(folder, kind, name):
    text, line = BROKEN[kind]
    (folder / "ext_broken.py").write_text(text)
    with pytest.raises(UserError, match=line):
        import_extension(name)
    assert "ext_broken" not in sys.modules  # the corrected file can be imported


def test_what_cannot_be_imported_is_refused(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "own.txt").write_text("")
    (folder / "json.py").write_text("")
    for name, says in {
        "nowhere.py": "expected an existing Python file",
        "notes/own.txt": "expected an existing Python file",
        "no_such_package.parts": "Python finds no module no_such_package",
        "json.no_such_part": "Python finds no module json.no_such_part",
        "json.py": "another module has the name json. Rename the file",
    }.items():
        with pytest.raises(UserError, match=f"^--import is {name}") as error:
            import_extension(name)
        assert says in str(error.value)
    with pytest.raises(UserError, match="--import has no value"):
        read_imports(["run", "--import", "--top", "3"])
