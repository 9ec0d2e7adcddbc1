"""`python -m turnwise.cli`, which is how `torchrun -m` starts the command on several processes."""

import sys

from turnwise.cli import main

sys.exit(main())
