"""Images found by search words: queries, the services that answer them, what was found, and who is to be named."""
