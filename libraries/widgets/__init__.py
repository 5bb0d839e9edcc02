"""Images and results to look at in a notebook: widgets of anywidget, their pages in pages/."""
