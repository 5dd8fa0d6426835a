"""What several labs use and none of them teaches."""
