"""Build the images, know whether they are up to date, and list them.

`build.build` builds the image of a service. `status` compares an image with its inputs in
docker/, and names the image that a launch runs.
"""
