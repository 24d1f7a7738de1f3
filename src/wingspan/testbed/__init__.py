"""A real multi-node network on one Linux machine: network namespaces and shaped links."""
