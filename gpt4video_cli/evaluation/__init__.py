"""Measuring what a model can do, with numbers that anyone can reproduce."""
