"""How fast a model is on this machine, stage by stage, beside what the machine could do."""
