"""Who sends what to whom: the replica rule, and what slots and links carry, counted from a trace or expected."""
