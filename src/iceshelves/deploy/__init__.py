"""Use cases: what users ask for, the steps that do it, and the engine that never forgets where it was.

``control`` is the way in.  Nothing here knows HTTP; steps know neither the database nor the engine.
"""
