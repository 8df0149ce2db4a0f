"""The documentation site: `make docs` builds it without network, and every warning is an error.

Sphinx with MyST and Furo: all three are well kept, read Markdown, check links and anchors, and take
the reference from the docstrings as they are. (Material for MkDocs announced its end for May 2027.)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kling_integrations.version import __version__

project = "kling-integrations"
author = "The kling-integrations developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "_reference"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"kling-integrations {version}"
html_show_sphinx = False
html_copy_source = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True}
autoclass_content = "both"
add_module_names = False
python_display_short_literal_types = True
highlight_language = "text"
exclude_patterns = ["_*", "conf.py"]
