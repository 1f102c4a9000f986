"""How Sphinx makes the course's pages. `python -m spvit_course site` gathers them and runs it.

Nothing here asks for the network, neither when the pages are built nor when they are read: formulas are MathML, which
browsers draw by themselves, and no notebook is run.
"""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

project = "spvit_mini"
html_title = "spvit_mini"
html_show_copyright = False

extensions = ["myst_nb"]
nb_execution_mode = "off"  # what is shown is what is stored
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to a heading, made as GitHub makes them
nb_render_markdown_format = "myst"

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_use_index = False
html_math_renderer = "mathml"

# What latex2mathml draws otherwise than TeX does: spaces between rows, words letter by letter, names without a space.
REWRITTEN = [(r"\\\\\[[^\]]*\]", r"\\\\"), (r"\\mathrm\b", r"\\text"), (r"\\(log|cos)\b", r"\\operatorname{\1}")]


def mathml(tex: str, display: str) -> str:
    """Turn a formula into MathML. Warns of a command that is not known, and so the build fails."""
    for pattern, better in REWRITTEN:
        tex = re.sub(pattern, better, tex)
    made = re.sub("<mpadded[^>]*>", "<mpadded>", convert(tex, display=display))  # sizes that browsers don't know
    if "\\" in made:
        logging.getLogger(__name__).warning("this formula holds an unknown command: %s", tex)
    return made


def inline(translator, node) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(translator, node) -> None:
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>\n')
    raise SkipNode


def setup(app) -> None:
    """Let formulas be MathML."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
