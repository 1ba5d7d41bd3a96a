"""Errors, files, processes, devices, schedules, code digests and progress: nothing about images.

What belongs here would serve any pipeline. It imports nothing else of the library.
"""
