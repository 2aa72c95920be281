"""`python -m pinnkit`: the same as the command `pinnkit`."""

import sys

from pinnkit.cli import main

sys.exit(main())
