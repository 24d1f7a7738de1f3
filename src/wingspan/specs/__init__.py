"""What is given: model, cluster and workload descriptions, and their presets as data files."""
