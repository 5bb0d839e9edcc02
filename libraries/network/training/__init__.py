"""Refining a network on the user's images: the image sets, the recipe, the steps, and resuming when interrupted."""
