"""Jobs of hosted fine-tuning, run here: what a job says, what it means, and the files it goes by."""
