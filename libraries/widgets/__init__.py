"""Viewers of images and of results in a notebook: anywidget widgets, with their front end in pages/."""
