"""What runs in the container of `invoke hub`: JupyterHub's configuration, seats, the class page.

Only the image has JupyterHub and Tornado, which `jupyterhub_config`, `spawner`, `authenticator`,
`class_page`, `culler` and `steady_clock` import. The other modules run everywhere.
"""
