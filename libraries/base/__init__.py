"""Shared by every floor: errors, settings, storage, work side by side."""
