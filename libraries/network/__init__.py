"""Images → embeddings: pretrained networks, their refinement, and running them fast."""
