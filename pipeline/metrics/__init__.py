"""What a number means: IoU protocols, agreement, CIELAB differences, bootstrap intervals.

Pure functions of arrays, without files. A new metric is one function; its name states its protocol.
"""
