"""The best choice of one option per stage under limits, exactly."""
