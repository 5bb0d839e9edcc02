"""What every floor stands on: errors, settings, storage and run history."""
