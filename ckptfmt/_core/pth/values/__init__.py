"""Inert nodes of a pickle made into values of a checkpoint."""
