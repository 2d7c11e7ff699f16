"""Hypothesis profiles: `dev` by default, `ci` with HYPOTHESIS_PROFILE=ci. Neither times examples: machines are shared."""

import os

from hypothesis import settings

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
