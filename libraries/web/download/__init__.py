"""A list of URLs → image files, in parallel, politely, and never twice."""
