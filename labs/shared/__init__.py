"""What several labs use and none teaches."""
