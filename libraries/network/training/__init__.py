"""Refining a network on the user's images: the sets, the recipe, the steps, and going on after an interruption."""
