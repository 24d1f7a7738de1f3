"""The order of operations in a step, and what an executor reports about one: shared by both executors."""
