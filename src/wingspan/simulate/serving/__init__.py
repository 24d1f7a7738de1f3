"""Serving simulated: requests arrive, wait, are prefilled in chunks, decoded in a continuous batch, and leave.

- `times`: how long a step takes; all that this package knows of the model and the cluster
- `group`: one group of ranks and the requests it holds
- `prefix_cache`: what prompts share, computed once on a home
- `deployed`: a deployment as such a group
- `engine`: events in order of time; prefill and decode together or on separate groups
- `measure`: latencies to percentiles
- `source`: drawn or recorded requests, at any rate
- `predict`: all of it, to the report
- `settle`: enough requests that the ends of the run do not decide
- `search`: the highest load within limits
"""
