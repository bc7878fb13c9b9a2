"""The paper's two training stages and the one loop that runs them. See ``stages``, then ``stage_run``."""
