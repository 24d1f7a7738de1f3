"""Who the ranks are: their numbers and nodes, what room and which device each has."""
