"""A data set in the forms of others: Hugging Face datasets, Croissant, Label Studio."""
