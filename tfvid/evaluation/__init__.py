"""Generating and evaluating with trained models: protocol, tables, plots, pages."""
