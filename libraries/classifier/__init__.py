"""Embeddings → labels: the linear SVM, its calibration, and the bundle that is deployed."""
