"""Shared by every floor: errors, settings, storage and run history."""
