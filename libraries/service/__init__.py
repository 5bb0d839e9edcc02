"""The classifier in use: a REST service, its client, and what clouds run."""
