"""Images found by search words: the queries, the services that answer them, the results, and their attribution."""
