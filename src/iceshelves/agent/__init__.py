"""The program beside a hypervisor: it polls the control plane and carries operations out where it is.

It needs no way in from outside, and runs the same steps as the server does.
"""
