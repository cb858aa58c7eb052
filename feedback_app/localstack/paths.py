"""Where Prospect's files are: in a checkout, or in a wheel that was installed.

A wheel carries templates, static files, Procfile, manage.py and the tools that the Procfile calls
in feedback_app/bundled (setup.py puts them there).
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent

IS_CHECKOUT = (_CHECKOUT / "manage.py").exists()
#: Holds templates/, static/, Procfile and manage.py; processes run in it.
FILES = _CHECKOUT if IS_CHECKOUT else _PACKAGE / "bundled"
#: Holds .env, and var/ unless PROSPECT_VAR names another directory.
HOME = _CHECKOUT if IS_CHECKOUT else Path.cwd()
