"""IceShelves: one open control plane for system containers and virtual machines."""

__version__ = "0.1.0"
