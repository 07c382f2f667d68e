"""The documentation: Markdown pages whose code is run, and API pages from the docstrings. Needs no network.

Build it by: python -m pip install -e ".[docs]" && python -m sphinx -W docs docs/_build/html
"""

from importlib import metadata

project = "jdl"
release = metadata.version("jdl")
version = release
copyright = "the jdl authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

# Docstrings: a module shows what its `__all__` names, in that order; a layer shows its settings, and not again the
# params, state and forward that Layer explains.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
default_role = "code"

# Pages: an error in a page's code is an error of the build.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

html_theme = "furo"
html_title = "jdl"
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False
mathjax_path = "mathjax/tex-svg-full.js"
