"""Sphinx configuration: MyST Markdown, autodoc from the annotations, warnings are errors (make docs)."""

project = "pinnkit"
author = "The pinnkit authors"
copyright = "2026, The pinnkit authors"
release = version = "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "pinnkit"

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Members whose docstrings come from torch or the standard library are theirs to document.
autodoc_inherit_docstrings = False

# Docstrings are plain text with code in single backticks; |u| and **coords mean themselves.
default_role = "code"


def escape_markup(app, what, name, obj, options, lines):
    """Escape the markup characters that mathematics uses, outside code and examples."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = [p.replace("*", r"\*").replace("|", r"\|") for p in parts[::2]]
            lines[i] = "`".join(parts)


def setup(app):
    """Before napoleon (priority 500), whose own markup must stay."""
    app.connect("autodoc-process-docstring", escape_markup, priority=400)
