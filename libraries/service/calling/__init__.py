"""Calling a service: one image, or a folder of them."""
