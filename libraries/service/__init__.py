"""The classifier, used: a REST service, its client, and what clouds run."""
