"""Live balancing on the ranks: watch the loads, and move experts while steps go on, as `wingspan.balance` decides."""
