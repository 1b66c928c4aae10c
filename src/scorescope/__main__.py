"""`python -m scorescope`: the same as the `scorescope` command."""

import sys

from scorescope.cli import main

if __name__ == "__main__":
    sys.exit(main())
