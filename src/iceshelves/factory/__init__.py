"""The image factory: builds of appliances as operations, the gate before publishing, the tenants' registries.

Recipes are :mod:`iceshelves.appliances`' matter, building and the registry on disk :mod:`iceshelves.images`'.
"""
