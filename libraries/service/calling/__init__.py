"""Clients of the service: for single images, and for a folder of images."""
