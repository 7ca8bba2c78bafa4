"""Tests of `drl_ray_tracking.episodes`; a package, so that test files of other rooms may share a name."""
