"""Build the images, know whether they are up to date, and list them."""
