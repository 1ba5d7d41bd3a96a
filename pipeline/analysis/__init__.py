"""What extractors and feature maps tell: comparisons, controls, geometry, few shots.

An analysis is a package or module with one function per stage; it returns plain dicts and arrays.
"""
