"""Training: data, losses, the stages of Algorithm 1, and the compact model's recipe."""
