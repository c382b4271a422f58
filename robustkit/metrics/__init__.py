"""Label metrics that come with robustkit; those of WordNet stand under its licence, beside."""
