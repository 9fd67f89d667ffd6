"""Drivers of hypervisor families, each a set of narrow capabilities (see ``base``)."""
