"""Write the report page of a run, and set the style of its figures."""
