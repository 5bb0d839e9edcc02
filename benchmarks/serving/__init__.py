"""What benchmarks/serve.py consists of."""
