"""A hypervisor that exists only in memory, with every capability, scriptable delays, faults and guests."""
