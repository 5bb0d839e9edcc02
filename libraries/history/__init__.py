"""The history of all runs, in MLflow: what was run with which parameters, how it came out, and its model."""
