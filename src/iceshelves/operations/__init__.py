"""Operations: work that users watch and cancel, and that survives the death of whoever does it.

The engine makes a workflow durable; an :class:`~iceshelves.operations.execution.Execution` is the workflow of
steps that every kind of operation has; what the steps do belongs to the packages above.
"""
