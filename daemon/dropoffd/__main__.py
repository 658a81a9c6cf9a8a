"""`python -m dropoffd` is `dropoff`."""

import sys

from dropoffd.cli import main

sys.exit(main())
