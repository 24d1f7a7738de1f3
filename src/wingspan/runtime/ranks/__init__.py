"""Who the ranks are, and how they start, find each other and end."""
