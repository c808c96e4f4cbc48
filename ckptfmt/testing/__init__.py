"""Conformance suites: what an extension of ckptfmt has to pass, as classes for pytest to inherit from.

pytest has to be installed.
"""
