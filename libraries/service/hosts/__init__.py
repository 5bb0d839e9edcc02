"""The classifier in the hands of others: Azure ML, MLflow, a process of its own."""
