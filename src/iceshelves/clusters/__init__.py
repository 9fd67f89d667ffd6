"""Clusters: adding and reaching them, how they are, what is on them, and what is ours of it."""
