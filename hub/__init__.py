"""What runs in the container of `invoke hub`: JupyterHub's configuration, seats, the class page.

Only the image has JupyterHub, which `jupyterhub_config`, `spawner`, `authenticator` and
`class_page` import. The other modules run everywhere.
"""
