"""Exchanging data sets: tables of labels, Hugging Face datasets, Croissant, Label Studio."""
