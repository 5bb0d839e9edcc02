"""Images from the web: lists of URLs, fetched safely, politely, and never twice."""
