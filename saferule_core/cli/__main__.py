"""`python -m saferule_core.cli`: the `saferule` command where it is not installed as one."""

import sys

from saferule_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
