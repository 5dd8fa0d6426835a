"""Run one lab: parse its options, conduct its experiments, write results."""
