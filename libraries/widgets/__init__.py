"""Viewers of images and of results, for notebooks (anywidget) and as a web page; their front end is in pages/."""
