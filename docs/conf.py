"""Sphinx's settings: ``python -m sphinx docs site`` builds the pages."""

import fastnlp

project = "fastnlp"
version = release = fastnlp.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
autodoc_typehints = "none"
autodoc_mock_imports = ["torch"]
napoleon_google_docstring = False
myst_heading_anchors = 3
default_role = "code"
