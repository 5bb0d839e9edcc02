"""Images → embeddings: pretrained networks, their refinement, and running them fast."""

import os

# PyTorch's threads (GNU OpenMP) wait for each other by spinning, 300,000 times by default: beside another busy process,
# refining took three times as long. At 10,000 it takes 2.4 times as long there, and alone as long as before; fewer cost
# several percent alone (python benchmarks/training.py --waiting). PyTorch reads this when it is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
