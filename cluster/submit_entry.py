"""What `ray submit` and `ray job submit` run: `drl-track train CONFIG`, on the cluster's head."""

import os
import sys

from drl_ray_tracking.cli import main

if __name__ == "__main__":
    # The cluster of this machine or none: not a Ray of the script's own beside it, on the head's cores alone.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    sys.argv.insert(1, "train")
    main()
