"""Live balancing: watch the loads, plan in the background, decide, and move experts while steps go on."""
