"""What launcher, hub and labs share: cards, options, sheets, progress. No torch, no docker."""
