"""What a person should look at next: doubtful labels, odd images, and the best of those without a label."""
