"""``python -m kling_integrations`` is the ``kling`` command."""

import sys

from .cli import main

sys.exit(main())
