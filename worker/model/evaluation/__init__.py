"""Evaluates models on data sets, with any engine, and writes figures and a page."""
