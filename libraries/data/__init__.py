"""Image files → examples: images, data sets and where they come from."""
