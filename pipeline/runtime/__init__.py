"""Files, processes, devices, finished pieces of work and progress: nothing about images.

What belongs here would serve any pipeline. It imports nothing else of the library.
"""
