"""How tokens choose experts: recorded traces, synthetic ones, and their statistics."""
