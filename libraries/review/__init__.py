"""What a person should look at next: labels that are doubtful, and images unlike all others."""
