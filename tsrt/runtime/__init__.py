"""Owns, wires, starts and stops the parts of a node."""
