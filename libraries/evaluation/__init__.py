"""Labels and scores → knowledge: metrics, pictures and the report."""
