"""What benchmarks/download.py consists of."""
