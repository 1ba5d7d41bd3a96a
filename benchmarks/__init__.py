"""Performance figures with their baselines: `make bench`, or `python -m benchmarks NAME ...`."""
