"""What `ray submit` and `ray job submit` run: `drl-track train CONFIG`, on the cluster's head."""

import sys

from drl_ray_tracking.cli import main

if __name__ == "__main__":
    sys.argv = ["drl-track", "train", *sys.argv[1:]]
    main()
